package killtest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/flotilla-log/flotilla/client"
	"github.com/flotilla-log/flotilla/internal/history"
)

const (
	waning           = "waning" // the topic that loses records, and stays
	waningPartitions = 2
	waningSegmentMS  = 200
	waningBytes      = 64 << 10 // that retention leaves
)

// retention is what the configs of the waning topic allow. One record may be all
// that is left, if it is a large one.
var retention = map[string]history.Retention{
	waning: {Age: -1, Records: waningBytes / (maxPayloadBytes + 128)},
}

func waningSpec() client.TopicSpec {
	spec := topicSpec(waning, waningPartitions)
	spec.Configs["retention.bytes"] = fmt.Sprint(waningBytes)
	spec.Configs["retention.ms"] = "-1"
	spec.Configs["segment.ms"] = fmt.Sprint(waningSegmentMS)
	return spec
}

// feed sends to the waning topic. Every record must get through.
func (l *load) feed(process int32, p *client.Producer) {
	chance := l.chance(process)
	for n := int64(0); l.pace(chance, 20*time.Millisecond); n++ {
		key := history.Key{Topic: waning, Partition: chance.Int32N(waningPartitions)}
		l.mustSend(process, p, key, n)
	}
}

// diminish deletes records of the waning topic, or asks where it starts.
func (l *load) diminish(process int32, a *client.Admin) {
	for chance := l.chance(process); l.pace(chance, 100*time.Millisecond); {
		if !l.gate.enter(l.ctx) {
			return
		}
		if chance.IntN(2) == 0 {
			_ = l.logStarts(l.ctx, process, a)
		} else {
			l.deleteRecords(process, a, chance)
		}
		l.gate.leave()
	}
}

func (l *load) deleteRecords(process int32, a *client.Admin, chance *rand.Rand) {
	key := history.Key{Topic: waning, Partition: chance.Int32N(waningPartitions)}
	ends, err := a.Offsets(l.ctx, waning, client.Latest)
	if err != nil {
		return // it takes a server
	}
	before := max(0, ends[key.Partition]-chance.Int64N(20))
	op := l.rec.Invoke(history.Op{Process: process, F: history.DeleteRecords, Mops: []history.Mop{{Key: key, From: before}}})
	starts, err := a.DeleteRecords(l.ctx, waning, map[int32]int64{key.Partition: before})
	if err != nil {
		op.Err = err.Error()
		l.rec.Complete(op, history.Info)
		return
	}
	op.Mops = []history.Mop{{Key: key, From: starts[key.Partition]}}
	l.rec.Complete(op, history.OK)
}

// logStarts asks where the partitions of the waning topic start.
func (l *load) logStarts(ctx context.Context, process int32, a *client.Admin) error {
	op := l.rec.Invoke(history.Op{Process: process, F: history.LogStarts})
	starts, err := a.Offsets(ctx, waning, client.Earliest)
	if err != nil {
		op.Err = err.Error()
		l.rec.Complete(op, history.Fail)
		return err
	}
	for i, start := range starts {
		op.Mops = append(op.Mops, history.Mop{Key: history.Key{Topic: waning, Partition: int32(i)}, From: start})
	}
	l.rec.Complete(op, history.OK)
	return nil
}
