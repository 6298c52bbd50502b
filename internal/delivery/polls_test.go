package delivery

import (
	"testing"

	"github.com/flotilla-log/flotilla/broker"
)

// TestPollThatIsOver: a fetch that was over before it could be noted is not kept.
func TestPollThatIsOver(t *testing.T) {
	t.Parallel()
	var p Polls
	var first, second Poll
	p.Add(&first, new(broker.Fetch))
	if !p.Some() {
		t.Error("a fetch that waits is not noted")
	}
	p.Remove(&second)
	p.Remove(&first)
	p.Add(&second, new(broker.Fetch))
	if p.Some() {
		t.Error("a fetch is kept that is over")
	}
}
