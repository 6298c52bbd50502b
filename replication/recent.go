package replication

import (
	"sync"

	"github.com/hashicorp/raft"
)

const (
	// maxRecentBytes bounds the entries of a replica that are kept in memory: what
	// a follower may be behind and still be sent from there.
	maxRecentBytes = 4 << 20

	// maxSharedBytes is how much memory the entries of one request may share; see
	// unshare.
	maxSharedBytes = 1 << 20
)

// recentLog is an entryLog that keeps the newest entries in memory too, as they
// were given to it, until they are applied and everybody has them, or there are
// more than limit bytes of them. Raft reads each entry of a leader's log once for
// each follower, the one before it for its term alone, and a follower's once more
// to apply it; from the log under it each time is a read from a file, a checksum
// and new memory.
//
// What is read from it is shared by all who read it: nobody changes it.
type recentLog struct {
	entryLog
	limit int64
	keep  func() uint64 // the first index that somebody may still ask for

	mu    sync.Mutex
	logs  []raft.Log // Invariant: their indexes follow each other, and are in entryLog.
	bytes int64      // of logs
}

func logBytes(l *raft.Log) int64 { return int64(len(l.Data) + len(l.Extensions)) }

// append appends to the log, and keeps what is durable then.
func (r *recentLog) append(logs []*raft.Log) error {
	if err := r.entryLog.append(logs); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if n := len(r.logs); n > 0 && r.logs[n-1].Index+1 != logs[0].Index {
		r.dropLocked(n) // it was compacted as a whole in between
	}
	for _, l := range logs {
		r.logs = append(r.logs, *l)
		r.bytes += logBytes(l)
	}
	for r.bytes > r.limit {
		r.dropLocked(1)
	}
	return nil
}

// read reads from memory what is there.
func (r *recentLog) read(index uint64, to *raft.Log, commands bool) error {
	r.mu.Lock()
	if len(r.logs) > 0 && index >= r.logs[0].Index && index-r.logs[0].Index < uint64(len(r.logs)) {
		*to = r.logs[index-r.logs[0].Index]
		r.mu.Unlock()
		return nil
	}
	r.mu.Unlock()
	return r.entryLog.read(index, to, commands)
}

// truncateFrom forgets what will not be in the log any more before it is not.
func (r *recentLog) truncateFrom(index uint64) error {
	r.mu.Lock()
	for n := len(r.logs); n > 0 && r.logs[n-1].Index >= index; n = len(r.logs) {
		r.bytes -= logBytes(&r.logs[n-1])
		r.logs[n-1] = raft.Log{}
		r.logs = r.logs[:n-1]
	}
	r.mu.Unlock()
	return r.entryLog.truncateFrom(index)
}

// compact does likewise.
func (r *recentLog) compact(upTo uint64) error {
	r.forget(upTo)
	return r.entryLog.compact(upTo)
}

// applied forgets what nobody is likely to ask for any more: what is applied up to
// index, and is not kept for others.
func (r *recentLog) applied(index uint64) { r.forget(min(index, max(r.keep(), 1)-1)) }

// forget forgets the entries up to an index.
func (r *recentLog) forget(upTo uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := 0
	for n < len(r.logs) && r.logs[n].Index <= upTo {
		n++
	}
	r.dropLocked(n)
}

// dropLocked forgets the first n entries.
func (r *recentLog) dropLocked(n int) {
	for i := range r.logs[:n] {
		r.bytes -= logBytes(&r.logs[i])
		r.logs[i] = raft.Log{}
	}
	if r.logs = r.logs[n:]; len(r.logs) == 0 {
		r.logs = nil
	}
}

// unshare gives each of a request's entries memory of its own. They come in one
// piece of memory, and of that, a batch that waits in a tail keeps all, while its
// entry alone is counted there. Few bytes may be shared.
func unshare(entries []*raft.Log) {
	bytes := int64(0)
	for _, l := range entries {
		bytes += logBytes(l)
	}
	if len(entries) < 2 || bytes <= maxSharedBytes {
		return
	}
	for _, l := range entries {
		own := make([]byte, 0, logBytes(l))
		own = append(append(own, l.Data...), l.Extensions...)
		n := len(l.Data)
		l.Data, l.Extensions = own[:n:n], own[n:]
	}
}
