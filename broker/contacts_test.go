package broker

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/flotilla-log/flotilla/broker/metadata"
	"github.com/flotilla-log/flotilla/replication"
)

// TestContactBytes holds what a contact is on the wire, and what is refused.
func TestContactBytes(t *testing.T) {
	t.Parallel()
	said := contact{incarnation: 0x0102030405060708, leads: []ledShard{{1, 0, 7, 3, []int32{1, 0x0203}}, {0x0a0b, 9, 1 << 40, 1, nil}}}
	const bytes = "01000000020000000807060504030201" + "0100000000000000000000000700000000000000" + "03000000020000000100000003020000" +
		"0b0a000009000000000000000000000000010000" + "0100000000000000"
	raw := said.encode()
	if got := fmt.Sprintf("%x", raw); got != bytes {
		t.Errorf("encoded to %s, want %s", got, bytes)
	}
	for _, c := range []contact{said, {incarnation: 1}} {
		got, err := decodeContact(c.encode())
		if d := cmp.Diff(c, got, cmp.AllowUnexported(contact{}, ledShard{})); d != "" || err != nil {
			t.Errorf("%v: differs (-want +got):\n%s", err, d)
		}
	}
	bad := map[string][]byte{
		"nothing": nil, "a byte less": raw[:len(raw)-1], "a byte more": append(slices.Clone(raw), 0),
		"descending":     contact{leads: []ledShard{{2, 0, 1, 1, nil}, {1, 0, 1, 1, nil}}}.encode(),
		"twice":          contact{leads: []ledShard{{2, 0, 1, 1, nil}, {2, 0, 1, 1, nil}}}.encode(),
		"in no term":     contact{leads: []ledShard{{2, 0, 0, 1, nil}}}.encode(),
		"the metadata's": contact{leads: []ledShard{{0, 0, 1, 1, nil}}}.encode(),
		"nodes twice":    contact{leads: []ledShard{{2, 0, 1, 1, []int32{3, 3}}}}.encode(),
		"negative nodes": contact{leads: []ledShard{{2, 0, 1, 1, []int32{-1}}}}.encode(),
		"many nodes":     contact{leads: []ledShard{{2, 0, 1, 1, make([]int32, metadata.MaxReplicas+1)}}}.encode(),
		"nodes cut off":  contact{leads: []ledShard{{2, 0, 1, 1, []int32{1, 2}}}}.encode()[:contactHeaderBytes+contactShardBytes+contactNodeBytes],
	}
	for i := range 4 {
		b := slices.Clone(raw)
		b[i] ^= 2
		bad[fmt.Sprint("byte ", i)] = b
	}
	for name, b := range bad {
		if _, err := decodeContact(b); !errors.Is(err, errContact) {
			t.Errorf("%s: %v, want errContact", name, err)
		}
	}
}

func FuzzDecodeContact(f *testing.F) {
	f.Add(contact{incarnation: 1}.encode())
	f.Add(contact{incarnation: 1, leads: []ledShard{{1, 2, 3, 4, []int32{5}}, {4, 5, 6, 7, nil}}}.encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := decodeContact(b)
		if err != nil {
			if !errors.Is(err, errContact) {
				t.Fatalf("%v, want errContact", err)
			}
			return
		}
		if again := c.encode(); !slices.Equal(again, b) {
			t.Fatalf("%x becomes %x", b, again)
		}
	})
}

// TestPresentBytes is TestContactBytes for the question after partitions.
func TestPresentBytes(t *testing.T) {
	t.Parallel()
	q := presentQuestion{present: true, shard: 0x0102, topic: metadata.TopicID{15: 0xff}, index: 0x0304, partitions: 5}
	raw := q.encode()
	const bytes = "01010000" + "02010000" + "000000000000000000000000000000ff" + "0403000000000000" + "05000000"
	if got := fmt.Sprintf("%x", raw); got != bytes {
		t.Errorf("encoded to %s, want %s", got, bytes)
	}
	if got, err := decodePresent(raw); got != q || err != nil {
		t.Errorf("decoded to %+v, %v", got, err)
	}
	bad := map[string][]byte{"nothing": nil, "a byte less": raw[:presentBytes-1], "a byte more": append(slices.Clone(raw), 0)}
	for _, i := range []int{0, 1, 2, 3, 35} {
		b := slices.Clone(raw)
		b[i] ^= 0x82
		bad[fmt.Sprint("byte ", i)] = b
	}
	for name, b := range bad {
		if _, err := decodePresent(b); !errors.Is(err, errPresent) {
			t.Errorf("%s: %v, want errPresent", name, err)
		}
	}
}

