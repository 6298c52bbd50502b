package broker

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/flotilla-log/flotilla/broker/metadata"
	"github.com/flotilla-log/flotilla/internal/errcode"
	"github.com/flotilla-log/flotilla/replication"
)

// TestReplacementBytes holds a request and an answer to the bytes that are written
// down.
func TestReplacementBytes(t *testing.T) {
	t.Parallel()
	r := Replacement{Node: 3, Level: 2, Incarnation: 0x0102, Replaces: 0x77}
	if got, want := hex.EncodeToString(r.append(nil)), "0100"+"0200"+"03000000"+"0201000000000000"+"7700000000000000"; got != want {
		t.Errorf("%+v is %s, want %s", r, got, want)
	}
	a := replaced{err: errcode.Errorf(errcode.NotController, "no"), leader: -1, registered: 0x77}
	if got, want := hex.EncodeToString(a.append(nil)), "0100"+"2900"+"ffffffff"+"7700000000000000"+"6e6f"; got != want {
		t.Errorf("%+v is %s, want %s", a, got, want)
	}
	a.err.Detail = strings.Repeat("x", 1<<17)
	if got, err := decodeReplaced(a.append(nil)); err != nil || len(got.err.Detail) != maxForwardedText {
		t.Errorf("an answer of a long text reads as %+v, %v", got, err)
	}
}

// FuzzReplacement gives any bytes to what reads a request and its answer: it does not
// panic, refuses by name, and takes one form only.
func FuzzReplacement(f *testing.F) {
	f.Add([]byte(nil))
	f.Add(Replacement{Node: 1, Level: 2, Incarnation: 3, Replaces: 4}.append(nil))
	f.Add(Replacement{Node: 1}.append(nil))
	f.Add(replaced{leader: -1, registered: 5}.append(nil))
	f.Add(replaced{err: errcode.Errorf(errcode.RequestTimedOut, "late"), leader: 3}.append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		if r, err := decodeReplacement(b); err == nil {
			if again := r.append(nil); !bytes.Equal(again, b) {
				t.Fatalf("%x reads as what is written %x", b, again)
			}
		} else if !errors.Is(err, errReplacement) {
			t.Fatalf("decodeReplacement(%x) = %v", b, err)
		}
		if r, err := decodeReplaced(b); err == nil {
			if again := r.append(nil); !bytes.Equal(again, b) {
				t.Fatalf("%x reads as what is written %x", b, again)
			}
		} else if !errors.Is(err, errReplacement) {
			t.Fatalf("decodeReplaced(%x) = %v", b, err)
		}
	})
}

// TestNextStep lists what a shard's leader does about a node whose replica is to be 0x2.
func TestNextStep(t *testing.T) {
	t.Parallel()
	member := func(incarnation uint64, voter bool) replication.Member {
		return replication.Member{ID: replication.ReplicaID{Node: 1, Incarnation: incarnation}, Voter: voter}
	}
	others := []replication.Member{{ID: replication.ReplicaID{Node: 2, Incarnation: 0x1}, Voter: true}, {ID: replication.ReplicaID{Node: 3, Incarnation: 0x1}, Voter: true}}
	for _, tt := range []struct {
		name    string
		members []replication.Member
		step    memberStep
		old     uint64
	}{
		{"none of its", nil, stepNone, 0},
		{"as it should be", []replication.Member{member(2, true)}, stepNone, 0},
		{"the old one alone", []replication.Member{member(1, true)}, stepAdd, 0},
		{"both, the new one a learner", []replication.Member{member(1, true), member(2, false)}, stepAwait, 1},
		{"both vote", []replication.Member{member(1, true), member(2, true)}, stepRemove, 1},
		{"the old one is gone", []replication.Member{member(2, false)}, stepPromote, 0},
		{"lost again before it had caught up", []replication.Member{member(0, true), member(1, false)}, stepRemove, 1},
		{"and the next one is there", []replication.Member{member(0, true), member(1, false), member(2, false)}, stepRemove, 1},
	} {
		step, old := nextStep(append(tt.members, others...), replication.ReplicaID{Node: 1, Incarnation: 2})
		if step != tt.step || old.Incarnation != tt.old {
			t.Errorf("%s: step %d about %s, want %d about %x", tt.name, step, old, tt.step, tt.old)
		}
	}
}

