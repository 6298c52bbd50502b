package bench

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/flotilla-log/flotilla/client"
)

// fakeSink answers each record after service, one at a time if serial. It runs
// in a bubble.
type fakeSink struct {
	service time.Duration
	serial  bool
	stall   window // nothing is answered in it
	fail    func(n int64) error
	refuse  func(n int64) error // Send's own error

	start time.Time
	n     int64 // calls of Send
	mu    sync.Mutex
	free  time.Time // when the server is done with what came so far
	group sync.WaitGroup
}

func newFakeSink(service time.Duration) *fakeSink {
	return &fakeSink{service: service, start: time.Now()}
}

func (f *fakeSink) Send(_ context.Context, _ client.Record, done func(client.RecordResult)) error {
	f.n++
	n := f.n
	if f.refuse != nil {
		if err := f.refuse(n); err != nil {
			return err
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	at := time.Now()
	if f.serial && f.free.After(at) {
		at = f.free
	}
	at = at.Add(f.service)
	if f.stall.holds(at.Sub(f.start)) {
		at = f.start.Add(f.stall.until)
	}
	f.free = at
	f.group.Go(func() {
		time.Sleep(time.Until(at))
		var err error
		if f.fail != nil {
			err = f.fail(n)
		}
		f.mu.Lock()
		defer f.mu.Unlock()
		done(client.RecordResult{Err: err})
	})
	return nil
}

func (f *fakeSink) Flush(context.Context) error {
	f.group.Wait()
	return nil
}

func plainShape(bytes int) Shape {
	return Shape{ValueBytes: bytes, Values: ValuesRandom, Keys: KeysNone}
}

func TestClosedLoop(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const service = 7 * time.Millisecond // so that nothing is answered just when a second is full
		sinks := []Sink{newFakeSink(service), newFakeSink(service)}
		samples := 0
		var lines []Progress
		res, err := Load{
			Shape: plainShape(100), Warmup: 1500 * time.Millisecond, Duration: 4 * time.Second, InFlight: 6,
		}.Run(t.Context(), Watch{
			Now:      time.Now,
			Sample:   func() (Sample, error) { samples++; return Sample{Busy: time.Duration(samples)}, nil },
			Progress: func(p Progress) { lines = append(lines, p) },
		}, sinks)
		if err != nil {
			t.Fatal(err)
		}
		// 6 records at every multiple of 7 ms in [1.5 s, 5.5 s).
		if res.Records != 3426 || res.Bytes != 342_600 || res.Window != 4*time.Second || res.Failed != 0 {
			t.Errorf("%+v", res)
		}
		if res.Answered != 4716 {
			t.Errorf("answered %d, want 4716: the warm-up too", res.Answered)
		}
		if l := res.Latency; l.Count != 3426 || !near(l.P50, service) || !near(l.Max, service) {
			t.Errorf("latency %+v", l)
		}
		if res.Lateness.Count != 0 {
			t.Errorf("a closed loop is never late: %+v", res.Lateness)
		}
		if res.Begin.Busy != 1 || res.End.Busy != 2 {
			t.Errorf("samples %+v, %+v", res.Begin, res.End)
		}
		if len(lines) != 5 {
			t.Fatalf("%d lines of progress in 5.5 s", len(lines))
		}
		for i, p := range lines {
			if p.Interval != time.Second || p.Records < 850 || p.Records > 864 || p.InFlight != 6 || p.Latency.Count != p.Records {
				t.Errorf("line %d: %+v", i, p)
			}
		}
		if lines[0].Phase != PhaseWarmup || lines[1].Phase != PhaseMeasured {
			t.Errorf("phases %q, %q", lines[0].Phase, lines[1].Phase)
		}
	})
}

// near reports whether a histogram's d is want.
func near(d, want time.Duration) bool { return d >= want && d <= want+want/500 }

// TestOpenLoopCountsFromDueTime stops the server for a second: what falls due
// in it is late, all of it, and by as much as it waited.
func TestOpenLoopCountsFromDueTime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		sink := newFakeSink(time.Millisecond)
		sink.stall = window{2 * time.Second, 3 * time.Second}
		res, err := Load{
			Shape: plainShape(10), Duration: 10 * time.Second, Rate: 1000,
		}.Run(t.Context(), Watch{Now: time.Now}, []Sink{sink})
		if err != nil {
			t.Fatal(err)
		}
		l := res.Latency
		// A tenth of the records waits, evenly from 0 to 1 s.
		if l.Count != 10_000 || !near(l.P50, time.Millisecond) || l.P99 < 890*time.Millisecond || l.P99 > 910*time.Millisecond ||
			l.P999 < 985*time.Millisecond || l.Max < 995*time.Millisecond {
			t.Errorf("%+v", l)
		}
		if res.Lateness.Count != 10_000 || res.Lateness.Max != 0 {
			t.Errorf("the load was late: %+v", res.Lateness)
		}
	})
}

