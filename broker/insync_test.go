package broker

import (
	"strings"
	"testing"
	"time"

	"github.com/flotilla-log/flotilla/internal/errcode"
	"github.com/flotilla-log/flotilla/log/batch"
)

// TestInsyncByTime: of three replicas one is gone. A topic that wants all three
// takes records for as long as that replica counts as in sync, and no more then,
// though nothing was written meanwhile; one that wants two goes on. When it is back
// so are the records.
func TestInsyncByTime(t *testing.T) {
	const lag = 20 * time.Second
	inTunedTrio(t, func(o *Options) { o.ReplicaLag, o.SessionTimeout = lag, time.Hour }, func(t *testing.T, tr *trio) {
		three := tr.controller().create("three", 1, map[string]string{"min.insync.replicas": "3"})
		two := tr.controller().create("two", 4, map[string]string{"min.insync.replicas": "2"})
		tr.rest(5 * time.Second)
		leader := tr.leader(three, 0)
		write := func(when string, topic Topic, index int32, want errcode.Code) {
			t.Helper()
			var got errcode.Error
			if res := tr.leader(topic, index).produce(topic, index, records(t, batch.NoProducer, "x")); res.Err != nil {
				got = *res.Err
			}
			if got.Code != want || want != 0 && !strings.Contains(got.Detail, "2 of 3 replicas have had all records within 20s (replica.lag.time.max) and are not fenced") {
				t.Errorf("%s: %v, %s; want %v", when, got.Code, got.Detail, want)
			}
		}
		write("with three replicas", three, 0, 0)
		var gone *rig
		for _, r := range tr.rigs {
			if r != leader {
				gone = r
			}
		}
		tr.cutOff(gone, true)
		tr.rest(lag / 2)
		write("with a replica that is gone for a while", three, 0, 0)
		tr.rest(lag)
		write("with a replica that is gone for long", three, 0, errcode.NotEnoughReplicas)
		for index := range int32(4) {
			if p := gone.dir.find(two.ID, index); p != nil && p.epoch() < 0 {
				write("one that wants two", two, index, 0)
				break
			}
		}
		tr.cutOff(gone, false)
		tr.rest(30 * time.Second) // Raft tries again after ten seconds at most
		write("when it is back", three, 0, 0)
	})
}
