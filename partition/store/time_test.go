package store

import (
	"errors"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/flotilla-log/flotilla/internal/vfs"
	"github.com/flotilla-log/flotilla/log/batch"
)

// timedBatch is a batch of one record for each timestamp.
func timedBatch(tb testing.TB, codec batch.Codec, timestamps []int64) []byte {
	tb.Helper()
	var b batch.Builder
	b.Reset()
	for _, ts := range timestamps {
		if err := b.Append(ts, nil, make([]byte, 300), nil); err != nil {
			tb.Fatal(err)
		}
	}
	out, err := b.Build(nil, codec, batch.DefaultLevel)
	if err != nil {
		tb.Fatal(err)
	}
	return out
}

// timeModel is a partition as a list of timestamps.
type timeModel struct {
	start  int
	stamps []int64 // by offset
}

func (m *timeModel) forTime(ts int64) int {
	for i := m.start; i < len(m.stamps); i++ {
		if m.stamps[i] >= ts {
			return i
		}
	}
	return -1
}

func (m *timeModel) max() int {
	best := -1
	for i := m.start; i < len(m.stamps); i++ {
		if m.stamps[i] >= 0 && (best < 0 || m.stamps[i] > m.stamps[best]) {
			best = i
		}
	}
	return best
}

// check compares every look-up that can differ with the model.
func (m *timeModel) check(t *testing.T, sh *Shard, seed uint64, what string) {
	t.Helper()
	same := func(question string, want int, got TimedOffset, found bool, err error) {
		t.Helper()
		switch {
		case err != nil:
			t.Fatalf("seed %d, %s, start %d: %s: %v", seed, what, m.start, question, err)
		case found != (want >= 0), found && (got.Offset != int64(want) || got.TimestampMS != m.stamps[want] || got.LeaderEpoch != 7):
			t.Fatalf("seed %d, %s, start %d: %s = %+v, %t; want offset %d", seed, what, m.start, question, got, found, want)
		}
	}
	for ts := int64(-1); ts <= 52; ts++ {
		got, found, err := sh.OffsetForTime(1, ts, batch.Limits{})
		same("OffsetForTime", m.forTime(ts), got, found, err)
	}
	got, found, err := sh.OffsetForTime(1, math.MinInt64, batch.Limits{})
	same("OffsetForTime of the least", m.forTime(math.MinInt64), got, found, err)
	got, found, err = sh.MaxTimestamp(1, batch.Limits{})
	same("MaxTimestamp", m.max(), got, found, err)
}

// TestOffsetForTimeModel compares look-ups by time with a linear search: over
// segments and the tail, compressed batches, timestamps out of order, a moving
// log start, and a restart from files.
func TestOffsetForTimeModel(t *testing.T) {
	t.Parallel()
	codecs := []batch.Codec{batch.None, batch.LZ4, batch.Zstd, batch.Gzip, batch.Snappy}
	for seed := range uint64(40) {
		rng := rand.New(rand.NewPCG(seed, 1))
		fsys := vfs.NewMem(seed)
		st := mustOpen(t, fsys, manual())
		sh := st.Shard(1)
		cfg := Config{SegmentBytes: 20_000}
		sh.Create(1, [16]byte{1}, 0, cfg)
		var m timeModel
		for range 40 {
			stamps := make([]int64, 1+rng.IntN(5))
			for i := range stamps {
				stamps[i] = rng.Int64N(50)
				if rng.IntN(10) > 0 { // mostly rising
					stamps[i] = min(50, int64(len(m.stamps))/3)
				}
			}
			base := int64(len(m.stamps))
			m.stamps = append(m.stamps, stamps...)
			body := timedBatch(t, codecs[rng.IntN(len(codecs))], stamps)
			sh.Append(1, base, int64(len(m.stamps))-1, 7, body, nil)
			switch rng.IntN(6) {
			case 0:
				if err := sh.FlushTo([]End{{Key: 1, End: int64(len(m.stamps))}}); err != nil {
					t.Fatal(err)
				}
			case 1:
				m.start += rng.IntN(1 + (len(m.stamps)-m.start)/4)
				sh.SetLogStart(1, int64(m.start))
			case 2:
				if err := sh.Checkpointed(sh.Capture()); err != nil {
					t.Fatal(err)
				}
			case 3:
				m.check(t, sh, seed, "under way")
			}
		}
		m.check(t, sh, seed, "at the end")
		end := int64(len(m.stamps))
		if err := sh.FlushTo([]End{{Key: 1, End: end}}); err != nil {
			t.Fatal(err)
		}
		m.check(t, sh, seed, "flushed")
		if err := st.Close(); err != nil {
			t.Fatal(err)
		}
		sh = mustOpen(t, fsys, manual()).Shard(1)
		damage, err := sh.Restore([]Restored{{Key: 1, TopicID: [16]byte{1}, LogStart: int64(m.start), End: end, Config: cfg}})
		if err != nil || damage != nil {
			t.Fatal(err, damage)
		}
		m.check(t, sh, seed, "restored")
	}
}

