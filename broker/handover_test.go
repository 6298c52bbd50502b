package broker

import (
	"context"
	"testing"
	"time"

	"github.com/flotilla-log/flotilla/internal/errcode"
	"github.com/flotilla-log/flotilla/log/batch"
)

// TestRefusalsNameTheLeader: who is refused because another node has taken the lead is
// told when it is known which one, whatever was asked.
func TestRefusalsNameTheLeader(t *testing.T) {
	inTrio(t, func(t *testing.T, tr *trio) {
		topic := tr.controller().create("t", 1, nil)
		tr.rest(time.Second)
		asks := []struct {
			name string
			ask  func(r *rig, done func(code errcode.Code))
		}{
			{"a produce", func(r *rig, done func(errcode.Code)) {
				part := ProducePart{Topic: topic.ID, Batch: records(t, batch.Producer{ID: -1}, "a")}
				r.Produce([]ProducePart{part}, time.Minute, func(res []ProduceResult) { done(errcode.Of(asError(res[0].Err))) })
			}},
			{"a fetch", func(r *rig, done func(errcode.Code)) {
				req := FetchRequest{MinBytes: 1, MaxBytes: 1 << 20, Parts: []FetchPart{{Topic: topic.ID, MaxBytes: 1 << 20, Epoch: -1}}}
				r.Fetch(req, func(res []FetchResult) {
					done(errcode.Of(asError(res[0].Err)))
					releaseAll(res)
				})
			}},
			{"a stream", func(r *rig, done func(errcode.Code)) {
				next := r.follow(topic)
				go func() { done(errcode.Of(asError(next()))) }()
			}},
		}
		for _, a := range asks {
			was := tr.leader(topic, 0)
			shard := was.dir.find(topic.ID, 0).shard.id
			tr.cutOff(was, true)
			for began := time.Now(); ; tr.rest(time.Millisecond) {
				_, _, known := was.shardLeaderOf(shard)
				if _, led := tr.leads(was)[shard]; led && !known {
					break
				}
				if time.Since(began) > time.Minute {
					t.Fatal("nobody else leads the shard")
				}
			}
			type answer struct {
				code  errcode.Code
				named bool
			}
			answers := make(chan answer, 1)
			a.ask(was, func(code errcode.Code) {
				node, _, known := was.shardLeaderOf(shard)
				answers <- answer{code, known && node != was.NodeID()}
			})
			tr.rest(10 * time.Millisecond)
			if len(answers) > 0 {
				t.Errorf("%s: answered before it is known who leads", a.name)
			}
			tr.cutOff(was, false)
			if got := <-answers; got.code != errcode.NotLeaderOrFollower || !got.named {
				t.Errorf("%s: %v, with a leader that is known: %t", a.name, got.code, got.named)
			}
			tr.rest(20 * time.Second)
		}
	})
}

// follow opens a stream of a topic's first partition. What it returns waits for the
// stream's first result, and closes it.
func (r *rig) follow(topic Topic) (next func() *errcode.Error) {
	ready := make(chan struct{}, 100)
	s := r.NewStream(func() { ready <- struct{}{} })
	r.change(s, StreamChange{Set: []StreamPart{{Topic: topic.ID, Epoch: -1, Generation: 1}}})
	return func() *errcode.Error {
		defer s.Close()
		for {
			if results, _ := s.Next(1<<20, 1<<20); len(results) > 0 {
				results[0].Release()
				return results[0].Err
			}
			<-ready
		}
	}
}

