package kafka_test

import (
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/flotilla-log/flotilla/internal/errcode"
	"github.com/flotilla-log/flotilla/log/batch"
)

// TestWhileCreating: while a topic is being created it has leaders, which say to
// try again, and who creates it too is told that it exists when it takes records.
func TestWhileCreating(t *testing.T) {
	t.Parallel()
	inBubble(t, nil, func(t *testing.T, b *bubble) {
		first, second, third, other := b.dial("first"), b.dial("second"), b.dial("third"), b.dial("other")
		other.metadata(12, false) // the node is up
		let := b.holdSyncs()
		creates := kmsg.NewPtrCreateTopicsRequest()
		creates.Version, creates.TimeoutMillis = 5, 60_000
		creates.Topics = append(creates.Topics, newTopic("a", 5))
		first.start(creates)
		first.silent("before its partitions are there")
		second.start(creates)
		hasty := kmsg.NewPtrCreateTopicsRequest()
		hasty.Version, hasty.TimeoutMillis, hasty.Topics = 5, 2000, creates.Topics
		third.start(hasty)
		second.silent("while another creates it")
		validates := kmsg.NewPtrCreateTopicsRequest()
		validates.Version, validates.TimeoutMillis, validates.Topics, validates.ValidateOnly = 5, 60_000, creates.Topics, true
		began := time.Now()
		if p := other.ask(validates, 5).(*kmsg.CreateTopicsResponse).Topics[0]; errcode.Code(p.ErrorCode) != errcode.TopicAlreadyExists || time.Since(began) > time.Second {
			t.Errorf("validated: %v after %v", errcode.Code(p.ErrorCode), time.Since(began))
		}
		for _, v := range []int16{1, 12} {
			for _, rt := range other.metadata(v, false, "a").Topics {
				for _, p := range rt.Partitions {
					if p.ErrorCode != 0 || p.Leader != 7 {
						t.Errorf("version %d: partition %d: %v, leader %d; want a leader", v, p.Partition, errcode.Code(p.ErrorCode), p.Leader)
					}
				}
				if len(rt.Partitions) != 5 {
					t.Errorf("version %d: %d partitions", v, len(rt.Partitions))
				}
			}
		}
		record := topicPart{"a", 3, recordsOf(t, batch.None, "one")}
		if p := other.produce(9, nil, record)[0]; errcode.Code(p.ErrorCode) != errcode.LeaderNotAvailable {
			t.Errorf("produced before it is there: %v, want %v", errcode.Code(p.ErrorCode), errcode.LeaderNotAvailable)
		}
		b.pass(3 * time.Second)
		if p := third.next(third.id, hasty).(*kmsg.CreateTopicsResponse).Topics[0]; errcode.Code(p.ErrorCode) != errcode.TopicAlreadyExists {
			t.Errorf("who waits no longer: %v", errcode.Code(p.ErrorCode))
		}
		second.silent("while another creates it yet")
		let()
		if p := first.next(first.id, creates).(*kmsg.CreateTopicsResponse).Topics[0]; p.ErrorCode != 0 {
			t.Errorf("created: %v", errcode.Code(p.ErrorCode))
		}
		if p := second.next(second.id, creates).(*kmsg.CreateTopicsResponse).Topics[0]; errcode.Code(p.ErrorCode) != errcode.TopicAlreadyExists {
			t.Errorf("created again: %v", errcode.Code(p.ErrorCode))
		}
		for i := range int32(5) {
			record.index = i
			if p := second.produce(9, nil, record)[0]; p.ErrorCode != 0 {
				t.Errorf("produced to partition %d at once: %v", i, errcode.Code(p.ErrorCode))
			}
		}
	})
}