// TestReplaceDirectory asks for the place of a node's directory, in each way that has
// to be refused, and then in the right one.
func TestReplaceDirectory(t *testing.T) {
	inTrio(t, func(t *testing.T, tr *trio) {
		boss := tr.controller()
		var lost *rig
		for _, r := range tr.rigs {
			if r != boss {
				lost = r
			}
		}
		node, old := lost.NodeID(), lost.opt.Incarnation
		ask := func(what string, r Replacement, code errcode.Code, registered uint64) {
			t.Helper()
			r.Node = node
			got := boss.replace(t.Context(), r)
			var is errcode.Code
			if got.err != nil {
				is = got.err.Code
			}
			if is != code || got.registered != registered {
				t.Errorf("%s: %v, registered %x; want %v, registered %x", what, got.err, got.registered, code, registered)
			}
		}
		const level = metadata.MaxFeatureLevel
		fresh := Replacement{Level: level, Incarnation: 0x77}
		taking := Replacement{Level: level, Incarnation: 0x77, Replaces: old}
		for _, r := range tr.rigs {
			if r != boss {
				if got := r.replace(t.Context(), Replacement{Node: node}); got.err == nil || got.err.Code != errcode.NotController {
					t.Errorf("one that does not lead the metadata answers %+v", got)
				}
			}
		}
		ask("a query", Replacement{}, errcode.None, old)
		ask("the one that is registered", Replacement{Level: level, Incarnation: old}, errcode.None, old)
		ask("while the node is up", fresh, errcode.InvalidRegistration, old)
		ask("while the node is up, with what it replaces", taking, errcode.InvalidRegistration, old)
		tr.cutOff(lost, true)
		// wait asks until the place is given, and how long the node was gone then is what
		// has to be long enough.
		wait := func(what string, r Replacement) {
			t.Helper()
			r.Node = node
			began := time.Now()
			for {
				got := boss.replace(t.Context(), r)
				if got.err == nil {
					break
				}
				if got.err.Code != errcode.RequestTimedOut || time.Since(began) > time.Minute {
					t.Fatalf("%s: %v", what, got.err)
				}
				tr.rest(100 * time.Millisecond)
			}
			if gone := time.Since(began); gone < replaceAfter {
				t.Errorf("%s: a node that was out of contact for %s, want %s at least", what, gone, replaceAfter)
			}
		}
		wait("which one", fresh)
		ask("of an older version", Replacement{Level: level - 1, Incarnation: 0x77, Replaces: old}, errcode.UnsupportedVersion, old)
		ask("another one, which has not asked before", Replacement{Level: level, Incarnation: 0x88, Replaces: old}, errcode.RequestTimedOut, old)
		tr.cutOff(lost, false)
		tr.rest(time.Second)
		ask("when the node is back", taking, errcode.InvalidRegistration, old)
		tr.cutOff(lost, true)
		ask("when it is gone again", taking, errcode.RequestTimedOut, old)
		tr.rest(replaceGap + time.Second)
		ask("nobody has looked meanwhile", taking, errcode.RequestTimedOut, old)
		wait("after a while", taking)
		ask("again", taking, errcode.None, 0x77)
		ask("another one that was to replace the same", Replacement{Level: level, Incarnation: 0x88, Replaces: old}, errcode.DuplicateBrokerRegistration, 0x77)
		// The directory that was replaced is alive, and learns of it when it is heard.
		tr.cutOff(lost, false)
		tr.rest(10 * time.Second)
		select {
		case err := <-lost.failed:
			if !errors.Is(err, ErrReplaced) {
				t.Errorf("a directory that was replaced stops for %v", err)
			}
		default:
			t.Error("a directory that was replaced goes on")
		}
		if got := boss.replace(t.Context(), Replacement{Node: 9}); got.err == nil || got.err.Code != errcode.BrokerIDNotRegistered {
			t.Errorf("a node that nobody knows: %+v", got)
		}
	})
}

