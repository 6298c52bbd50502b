package history

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// TestRecorderInVirtualTime runs concurrent clients against a little log and
// checks what they recorded.
func TestRecorderInVirtualTime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := NewRecorder(time.Now)
		var mu sync.Mutex
		var log []int64
		var clients sync.WaitGroup
		for process := range int32(4) {
			clients.Go(func() {
				for n := range int64(50) {
					op := r.Invoke(Op{Process: process, F: Send, Mops: []Mop{Values(key, int64(process)<<32|n)}})
					time.Sleep(time.Millisecond)
					mu.Lock()
					base := int64(len(log))
					log = append(log, op.Mops[0].Records[0].Value)
					mu.Unlock()
					time.Sleep(time.Millisecond)
					op.Mops = []Mop{op.Mops[0].At(base)}
					r.Complete(op, OK)
					_ = r.History()
				}
			})
		}
		clients.Wait()
		r.Complete(r.Invoke(Op{Process: 9, F: Assign, Mops: []Mop{{Key: key}}}), OK)
		time.Sleep(time.Second)
		op := r.Invoke(Op{Process: 9, F: Poll})
		op.Mops = []Mop{Values(key, log...).At(0)}
		r.Complete(op, OK)

		report := Check(r.History(), Options{Idempotent: true, Assigned: true, Final: true})
		if err := report.Err(); err != nil {
			t.Fatal(report)
		}
		if report.Events != 404 || report.Acked != 200 || report.Distinct != 200 {
			t.Errorf("%d events, %d acked, %d read", report.Events, report.Acked, report.Distinct)
		}
		if want := time.Second + 98*time.Millisecond; report.Lag.Max != want {
			t.Errorf("lag %v, want %v: from the first acknowledgement to the poll", report.Lag.Max, want)
		}
	})
}

func TestHistoryIsASnapshot(t *testing.T) {
	t.Parallel()
	r := NewRecorder(time.Now)
	r.Invoke(Op{F: Poll})
	r.Invoke(Op{F: Poll})
	op := r.Invoke(Op{F: Poll}) // the recorder has room for a fourth
	h := r.History()
	r.Complete(op, OK)
	_ = append(h, Op{F: Crash})
	if got := r.History(); len(h) != 3 || len(got) != 4 || got[3].F != Poll {
		t.Errorf("snapshot has %d events, history %v", len(h), got)
	}
}

func TestCompleteRefusesInvoke(t *testing.T) {
	t.Parallel()
	defer func() {
		if recover() == nil {
			t.Error("no panic")
		}
	}()
	NewRecorder(time.Now).Complete(Op{}, Invoke)
}