// TestOpenLoopSendBlocks lets Send itself wait, as a producer does whose buffer
// is full: latencies count from the due time all the same.
func TestOpenLoopSendBlocks(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		sink := newFakeSink(time.Millisecond)
		sink.refuse = func(n int64) error {
			if n == 1000 {
				time.Sleep(time.Second)
			}
			return nil
		}
		res, err := Load{
			Shape: plainShape(10), Duration: 10 * time.Second, Rate: 1000,
		}.Run(t.Context(), Watch{Now: time.Now}, []Sink{sink})
		if err != nil {
			t.Fatal(err)
		}
		if l := res.Latency; l.Count != 10_000 || l.Max < time.Second || l.P99 < 890*time.Millisecond {
			t.Errorf("latency %+v", l)
		}
		if l := res.Lateness; l.Max < 990*time.Millisecond || l.P50 != 0 {
			t.Errorf("lateness %+v", l)
		}
	})
}

func TestLoadOfSomeRecords(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a, b := newFakeSink(10*time.Millisecond), newFakeSink(30*time.Millisecond)
		res, err := Load{
			Shape: plainShape(10), Warmup: 300 * time.Millisecond, Records: 101, InFlight: 2,
		}.Run(t.Context(), Watch{Now: time.Now}, []Sink{a, b})
		if err != nil {
			t.Fatal(err)
		}
		if res.Latency.Count != 101 {
			t.Errorf("%d records were measured", res.Latency.Count)
		}
		// 4 in 30 ms, so 101 take three quarters of a second.
		if res.Window < 750*time.Millisecond || res.Window > 800*time.Millisecond {
			t.Errorf("window %s", res.Window)
		}
		if want := int64(40 + 101); res.Answered != want || a.n+b.n != want {
			t.Errorf("answered %d of %d, want %d", res.Answered, a.n+b.n, want)
		}
	})
}

func TestLoadFailures(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		bad := errors.New("bad record")
		sink := newFakeSink(time.Millisecond)
		sink.fail = func(n int64) error {
			if n%10 == 0 {
				return bad
			}
			return nil
		}
		res, err := Load{Shape: plainShape(10), Records: 100, InFlight: 1}.Run(t.Context(), Watch{Now: time.Now}, []Sink{sink})
		if err != nil || res.Failed != 10 || res.FirstErr != bad || res.Records != 90 || res.Latency.Count != 90 {
			t.Errorf("%+v, %v", res, err)
		}
	})
}

// TestLoadEnds ends loads early, whatever they are doing.
func TestLoadEnds(t *testing.T) {
	t.Parallel()
	broken := errors.New("broken")
	refusing := func(n int64) error {
		if n == 5 {
			return broken
		}
		return nil
	}
	closed := Load{Shape: plainShape(10), Duration: time.Hour, InFlight: 2}
	open := Load{Shape: plainShape(10), Duration: time.Hour, Rate: 0.001}
	tests := []struct {
		name   string
		load   Load
		refuse func(int64) error
		sample func() (Sample, error)
		cancel bool
		want   error
	}{
		{name: "a sink that takes no more", load: closed, refuse: refusing, want: broken},
		{name: "interrupted closed loop", load: closed, cancel: true, want: context.Canceled},
		{name: "interrupted open loop", load: open, cancel: true, want: context.Canceled},
		{name: "a sample that fails", load: closed, sample: func() (Sample, error) { return Sample{}, broken }, want: broken},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				if tt.cancel {
					time.AfterFunc(time.Second, cancel)
				}
				sink := newFakeSink(time.Millisecond)
				sink.refuse = tt.refuse
				_, err := tt.load.Run(ctx, Watch{Now: time.Now, Sample: tt.sample, Progress: func(Progress) {}}, []Sink{sink})
				if !errors.Is(err, tt.want) {
					t.Errorf("%v, want %v", err, tt.want)
				}
				if took := time.Since(sink.start); took > time.Minute {
					t.Errorf("took %s", took)
				}
				sink.group.Wait()
			})
		})
	}
}

func TestLoadCheck(t *testing.T) {
	t.Parallel()
	good := Load{Shape: plainShape(100), Records: 1, InFlight: 1}
	if err := good.Check(1); err != nil {
		t.Fatal(err)
	}
	tests := map[string]func(*Load){
		"values":             func(l *Load) { l.Values = "x" },
		"keys":               func(l *Load) { l.Keys = "x" },
		"no keys":            func(l *Load) { l.Keys = KeysZipf },
		"no partitions":      func(l *Load) { l.Keys = KeysEven },
		"negative size":      func(l *Load) { l.ValueBytes = -1 },
		"large values":       func(l *Load) { l.ValueBytes = poolBytes },
		"negative warm-up":   func(l *Load) { l.Warmup = -1 },
		"negative rate":      func(l *Load) { l.Rate = -1 },
		"no end":             func(l *Load) { l.Records = 0 },
		"two ends":           func(l *Load) { l.Duration = 1 },
		"nothing in flight":  func(l *Load) { l.InFlight = 0 },
		"no room for a mark": func(l *Load) { l.Mark, l.ValueBytes = 1, stampBytes-1 },
	}
	for name, spoil := range tests {
		l := good
		spoil(&l)
		if _, err := l.Run(t.Context(), Watch{Now: time.Now}, []Sink{new(fakeSink)}); err == nil {
			t.Errorf("%s: ran", name)
		}
	}
	if err := good.Check(0); err == nil {
		t.Error("no sink: ran")
	}
}