// TestOffsetForTimeLongSegment: a look-up starts at the right one of several
// marks of an index.
func TestOffsetForTimeLongSegment(t *testing.T) {
	t.Parallel()
	sh := mustOpen(t, vfs.NewMem(1), manual()).Shard(1)
	sh.Create(1, [16]byte{1}, 0, Config{SegmentBytes: 64 << 20})
	stamps := make([]int64, 300)
	for i := range int64(40) {
		for k := range stamps {
			stamps[k] = 1000 * (i + 1)
		}
		sh.Append(1, 300*i, 300*i+299, 7, timedBatch(t, batch.None, stamps), nil)
		if err := sh.FlushTo([]End{{Key: 1, End: 300 * (i + 1)}}); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(sh.parts[1].segs); n != 1 {
		t.Fatalf("%d segments, the test wants a long one", n)
	}
	for i := range int64(40) {
		if got, found, err := sh.OffsetForTime(1, 1000*i+1, batch.Limits{}); err != nil || !found || got.Offset != 300*i {
			t.Errorf("OffsetForTime(%d) = %+v, %t, %v; want offset %d", 1000*i+1, got, found, err, 300*i)
		}
	}
}

// TestOffsetForTimeDamaged: a look-up that damage may lead astray fails, and one
// that found what it looks for before it does not.
func TestOffsetForTimeDamaged(t *testing.T) {
	t.Parallel()
	fsys := vfs.NewMem(1)
	st := mustOpen(t, fsys, manual())
	sh := st.Shard(1)
	cfg := Config{SegmentBytes: 1000}
	sh.Create(1, [16]byte{1}, 0, cfg)
	for i := range int64(9) {
		sh.Append(1, i, i, 7, timedBatch(t, batch.None, []int64{i}), nil)
	}
	if err := sh.FlushTo([]End{{Key: 1, End: 9}}); err != nil {
		t.Fatal(err)
	}
	middle := sh.parts[1].segs[1]
	from, to := middle.Base(), middle.End()
	if err := st.Close(); err != nil {
		t.Fatal(err)
	}
	if err := fsys.Remove(middle.Name()); err != nil {
		t.Fatal(err)
	}
	sh = mustOpen(t, fsys, manual()).Shard(1)
	if damage, err := sh.Restore([]Restored{{Key: 1, TopicID: [16]byte{1}, End: 9, Config: cfg}}); err != nil || len(damage) != 1 {
		t.Fatal(err, damage)
	}
	if got, found, err := sh.OffsetForTime(1, from-1, batch.Limits{}); err != nil || !found || got.Offset != from-1 {
		t.Errorf("below the damage: %+v, %t, %v", got, found, err)
	}
	for _, ts := range []int64{from, to, 100} {
		if _, _, err := sh.OffsetForTime(1, ts, batch.Limits{}); !errors.Is(err, ErrCorrupt) {
			t.Errorf("timestamp %d, which damage may hide: %v", ts, err)
		}
	}
	if _, _, err := sh.MaxTimestamp(1, batch.Limits{}); !errors.Is(err, ErrCorrupt) {
		t.Errorf("MaxTimestamp with damage: %v", err)
	}
	sh.SetLogStart(1, to)
	if got, found, err := sh.OffsetForTime(1, 0, batch.Limits{}); err != nil || !found || got.Offset != to {
		t.Errorf("above the damage: %+v, %t, %v", got, found, err)
	}
}

// TestSegmentMS: a batch begins a new segment once it is too far ahead of the
// first, also after a restart, and never because it is behind.
func TestSegmentMS(t *testing.T) {
	t.Parallel()
	fsys := vfs.NewMem(1)
	st := mustOpen(t, fsys, manual())
	sh := st.Shard(1)
	sh.Create(1, [16]byte{1}, 0, Config{})
	sh.SetSegmentMS(1, 100)
	end := int64(0)
	add := func(stamps ...int64) {
		t.Helper()
		for _, ts := range stamps {
			sh.Append(1, end, end, 7, timedBatch(t, batch.None, []int64{ts}), nil)
			end++
		}
		if err := sh.FlushTo([]End{{Key: 1, End: end}}); err != nil {
			t.Fatal(err)
		}
	}
	want := func(bases ...int64) {
		t.Helper()
		segs := sh.parts[1].segs
		if len(segs) != len(bases) {
			t.Fatalf("%d segments, want those at %v", len(segs), bases)
		}
		for i, s := range segs {
			if s.Base() != bases[i] {
				t.Errorf("segment %d starts at %d, want %d", i, s.Base(), bases[i])
			}
		}
	}
	add(1000, 1100, 1101, 900, 1201) // in one go
	want(0, 2)
	add(1202) // alone
	want(0, 2, 5)
	add(1302)
	if err := st.Close(); err != nil {
		t.Fatal(err)
	}
	sh = mustOpen(t, fsys, manual()).Shard(1)
	if _, err := sh.Restore([]Restored{{Key: 1, TopicID: [16]byte{1}, End: end}}); err != nil {
		t.Fatal(err)
	}
	sh.SetSegmentMS(1, 100)
	add(1302)
	want(0, 2, 5)
	add(1303)
	want(0, 2, 5, 8)
}

func TestRetain(t *testing.T) {
	t.Parallel()
	fsys := vfs.NewMem(1)
	sh := mustOpen(t, fsys, manual()).Shard(1)
	sh.Create(1, [16]byte{1}, 0, Config{})
	sh.SetSegmentMS(1, 1)
	size := int64(len(timedBatch(t, batch.None, []int64{0})))
	for i, ts := range []int64{1000, 3000, 5000, 2000} { // the last two share a segment
		sh.Append(1, int64(i), int64(i), 7, timedBatch(t, batch.None, []int64{ts}), nil)
	}
	if err := sh.FlushTo([]End{{Key: 1, End: 4}}); err != nil {
		t.Fatal(err)
	}
	sh.Append(1, 4, 4, 7, timedBatch(t, batch.None, []int64{4000}), nil) // the tail
	tests := []struct {
		name       string
		r          Retention
		nowMS      int64
		start, due int64
	}{
		{"no limit", Retention{MS: -1, Bytes: -1}, math.MaxInt64, 0, math.MaxInt64},
		{"exactly as old", Retention{MS: 500, Bytes: -1}, 1500, 0, 1501},
		{"older", Retention{MS: 500, Bytes: -1}, 1501, 1, 3501},
		{"the last one takes appends", Retention{MS: 500, Bytes: -1}, 4000, 2, 5501},
		{"all", Retention{MS: 500, Bytes: -1}, 5501, 5, math.MaxInt64},
		{"before its time", Retention{MS: 500, Bytes: -1}, 0, 0, 1501},
		{"beyond the clock", Retention{MS: math.MaxInt64, Bytes: -1}, 5000, 0, math.MaxInt64},
		{"exactly as many", Retention{MS: -1, Bytes: 4 * size}, 0, 1, math.MaxInt64},
		{"one byte less is kept", Retention{MS: -1, Bytes: 4*size + 1}, 0, 0, math.MaxInt64},
		{"nothing", Retention{MS: -1, Bytes: 0}, 0, 5, math.MaxInt64},
		{"both", Retention{MS: 500, Bytes: 3*size + 1}, 3501, 2, 5501},
	}
	for _, tt := range tests {
		got, err := sh.Retain(1, tt.r, tt.nowMS)
		if err != nil || got.LogStart != tt.start || got.DueMS != tt.due || got.Present != 0 {
			t.Errorf("%s: %+v, %v; want log start %d, due %d", tt.name, got, err, tt.start, tt.due)
		}
	}
	if _, err := sh.Retain(9, Retention{}, 0); !errors.Is(err, ErrUnknownPartition) {
		t.Errorf("unknown partition: %v", err)
	}
}

// TestDeletedSegmentTakesNoMore: what comes after all of a segment was deleted
// begins the next one, so that the file can go.
func TestDeletedSegmentTakesNoMore(t *testing.T) {
	t.Parallel()
	sh := mustOpen(t, vfs.NewMem(1), manual()).Shard(1)
	sh.Create(1, [16]byte{1}, 0, Config{})
	add := func(offset int64) {
		t.Helper()
		sh.Append(1, offset, offset, 7, timedBatch(t, batch.None, []int64{5}), nil)
		if err := sh.FlushTo([]End{{Key: 1, End: offset + 1}}); err != nil {
			t.Fatal(err)
		}
	}
	add(0)
	sh.SetLogStart(1, 1)
	add(1)
	all, unlink := sh.DiskBytes(1)
	if unlink == 0 || unlink == all {
		t.Errorf("%d of %d bytes wait to be unlinked, want one of two segments", unlink, all)
	}
	if err := sh.Checkpointed(sh.Capture()); err != nil {
		t.Fatal(err)
	}
	if now, unlink := sh.DiskBytes(1); now != all/2 || unlink != 0 {
		t.Errorf("%d bytes left, and %d wait; want %d, 0", now, unlink, all/2)
	}
}
