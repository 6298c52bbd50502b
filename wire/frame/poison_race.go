//go:build race

package frame

// poisoned is what the bytes of a buffer that was given are.
const poisoned = 0xdb

func poison(buf []byte) {
	buf = buf[:cap(buf)]
	for i := range buf {
		buf[i] = poisoned
	}
}
