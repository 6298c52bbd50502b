package broker

import (
	"testing"
	"time"

	"github.com/flotilla-log/flotilla/internal/errcode"
	"github.com/flotilla-log/flotilla/partition"
)

// TestLookup: every node says of a topic whether it exists, also one that has not
// heard of it yet; and where nobody leads the metadata, that it does not know.
func TestLookup(t *testing.T) {
	inTrio(t, func(t *testing.T, tr *trio) {
		lead, created := tr.controller(), make(chan Topic)
		// Of the majority that acknowledges the topic, this one is not.
		tr.others(lead)[0].fs.SetInjector(slowSyncs(currentTimeout / 10))
		go func() { created <- lead.create("t", 1, nil) }()
		for lead.image().TopicByName("t") == nil {
			tr.rest(time.Millisecond)
		}
		topic := topicOf(lead.image().TopicByName("t"))
		for _, r := range tr.rigs {
			look := r.Lookup()
			if got, err := look.ByName(t.Context(), "t"); err != nil || got.ID != topic.ID {
				t.Errorf("node %d, a topic that was made a moment ago: %v, %v", r.NodeID(), got, err)
			}
			if _, err := look.ByName(t.Context(), "none"); err == nil || err.Code != errcode.UnknownTopicOrPartition {
				t.Errorf("node %d, a topic that there is not: %v, want %v", r.NodeID(), err, errcode.UnknownTopicOrPartition)
			}
			if _, err := look.ByID(t.Context(), partition.TopicID{1}); err == nil || err.Code != errcode.UnknownTopicID {
				t.Errorf("node %d, an id that there is not: %v, want %v", r.NodeID(), err, errcode.UnknownTopicID)
			}
		}

		<-created
		alone := tr.others(lead)[0]
		tr.cutOff(alone, true)
		topic = lead.create("u", 1, nil)
		began := time.Now()
		look := alone.Lookup()
		for _, name := range []string{"u", "none"} {
			if _, err := look.ByName(t.Context(), name); err == nil || err.Code != errcode.LeaderNotAvailable {
				t.Errorf("cut off, topic %s: %v, want %v", name, err, errcode.LeaderNotAvailable)
			}
		}
		if took := time.Since(began); took != currentTimeout {
			t.Errorf("cut off, two topics took %v, want %v for both", took, currentTimeout)
		}
		tr.cutOff(alone, false)
		tr.rest(10 * time.Second)
		if got, err := alone.Lookup().ByID(t.Context(), topic.ID); err != nil || got.Name != "u" {
			t.Errorf("back again: %v, %v", got, err)
		}
	})
}

// TestCurrentOfDeposed: a node that led the metadata a moment ago, and does not know yet
// that it may have been deposed, does not say how far the metadata is.
func TestCurrentOfDeposed(t *testing.T) {
	inTrio(t, func(t *testing.T, tr *trio) {
		r := tr.controller()
		tr.cutOff(r, true)
		if got := r.currentHere(t.Context()); got.err == nil {
			t.Errorf("a leader that reaches nobody says that the metadata is at %d", got.index)
		}
	})
}