// TestCheckPlace: any node learns whether its directory is still the one.
func TestCheckPlace(t *testing.T) {
	inTrio(t, func(t *testing.T, tr *trio) {
		for _, r := range tr.rigs {
			if err := r.checkPlace(t.Context(), r.opt.Incarnation); err != nil {
				t.Errorf("node %d with its own directory: %v", r.NodeID(), err)
			}
			if err := r.checkPlace(t.Context(), 0x99); !errors.Is(err, ErrReplaced) {
				t.Errorf("node %d with another directory than the registered one: %v, want ErrReplaced", r.NodeID(), err)
			}
		}
		boss := tr.controller()
		for _, r := range tr.rigs {
			tr.cutOff(r, true)
		}
		if err := boss.checkPlace(t.Context(), 0x99); err == nil || errors.Is(err, ErrReplaced) {
			t.Errorf("without a majority: %v", err)
		}
	})
}

// TestReplaceForAnother: a node asks for its own place only.
func TestReplaceForAnother(t *testing.T) {
	inTrio(t, func(t *testing.T, tr *trio) {
		boss := tr.controller()
		other := boss.NodeID()%3 + 1
		request := Replacement{Node: boss.NodeID(), Level: 2, Incarnation: 0x77}.append(nil)
		if b, err := boss.Answer(t.Context(), other, MethodReplace, request); !errors.Is(err, errReplacement) {
			t.Errorf("node %d asks for the place of node %d: %x, %v", other, boss.NodeID(), b, err)
		}
		if b, err := boss.Answer(t.Context(), other, MethodReplace, Replacement{Node: boss.NodeID()}.append(nil)); err != nil || len(b) != replacedHeaderBytes {
			t.Errorf("a query about another node: %x, %v", b, err)
		}
	})
}

// untouched is a shard's leader whose members must not be changed.
type untouched struct {
	members []replication.Member
	touched []string
}

func (u *untouched) Leading() uint64                { return 1 }
func (u *untouched) Progress() replication.Progress { return replication.Progress{Members: u.members} }
func (u *untouched) AddLearner(_ context.Context, id replication.ReplicaID) error {
	u.touched = append(u.touched, "add "+id.String())
	return nil
}

func (u *untouched) Promotable(_ context.Context, id replication.ReplicaID, _ uint64) error {
	return nil
}

func (u *untouched) Promote(_ context.Context, id replication.ReplicaID, _ uint64) error {
	u.touched = append(u.touched, "promote "+id.String())
	return nil
}

func (u *untouched) Remove(_ context.Context, id replication.ReplicaID) error {
	u.touched = append(u.touched, "remove "+id.String())
	return nil
}

// TestReplaceByOldMetadata: a leader that has not heard which directory is registered
// does not replace the replica of the new one by that of the old one.
func TestReplaceByOldMetadata(t *testing.T) {
	inTrio(t, func(t *testing.T, tr *trio) {
		boss := tr.controller()
		var lost, leader *rig
		for _, r := range tr.rigs {
			switch {
			case r == boss:
			case lost == nil:
				lost = r
			default:
				leader = r
			}
		}
		node, old := lost.NodeID(), lost.opt.Incarnation
		before := leader.image()
		tr.cutOff(lost, true)
		taking := Replacement{Node: node, Level: metadata.MaxFeatureLevel, Incarnation: 0x77, Replaces: old}
		for boss.replace(t.Context(), taking).err != nil {
			tr.rest(time.Second)
		}
		replica := leader.opt.Cluster.Replica
		u := &untouched{members: []replication.Member{{ID: replica(1, node, 0x77), Voter: true}}}
		leader.metaState.image.Store(before) // as if it had not heard
		if err := leader.replaceMembers(t.Context(), 1, u); err != nil || len(u.touched) > 0 {
			t.Errorf("by old metadata: %q, %v", u.touched, err)
		}
		if err := boss.replaceMembers(t.Context(), 1, u); err != nil || len(u.touched) > 0 {
			t.Errorf("as it should be: %q, %v", u.touched, err)
		}
		u.members[0].ID = replica(1, node, old)
		if err := boss.replaceMembers(t.Context(), 1, u); err != nil || len(u.touched) != 1 || u.touched[0] != "add "+replica(1, node, 0x77).String() {
			t.Errorf("the old one is a member: %q, %v", u.touched, err)
		}
	})
}
