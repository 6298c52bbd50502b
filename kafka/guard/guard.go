// Package guard looks over a Kafka request before anything decodes it.
//
// A decoder believes lengths: a frame of 1 MiB that announces a million structs
// makes it allocate 80 MiB, before it finds that they are not there. Check walks
// the bytes by the request's own definition first, and refuses what a decoder
// should not see:
//
//   - a count of elements that the bytes left cannot hold, each at its smallest,
//   - a string, a byte string or a tagged field that is longer than what is left,
//   - null where the definition has none, a string of more than 32,767 bytes,
//   - a tagged field that is not as long as it says, or that only a later version
//     of the request has,
//   - more elements, tagged fields or bytes in one than Limits allow,
//   - a request whose decoding by kmsg would allocate more than Limits allow.
//
// It allocates nothing itself, unless for the error, and its work is linear in
// the bytes, whatever they say: each step takes at least one of them. Structs lie
// in each other as deep as the definition says, not as deep as the bytes like.
//
// The definitions are Kafka's own: tables.go is generated from messages.txt,
// which is generated from the JSON files in Kafka's published kafka-clients jar.
// Command gen says how. They are those of Kafka 4.4, which hold all of 4.3's, and
// end where a version is still marked unstable.
//
// Where Kafka is lenient, and its decoder is safe to be, so is Check: it takes
// tagged fields in any order, and ignores bytes after the request.
package guard

import (
	"errors"
	"fmt"
)

//go:generate go run ./gen

var (
	// ErrUnknown reports a key, or a version of it, that no definition is of.
	ErrUnknown = errors.New("kafka/guard: unknown request")

	// ErrMalformed reports bytes that are not what key and version say.
	ErrMalformed = errors.New("kafka/guard: malformed request")

	// ErrTooLarge reports a request that may be well-formed and is beyond a
	// limit.
	ErrTooLarge = errors.New("kafka/guard: request beyond a limit")
)

// Error says what of which request was refused. It matches ErrMalformed or
// ErrTooLarge, as Kind says.
type Error struct {
	Kind    error
	Request string // as Kafka calls it: "CreateTopicsRequest"
	Version int16
	Struct  string // that the field is of; Request itself, or a struct in it
	Field   string
	At      int // offset in the body, or in the frame for a header, in bytes

	reason       string // with a verb for each of the two
	value, bound int64
}

// Error names the request, the field, where it lies, and what is wrong with it.
func (e *Error) Error() string {
	return fmt.Sprintf("%v: %s version %d: %s.%s at byte %d: "+e.reason,
		e.Kind, e.Request, e.Version, e.Struct, e.Field, e.At, e.value, e.bound)
}

// Unwrap returns the kind.
func (e *Error) Unwrap() error { return e.Kind }

// Limits bound what one request may hold. A zero bound allows nothing.
type Limits struct {
	ArrayElements int64 // in one array
	Tags          int64 // in one struct
	TagBytes      int64 // in one tagged field
	AllocBytes    int64 // that decoding the request may allocate, all in all
}

const (
	// allocFactor is how many bytes decoding may allocate per byte of the body.
	// With the body itself that is eight.
	allocFactor = 7

	// allocFrameBytes is the size up to which a body may make as much be
	// allocated as one of this size: short names cost much more than their bytes.
	allocFrameBytes = 1 << 20
)

// LimitsFor returns the default limits of a body of n bytes: the counts that
// Kafka 4.4 allows, tagged fields of at most 128 KiB, and, for decoding, seven
// bytes per byte of the body, at least 7 MiB.
func LimitsFor(n int) Limits {
	return Limits{
		ArrayElements: 1_000_000,
		Tags:          10_000,
		TagBytes:      128 << 10,
		AllocBytes:    allocFactor * max(int64(n), allocFrameBytes),
	}
}

// Versions returns the versions, both included, that are defined of a request.
// ok is false if no request has this key.
func Versions(key int16) (first, last int16, ok bool) {
	r := find(key)
	if r == nil {
		return 0, 0, false
	}
	return r.first, r.first + int16(len(r.bodies)) - 1, true
}

// Check walks the body of a request, what follows its header, and returns how
// many bytes kmsg's ReadFrom allocates at most when it decodes it. That is an
// upper bound, seldom more than half above the truth; it counts neither the
// body, which byte strings alias, nor what a handler makes of the request.
//
// The error matches ErrUnknown, or is an *Error, which matches ErrMalformed or
// ErrTooLarge. When it is nil, kmsg decodes the body without an error. Check
// keeps no reference to body.
func Check(key, version int16, body []byte, limits Limits) (allocBytes int64, err error) {
	r := find(key)
	if r == nil {
		return 0, fmt.Errorf("%w: key %d", ErrUnknown, key)
	}
	i := int(version) - int(r.first)
	if i < 0 || i >= len(r.bodies) {
		return 0, fmt.Errorf("%w: %s version %d, defined are %d to %d", ErrUnknown, r.name, version, r.first, int(r.first)+len(r.bodies)-1)
	}
	w := walker{body: body, end: len(body), limits: limits, flexible: r.flexible != never && version >= r.flexible}
	if w.request(&structures[r.bodies[i]]) {
		return w.alloc, nil
	}
	return 0, w.error(r.name, version)
}

func find(key int16) *request {
	if key < 0 || int(key) >= len(requests) || requests[key].bodies == nil {
		return nil
	}
	return &requests[key]
}
