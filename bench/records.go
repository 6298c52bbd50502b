package bench

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"

	"github.com/flotilla-log/flotilla/client"
)

// Keys says what keys the records have, and so where they go.
type Keys string

const (
	KeysNone   Keys = "none"   // no key: the client fills a batch and moves to another partition
	KeysEven   Keys = "even"   // no key: each record to the next partition in turn
	KeysRandom Keys = "random" // one of KeyCount keys, each as likely
	KeysZipf   Keys = "zipf"   // one of KeyCount keys, a few of them far more likely
)

// Values says what the values are made of.
type Values string

const (
	ValuesRandom Values = "random" // no compression makes them smaller
	ValuesZero   Values = "zero"   // any compression makes them next to nothing
)

const (
	keyBytes = 8

	// poolBytes is more than a batch holds, so that no two values of a batch
	// have bytes in common and random ones stay incompressible.
	poolBytes = 8 << 20

	// stampBytes begins the value of a record that is to be recognised.
	stampBytes = 24

	zipfExponent = 1.1
)

// Shape is what the records of a load look like.
type Shape struct {
	ValueBytes int
	Values     Values
	Keys       Keys
	KeyCount   uint64 // of KeysRandom and KeysZipf; at least 1
	Partitions int32  // of KeysEven
}

// Check returns an error for a Shape that makes no records.
func (s Shape) Check() error {
	switch s.Values {
	case ValuesRandom, ValuesZero:
	default:
		return fmt.Errorf("bench: values %q; there are %s and %s", s.Values, ValuesRandom, ValuesZero)
	}
	switch s.Keys {
	case KeysNone:
	case KeysEven:
		if s.Partitions < 1 {
			return fmt.Errorf("bench: keys %q over %d partitions", s.Keys, s.Partitions)
		}
	case KeysRandom, KeysZipf:
		if s.KeyCount < 1 {
			return fmt.Errorf("bench: keys %q of %d", s.Keys, s.KeyCount)
		}
	default:
		return fmt.Errorf("bench: keys %q; there are %s, %s, %s and %s", s.Keys, KeysNone, KeysEven, KeysRandom, KeysZipf)
	}
	if s.ValueBytes < 0 || s.ValueBytes > poolBytes/2 {
		return fmt.Errorf("bench: values of %d bytes; from 0 to %d are possible", s.ValueBytes, poolBytes/2)
	}
	return nil
}

// maker makes records, one after the other.
type maker struct {
	shape Shape
	rand  *rand.Rand
	zipf  *rand.Zipf
	pool  []byte
	at    int // in pool, of the next value
	count int64
	key   [keyBytes]byte
	value []byte // of a stamped record
}

// newMaker returns a maker of s, which is valid.
func newMaker(s Shape, seed, stream uint64) *maker {
	m := &maker{shape: s, rand: rand.New(rand.NewPCG(seed, stream)), pool: make([]byte, poolBytes)}
	if s.Values == ValuesRandom {
		for i := 0; i < len(m.pool); i += 8 {
			binary.LittleEndian.PutUint64(m.pool[i:], m.rand.Uint64())
		}
	}
	if s.Keys == KeysZipf {
		m.zipf = rand.NewZipf(m.rand, zipfExponent, 1, s.KeyCount-1)
	}
	return m
}

// next returns the next record, whose bytes are valid until the call after it.
func (m *maker) next() client.Record {
	r := client.Record{Partition: client.AnyPartition}
	switch m.shape.Keys {
	case KeysEven:
		r.Partition = int32(m.count % int64(m.shape.Partitions))
	case KeysRandom:
		r.Key = m.keyOf(m.rand.Uint64N(m.shape.KeyCount))
	case KeysZipf:
		r.Key = m.keyOf(m.zipf.Uint64())
	}
	if m.at+m.shape.ValueBytes > len(m.pool) {
		m.at = m.rand.IntN(64) // not in step with the round before
	}
	r.Value = m.pool[m.at : m.at+m.shape.ValueBytes]
	m.at += m.shape.ValueBytes
	m.count++
	return r
}

func (m *maker) keyOf(n uint64) []byte {
	binary.BigEndian.PutUint64(m.key[:], n)
	return m.key[:]
}

// stamp is what a record says about itself when it comes back.
type stamp struct {
	run    uint64 // which load made it
	number int64  // of the record in its run, from 0
	due    int64  // nanoseconds since the run began
}

// stamped returns r with s as the beginning of its value, which is at least
// stampBytes long.
func (m *maker) stamped(r client.Record, s stamp) client.Record {
	m.value = append(m.value[:0], r.Value...)
	binary.BigEndian.PutUint64(m.value[0:], s.run)
	binary.BigEndian.PutUint64(m.value[8:], uint64(s.number))
	binary.BigEndian.PutUint64(m.value[16:], uint64(s.due))
	r.Value = m.value
	return r
}

// readStamp returns the stamp of a value, and whether it is one of this run.
func readStamp(value []byte, run uint64) (stamp, bool) {
	if len(value) < stampBytes || binary.BigEndian.Uint64(value) != run {
		return stamp{}, false
	}
	return stamp{
		run:    run,
		number: int64(binary.BigEndian.Uint64(value[8:])),
		due:    int64(binary.BigEndian.Uint64(value[16:])),
	}, true
}
