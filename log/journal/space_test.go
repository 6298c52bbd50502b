package journal

import (
	"context"
	"errors"
	"math/rand/v2"
	"path"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/flotilla-log/flotilla/internal/vfs"
)

func TestReservationAccount(t *testing.T) {
	t.Parallel()
	j := mustOpen(t, vfs.NewMem(1), small())
	defer j.Close()
	s := j.Shard(1, 1)
	reserved := func(want int64) {
		t.Helper()
		if got := j.Usage().ReservedBytes; got != want {
			t.Fatalf("reserved %d bytes, want %d", got, want)
		}
	}
	var rs []*Reservation
	for range 3 {
		r, err := j.TryReserve(s, 200)
		if err != nil {
			t.Fatal(err)
		}
		rs = append(rs, r)
	}
	reserved(600)
	if err := s.Append([]Record{{Index: 1, Data: make([]byte, 220)}}); err != nil { // 304 bytes with header
		t.Fatal(err)
	}
	reserved(600 - 304)
	rs[0].Release() // used up
	reserved(600 - 304)
	rs[1].Release() // half used
	rs[1].Release()
	reserved(200)
	if err := s.Append([]Record{{Index: 2, Data: make([]byte, 1000)}}); err != nil { // more than is left
		t.Fatal(err)
	}
	reserved(0)
	rs[2].Release()
	reserved(0)
	if _, err := j.TryReserve(s, 1<<30); !errors.Is(err, ErrTooLarge) {
		t.Errorf("huge reservation: %v", err)
	}
	if _, err := j.TryReserve(s, 500); err != nil {
		t.Fatal(err)
	}
	if err := s.Drop(); err != nil {
		t.Fatal(err)
	}
	reserved(0)
	if u := j.Usage(); u.LiveBytes != 0 || j.space.unapplied != 0 || j.space.queued != 0 {
		t.Errorf("after Drop: %+v, %+v", u, j.space)
	}
}

// TestReserveWaits: a reservation that finds no room waits for a compaction,
// for its context or for the end of the journal.
func TestReserveWaits(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		mem := vfs.NewMem(1)
		j := mustOpen(t, mem, small())
		s := j.Shard(1, 1)
		next := fill(t, j, s)

		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := j.Reserve(ctx, s, 2000); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("Reserve in a full ring = %v", err)
		}
		select {
		case <-j.Pressure():
		default:
			t.Error("no pressure although a reservation waited")
		}
		go func() {
			time.Sleep(time.Minute)
			s.Compact(next / 2)
		}()
		start := time.Now()
		r, err := j.Reserve(t.Context(), s, 2000)
		if err != nil || time.Since(start) != time.Minute {
			t.Fatalf("Reserve = %v after %v", err, time.Since(start))
		}
		r.Release()
		fill(t, j, s)
		go func() {
			time.Sleep(time.Minute)
			j.Close()
		}()
		if _, err := j.Reserve(t.Context(), s, 2000); !errors.Is(err, ErrClosed) {
			t.Errorf("Reserve on a closing journal = %v", err)
		}
		synctest.Wait()
	})
}

// fill appends applied entries until nothing can be reserved any more, and
// returns the next index.
func fill(t *testing.T, j *Journal, s *Shard) uint64 {
	t.Helper()
	next := s.Last() + 1
	for {
		if u := j.Usage(); u.Files > 4*u.MaxFiles {
			t.Fatalf("the ring has grown to %d files", u.Files)
		}
		rec := newRecord(next, 1, 1000, next)
		r, err := j.TryReserve(s, RecordBytes(len(rec.Data), len(rec.Extensions)))
		if errors.Is(err, ErrNoSpace) {
			synctest.Wait() // growth may be under way
			if r, err = j.TryReserve(s, RecordBytes(len(rec.Data), len(rec.Extensions))); errors.Is(err, ErrNoSpace) {
				return next
			}
		}
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Append([]Record{rec}); err != nil {
			t.Fatal(err)
		}
		r.Release()
		s.Commit(next)
		next++
	}
}

