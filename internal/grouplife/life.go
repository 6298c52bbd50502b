// Package grouplife is members of consumer groups that record what they are told and do,
// for a history.Check: one life each, with the native client or with franz-go. Who uses
// it says when they come, go and die.
package grouplife

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/flotilla-log/flotilla/internal/history"
)

// Time that commits may take: before a partition is given away, and after a poll.
const (
	commitBefore = 5 * time.Second
	commitAfter  = 3 * time.Second
)

// Life is one life of a member: from when it joins until it leaves or dies. It is a
// process of the history. Its methods are for one goroutine, but for Note, Revoked and
// Holds, which a client's callbacks call. The fields are set before Begin; Given and
// Commits may be nil.
type Life struct {
	Recorder *history.Recorder
	Process  int32
	Group    string
	Value    func([]byte) int64                // that a record holds
	Given    func(key history.Key, next int64) // told of what the member was given
	Commits  func() bool                       // asked after a poll that has brought something

	member member
	dead   atomic.Bool // nobody hears of it any more

	mu    sync.Mutex
	held  map[history.Key]bool
	dirty map[history.Key]int64 // where to go on after what it was given, as far as that is not committed
}

// member is the client of a life. All its methods are for one goroutine.
type member interface {
	// membership returns the member's id and epoch; 0: it has none.
	membership() (id string, epoch int32)
	// poll returns what it is given; an error is of no consequence.
	poll(ctx context.Context) ([]history.Mop, error)
	// polled lets partitions move again.
	polled()
	// commits adds to the offsets that are to be committed those that the client commits
	// with them.
	commits(offsets map[history.Key]int64) map[history.Key]int64
	// commit commits offsets, and returns those that were taken for certain.
	commit(ctx context.Context, offsets map[history.Key]int64) ([]history.Key, error)
	// close leaves the group, or ends without a word if ctx has ended.
	close(ctx context.Context)
}

// Begin begins the life. JoinNative or JoinKafka follows.
func (l *Life) Begin() {
	l.held, l.dirty = make(map[history.Key]bool), make(map[history.Key]int64)
	l.Recorder.Note(history.Op{Process: l.Process, F: history.Subscribe, In: l.In()})
}

// In is the member as it is now.
func (l *Life) In() *history.Membership {
	in := &history.Membership{Group: l.Group}
	if l.member != nil {
		in.Member, in.Epoch = l.member.membership()
	}
	return in
}

// Dead reports whether the life has ended by Die.
func (l *Life) Dead() bool { return l.dead.Load() }

// Note records what the member is told of partitions.
func (l *Life) Note(f history.F, keys []history.Key) {
	if l.Dead() || len(keys) == 0 {
		return
	}
	op := history.Op{Process: l.Process, F: f, In: l.In()}
	l.mu.Lock()
	for _, k := range keys {
		op.Mops = append(op.Mops, history.Mop{Key: k, From: history.NoOffset})
		delete(l.dirty, k)
		delete(l.held, k)
		if f == history.Assigned {
			l.held[k] = true
		}
	}
	l.mu.Unlock()
	l.Recorder.Note(op)
}

// Holds returns how many partitions the member has, as it knows.
func (l *Life) Holds() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.held)
}

// Revoked is what a member does before others get its partitions.
func (l *Life) Revoked(keys []history.Key) {
	if !l.Dead() {
		l.commit(commitBefore)
	}
	l.Note(history.Revoked, keys)
}

// Poll polls once, and commits what it was given if Commits says so. It reports whether
// that was anything, and if not, whether it has waited for it.
func (l *Life) Poll(wait time.Duration) (given, waited bool) {
	op := l.Recorder.Invoke(history.Op{Process: l.Process, F: history.Poll, In: l.In()})
	ctx, cancel := context.WithTimeout(context.Background(), wait)
	defer cancel()
	defer l.member.polled()
	mops, err := l.member.poll(ctx)
	op.In, op.Mops = l.In(), mops
	if len(mops) == 0 {
		if err != nil {
			op.Err = err.Error()
		}
		l.Recorder.Complete(op, history.Fail)
		return false, ctx.Err() != nil
	}
	for _, m := range mops {
		n := len(m.Records)
		if n == 0 {
			continue
		}
		next := m.Records[n-1].Offset + 1
		if l.Given != nil {
			l.Given(m.Key, next)
		}
		l.mu.Lock()
		l.dirty[m.Key] = next
		l.mu.Unlock()
	}
	l.Recorder.Complete(op, history.OK)
	if l.Commits != nil && l.Commits() {
		l.commit(commitAfter)
	}
	return true, false
}

// commit commits what the member was given.
func (l *Life) commit(timeout time.Duration) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	l.mu.Lock()
	offsets := maps.Clone(l.dirty)
	l.mu.Unlock()
	if len(offsets) == 0 {
		return
	}
	op := history.Op{Process: l.Process, F: history.Commit, In: l.In()}
	sent := l.member.commits(maps.Clone(offsets))
	for _, k := range sortedKeys(sent) {
		op.Mops = append(op.Mops, history.Mop{Key: k, From: sent[k]})
	}
	op = l.Recorder.Invoke(op)
	taken, err := l.member.commit(ctx, offsets)
	if err != nil {
		op.Err = err.Error()
	}
	if len(taken) == 0 { // an earlier try may have been taken
		l.Recorder.Complete(op, history.Info)
		return
	}
	op.Mops = slices.DeleteFunc(slices.Clone(op.Mops), func(m history.Mop) bool { return !slices.Contains(taken, m.Key) })
	l.Recorder.Complete(op, history.OK)
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, k := range taken {
		if l.dirty[k] == offsets[k] {
			delete(l.dirty, k)
		}
	}
}

// Leave ends the life in good order.
func (l *Life) Leave(timeout time.Duration) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	l.member.close(ctx)
}

// Die ends the life: whatever the client says from here on, nobody hears it. cut is to
// cut it off.
func (l *Life) Die(cut func()) {
	l.Recorder.Note(history.Op{Process: l.Process, F: history.Crash})
	l.dead.Store(true)
	cut()
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	l.member.close(ended)
}

// sortedKeys are the keys of a set, in order.
func sortedKeys[V any](set map[history.Key]V) []history.Key {
	return slices.SortedFunc(maps.Keys(set), compareKeys)
}

func compareKeys(a, b history.Key) int {
	return cmp.Or(cmp.Compare(a.Topic, b.Topic), cmp.Compare(a.Partition, b.Partition))
}
