package history

import (
	"errors"
	"math/rand/v2"
	"testing"
	"time"
)

// topicRun plays clients of a correct registry of one topic: each call takes
// effect at one moment between its two events, or, if its outcome is unknown,
// at any moment later or never.
func topicRun(seed uint64, calls int) History {
	type call struct {
		op      Op
		applied bool
		done    bool
	}
	rng := rand.New(rand.NewPCG(seed, 0x70f1c))
	r := NewRecorder(func() time.Time { return time.Time{} })
	exists := false
	apply := func(c *call) {
		c.applied = true
		was := exists
		switch c.op.F {
		case CreateTopic:
			exists, c.done = true, !was
		case DeleteTopic:
			exists, c.done = false, was
		}
		if c.op.Saw = Absent; was {
			c.op.Saw = Present
		}
	}
	var open, late []*call
	for calls > 0 || len(open) > 0 {
		switch n := rng.IntN(10); {
		case n < 4 && calls > 0 && len(open) < 4:
			calls--
			f := []F{CreateTopic, DeleteTopic, DescribeTopic}[rng.IntN(3)]
			open = append(open, &call{op: r.Invoke(Op{Process: int32(calls), F: f, Topic: "orders"})})
		case n < 5 && len(late) > 0:
			apply(late[0])
			late = late[1:]
		case len(open) > 0:
			i := rng.IntN(len(open))
			c := open[i]
			switch {
			case !c.applied && rng.IntN(10) > 0:
				apply(c)
				continue
			case !c.applied && rng.IntN(2) == 0:
				r.Complete(c.op, Fail) // refused unseen
			case !c.applied && len(late) == 0:
				late = append(late, c)
				r.Complete(c.op, Info)
			case !c.applied:
				continue
			case c.done:
				c.op.Saw = Unsaid
				r.Complete(c.op, OK)
			case c.op.F == DescribeTopic:
				r.Complete(c.op, OK)
			default:
				r.Complete(c.op, Fail)
			}
			open = append(open[:i], open[i+1:]...)
		}
	}
	return r.History()
}

func TestCheckTopics(t *testing.T) {
	t.Parallel()
	for seed := range uint64(300) {
		if err := CheckTopics(topicRun(seed, 30), time.Minute); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
	}
}

// TestCheckTopicsFindsLies appends, to correct runs, a client that is alone and
// is told two things that cannot both be true.
func TestCheckTopicsFindsLies(t *testing.T) {
	t.Parallel()
	lies := map[string][]Op{
		"created twice":              {{F: CreateTopic, Type: OK}, {F: CreateTopic, Type: OK}},
		"deleted twice":              {{F: DeleteTopic, Type: OK}, {F: DeleteTopic, Type: OK}},
		"created, then absent":       {{F: CreateTopic, Type: OK}, {F: DescribeTopic, Type: OK, Saw: Absent}},
		"deleted, then present":      {{F: DeleteTopic, Type: OK}, {F: DescribeTopic, Type: OK, Saw: Present}},
		"refused as known, absent":   {{F: CreateTopic, Type: Fail, Saw: Present}, {F: DescribeTopic, Type: OK, Saw: Absent}},
		"refused as unknown, exists": {{F: DeleteTopic, Type: Fail, Saw: Absent}, {F: DescribeTopic, Type: OK, Saw: Present}},
	}
	for name, lie := range lies {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			found := 0
			for seed := range uint64(50) {
				h := topicRun(seed, 12)
				for _, op := range h {
					if op.Type == Info { // it could explain the lie
						h = nil
						break
					}
				}
				if h == nil {
					continue
				}
				for n, op := range lie {
					op.Topic, op.ID = "orders", int64(1000+n)
					answer := op
					op.Type, op.Saw = Invoke, Unsaid
					h = append(h, op, answer)
				}
				found++
				if err := CheckTopics(h, time.Minute); !errors.Is(err, ErrNotLinearizable) {
					t.Fatalf("seed %d: %v", seed, err)
				}
			}
			if found < 5 {
				t.Errorf("only %d runs", found)
			}
		})
	}
}

func TestCheckTopicsLetsUnknownPass(t *testing.T) {
	t.Parallel()
	tests := map[string][]Op{
		"a create that was late":      {{F: CreateTopic, Type: Info}, {F: DescribeTopic, Type: OK, Saw: Absent}, {F: DescribeTopic, Type: OK, Saw: Present}},
		"a delete that never was":     {{F: CreateTopic, Type: OK}, {F: DeleteTopic, Type: Info}, {F: DescribeTopic, Type: OK, Saw: Present}},
		"an answer that says nothing": {{F: CreateTopic, Type: OK}, {F: CreateTopic, Type: Fail}, {F: DescribeTopic, Type: Fail}},
		"a created topic described":   {{F: CreateTopic, Type: OK, Saw: Present}, {F: DeleteTopic, Type: OK}},
	}
	for name, ops := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var h History
			for n, op := range ops {
				op.ID = int64(n)
				answer := op
				op.Type, op.Saw = Invoke, Unsaid
				h = append(h, op, answer)
			}
			if err := CheckTopics(h, time.Minute); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestCheckTopicsGivesUp overlaps so many creates that no order can be ruled
// out in time.
func TestCheckTopicsGivesUp(t *testing.T) {
	t.Parallel()
	var h History
	for id := range int64(40) {
		h = append(h, Op{ID: id, F: CreateTopic + F(id%2), Type: Invoke})
	}
	h = append(h, Op{ID: 99, F: DescribeTopic, Type: Invoke}, Op{ID: 99, F: DescribeTopic, Type: OK, Saw: Present})
	for id := range int64(40) {
		h = append(h, Op{ID: id, F: CreateTopic + F(id%2), Type: OK})
	}
	h = append(h, Op{ID: 98, F: CreateTopic, Type: Invoke}, Op{ID: 98, F: CreateTopic, Type: OK}, Op{ID: 97, F: CreateTopic, Type: Invoke}, Op{ID: 97, F: CreateTopic, Type: OK})
	if err := CheckTopics(h, 20*time.Millisecond); !errors.Is(err, ErrUndecided) {
		t.Errorf("CheckTopics = %v, want ErrUndecided", err)
	}
}