// TestStuckShard: a shard whose entries are never applied takes at most half of
// the limit, and the others go on through many laps of the ring, at the limit,
// while its entries are copied forward (R7).
func TestStuckShard(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		mem := vfs.NewMem(1)
		j := mustOpen(t, mem, small())
		stuck, s := j.Shard(1, 1), j.Shard(2, 1)
		var want []Record
		for {
			rec := newRecord(uint64(len(want)+1), 1, 900, 3)
			r, err := j.TryReserve(stuck, RecordBytes(len(rec.Data), len(rec.Extensions)))
			if errors.Is(err, ErrNoSpace) {
				synctest.Wait()
				if r, err = j.TryReserve(stuck, RecordBytes(len(rec.Data), len(rec.Extensions))); errors.Is(err, ErrNoSpace) {
					break
				}
			}
			if err := stuck.Append([]Record{rec}); err != nil {
				t.Fatal(err)
			}
			r.Release()
			want = append(want, rec)
		}
		u := j.Usage()
		if u.LiveBytes > u.LimitBytes/2 || len(want) < 5 {
			t.Fatalf("the stuck shard holds %d bytes of %d", u.LiveBytes, u.LimitBytes)
		}
		next := uint64(1)
		for range 40 {
			next = fill(t, j, s)
			s.Compact(next - 3)
		}
		if u := j.Usage(); u.CopiedBytes == 0 || u.Files > u.MaxFiles {
			t.Errorf("after %d entries: %+v", next, u)
		}
		wantLog(t, stuck, want)
		mustClose(t, j)

		j = mustOpen(t, mem, small())
		wantLog(t, j.Shard(1, 1), want)
		mustClose(t, j)
	})
}

// TestUnreservedFindsRoom: with the ring full of reservations and entries, what
// Raft stores by itself still goes in, as does a command that frees space.
func TestUnreservedFindsRoom(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		j := mustOpen(t, vfs.NewMem(1), small())
		s, raft := j.Shard(1, 1), j.Shard(2, 1)
		fill(t, j, s)
		aside := j.limitOf(4) / 7
		for i := uint64(1); aside > RecordBytes(100, 0); i++ {
			if err := raft.Append([]Record{{Index: i, Data: make([]byte, 100)}}); err != nil {
				t.Fatal(err)
			}
			aside -= RecordBytes(100, 0)
		}
		if err := s.TruncateFrom(1); err != nil {
			t.Fatal(err)
		}
		mustClose(t, j)
	})
}

// TestOverrun: more than the ring can hold, never reserved and all of it applied,
// fails the journal with a reason instead of waiting.
func TestOverrun(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		j := mustOpen(t, vfs.NewMem(1), small())
		s := j.Shard(1, 1)
		var err error
		for i := uint64(1); err == nil; i++ {
			if i > 1000 {
				t.Fatal("the ring takes everything")
			}
			err = s.Append([]Record{newRecord(i, 1, 1000, i)})
			s.Commit(i)
		}
		if !errors.Is(err, ErrFailed) || !errors.Is(err, errOverrun) {
			t.Errorf("Append = %v", err)
		}
		j.Close()
	})
}

// comeBack returns the disk of a journal after a kill: what shard 1 had compacted is back,
// in the oldest file of a full ring whose last one has no room to copy it.
func comeBack(t *testing.T) (killed *vfs.Mem, back []Record) {
	t.Helper()
	mem := vfs.NewMem(1)
	opt := small()
	var slow atomic.Bool
	opt.OnEvent = func(e Event) {
		if e.Kind == EventRecycle && slow.Load() {
			time.Sleep(time.Second)
		}
	}
	j := mustOpen(t, mem, opt)
	idle, s := j.Shard(1, 1), j.Shard(2, 1)
	back = records(1, 10, 2000)
	if err := idle.Append(back); err != nil {
		t.Fatal(err)
	}
	next := uint64(1)
	add := func() {
		t.Helper()
		if err := s.Append([]Record{newRecord(next, 1, 2000, next)}); err != nil {
			t.Fatal(err)
		}
		s.Compact(next)
		next++
		synctest.Wait()
	}
	for j.at < minFiles-1 {
		add()
	}
	slow.Store(true)
	idle.Compact(10)
	for j.files[j.at].end < minFileBytes-7000 {
		add()
	}
	killed = mem.KillClone()
	mustClose(t, j)
	return killed, back
}

