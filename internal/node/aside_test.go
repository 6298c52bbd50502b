package node

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"path"
	"strings"
	"testing"
	"time"

	"github.com/flotilla-log/flotilla/internal/vfs"
	"github.com/flotilla-log/flotilla/log/journal"
)

// fileOf is a file of a part: those of shards and partitions are in folders.
func fileOf(part string) string {
	if part == shardsDir || part == dataDir {
		return path.Join(part, "1", "file")
	}
	return path.Join(part, "file")
}

// asideDir is a directory of a founded cluster's node, with a file in each part.
func asideDir(t *testing.T, disk *vfs.Mem) identity {
	t.Helper()
	id, _, lock, err := openDir(disk, "d", identity{NodeID: 1, ClusterID: "c", Shards: 3}, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	err = id.change(disk, "d", func(id *identity) {
		id.Founders, id.Founded = foundersOf([]founder{{1, id.Incarnation}, {2, 0x22}}), true
	})
	for _, part := range asideParts {
		err = errors.Join(err, vfs.MkdirAllSync(disk, path.Dir(path.Join("d", fileOf(part)))), vfs.WriteFile(disk, path.Join("d", fileOf(part)), []byte(part)))
	}
	if err = errors.Join(err, id.turn(disk, "d"), lock.Close()); err != nil {
		t.Fatal(err)
	}
	return id
}

func lostOf(id identity) aside {
	return aside{ClusterID: id.ClusterID, NodeID: id.NodeID, Lost: id.Incarnation, Shards: id.Shards, AtMS: 7, Cause: "journal/1 at 8192"}
}

// wasMoved fails the test unless a directory is a fresh one, in the place of lost, and
// all of the parts are in its set.
func wasMoved(t *testing.T, disk *vfs.Mem, set *aside, what string) {
	t.Helper()
	id, _, lock, err := openDir(disk, "d", identity{NodeID: 1, ClusterID: "c"}, rand.Reader)
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	_ = lock.Close()
	if id.Incarnation != set.Fresh || id.Replaces != set.Lost || id.Founded || id.Started || id.Founders != "" || id.Shards != set.Shards {
		t.Fatalf("%s: the fresh directory is %+v, of %+v", what, id, set)
	}
	for _, part := range asideParts {
		b, err := vfs.ReadFile(disk, path.Join("d", set.name(), fileOf(part)))
		if err != nil || string(b) != part {
			t.Fatalf("%s: %s holds %q, %v", what, part, b, err)
		}
		if is, _ := there(disk, path.Join("d", part)); is {
			t.Fatalf("%s: %s is there still", what, part)
		}
	}
	b, err := vfs.ReadFile(disk, path.Join("d", set.name(), identityName))
	if was, bad := decodeIdentity(b); err != nil || bad != nil || was.Incarnation != set.Lost {
		t.Fatalf("%s: the copy of IDENTITY is of %+v, %v, %v", what, was, err, bad)
	}
}

// TestAsideCut cuts the power at every operation with which a directory is set aside,
// and once more while it is gone on with: before WHY is there it is the one that it
// was, and from then on it comes to the same end.
func TestAsideCut(t *testing.T) {
	t.Parallel()
	base := vfs.NewMem(1)
	id := asideDir(t, base)
	cuts, back := 0, 0
	for seed := range uint64(6) {
		var clones []*vfs.Mem
		work := base.KillClone()
		work.OnOp(func(vfs.Op, vfs.Phase) {
			clones = append(clones, work.CrashClone(vfs.CrashOptions{Unsynced: vfs.Unsynced(seed % 3), Seed: seed}))
		})
		set, err := newAside(work, "d", lostOf(id), rand.Reader)
		if err == nil {
			err = set.move(work, "d")
		}
		if err != nil {
			t.Fatal(err)
		}
		wasMoved(t, work, set, "uncut")
		for i, mem := range clones {
			what := fmt.Sprintf("seed %d, cut %d", seed, i)
			cuts++
			pending, err := unfinishedAside(mem, "d")
			if err != nil {
				t.Fatalf("%s: %v", what, err)
			}
			now, _, lock, err := openDir(mem, "d", identity{NodeID: 1, ClusterID: "c"}, rand.Reader)
			if err == nil {
				_ = lock.Close()
			}
			switch {
			case pending != nil && !errors.Is(err, ErrSettingAside):
				t.Fatalf("%s: half set aside, it opens with %v", what, err)
			case pending == nil && err != nil:
				t.Fatalf("%s: %v", what, err)
			case pending == nil && now.Incarnation == id.Incarnation:
				back++
				for _, part := range asideParts {
					if b, err := vfs.ReadFile(mem, path.Join("d", fileOf(part))); err != nil || string(b) != part {
						t.Fatalf("%s: %s holds %q, %v, and nothing says that it was set aside", what, part, b, err)
					}
				}
			case pending == nil:
				wasMoved(t, mem, set, what)
			default:
				if pending.Fresh != set.Fresh {
					t.Fatalf("%s: it goes on as %+v, and began as %+v", what, pending, set)
				}
				again := mem.KillClone()
				ops := 0
				again.OnOp(func(vfs.Op, vfs.Phase) {
					if ops++; ops == 2+i%30 {
						again.Freeze()
					}
				})
				half := *pending
				_ = half.move(again, "d")
				mem = again.CrashClone(vfs.CrashOptions{Unsynced: vfs.Coin, Seed: seed})
				if pending, err = unfinishedAside(mem, "d"); err == nil && pending != nil {
					err = pending.move(mem, "d")
				}
				if err != nil {
					t.Fatalf("%s, and again: %v", what, err)
				}
				wasMoved(t, mem, set, what)
			}
		}
	}
	if cuts < 200 || back < 20 {
		t.Errorf("only %d cuts, %d of them before there was no way back", cuts, back)
	}
}

// TestAsideGuards: what a set does not fit is left alone, and so is a set of a newer
// version.
func TestAsideGuards(t *testing.T) {
	t.Parallel()
	disk := vfs.NewMem(1)
	id := asideDir(t, disk)
	other := lostOf(id)
	other.Lost = 0x99
	set, err := newAside(disk, "d", other, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if err := set.move(disk, "d"); !errors.Is(err, ErrMismatched) {
		t.Errorf("the parts of another directory are moved: %v", err)
	}
	if is, err := there(disk, path.Join("d", journalDir)); !is {
		t.Errorf("the journal of another directory is gone: %v", err)
	}
	newer := *set
	newer.Format = asideFormat + 1
	if err := vfs.WriteFile(disk, path.Join("d", set.name(), WhyName), seal(&newer)); err != nil {
		t.Fatal(err)
	}
	if _, _, _, err := openDir(disk, "d", identity{NodeID: 1}, rand.Reader); !errors.Is(err, ErrNewer) {
		t.Errorf("a set of a newer version: %v", err)
	}
}

// TestPruneAside keeps the newest sets, fewer on a disk that is short of room, and
// wherever it is cut short no set is taken for one that is to be gone on with.
func TestPruneAside(t *testing.T) {
	t.Parallel()
	base := vfs.NewMem(1)
	if err := vfs.MkdirAllSync(base, "d"); err != nil {
		t.Fatal(err)
	}
	var names []string
	for i := range 4 {
		a, err := newAside(base, "d", aside{ClusterID: "c", NodeID: 1, Lost: hexNumber(100 - i), Shards: 1, AtMS: int64(i)}, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		records := path.Join("d", a.name(), dataDir)
		if err := errors.Join(
			vfs.MkdirAllSync(base, records), vfs.WriteFile(base, path.Join(records, "1.seg"), []byte("records")),
			vfs.WriteFile(base, path.Join("d", a.name(), DoneName), nil), vfs.MkdirAllSync(base, fmt.Sprintf("d/%sremains%d", AsidePrefix, i)),
		); err != nil {
			t.Fatal(err)
		}
		names = append(names, a.name())
	}
	log := slog.New(slog.DiscardHandler)
	left := func(disk *vfs.Mem) string {
		var all []string
		found, err := disk.ReadDir("d")
		if err != nil {
			t.Fatal(err)
		}
		for i, name := range names {
			for _, f := range found {
				if f == name {
					full, err := disk.ReadDir(path.Join("d", name))
					if err != nil {
						t.Fatal(err)
					}
					all = append(all, fmt.Sprintf("%d: %s", i, strings.Join(full, " ")))
				}
			}
		}
		if len(found) != len(all) {
			t.Errorf("the directory holds %v", found)
		}
		return strings.Join(all, "; ")
	}
	for _, tt := range []struct {
		need int64
		want string
	}{
		{0, "2: DONE WHY partitions; 3: DONE WHY partitions"},
		{1 << 62, "3: DONE WHY"},
	} {
		var clones []*vfs.Mem
		work := base.KillClone()
		work.OnOp(func(vfs.Op, vfs.Phase) {
			clones = append(clones, work.CrashClone(vfs.CrashOptions{Unsynced: vfs.Coin, Seed: uint64(len(clones))}))
		})
		if err := pruneAside(work, "d", tt.need, log); err != nil {
			t.Fatal(err)
		}
		if got := left(work); got != tt.want {
			t.Errorf("with %d bytes needed %q is left, want %q", tt.need, got, tt.want)
		}
		for i, mem := range clones {
			if set, err := unfinishedAside(mem, "d"); set != nil || err != nil {
				t.Fatalf("cut %d: a set that was being removed would be gone on with: %+v, %v", i, set, err)
			}
			if err := pruneAside(mem, "d", tt.need, log); err != nil {
				t.Fatalf("cut %d: %v", i, err)
			}
			if got := left(mem); got != tt.want {
				t.Errorf("cut %d: %q is left, want %q", i, got, tt.want)
			}
		}
	}
}

// TestAsideOfJoined sets aside what a node has that joined: what takes its place has
// joined too, and knows where the others are. A start finds that out of an IDENTITY that
// is damaged as well, as soon as WHY is there.
func TestAsideOfJoined(t *testing.T) {
	t.Parallel()
	disk := vfs.NewMem(1)
	a := lostOf(asideDir(t, disk))
	a.Joins, a.Nodes = true, "1@a:1,2@b:2"
	if _, err := newAside(disk, "d", a, rand.Reader); err != nil {
		t.Fatal(err)
	}
	if err := disk.Corrupt("d/IDENTITY", 3, func(b []byte) { b[0] ^= 1 }); err != nil {
		t.Fatal(err)
	}
	if joins, err := Joins(disk, "d"); !joins || err != nil {
		t.Errorf("half set aside, it joins: %t, %v", joins, err)
	}
	j := &joining{n: &Node{opt: Options{FS: disk, Dir: "d", NodeID: 1, Join: new(Join)}}}
	if id, fresh, err := j.directory(); err != nil || fresh || id.ClusterID != "c" || id.Nodes != a.Nodes {
		t.Errorf("half set aside, it is %+v, fresh %t, %v", id, fresh, err)
	}
	set, err := unfinishedAside(disk, "d")
	if err != nil {
		t.Fatal(err)
	}
	if err := set.move(disk, "d"); err != nil {
		t.Fatal(err)
	}
	if id, _, err := readIdentity(disk, "d"); err != nil || !id.Joins || id.Nodes != a.Nodes || id.Founded {
		t.Errorf("the fresh directory is %+v, %v", id, err)
	}
}

// TestNameless lists starts of a directory that joins and whose IDENTITY is lost.
func TestNameless(t *testing.T) {
	t.Parallel()
	at := []string{"a:1"}
	for _, tt := range []struct {
		name string
		file string // in the directory
		join Join
		keep bool // RefuseDamage
		says string
	}{
		{"another's files", "letters", Join{Addresses: at}, false, "holds letters and no IDENTITY"},
		{"told to refuse", "", Join{Addresses: at}, true, "no IDENTITY"},
		{"no address", "", Join{}, false, "say with join where nodes of its cluster are"},
		{"it asks", "", Join{Addresses: at}, false, ""},
	} {
		disk := vfs.NewMem(1)
		if tt.file == "" {
			asideDir(t, disk)
			if err := disk.Lose("d/IDENTITY"); err != nil {
				t.Fatal(err)
			}
		} else if err := errors.Join(vfs.MkdirAllSync(disk, "d"), vfs.WriteFile(disk, "d/"+tt.file, nil)); err != nil {
			t.Fatal(err)
		}
		j := &joining{n: &Node{opt: Options{FS: disk, Dir: "d", NodeID: 1, Join: &tt.join, RefuseDamage: tt.keep}}}
		_, fresh, err := j.directory()
		if fresh != (tt.says == "") || (err != nil) != (tt.says != "") || err != nil && !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s: fresh %t, %v, want %q", tt.name, fresh, err, tt.says)
		}
	}
}

// TestHeals says which nodes have damage replaced.
func TestHeals(t *testing.T) {
	t.Parallel()
	damage := fmt.Errorf("x: %w", journal.ErrCorrupt)
	three := &Cluster{Nodes: []int32{1, 2, 3}}
	for _, tt := range []struct {
		name string
		opt  Options
		err  error
		want bool
	}{
		{"one of three", Options{Cluster: three}, damage, true},
		{"one that has joined", Options{Join: new(Join)}, damage, true},
		{"one that has joined, told to refuse", Options{Join: new(Join), RefuseDamage: true}, damage, false},
		{"told to refuse", Options{Cluster: three, RefuseDamage: true}, damage, false},
		{"alone", Options{}, damage, false},
		{"a cluster of one", Options{Cluster: &Cluster{Nodes: []int32{1}}}, damage, false},
		{"a newer format", Options{Cluster: three}, errors.Join(ErrNewer, journal.ErrCorrupt), false},
		{"a directory in use", Options{Cluster: three}, ErrInUse, false},
		{"a failed disk", Options{Cluster: three}, journal.ErrFailed, false},
		{"another node's directory", Options{Cluster: three}, ErrWrongIdentity, false},
		{"stopped", Options{Cluster: three}, context.Canceled, false},
	} {
		if got := tt.opt.Heals(tt.err); got != tt.want {
			t.Errorf("%s: %t, want %t", tt.name, got, tt.want)
		}
	}
	w := newWait(slog.New(slog.DiscardHandler), damage)
	ctx, cancel := context.WithTimeout(t.Context(), time.Nanosecond)
	defer cancel()
	<-ctx.Done()
	if err := w.until(ctx, func(context.Context) error { return errors.New("node 2 is away") }); !errors.Is(err, journal.ErrCorrupt) || !strings.Contains(err.Error(), "node 2 is away") {
		t.Errorf("a wait that ends says %v", err)
	}
}