// TestReadsAwaitOpening: who reads from a leader that was elected and does not serve yet
// is answered once it does.
func TestReadsAwaitOpening(t *testing.T) {
	for _, a := range []struct {
		name string
		ask  func(r *rig, topic Topic) *errcode.Error
	}{
		{"a fetch", func(r *rig, topic Topic) *errcode.Error {
			req := FetchRequest{MinBytes: 1, MaxBytes: 1 << 20, Parts: []FetchPart{{Topic: topic.ID, MaxBytes: 1 << 20, Epoch: -1}}}
			res := r.fetch(req)
			defer releaseAll(res)
			return res[0].Err
		}},
		{"offsets", func(r *rig, topic Topic) *errcode.Error {
			return r.Offsets(r.t.Context(), []OffsetPart{{Topic: topic.ID, Epoch: -1, At: OffsetLatest}})[0].Err
		}},
		{"the end of an epoch", func(r *rig, topic Topic) *errcode.Error {
			return r.EpochEnds(r.t.Context(), []EpochPart{{Topic: topic.ID, Current: -1}})[0].Err
		}},
		{"a stream", func(r *rig, topic Topic) *errcode.Error { return r.follow(topic)() }},
	} {
		inTrio(t, func(t *testing.T, tr *trio) {
			topic := tr.controller().create("t", 1, nil)
			tr.rest(time.Second)
			tr.leader(topic, 0).put(topic, 0, "a")
			leader := tr.elected(topic, 50*time.Millisecond)
			if err := a.ask(leader, topic); err != nil {
				t.Errorf("%s of a leader that opens its term: %v", a.name, err)
			}
			if leader.dir.find(topic.ID, 0).shard.replica.Opening() != nil {
				t.Errorf("%s was answered before the leader serves", a.name)
			}
		})
	}
}

// TestHandoverInVain: a leader that does not come is waited for handoverPatience, not by
// who has no time for that, and not a second time in the same term.
func TestHandoverInVain(t *testing.T) {
	inTrio(t, func(t *testing.T, tr *trio) {
		topic := tr.controller().create("t", 1, nil)
		tr.rest(time.Second)
		alone := tr.leader(topic, 0)
		for range 2 { // another term is another one
			if leader := tr.leader(topic, 0); leader != alone {
				leader.transfer(topic, 0, alone)
				tr.rest(time.Second)
			}
			shard := alone.dir.find(topic.ID, 0).shard.id
			tr.cutOff(alone, true)
			for {
				if _, _, known := alone.shardLeaderOf(shard); !known {
					break
				}
				tr.rest(time.Millisecond)
			}
			took := func(timeout time.Duration) time.Duration {
				began := time.Now()
				part := ProducePart{Topic: topic.ID, Batch: records(t, batch.Producer{ID: -1}, "a")}
				if res := alone.produceParts(timeout, part); errcode.Of(asError(res[0].Err)) != errcode.NotLeaderOrFollower {
					t.Errorf("a produce to a node that is cut off: %v", res[0].Err)
				}
				return time.Since(began)
			}
			if got := took(handoverPatience / 2); got != 0 {
				t.Errorf("a produce of half a second was refused after %v, want at once", got)
			}
			if got := took(time.Minute); got == 0 || got > handoverPatience {
				t.Errorf("refused after %v, want up to %v", got, handoverPatience)
			}
			if got := took(time.Minute); got != 0 {
				t.Errorf("refused again after %v, want at once", got)
			}
			tr.cutOff(alone, false)
			tr.rest(20 * time.Second)
		}
	})
}

// TestHandoverEndsWithTheBroker: a broker that stops keeps nobody waiting.
func TestHandoverEndsWithTheBroker(t *testing.T) {
	inTrio(t, func(t *testing.T, tr *trio) {
		topic := tr.controller().create("t", 1, nil)
		tr.rest(time.Second)
		alone := tr.leader(topic, 0)
		s := alone.dir.find(topic.ID, 0).shard
		tr.cutOff(alone, true)
		var over context.Context
		for ; over == nil; tr.rest(time.Millisecond) {
			over = alone.handover(s)
		}
		began := time.Now()
		alone.Broker.stop()
		<-over.Done()
		if took := time.Since(began); took > 10*time.Millisecond {
			t.Errorf("a broker that stops keeps who waits for a leader for %v", took)
		}
		if alone.handover(s) != nil {
			t.Error("a broker that has stopped has somebody wait for a leader")
		}
	})
}
