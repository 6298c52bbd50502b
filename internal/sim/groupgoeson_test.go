package sim

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/flotilla-log/flotilla/internal/history"
)

// TestGroupGoesOn: while members come, leave and die, who keeps a partition is given its
// records as before, in both protocols: nothing of it stands still for longer than a
// fetch may take.
func TestGroupGoesOn(t *testing.T) {
	t.Parallel()
	for name, kind := range map[string]memberKind{"native": native, "classic": kafkaClassic, "KIP-848": kafka848} {
		if kind == nil {
			continue
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const (
				every = 50 * time.Millisecond  // a record of each partition
				most  = 200 * time.Millisecond // between two polls that give some
			)
			var stays int32
			problems, tr, _ := runFleet(t, 1, func(fl *fleet) {
				fl.groups = groupSettings()
				stays = fl.goOn(kind, every)
			})
			kept, longest := 0, time.Duration(0)
			for key, gap := range gaps(tr.history, stays) {
				kept++
				if longest = max(longest, gap); gap > most {
					problems = append(problems, fmt.Sprintf("%s[%d] stood still for %v", key.Topic, key.Partition, gap))
				}
			}
			if kept == 0 {
				problems = append(problems, "the first member has kept nothing")
			}
			t.Logf("%d partitions never moved; the longest that one stood still is %v", kept, longest)
			report(t, 1, problems, tr)
		})
	}
}

// goOn has a member consume while others come and go, and returns its process.
func (fl *fleet) goOn(kind memberKind, every time.Duration) int32 {
	const topic, partitions = "stays0", 6
	if _, ok := fl.muster(); !ok || !fl.createTopics([]string{topic}, partitions) {
		return 0
	}
	work := func(f func(p *person)) *person {
		p := fl.hire()
		fl.clients.Go(func() { f(p) })
		return p
	}
	work(func(p *person) {
		defer p.leave()
		pr := p.producer(load{timeout: time.Minute})
		defer pr.Close(context.Background())
		for fl.stopping.Err() == nil {
			for part := range int32(partitions) {
				p.send(pr, history.Key{Topic: topic, Partition: part}, 10)
			}
			time.Sleep(every)
		}
	})
	member := func(lasts time.Duration, end func(l *life)) *person {
		return work(func(p *person) {
			l := p.join("g", kind, []string{topic})
			l.late = true
			for until := time.Now().Add(lasts); time.Now().Before(until) && fl.stopping.Err() == nil; {
				l.poll(100 * time.Millisecond)
			}
			end(l)
		})
	}
	first := member(time.Hour, (*life).leave)
	time.Sleep(5 * time.Second)
	member(5*time.Second, (*life).leave)
	time.Sleep(10 * time.Second)
	member(5*time.Second, (*life).die)
	member(20*time.Second, (*life).leave)
	time.Sleep(25 * time.Second)
	fl.stop()
	fl.clients.Wait()
	return first.process
}

// gaps returns the partitions that a process had without a break from its first
// assignment to its end, and the longest time between two polls that gave it some.
func gaps(h history.History, process int32) map[history.Key]time.Duration {
	last, longest := make(map[history.Key]time.Duration), make(map[history.Key]time.Duration)
	gone := make(map[history.Key]bool)
	ended := h[len(h)-1].At
	for i := range h {
		op := &h[i]
		if op.Process != process {
			continue
		}
		for _, m := range op.Mops {
			switch {
			case op.F == history.Revoked && len(op.Mops) < len(last), op.F == history.Lost: // with all, it leaves
				gone[m.Key] = true
			case op.F == history.Poll && op.Type == history.OK:
				if at, ok := last[m.Key]; ok {
					longest[m.Key] = max(longest[m.Key], op.At-at)
				}
				last[m.Key] = op.At
			}
		}
	}
	for key := range longest {
		if gone[key] || last[key] < ended/2 {
			delete(longest, key)
		}
	}
	return longest
}
