package main

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/flotilla-log/flotilla/client"
)

// sink answers each record after a time, or, while it is down, once it is up.
type sink struct {
	after time.Duration
	down  chan struct{} // closed when it is up again; nil: it is up
	err   error
}

func (s *sink) Send(ctx context.Context, _ client.Record, done func(client.RecordResult)) error {
	go func() {
		if s.down != nil {
			<-s.down
		}
		time.Sleep(s.after)
		done(client.RecordResult{Err: s.err})
	}()
	return ctx.Err()
}

func (s *sink) Flush(context.Context) error { return nil }

// TestWriter: a fault's wait ends with the first acknowledged record that was due
// since, not with one that was under way.
func TestWriter(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const late = 400 * time.Millisecond
		s := &sink{after: late}
		w := &writer{name: "w", partitions: 2, every: 100 * time.Millisecond, now: time.Now}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- w.run(ctx, s) }()

		time.Sleep(time.Second + 50*time.Millisecond) // records are under way
		f := w.expect()
		<-f.done
		// Due 50 and 150 ms after it, and as late as all.
		for p, want := range map[int]time.Duration{0: 50*time.Millisecond + late, 1: 150*time.Millisecond + late} {
			if f.waits[p] != want {
				t.Errorf("partition %d waited %v, want %v", p, f.waits[p], want)
			}
		}

		w.pause(true)
		time.Sleep(time.Second)
		before, failed, _ := w.counts()
		time.Sleep(time.Second)
		if after, _, _ := w.counts(); after != before || failed != 0 {
			t.Errorf("%d records while it pauses, %d failed", after-before, failed)
		}

		s.err = errors.New("no luck")
		w.pause(false)
		f = w.expect()
		time.Sleep(time.Second)
		synctest.Wait()
		select {
		case <-f.done:
			t.Error("records that failed count as acknowledged")
		default:
		}
		if _, failed, first := w.counts(); failed == 0 || first != s.err {
			t.Errorf("%d failed, the first with %v", failed, first)
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		time.Sleep(late) // for what is under way
	})
}

func TestReport(t *testing.T) {
	t.Parallel()
	ms := time.Millisecond
	leaders := []int32{1, 2, 1, 3}
	r := &report{Crowd: &crowdResult{Partitions: 10, CreateSeconds: 1.5, IdleSeconds: 60, IdleCores: 0.02},
		CatchUp: &catchUpResult{MissedBytes: 3e6, BeforeMB: 10, DuringMB: 7, Seconds: 2.5}}
	for i, worst := range []time.Duration{300, 100, 900} {
		r.Rounds = append(r.Rounds, newRound("kill", "c", 1, []time.Duration{10 * ms, 50 * ms, worst * ms, time.Duration(i) * ms}, leaders))
	}
	if got := r.Rounds[0]; got != (round{Fault: "kill", Client: "c", Node: 1, Led: 2, WorstMS: 300, OthersMS: 50}) {
		t.Errorf("%+v", got)
	}
	r.note("c", 5, 0, nil)
	r.note("c", 10, 1, errors.New("no luck"))
	var text strings.Builder
	if err := r.table(&text); err != nil {
		t.Fatal(err)
	}
	got := strings.Join(strings.Fields(text.String()), " ")
	for _, want := range []string{
		"kill c 3 300 900 900 50", "c: 10 records acknowledged, 1 failed, the first one with: no luck",
		"10 partitions: created in 1.5 s, 2.0 % of a core", "2.5 s; producer 10.0 MB/s before, 0.0 without the node, 7.0 meanwhile (70 %)",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, text.String())
		}
	}
	if strings.Contains(got, "c: 5 records") {
		t.Error("counts of before are still there")
	}
}

func TestParse(t *testing.T) {
	t.Parallel()
	if o, err := parse(nil, io.Discard); err != nil || o.kills != 30 || o.stops != 10 || !o.catchUp {
		t.Errorf("%+v, %v", o, err)
	}
	for _, args := range [][]string{{"more"}, {"-kills", "-1"}, {"-partitions", "2"}, {"-rate", "0"}, {"-journal", "0"}, {"-quiet", "-1s"}, {"-nonsense"}} {
		if o, err := parse(args, io.Discard); err == nil {
			t.Errorf("%q: %+v", args, o)
		}
	}
}
