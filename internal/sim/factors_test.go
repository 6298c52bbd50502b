package sim

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

const factorPartitions = 6

// TestFactors: topics of each replication factor are written and read by Kafka
// clients that know one node each, whichever that is, before and after all nodes
// have lost their power. When a node is away for long, all say which replicas are
// offline; a topic with a majority of replicas is written to, and all are when it is
// back.
func TestFactors(t *testing.T) {
	t.Parallel()
	problems, tr, _ := runFleet(t, 1, func(fl *fleet) {
		all, ok := fl.muster()
		if !ok {
			return
		}
		for factor := int16(1); factor <= fleetNodes; factor++ {
			fl.createFactor(all[0], factor)
		}
		time.Sleep(settle)
		var written int64
		produce := func(when string, factors ...int16) {
			for _, m := range fl.members {
				if m.node == nil {
					continue
				}
				for _, factor := range factors {
					for p := range int32(factorPartitions) {
						fl.produceFactor(when, m, factor, p, written)
					}
				}
				written++
			}
		}
		produce("at first", 1, 2, 3)
		for _, m := range fl.members {
			fl.cut(m)
		}
		if !fl.startAll() {
			return
		}
		time.Sleep(settle)
		produce("after all lost their power", 1, 2, 3)
		away := all[2]
		fl.cut(away)
		time.Sleep(15 * time.Second) // its session is over
		produced := written
		for _, m := range all[:2] {
			fl.saysOffline(m, away.id)
		}
		for _, m := range all[:2] {
			for p := range int32(factorPartitions) {
				fl.produceFactor("with a node away", m, 3, p, produced)
			}
			produced++
		}
		if !fl.start(away) {
			return
		}
		time.Sleep(settle)
		for _, m := range fl.members {
			fl.saysOffline(m, 0)
		}
		produce("with all again", 1, 2)
		fl.healthy()
	})
	report(t, 1, problems, tr)
}

func factorTopic(factor int16) string { return fmt.Sprint("rf", factor) }

// createFactor has a node create a topic of a replication factor.
func (fl *fleet) createFactor(m *member, factor int16) {
	req := kmsg.NewPtrCreateTopicsRequest()
	rt := kmsg.NewCreateTopicsRequestTopic()
	rt.Topic, rt.NumPartitions, rt.ReplicationFactor = factorTopic(factor), factorPartitions, factor
	req.Topics, req.TimeoutMillis = append(req.Topics, rt), int32(kafkaTimeout.Milliseconds())
	resp, ok := ask[*kmsg.CreateTopicsResponse](fl, m, req)
	if !ok || len(resp.Topics) != 1 || resp.Topics[0].ErrorCode != 0 {
		fl.problem("topic of %d replicas: %+v", factor, resp)
	}
}

// produceFactor sends a record by way of a node, and wants it at an offset.
func (fl *fleet) produceFactor(when string, m *member, factor int16, partition int32, at int64) {
	c := fl.kafkaClient(m)
	defer c.Close()
	ctx, cancel := context.WithTimeout(context.Background(), kafkaTimeout)
	defer cancel()
	for {
		r, err := c.ProduceSync(ctx, &kgo.Record{Topic: factorTopic(factor), Partition: partition, Value: fmt.Append(nil, at)}).First()
		if kerr.IsRetriable(err) || errors.Is(err, kgo.ErrRecordRetries) {
			time.Sleep(100 * time.Millisecond)
			continue // nothing was appended: the leader had changed
		}
		if err != nil || r.Offset != at {
			fl.problem("%s, by node %d, %d replicas, partition %d: offset %d, %v, want %d", when, m.id, factor, partition, r.Offset, err, at)
		}
		return
	}
}

// saysOffline takes it for a problem if a node does not say that what is on node
// away is offline, and nothing else; 0: nothing is.
func (fl *fleet) saysOffline(m *member, away int32) {
	for factor := int16(1); factor <= fleetNodes; factor++ {
		name := factorTopic(factor)
		req := kmsg.NewPtrMetadataRequest()
		req.Topics = []kmsg.MetadataRequestTopic{{Topic: &name}}
		resp, ok := ask[*kmsg.MetadataResponse](fl, m, req)
		if !ok || len(resp.Topics) != 1 || len(resp.Topics[0].Partitions) != factorPartitions {
			fl.problem("node %d: topic %s: %+v", m.id, name, resp)
			return
		}
		if slices.ContainsFunc(resp.Brokers, func(b kmsg.MetadataResponseBroker) bool { return b.NodeID == away }) {
			fl.problem("node %d still sends clients to node %d", m.id, away)
		}
		for _, p := range resp.Topics[0].Partitions {
			var offline []int32
			if slices.Contains(p.Replicas, away) {
				offline = []int32{away}
			}
			lost := factor < 3 && offline != nil // no majority is left
			if !slices.Equal(p.OfflineReplicas, offline) || len(p.ISR)+len(offline) != int(factor) || !lost && p.Leader < 1 || factor == 1 && lost && p.Leader != -1 {
				fl.problem("node %d, with node %d away: %s[%d]: %+v", m.id, away, name, p.Partition, p)
			}
		}
	}
}
