package sim

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// wantInSync takes it for a problem if a node tells Kafka clients of other in-sync
// replicas than these, or Metadata and DescribeTopicPartitions are not of one mind.
func (fl *fleet) wantInSync(when string, m *member, topic string, want ...int32) {
	t, ok := fl.kafkaTopic(m, topic, false)
	if !ok || len(t.Partitions) != 1 {
		fl.problem("%s: node %d does not know %s", when, m.id, topic)
		return
	}
	got := slices.Sorted(slices.Values(t.Partitions[0].ISR))
	if !slices.Equal(got, want) {
		fl.problem("%s: node %d tells of %v in sync, want %v", when, m.id, got, want)
	}
}

// TestInSyncIsTold: every node tells the same replicas in sync, and they are those
// that min.insync.replicas counts. A follower that is cut off is out of sync on all
// nodes when it has lagged for replica.lag.time.max, within two words of the
// leader's, and in sync again when it has caught up. One whose node is fenced is not
// in sync, however little it lags.
func TestInSyncIsTold(t *testing.T) {
	t.Parallel()
	for _, by := range []string{"lag", "fencing"} {
		t.Run(by, func(t *testing.T) {
			t.Parallel()
			problems, tr, _ := runFleet(t, 1, func(fl *fleet) {
				const said = 2 * time.Second // within which the others have heard it
				wait := 9*time.Second + said
				if by == "lag" {
					fl.session, wait = time.Hour, replicaLag+said
				}
				const topic = "wants3"
				all, leader, ok := fl.musterInsync(topic)
				if !ok {
					return
				}
				late := all[1]
				if late == leader {
					late = all[2] // who is not the controller, which would have to be another first
				}
				var others []*member
				var left []int32
				for _, m := range fl.members {
					if m != late {
						others, left = append(others, m), append(left, m.id)
					}
				}
				c := fl.kafkaClient(others...)
				defer c.Close()
				produce := func(when string, want error) {
					err := c.ProduceSync(fl.stopping, &kgo.Record{Topic: topic, Value: []byte("x")}).FirstErr()
					if !errors.Is(err, want) {
						fl.problem("%s: produced with %v, want %v", when, err, want)
					}
				}
				for _, m := range all {
					fl.wantInSync("at rest", m, topic, 1, 2, 3)
				}
				produce("at rest", nil)
				for round := range 2 {
					fl.isolate(late, true, true)
					time.Sleep(wait - said - time.Second)
					for _, m := range others {
						fl.wantInSync(fmt.Sprintf("cut off for a while, %d", round), m, topic, 1, 2, 3)
					}
					time.Sleep(said + 2*time.Second)
					for _, m := range others {
						fl.wantInSync(fmt.Sprintf("cut off for long, %d", round), m, topic, left...)
					}
					produce("cut off for long", kerr.NotEnoughReplicas)
					fl.isolate(late, false, false)
					time.Sleep(settle)
					for _, m := range all {
						fl.wantInSync(fmt.Sprintf("healed, %d", round), m, topic, 1, 2, 3)
					}
					produce("healed", nil)
				}
				fl.healthy()
			})
			report(t, 1, problems, tr)
		})
	}
}
