package frame

import (
	"math/bits"
	"sync"
)

const (
	// Buffers from 64 KiB to 16 MiB are kept, in classes an eighth of a doubling
	// apart. Smaller ones cost little to make, and larger ones are rare.
	minPooledBits = 16
	maxPooledBits = 24
	classSteps    = 8
)

// Buffers lends payload buffers, so that large ones are not made, and cleared,
// for each frame. What nobody uses is the garbage collector's. The zero value is
// ready; safe for concurrent use.
type Buffers struct {
	classes [(maxPooledBits - minPooledBits) * classSteps]sync.Pool
}

// Take returns a buffer for Reader.Payload of n bytes: an empty one whose
// capacity is at least n, and at most an eighth more, or nil if none is free.
func (b *Buffers) Take(n int) []byte {
	class := classOf(n)
	if class < 0 {
		return nil
	}
	buf, _ := b.classes[class].Get().(*[]byte)
	if buf == nil {
		return nil
	}
	return (*buf)[:0]
}

// Give lends buf to others: the caller must not use it any more, nor anything
// that aliases it. A buffer that no Reader made may be given, and is ignored if
// it fits nowhere.
func (b *Buffers) Give(buf []byte) {
	if class := classOf(cap(buf)); class >= 0 && classBytes(class) == cap(buf) {
		b.classes[class].Put(&buf)
	}
}

// classOf returns the class whose buffers hold n bytes with the least waste, or
// -1 for a size that is not kept.
func classOf(n int) int {
	if n <= 1<<minPooledBits || n > 1<<maxPooledBits {
		return -1
	}
	power := bits.Len(uint(n-1)) - 1 // 1<<power < n <= 2<<power
	step := 1 << power / classSteps
	return (power-minPooledBits)*classSteps + (n-1<<power+step-1)/step - 1
}

// classBytes is the capacity of a class's buffers.
func classBytes(class int) int {
	power := minPooledBits + class/classSteps
	return 1<<power + (class%classSteps+1)*(1<<power/classSteps)
}

// Capacity is the capacity of a new buffer for n bytes that can be given.
func Capacity(n int) int { return payloadCapacity(n) }

// payloadCapacity is the capacity of a new buffer for n bytes: one that can be
// lent again.
func payloadCapacity(n int) int {
	if class := classOf(n); class >= 0 {
		return classBytes(class)
	}
	return n
}
