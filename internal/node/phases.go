package node

import (
	"github.com/flotilla-log/flotilla/log/journal"
	"github.com/flotilla-log/flotilla/partition/store"
)

// phase logs that the node begins or ends something in which a crash is of
// interest. It is a debug line, so that crash tests wait for what an operator
// can see too.
func (n *Node) phase(name string, begins bool) {
	state := "end"
	if begins {
		state = "begin"
	}
	n.opt.Log.Debug("phase", "phase", name, "state", state)
}

func (n *Node) journalEvent(e journal.Event) {
	switch e.Kind {
	case journal.EventGrow:
		n.phase("ring growth", true)
	case journal.EventGrown:
		n.phase("ring growth", false)
	case journal.EventDiskFull:
		n.phase("ring growth", false)
		n.opt.Log.Info("the journal cannot grow, and makes do with the files it has", "file", e.File, "err", e.Err)
	case journal.EventRecycle:
		n.phase("ring reuse", true)
	case journal.EventRecycled:
		n.phase("ring reuse", false)
	}
}

func (n *Node) storeEvent(e store.Event) {
	switch e.Kind {
	case store.EventFlushStart:
		n.phase("flush", true)
	case store.EventFlushEnd:
		n.phase("flush", false)
	case store.EventRoll:
		n.phase("segment roll", true)
	case store.EventFullDisk: // the broker says so once
		n.opt.Log.Debug("a segment could not be written; records stay in memory and in the journal", "partition", e.Index, "err", e.Err)
	}
}
