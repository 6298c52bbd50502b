package node

import (
	"github.com/flotilla-log/flotilla/log/journal"
	"github.com/flotilla-log/flotilla/partition/store"
)

// phase logs that the node goes through something that a crash should meet in
// tests: growth of the ring, flush, roll, checkpoint, recovery, deletion. It is
// a debug line, so that the tests wait for the same thing that an operator can
// see.
func (n *Node) phase(name string) { n.opt.Log.Debug("phase", "phase", name) }

func (n *Node) journalEvent(e journal.Event) {
	switch e.Kind {
	case journal.EventGrow:
		n.phase("ring growth")
	case journal.EventRecycle:
		n.phase("ring reuse")
	case journal.EventTornTail, journal.EventRecovered:
		n.phase("recovery")
	case journal.EventDiskFull:
		n.opt.Log.Warn("the disk is full; the journal cannot grow", "file", e.File, "err", e.Err)
	}
}

func (n *Node) storeEvent(e store.Event) {
	switch e.Kind {
	case store.EventFlushStart:
		n.phase("flush")
	case store.EventRoll:
		n.phase("segment roll")
	case store.EventFullDisk:
		n.opt.Log.Warn("the disk is full; tails stay in memory", "topic_id", e.TopicID, "partition", e.Index)
	}
}
