package control

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/flotilla-log/flotilla/internal/vfs"
)

// crashEverywhere runs work once for each operation that it makes on the disk,
// and cuts the power before and after that one. check is given the disk as it
// may be then; work keeps track of what it was promised.
func crashEverywhere(t *testing.T, start *vfs.Mem, work func(m *vfs.Mem), check func(t *testing.T, m *vfs.Mem)) {
	t.Helper()
	for cut := uint64(1); ; cut++ {
		for _, when := range []vfs.Phase{vfs.Before, vfs.After} {
			m := start.CrashClone(vfs.CrashOptions{Unsynced: vfs.Keep})
			reached := false
			m.OnOp(func(op vfs.Op, phase vfs.Phase) {
				if op.Seq == cut && phase == when {
					reached = true
					m.Freeze()
				}
			})
			work(m)
			if !reached {
				return
			}
			clones := map[string]*vfs.Mem{
				"lose": m.CrashClone(vfs.CrashOptions{Unsynced: vfs.Lose}),
				"keep": m.CrashClone(vfs.CrashOptions{Unsynced: vfs.Keep}),
			}
			for seed := range uint64(4) {
				clones[fmt.Sprintf("coin %d", seed)] = m.CrashClone(vfs.CrashOptions{Seed: seed, Unsynced: vfs.Coin})
			}
			for name, clone := range clones {
				t.Run(fmt.Sprintf("%s operation %d, %s", when, cut, name), func(t *testing.T) { check(t, clone) })
			}
		}
	}
}

// TestLogCrash runs each kind of change of a log into a power cut. Afterwards
// the log holds what was promised, or what the change under way was to leave;
// of an Append, also a prefix.
func TestLogCrash(t *testing.T) {
	t.Parallel()
	var promised, pending []Entry
	step := func(err error, then []Entry) bool {
		if err == nil {
			promised = then
		}
		return err == nil
	}
	work := func(m *vfs.Mem) {
		promised, pending = nil, nil
		l, err := OpenLog(m, "/data/log", Options{})
		if err != nil {
			return
		}
		defer l.Close()
		all := entries(11, 30, 1, 300)
		steps := []struct {
			do   func() error
			then []Entry
		}{
			{func() error { return l.Append(all[:3]) }, all[:3]},
			{func() error { return l.Append(all[3:6]) }, all[:6]},
			{func() error { return l.TruncateFront(13) }, all[2:6]},
			{func() error { return l.Append(all[6:7]) }, all[2:7]},
			{func() error { return l.TruncateBack(15) }, all[2:5]},
			{func() error { return l.Append(entries(16, 18, 2, 300)) }, append(entries(13, 16, 1, 300), entries(16, 18, 2, 300)...)},
			{func() error { return l.TruncateBack(1) }, nil},
			{func() error { return l.Append(entries(2, 4, 3, 300)) }, entries(2, 4, 3, 300)},
			{func() error { return l.TruncateFront(99) }, nil},
			{func() error { return l.Append(entries(99, 101, 3, 300)) }, entries(99, 101, 3, 300)},
		}
		for _, s := range steps {
			pending = s.then
			if !step(s.do(), s.then) {
				return
			}
		}
	}
	crashEverywhere(t, vfs.NewMem(1), work, func(t *testing.T, m *vfs.Mem) {
		got, err := contentsOf(openLog(t, m, "/data/log", Options{}))
		if err != nil {
			t.Fatal(err)
		}
		// Only an Append leaves more than was promised.
		ok := cmp.Equal(got, promised) || cmp.Equal(got, pending) ||
			len(pending) > len(got) && len(got) > len(promised) && cmp.Equal(got, pending[:len(got)])
		if !ok {
			t.Errorf("entries %s, promised %s, under way %s", indexes(got), indexes(promised), indexes(pending))
		}
	})
}

func indexes(es []Entry) string {
	if len(es) == 0 {
		return "none"
	}
	return fmt.Sprintf("[%d, %d]", es[0].Index, es[len(es)-1].Index)
}

