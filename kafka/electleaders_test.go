package kafka_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// TestElectLeaders: on one node each partition is led by the node that is to lead
// it; what is not there, and an election that would lose records, is refused with
// the reason. TestElectPreferred, in package broker, has leaders move.
func TestElectLeaders(t *testing.T) {
	t.Parallel()
	_, c := admin(t, nil)
	c.create("a", 2)
	const notNeeded = "ELECTION_NOT_NEEDED: node 7 leads shard"
	for version := range int16(3) {
		ask := func(kind int8, topics ...kmsg.ElectLeadersRequestTopic) (int16, []string) {
			req := kmsg.NewPtrElectLeadersRequest()
			req.ElectionType, req.TimeoutMillis, req.Topics = kind, adminTimeoutMS, topics
			resp := c.ask(req, version).(*kmsg.ElectLeadersResponse)
			var out []string
			for _, topic := range resp.Topics {
				for _, p := range topic.Partitions {
					out = append(out, fmt.Sprintf("%s %d %.39s", topic.Topic, p.Partition, outcome(p.ErrorCode, p.ErrorMessage)))
				}
			}
			return resp.ErrorCode, out
		}
		topics := []kmsg.ElectLeadersRequestTopic{{Topic: "a", Partitions: []int32{0, 1, 2, -1}}, {Topic: "none", Partitions: []int32{0}}}
		const unknown = "UNKNOWN_TOPIC_OR_PARTITION: This server"
		want := []string{"a 0 " + notNeeded, "a 1 " + notNeeded, "a 2 " + unknown, "a -1 " + unknown, "none 0 " + unknown}
		if code, got := ask(0, topics...); code != 0 || !slices.Equal(got, want) {
			t.Errorf("version %d: %d %q, want %q", version, code, got, want)
		}
		if code, got := ask(0); code != 0 || len(got) != 0 {
			t.Errorf("version %d: all: %d %q, want nothing", version, code, got)
		}
		if version == 0 {
			continue
		}
		for kind, want := range map[int8]string{1: "INVALID_REQUEST: A leader has all records t", 2: "INVALID_REQUEST: Unknown election type 2."} {
			want = fmt.Sprintf("%.39s", want)
			if code, got := ask(kind, topics[1]); code != 0 || !slices.Equal(got, []string{"none 0 " + want}) {
				t.Errorf("version %d: type %d: %d %q, want %q", version, kind, code, got, want)
			}
			if code, got := ask(kind); code != 0 || !slices.Equal(got, []string{"a 0 " + want, "a 1 " + want}) {
				t.Errorf("version %d: type %d, all: %d %q, want %q of each partition", version, kind, code, got, want)
			}
		}
	}
}
