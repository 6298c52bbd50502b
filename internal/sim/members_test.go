package sim

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/flotilla-log/flotilla/internal/errcode"
)

// TestMembers: every node says by itself where its clients connect and where it
// stands, and the others learn it when it comes back with another address, though
// the leader of the metadata was another one each time. Each node gives producer
// ids that no other gives.
func TestMembers(t *testing.T) {
	t.Parallel()
	problems, tr, _ := runFleet(t, 1, func(fl *fleet) {
		all, ok := fl.muster()
		if !ok {
			return
		}
		fl.sameNodes("at first")
		ids := make(map[int64]int32)
		for range 3 {
			for _, m := range fl.members {
				fl.producerIDs(m, ids)
			}
		}
		moves := all[0] // leads the metadata, until it stops
		fl.stopNode(moves)
		moves.moved = true
		if !fl.start(moves) {
			return
		}
		time.Sleep(settle)
		fl.sameNodes("after a move")
		for _, m := range fl.members {
			fl.producerIDs(m, ids)
		}
		fl.healthy()
	})
	report(t, 1, problems, tr)
}

// sameNodes takes it for a problem if a node does not know where all are.
func (fl *fleet) sameNodes(when string) {
	var want []string
	for _, m := range fl.members {
		want = append(want, fmt.Sprintf("%d at %s in r%d", m.id, m.addr(), m.id))
	}
	for _, m := range fl.members {
		resp, ok := ask[*kmsg.MetadataResponse](fl, m, kmsg.NewPtrMetadataRequest())
		if !ok {
			continue
		}
		var got []string
		for _, b := range resp.Brokers {
			rack := "none"
			if b.Rack != nil {
				rack = *b.Rack
			}
			got = append(got, fmt.Sprintf("%d at %s:%d in %s", b.NodeID, b.Host, b.Port, rack))
		}
		if !slices.Equal(got, want) {
			fl.problem("%s, node %d knows %v, want %v", when, m.id, got, want)
		}
	}
}

// producerIDs asks a node for a producer id, which nobody may have had.
func (fl *fleet) producerIDs(m *member, had map[int64]int32) {
	ctx, cancel := context.WithTimeout(context.Background(), kafkaTimeout)
	defer cancel()
	c := fl.kafkaClient(m)
	defer c.Close()
	got, err := c.SeedBrokers()[0].Request(ctx, kmsg.NewPtrInitProducerIDRequest())
	if err != nil {
		fl.problem("node %d: %v", m.id, err)
		return
	}
	resp := got.(*kmsg.InitProducerIDResponse)
	if resp.ErrorCode != 0 {
		fl.problem("node %d gives no producer id: %v", m.id, errcode.Code(resp.ErrorCode))
		return
	}
	if by, ok := had[resp.ProducerID]; ok {
		fl.problem("node %d gives producer id %d, which node %d has given", m.id, resp.ProducerID, by)
	}
	had[resp.ProducerID] = m.id
}