// TestCompactedEntriesBack: Raft may append before anybody compacts again: the ring
// then grows beyond its bound.
func TestCompactedEntriesBack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		killed, want := comeBack(t)
		j := mustOpen(t, killed, small())
		for next := uint64(1); next < 5; next++ {
			if err := j.Shard(3, 1).Append(records(next, 1, 2000)); err != nil {
				t.Fatal(err)
			}
		}
		wantLog(t, j.Shard(1, 1), want)
		if u := j.Usage(); u.Files > minFiles+2 || u.CopiedBytes != 0 {
			t.Errorf("%d files, %d bytes copied", u.Files, u.CopiedBytes)
		}
		mustClose(t, j)
	})
}

// TestCompactedBackOnFullDisk: where the ring cannot grow, what may go is let go of
// rather than kept for others; and before it fails, the disk is asked once more.
func TestCompactedBackOnFullDisk(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"let go of", "room again", "no room"} {
		t.Run(how, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				killed, _ := comeBack(t)
				u, err := killed.Usage(testDir)
				if err != nil {
					t.Fatal(err)
				}
				killed.SetCapacity(u.TotalBytes - u.FreeBytes + minFileBytes/2) // not for a file
				defer func() {
					for _, f := range []string{"00000000", "00000003"} {
						if fi, err := killed.Stat(path.Join(testDir, f+".journal")); err != nil || fi.Size() != minFileBytes {
							t.Errorf("file %s: %v, %v", f, fi, err)
						}
					}
				}()
				j := mustOpen(t, killed, small())
				synctest.Wait()
				idle, s := j.Shard(1, 1), j.Shard(3, 1)
				switch how {
				case "let go of":
					if first := idle.Affordable(9); first != 10 {
						t.Errorf("entries from %d on are kept for others in a file that is in the way", first)
					}
					idle.Compact(9)
					if first := idle.Affordable(10); first != 10 {
						t.Errorf("entries from %d on are kept for others where there is room", first)
					}
				case "room again":
					killed.SetCapacity(-1)
				}
				err = s.Append(records(1, 1, 1000))
				if how == "no room" {
					if !errors.Is(err, errOverrun) {
						t.Errorf("Append = %v", err)
					}
					j.Close()
					return
				}
				if err != nil {
					t.Error(err)
				}
				if err := j.Close(); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// TestUncountedOnFullDisk: a file that was being added at a crash is no reason not to
// start: it counts if there is room for that, and leaves if there is none.
func TestUncountedOnFullDisk(t *testing.T) {
	t.Parallel()
	for name, full := range map[string]bool{"full": true, "with room": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				mem := vfs.NewMem(1)
				var killed *vfs.Mem
				j := mustOpen(t, mem, small())
				s := j.Shard(1, 1)
				want := records(1, 3, 2000)
				if err := s.Append(want); err != nil {
					t.Fatal(err)
				}
				other := j.Shard(2, 1)
				mem.OnOp(func(op vfs.Op, phase vfs.Phase) {
					if killed == nil && phase == vfs.Before && path.Base(op.Path) == ringName+".tmp" {
						killed = mem.KillClone()
					}
				})
				fill(t, j, other)
				mustClose(t, j)
				if killed == nil {
					t.Fatal("the ring has not grown")
				}
				if full {
					killed.SetCapacity(1)
				}
				j = mustOpen(t, killed, small())
				wantLog(t, j.Shard(1, 1), want)
				if u := j.Usage(); full != (u.Files == startFiles) {
					t.Errorf("%d files, of %d at first", u.Files, startFiles)
				}
				mustClose(t, j)
				killed.SetCapacity(-1)
				j = mustOpen(t, killed, small())
				wantLog(t, j.Shard(1, 1), want)
				if r, _, err := readRing(killed, testDir); err != nil || int(r.slots) != j.Usage().Files {
					t.Errorf("%s counts %d files of %d, %v", ringName, r.slots, j.Usage().Files, err)
				}
				fill(t, j, j.Shard(3, 1))
				if u := j.Usage(); u.Files != u.MaxFiles {
					t.Errorf("with room it has grown to %d files of %d", u.Files, u.MaxFiles)
				}
				mustClose(t, j)
			})
		})
	}
}