func FuzzDecodePresent(f *testing.F) {
	f.Add((&presentQuestion{present: true, shard: 1, partitions: 3}).encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		q, err := decodePresent(b)
		if err != nil {
			if !errors.Is(err, errPresent) {
				t.Fatalf("%v, want errPresent", err)
			}
			return
		}
		if again := q.encode(); !slices.Equal(again, b) {
			t.Fatalf("%x becomes %x", b, again)
		}
	})
}

// TestHear: what is believed of who says that it leads a shard (R19).
func TestHear(t *testing.T) {
	inTrio(t, func(t *testing.T, tr *trio) {
		tr.createWith("t", 3, 1)
		r := tr.rigs[0]
		of := r.image().Shard(4) // the first is node 1's, so this is node 2's
		if d := cmp.Diff([]metadata.NodeID{2}, of.Replicas); d != "" {
			t.Fatal(d)
		}
		led := func(id metadata.ShardID, addedAt, term uint64) ledShard {
			return ledShard{shard: id, addedAt: addedAt, term: term, change: 1, inSync: []int32{2}}
		}
		r.contacts.leaders.Store(&map[metadata.ShardID]announced{})
		hear := func(from int32, incarnation uint64, l ledShard) string {
			r.contacts.hear(from, &contact{incarnation: incarnation, leads: []ledShard{l}})
			node, term, ok := r.shardLeaderOf(replication.ShardID(of.ID))
			return fmt.Sprint(node, " ", term, " ", ok)
		}
		for _, tt := range []struct {
			name        string
			from        int32
			incarnation uint64
			led         ledShard
			want        string
		}{
			{"from a node without a replica", 3, 3, led(of.ID, of.CreatedAt, 9), "0 0 false"},
			{"from another directory", 2, 7, led(of.ID, of.CreatedAt, 9), "0 0 false"},
			{"from a node that is not there", 9, 9, led(of.ID, of.CreatedAt, 9), "0 0 false"},
			{"of another shard of the id", 2, 2, led(of.ID, of.CreatedAt-1, 9), "0 0 false"},
			{"of one that is to have the id", 2, 2, led(of.ID, of.CreatedAt+1, 9), "0 0 false"},
			{"of a shard that is not there", 2, 2, led(99, of.CreatedAt, 9), "0 0 false"},
			{"from the leader", 2, 2, led(of.ID, of.CreatedAt, 5), "2 5 true"},
			{"of a later term", 2, 2, led(of.ID, of.CreatedAt, 6), "2 6 true"},
			{"of an earlier term", 2, 2, led(of.ID, of.CreatedAt, 4), "2 6 true"},
		} {
			if got := hear(tt.from, tt.incarnation, tt.led); got != tt.want {
				t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
			}
		}
		for _, tt := range []struct {
			name   string
			term   uint64
			change uint32
			inSync []int32
			want   string
		}{
			{"a change", 6, 3, []int32{2, 3}, "[2 3]"},
			{"the same once more", 6, 3, []int32{2, 3}, "[2 3]"},
			{"one that was on its way for longer", 6, 2, []int32{2}, "[2 3]"},
			{"an earlier term's", 5, 9, []int32{2}, "[2 3]"},
			{"a later term's", 7, 1, []int32{2}, "[2]"},
		} {
			l := led(of.ID, of.CreatedAt, tt.term)
			l.change, l.inSync = tt.change, tt.inSync
			hear(2, 2, l)
			if got := fmt.Sprint(r.contacts.inSyncOf(of)); got != tt.want {
				t.Errorf("%s: %s in sync, want %s", tt.name, got, tt.want)
			}
		}
	})
}
