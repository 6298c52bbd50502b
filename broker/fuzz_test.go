package broker

import (
	"bytes"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/flotilla-log/flotilla/broker/metadata"
	"github.com/flotilla-log/flotilla/partition"
)

// FuzzDecodeQuarantine checks, for any bytes, that decodeQuarantine does not
// panic, and that what it reads is what is written from it again.
func FuzzDecodeQuarantine(f *testing.F) {
	q := &partition.Quarantine{
		Number: 7, EntryIndex: 1000, EntryTerm: 3, Command: 2, Index: 1, TopicID: partition.TopicID{1, 2, 3},
		Kind: partition.KindProduce, Panic: "cannot store poison", Stack: []byte("goroutine 1"), Before: []byte("before"),
	}
	good := encodeQuarantine(4, q, []byte("entry"))
	f.Add(good)
	f.Add(good[:len(good)-1])
	f.Add([]byte(nil))
	f.Fuzz(func(t *testing.T, in []byte) {
		shard, q, err := decodeQuarantine(in)
		if (err == nil) != (q != nil) {
			t.Fatalf("%+v and error %v", q, err)
		}
		if err != nil {
			return
		}
		again, q2, err := decodeQuarantine(encodeQuarantine(shard, q, nil))
		if d := cmp.Diff(q, q2); err != nil || again != shard || d != "" {
			t.Fatalf("shard %d again as %d, %v (-first +again):\n%s", shard, again, err, d)
		}
	})
}

// FuzzRestore gives any bytes to both machines as their checkpoints: they refuse
// them, or have something to write again. A data shard's need not be one
// partition's: what is in it, partition's own target looks at.
func FuzzRestore(f *testing.F) {
	f.Add([]byte(nil))
	f.Add([]byte{0})
	var buf bytes.Buffer
	if err := metadata.New().Image().WriteSnapshot(&buf); err != nil {
		f.Fatal(err)
	}
	f.Add(buf.Bytes())
	f.Fuzz(func(t *testing.T, in []byte) {
		if s, err := restoreState(bytes.NewReader(in)); (err == nil) != (s != nil) {
			t.Fatalf("state %p and error %v", s, err)
		}
		m := new(metaMachine)
		if err := m.Restore(bytes.NewReader(in)); (err == nil) != (m.image.Load() != nil) {
			t.Fatalf("image %p and error %v", m.image.Load(), err)
		}
	})
}

// FuzzDecodeAdmission checks, for any bytes, that what is read of an answer to a node that
// would join is whole.
func FuzzDecodeAdmission(f *testing.F) {
	f.Add([]byte(`{"code":0,"leader":1,"registered":7,"shards":12,"founders":[{"ID":1,"Incarnation":5},{"ID":2,"Incarnation":6}],"nodes":{"1":"h:1"}}`))
	f.Add([]byte(`{"code":41,"detail":"no","shards":1,"founders":[{"ID":1,"Incarnation":5}]}`))
	f.Add([]byte(nil))
	f.Fuzz(func(t *testing.T, in []byte) {
		a, err := decodeAdmission(in)
		if err != nil {
			if !errors.Is(err, errAdmission) {
				t.Fatal(err)
			}
			return
		}
		if a.Shards == 0 || len(a.Founders) == 0 || a.Founders[0].Incarnation == 0 || a.Code == 0 && a.Registered == 0 {
			t.Fatalf("%+v", a)
		}
	})
}

// FuzzDecodeState checks, for any bytes, that neither decoder of methodState panics, and
// that what decodes encodes to the same again.
func FuzzDecodeState(f *testing.F) {
	r := stateRequest{what: stateContent, shard: 3, index: 7, at: 9, offset: 5}
	a := stateAnswer{index: 9, total: 5, bytes: []byte("state")}
	f.Add(r.encode())
	f.Add(a.encode())
	f.Fuzz(func(t *testing.T, in []byte) {
		if r, err := decodeStateRequest(in); err == nil && !bytes.Equal(r.encode(), in) {
			t.Fatalf("%+v encodes to %x, was %x", r, r.encode(), in)
		}
		a, err := decodeStateAnswer(in)
		if err != nil {
			return
		}
		again, err := decodeStateAnswer(a.encode())
		if err != nil || again.index != a.index || again.total != a.total || again.hash != a.hash || !bytes.Equal(again.bytes, a.bytes) {
			t.Fatalf("%+v encodes to %+v, %v", a, again, err)
		}
	})
}