// TestDiskFull: growth that meets a full disk is not final. The ring stays as
// it is, reservations wait, and it grows once there is space again.
func TestDiskFull(t *testing.T) {
	t.Parallel()
	for name, full := range map[string]func(*vfs.Mem, bool){
		"known": func(m *vfs.Mem, on bool) {
			if on {
				m.SetCapacity(1)
			} else {
				m.SetCapacity(-1)
			}
		},
		"met on write": func(m *vfs.Mem, on bool) {
			m.SetInjector(func(op vfs.Op) (ft vfs.Fault) {
				ft.Full = on && op.Kind == vfs.OpWriteAt && path.Base(op.Path) == tempName
				if ft.Full {
					ft.Err = errNoSpace
				}
				return ft
			})
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				mem := vfs.NewMem(1)
				var events sync.Map
				opt := small()
				opt.OnEvent = func(e Event) { events.Store(e.Kind, true) }
				opt.OnFailed = func(err error) { t.Errorf("failed: %v", err) }
				j := mustOpen(t, mem, opt)
				s := j.Shard(1, 1)
				full(mem, true)
				next := fill(t, j, s)
				if u := j.Usage(); u.Files != startFiles {
					t.Fatalf("the ring has %d files on a full disk", u.Files)
				}
				if _, ok := events.Load(EventDiskFull); !ok {
					t.Error("no event of the full disk")
				}
				if names, _ := mem.ReadDir(testDir); slices.Contains(names, tempName) {
					t.Error("half a file was left behind")
				}
				for range 10 { // goes on within the ring
					s.Compact(next - 2)
					next = fill(t, j, s)
				}
				full(mem, false)
				if r, err := j.Reserve(t.Context(), s, 8000); err != nil {
					t.Fatal(err)
				} else {
					r.Release()
				}
				if u := j.Usage(); u.Files <= startFiles {
					t.Errorf("the ring has %d files although there is space again", u.Files)
				}
				mustClose(t, j)
			})
		})
	}
}

// TestConcurrentShards runs many shards at the limit of a small ring, with a
// checkpointer and readers beside them, and one shard that never gets anywhere.
func TestConcurrentShards(t *testing.T) {
	t.Parallel()
	mem := vfs.NewMem(1)
	opt := small()
	opt.MaxBytes = 6 * minFileBytes
	j := mustOpen(t, mem, opt)
	ctx, cancel := context.WithCancel(t.Context())
	const shards, perShard = 6, 250
	var applied [shards + 1]atomic.Uint64
	var writers, others sync.WaitGroup
	for id := 1; id <= shards; id++ {
		s := j.Shard(ShardID(id), 1)
		writers.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(id), 9))
			for i := uint64(1); i <= perShard; i++ {
				rec := newRecord(i, 1, rng.IntN(1500), i<<8|uint64(id))
				if id == shards && i > 10 {
					return // stuck: never applied
				}
				r, err := j.Reserve(ctx, s, RecordBytes(len(rec.Data), len(rec.Extensions)))
				if err != nil {
					t.Errorf("shard %d: Reserve: %v", id, err)
					return
				}
				err = s.Append([]Record{rec})
				r.Release()
				if err != nil {
					t.Errorf("shard %d: Append: %v", id, err)
					return
				}
				if id != shards {
					s.Commit(i)
					applied[id].Store(i)
				}
			}
		})
	}
	others.Go(func() {
		for ctx.Err() == nil {
			select {
			case <-j.Pressure():
			case <-ctx.Done():
			}
			for id := 1; id < shards; id++ {
				j.Shard(ShardID(id), 1).Compact(applied[id].Load())
			}
		}
	})
	others.Go(func() {
		rng := rand.New(rand.NewPCG(1, 9))
		for ctx.Err() == nil {
			s := j.Shard(ShardID(1+rng.IntN(shards)), 1)
			var r Record
			if at := s.First(); at != 0 {
				if err := s.Read(at, &r); err != nil && !errors.Is(err, ErrNotFound) {
					t.Errorf("Read: %v", err)
					return
				} else if err == nil && (r.Index != at || !sameRecord(r, newRecord(at, 1, len(r.Data), uint64(r.AppendedAt)))) {
					t.Errorf("Read(%d) = index %d or other bytes", at, r.Index)
					return
				}
			}
			j.Usage()
			j.Oldest()
		}
	})
	writers.Wait()
	cancel()
	others.Wait()
	var want []Record
	rng := rand.New(rand.NewPCG(shards, 9))
	for i := uint64(1); i <= 10; i++ {
		want = append(want, newRecord(i, 1, rng.IntN(1500), i<<8|shards))
	}
	wantLog(t, j.Shard(shards, 1), want)
	mustClose(t, j)
	j = mustOpen(t, mem, opt)
	wantLog(t, j.Shard(shards, 1), want)
	mustClose(t, j)
}
