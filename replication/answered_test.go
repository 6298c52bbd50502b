package replication

import (
	"testing"
	"testing/synctest"

	"github.com/flotilla-log/flotilla/internal/vfs"
)

// TestAppliedWhenAnswered: what was proposed counts as applied when it is answered.
func TestAppliedWhenAnswered(t *testing.T) {
	inBubble(t, func(t *testing.T, fsys *vfs.Mem) {
		r := mustStart(t, fsys)
		defer func() { r.stop() }()
		synctest.Wait()
		before := r.replica.Applied()
		answered := make(chan uint64, 1)
		if err := r.replica.Propose(&Proposal[int]{Payload: []byte("x"), Done: func(int, error) { answered <- r.replica.Applied() }}); err != nil {
			t.Fatal(err)
		}
		if now := <-answered; now != before+1 {
			t.Errorf("answered with %d entries applied, want %d", now, before+1)
		}
	})
}
