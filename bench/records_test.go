package bench

import (
	"bytes"
	"math"
	"testing"
	"time"

	"github.com/flotilla-log/flotilla/client"
)

func TestSchedule(t *testing.T) {
	t.Parallel()
	// Senders take turns, and rounding does not add up: the record number n of
	// all is due at n/rate, within a nanosecond, for days.
	const senders, rate = 3, 7_777.0
	for _, i := range []int64{0, 1, 2, 1000, 1 << 30} {
		for sender := range senders {
			got := schedule{perSecond: rate, senders: senders, sender: sender}.due(i)
			want := float64(i*senders+int64(sender)) / rate
			if math.Abs(got.Seconds()-want) > 1e-6 {
				t.Errorf("sender %d record %d: due %v, want %v s", sender, i, got, want)
			}
		}
	}
	s := schedule{perSecond: 1000, senders: 1}
	for i := range int64(10_000) {
		if got, want := s.due(i), time.Duration(i)*time.Millisecond; got < want-1 || got > want+1 {
			t.Fatalf("record %d: due %v, want %v", i, got, want)
		}
	}
}

func TestWindow(t *testing.T) {
	t.Parallel()
	w := window{from: 2, until: 5}
	for at, want := range map[time.Duration]bool{1: false, 2: true, 4: true, 5: false} {
		if w.holds(at) != want {
			t.Errorf("holds(%d), want %t", at, want)
		}
	}
	if !(window{until: endless}).holds(maxLatency * 1000) {
		t.Error("an endless window ends")
	}
}

func TestShare(t *testing.T) {
	t.Parallel()
	for total := range 20 {
		for of := 1; of < 6; of++ {
			sum := 0
			for i := range of {
				s := share(total, of, i)
				if s < total/of || s > total/of+1 {
					t.Errorf("share(%d, %d, %d) = %d", total, of, i, s)
				}
				sum += s
			}
			if sum != total {
				t.Errorf("shares of %d among %d are %d together", total, of, sum)
			}
		}
	}
}

func TestMaker(t *testing.T) {
	t.Parallel()
	counts := func(keys Keys) (partitions map[int32]int, byKey map[string]int) {
		partitions, byKey = make(map[int32]int), make(map[string]int)
		m := newMaker(Shape{ValueBytes: 10, Values: ValuesZero, Keys: keys, KeyCount: 100, Partitions: 4}, 1, 2)
		for range 10_000 {
			r := m.next()
			partitions[r.Partition]++
			byKey[string(r.Key)]++
			if len(r.Value) != 10 {
				t.Fatalf("value of %d bytes", len(r.Value))
			}
		}
		return partitions, byKey
	}
	if p, k := counts(KeysNone); len(p) != 1 || p[client.AnyPartition] == 0 || k[""] != 10_000 {
		t.Errorf("none: %v %v", p, k)
	}
	if p, _ := counts(KeysEven); len(p) != 4 || p[0] != 2500 || p[3] != 2500 {
		t.Errorf("even: %v", p)
	}
	most := func(byKey map[string]int) (n int) {
		for _, c := range byKey {
			n = max(n, c)
		}
		return n
	}
	if _, k := counts(KeysRandom); len(k) != 100 || most(k) > 200 {
		t.Errorf("random: %d keys, most often %d", len(k), most(k))
	}
	if _, k := counts(KeysZipf); len(k) < 50 || len(k) > 100 || most(k) < 1500 {
		t.Errorf("zipf: %d keys, most often %d", len(k), most(k))
	}
}

// TestMakerValues checks that random values are as the seed says, differ, and
// do not repeat themselves within a batch.
func TestMakerValues(t *testing.T) {
	t.Parallel()
	shape := Shape{ValueBytes: 1000, Values: ValuesRandom, Keys: KeysNone}
	a, b, other := newMaker(shape, 1, 0), newMaker(shape, 1, 0), newMaker(shape, 1, 1)
	seen := make(map[string]int)
	for i := range 3 * poolBytes / 1000 { // three times round
		v := a.next().Value
		if !bytes.Equal(v, b.next().Value) {
			t.Fatal("the same seed gives other values")
		}
		if bytes.Equal(v, other.next().Value) {
			t.Fatal("another stream gives the same values")
		}
		if before, twice := seen[string(v[:16])]; twice && i-before < 4000 {
			t.Fatalf("value %d is value %d again", i, before)
		}
		seen[string(v[:16])] = i
	}
	m := newMaker(Shape{ValueBytes: 0, Values: ValuesRandom, Keys: KeysNone}, 1, 0)
	if r := m.next(); len(r.Value) != 0 || r.Value == nil {
		t.Errorf("value %v", r.Value)
	}
}

func TestStamp(t *testing.T) {
	t.Parallel()
	m := newMaker(plainShape(stampBytes), 1, 0)
	want := stamp{run: 7, number: 1 << 40, due: 12345}
	r := m.stamped(m.next(), want)
	if got, ok := readStamp(r.Value, 7); !ok || got != want || len(r.Value) != stampBytes {
		t.Errorf("%+v, %t", got, ok)
	}
	if _, ok := readStamp(r.Value, 8); ok {
		t.Error("recognised another run's record")
	}
	if _, ok := readStamp(r.Value[:stampBytes-1], 7); ok {
		t.Error("recognised a short value")
	}
}

func TestArrivals(t *testing.T) {
	t.Parallel()
	a := newArrivals(7, window{from: 100, until: 200})
	m := newMaker(plainShape(100), 1, 0)
	for _, s := range []stamp{
		{7, 0, 50}, {7, 1, 100}, {7, 200, 150}, {7, 1, 100}, {8, 2, 100}, {7, -1, 100}, {7, 3, 200},
	} {
		a.add(m.stamped(m.next(), s).Value, 1000)
	}
	a.add([]byte("somebody else's"), 1000)
	if a.distinct != 4 || a.twice != 1 {
		t.Errorf("%d distinct, %d twice", a.distinct, a.twice)
	}
	if l := summary(a.latency.latency); l.Count != 2 || l.Max < 900 || l.Max > 901 {
		t.Errorf("%+v", l)
	}
}

func TestSummary(t *testing.T) {
	t.Parallel()
	a, b := newHistogram(), newHistogram()
	for i := range 1000 {
		h := a
		if i%2 == 0 {
			h = b
		}
		record(h, time.Duration(i+1)*time.Millisecond)
	}
	l := summary(a, b)
	for _, c := range []struct{ got, want time.Duration }{
		{l.P50, 500 * time.Millisecond}, {l.P90, 900 * time.Millisecond}, {l.P99, 990 * time.Millisecond},
		{l.P999, 999 * time.Millisecond}, {l.Max, time.Second},
	} {
		if !near(c.got, c.want) {
			t.Errorf("%v, want %v", c.got, c.want)
		}
	}
	if l.Count != 1000 {
		t.Errorf("count %d", l.Count)
	}
	record(a, -time.Second)
	record(a, 100*maxLatency)
	if l := summary(a); l.Count != 502 || l.Max < maxLatency-maxLatency/500 {
		t.Errorf("%+v", l)
	}
	if l := summary(newHistogram()); l != (Latency{}) {
		t.Errorf("of nothing: %+v", l)
	}
}