// TestVotesCrash runs stores, deletes and the compactions among them into a
// power cut: each shard then has the vote that was promised, or the one under
// way.
func TestVotesCrash(t *testing.T) {
	t.Parallel()
	opt := Options{CompactRecords: 8}
	var promised, pending map[uint32]Vote
	work := func(m *vfs.Mem) {
		promised, pending = make(map[uint32]Vote), make(map[uint32]Vote)
		v, err := OpenVotes(m, "/data/votes", opt)
		if err != nil {
			return
		}
		defer v.Close()
		for term := uint64(1); term < 24; term++ {
			shard := uint32(term % 2)
			var err error
			if term%7 == 0 {
				delete(pending, shard)
				err = v.Delete(shard)
			} else {
				pending[shard] = vote(term)
				err = v.Store(shard, vote(term))
			}
			if err != nil {
				return
			}
			if vt, ok := pending[shard]; ok {
				promised[shard] = vt
			} else {
				delete(promised, shard)
			}
		}
	}
	crashEverywhere(t, vfs.NewMem(1), work, func(t *testing.T, m *vfs.Mem) {
		got := votesOf(openVotes(t, m, "/data/votes", opt), 4)
		if !cmp.Equal(got, promised) && !cmp.Equal(got, pending) {
			t.Errorf("votes %v, promised %v, under way %v", got, promised, pending)
		}
	})
}

// TestTruncationOrder checks that each step of a truncation is durable before
// the next is taken, by the double and by the repair of what tidwall/wal left.
// No power cut shows it on a Mem, which keeps a directory's operations in order;
// other file systems may not.
func TestTruncationOrder(t *testing.T) {
	t.Parallel()
	const decided = "rename syncdir " // the .START or .END file is there
	const finished = "remove syncdir rename syncdir "
	full, at := segmentOf(entries(1, 5, 1, 100))
	m := image{segmentName(1): full}.mem(t, "/log")
	l := openLog(t, m, "/log", Options{})
	var steps string
	trace := func(op vfs.Op, phase vfs.Phase) {
		switch op.Kind {
		case vfs.OpRename, vfs.OpRemove, vfs.OpSyncDir:
			if phase == vfs.After && op.Path != "/" && !strings.HasSuffix(op.Path, ".tmp") {
				steps += op.Kind.String() + " "
			}
		}
	}
	for name, truncate := range map[string]func() error{
		"front": func() error { return l.TruncateFront(2) },
		"back":  func() error { return l.TruncateBack(3) },
	} {
		m.OnOp(trace)
		if steps = ""; truncate() != nil || steps != decided+finished {
			t.Errorf("%s: %s, want %s", name, steps, decided+finished)
		}
	}
	m = image{segmentName(1): full, segmentName(3) + suffixStart: full[at[1]:]}.mem(t, "/log")
	m.OnOp(trace)
	steps = ""
	openLog(t, m, "/log", Options{})
	if want := "syncdir " + finished + "rename syncdir "; steps != want {
		t.Errorf("repair: %s, want %s", steps, want)
	}
}

// segmentOf returns the bytes of a segment of entries, each synced before the
// next was written, and where each ends.
func segmentOf(es []Entry) (data []byte, ends []int) {
	for _, e := range es {
		f := frame{index: e.Index, durable: e.Index, kind: kindEntry, payload: encodeEntry(e)}
		data = appendRecord(data, appendFrame(nil, f))
		ends = append(ends, len(data))
	}
	return data, ends
}

// TestOpenCrash cuts the power during the repairs of Open, which must then be
// done by the next one.
func TestOpenCrash(t *testing.T) {
	t.Parallel()
	full := entries(1, 5, 1, 100)
	b, at := segmentOf(full)
	name := segmentName(1)
	for _, tt := range []struct {
		name string
		im   image
		want []Entry
	}{
		{"torn", image{name: b[:at[3]-20]}, full[:3]},
		{"front", image{name: b, segmentName(3) + suffixStart: b[at[1]:]}, full[2:]},
		{"back", image{name: b, name + suffixEnd: b[:at[1]]}, full[:2]},
		{"unfinished", image{name: b, name + ".END.tmp": b[:at[1]]}, full},
	} {
		t.Run(tt.name, func(t *testing.T) {
			work := func(m *vfs.Mem) {
				if l, err := OpenLog(m, "/log", Options{}); err == nil {
					_ = l.Close()
				} else if !errors.Is(err, vfs.ErrCrashed) {
					t.Errorf("OpenLog: %v", err)
				}
			}
			crashEverywhere(t, tt.im.mem(t, "/log"), work, func(t *testing.T, m *vfs.Mem) {
				checkLog(t, openLog(t, m, "/log", Options{}), tt.want)
			})
		})
	}
}
