package record

import (
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// sameAsDecode fails unless Decode says of a record what PlainOffset.Read says, if that
// says anything, and reports whether it does.
func sameAsDecode(t *testing.T, key, value []byte) bool {
	t.Helper()
	var o PlainOffset
	if !o.Read(key, value) {
		return false
	}
	got := &OffsetCommit{Group: string(o.Group), Topic: string(o.Topic), Partition: o.Partition, Value: &o.Value}
	e, err := Decode(key, value)
	if err != nil {
		t.Fatalf("%x %x is read, and does not decode: %v", key, value, err)
	}
	if diff := cmp.Diff(e, Entry(got), exact); diff != "" {
		t.Fatalf("%x %x (-Decode +Read):\n%s", key, value, diff)
	}
	return true
}

// All offsets that are written without a time at which they expire are plain, and nothing
// else is; what is read of one is what Decode says, whatever byte of it is another.
func TestPlainOffset(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(1, 2))
	for range 1000 {
		e := randomEntry(rng)
		r := e.Encode()
		o, ok := e.(*OffsetCommit)
		want := ok && o.Value != nil && o.Value.ExpireTimestampMS == -1
		if got := sameAsDecode(t, r.Key, r.Value); got != want {
			t.Fatalf("%+v: plain is %t, want %t", e, got, want)
		}
		if !want {
			continue
		}
		for _, b := range []*[]byte{&r.Key, &r.Value} {
			whole := *b
			for i := range min(len(whole), 200) {
				*b = whole[:i]
				if sameAsDecode(t, r.Key, r.Value) {
					t.Fatalf("%x %x is cut off, and is read", r.Key, r.Value)
				}
				*b = append([]byte{}, whole...)
				(*b)[i] ^= byte(1 + rng.IntN(255))
				sameAsDecode(t, r.Key, r.Value)
			}
			*b = append(append([]byte{}, whole...), 0)
			if sameAsDecode(t, r.Key, r.Value) {
				t.Fatalf("%x %x has a byte too many, and is read", r.Key, r.Value)
			}
			*b = whole
		}
	}
}

// A plain offset is read without memory, as each is that is committed, on each replica.
func TestPlainOffsetTakesNothing(t *testing.T) {
	r := (&OffsetCommit{Group: "group", Topic: "topic", Value: &OffsetCommitValue{ExpireTimestampMS: -1, TopicID: TopicID{1}}}).Encode()
	var o PlainOffset
	if n := testing.AllocsPerRun(100, func() {
		if !o.Read(r.Key, r.Value) {
			t.Error("not plain")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// FuzzPlainOffset holds what is read of a record against what Decode says of it.
func FuzzPlainOffset(f *testing.F) {
	for _, v := range vectors(f) {
		f.Add(v.key, v.value)
	}
	f.Fuzz(func(t *testing.T, key, value []byte) {
		var o PlainOffset
		if o.Read(key, value) {
			sameAsDecode(t, key, value)
		}
	})
}
