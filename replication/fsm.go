package replication

import "io"

// FSM is the state of one shard, as the entries applied to it made it. R is
// the result of one command.
//
// Apply, AppliedBatch, Capture and Restore are called by one goroutine at a
// time. They are deterministic (R2) and never wait for Raft, a checkpoint, a
// disk or a client.
type FSM[R any] interface {
	// Apply applies the committed entry at index, proposed in term, and returns
	// one result for each of its commands, in order. The slice is used only
	// until the next call. entry is immutable; the FSM may keep it, for as long
	// as it likes (R1).
	//
	// An error stops the replica for good, and the node with it: the entry is
	// damaged, or needs a newer version of this program (R4).
	Apply(index, term uint64, entry []byte) ([]R, error)

	// AppliedBatch is called after each run of Apply calls, and after each Restore
	// but the first: the place to wake readers, once for many entries.
	AppliedBatch()

	// Capture takes a checkpoint of the state at the last applied index, in
	// time proportional to what changed since the last one (R13).
	Capture() (Capture, error)

	// Restore replaces the state by the one that checkpoint holds: a base and
	// the deltas after it, concatenated in order. It is called before Apply, with
	// an empty reader if there is no checkpoint yet; and again when a replica that
	// was behind its leader's log has got the leader's, for which Options.CatchUp
	// has made everything local. Then an error stops the replica, and it may be
	// called before a checkpoint that Abandon gave back has gone into another.
	Restore(checkpoint io.Reader) error
}

// Capture is a checkpoint on its way to the disk. Exactly one of Durable and
// Abandon is called, last.
type Capture interface {
	// Persist flushes and syncs everything below the captured index that is not
	// in the journal alone, and then writes the logical state to w: what
	// changed since the last capture that became durable, or all of it. It runs
	// beside Apply.
	Persist(w io.Writer) error

	// Durable reports that the checkpoint is on disk: what it replaced may be
	// unlinked.
	Durable()

	// Abandon reports that it is not, and never will be: what it would have
	// covered is due again in the next capture.
	Abandon()
}

// WholeCapture is a Capture that can be all of the state: the checkpoints before it
// are not what it goes on from then, and are not kept.
type WholeCapture interface {
	Capture
	Whole() bool
}
