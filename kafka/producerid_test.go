package kafka_test

import (
	"strings"
	"testing"

	"github.com/flotilla-log/flotilla/internal/errcode"
	"github.com/flotilla-log/flotilla/internal/node"
	"github.com/flotilla-log/flotilla/log/batch"
)

// TestProducersFull: a shard that can remember no further producer has a new one
// try again, by a code that Kafka's clients know from a Produce; and ids that were
// never given do not fill it.
func TestProducersFull(t *testing.T) {
	t.Parallel()
	_, c := admin(t, func(o *node.Options) { o.Limits.Producers = 2 })
	c.create("a", 1)
	check := func(what string, id int64, want errcode.Code, text string) {
		t.Helper()
		p := c.produce(9, nil, topicPart{"a", 0, batchOf(t, batch.Producer{ID: id}, 1000)})[0]
		if got := errcode.Code(p.ErrorCode); got != want || text != "" && !strings.Contains(message(p.ErrorMessage), text) {
			t.Errorf("%s: %v, %s; want %v with %q", what, got, message(p.ErrorMessage), want, text)
		}
	}
	first := c.newProducer()
	for id := int64(1 << 40); id < 1<<40+5; id++ {
		check("an invented id", id, errcode.InvalidProducerIDMapping, "was never given")
	}
	check("the first", first, errcode.None, "")
	check("the second", c.newProducer(), errcode.None, "")
	check("the third", c.newProducer(), errcode.KafkaStorageError, "as many producers as it may")
}
