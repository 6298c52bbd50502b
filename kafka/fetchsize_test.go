package kafka

import (
	"testing"
	"unsafe"

	"github.com/flotilla-log/flotilla/broker"
	"github.com/flotilla-log/flotilla/internal/delivery"
)

// TestFetchPartBytes: what is counted for a partition of a Fetch is what it takes
// at least. It runs alone, as it measures what the process allocates.
func TestFetchPartBytes(t *testing.T) {
	const n = 10_000
	resp := &fetchResponse{parts: make([]fetched, n)}
	for i := range resp.parts {
		resp.parts[i] = fetched{topic: topicRef{name: "topic"}, index: int32(i)}
	}
	var d *delivery.Delivery
	sent := int(allocated(func() { d = delivery.New(new(delivery.Peer), make([]broker.StreamResult, n), resp.heads(18), nil) }) / n)
	if d.Len() == 0 || sent > sentPartBytes {
		t.Errorf("%d bytes for each that is answered, counted are %d", sent, sentPartBytes)
	}
	const mapEntry, watch = 48, 112
	before := 2*int(unsafe.Sizeof(fetchPart{})) + mapEntry + // room makes twice as much
		int(unsafe.Sizeof(wanted{})+unsafe.Sizeof(int(0))+unsafe.Sizeof(broker.FetchPart{})) + watch
	after := int(unsafe.Sizeof(broker.FetchResult{})+unsafe.Sizeof(fetched{})) + sent
	t.Logf("%d bytes while it waits, %d more when it is answered, of which %d stay", before, after, sent)
	if before+after > fetchPartBytes {
		t.Errorf("%d bytes for each, counted are %d", before+after, fetchPartBytes)
	}
}
