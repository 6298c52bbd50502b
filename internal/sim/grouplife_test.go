package sim

import (
	"context"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/flotilla-log/flotilla/client"
	"github.com/flotilla-log/flotilla/internal/history"
)

// What members of groups have.
const (
	groupSession   = 8 * time.Second
	groupHeartbeat = time.Second
)

// life is one life of a member of a consumer group: from when it joins until it leaves,
// or dies. It records what it is told and does.
type life struct {
	*person
	group string
	m     groupMember
	given func(key history.Key, next int64) // told of what the member was given; nil: nobody is
	late  bool                              // it commits only what it gives up: franz-go holds a commit while it joins
	dead  atomic.Bool                       // nobody hears of it any more

	mu    sync.Mutex
	dirty map[history.Key]int64 // where to go on after what it was given, as far as that is not committed
}

// groupMember is the client of a life. All its methods are for one goroutine.
type groupMember interface {
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
	// close leaves the group, or ends without a word.
	close(ctx context.Context)
}

// memberKind makes the member of a life, of one client and protocol.
type memberKind func(l *life, topics []string)

func (l *life) in() *history.Membership {
	in := &history.Membership{Group: l.group}
	if l.m != nil {
		in.Member, in.Epoch = l.m.membership()
	}
	return in
}

// join begins the life of a member.
func (p *person) join(group string, kind memberKind, topics []string) *life {
	l := &life{person: p, group: group, dirty: make(map[history.Key]int64)}
	p.w.rec.Note(history.Op{Process: p.process, F: history.Subscribe, In: l.in()})
	kind(l, topics)
	return l
}

// note records what the member is told of partitions.
func (l *life) note(f history.F, keys []history.Key) {
	if l.dead.Load() || len(keys) == 0 {
		return
	}
	op := history.Op{Process: l.process, F: f, In: l.in()}
	l.mu.Lock()
	for _, k := range keys {
		op.Mops = append(op.Mops, history.Mop{Key: k, From: history.NoOffset})
		delete(l.dirty, k)
	}
	l.mu.Unlock()
	l.w.rec.Note(op)
}

// revoked is what a member does before others get its partitions.
func (l *life) revoked(keys []history.Key) {
	if !l.dead.Load() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		l.commit(ctx)
		cancel()
	}
	l.note(history.Revoked, keys)
}

// poll polls once, and reports whether it was given something.
func (l *life) poll(wait time.Duration) bool {
	op := l.w.rec.Invoke(history.Op{Process: l.process, F: history.Poll, In: l.in()})
	ctx, cancel := context.WithTimeout(context.Background(), wait)
	defer cancel()
	mops, err := l.m.poll(ctx)
	op.In, op.Mops = l.in(), mops
	if len(mops) == 0 {
		if err != nil {
			op.Err = err.Error()
		}
		l.w.rec.Complete(op, history.Fail)
		l.m.polled()
		if ctx.Err() == nil { // it did not wait
			l.rest(time.Second)
		}
		return false
	}
	l.mu.Lock()
	for _, m := range mops {
		if n := len(m.Records); n > 0 {
			l.dirty[m.Key] = m.Records[n-1].Offset + 1
			if l.given != nil {
				l.given(m.Key, m.Records[n-1].Offset+1)
			}
		}
	}
	l.mu.Unlock()
	l.w.rec.Complete(op, history.OK)
	if !l.late && l.rng.IntN(3) == 0 {
		commitCtx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
		l.commit(commitCtx)
		cancel()
	}
	l.m.polled()
	return true
}

// commit commits what the member was given.
func (l *life) commit(ctx context.Context) {
	l.mu.Lock()
	offsets := maps.Clone(l.dirty)
	l.mu.Unlock()
	if len(offsets) == 0 {
		return
	}
	op := history.Op{Process: l.process, F: history.Commit, In: l.in()}
	sent := l.m.commits(maps.Clone(offsets))
	for _, k := range sortedKeys(sent) {
		op.Mops = append(op.Mops, history.Mop{Key: k, From: sent[k]})
	}
	op = l.w.rec.Invoke(op)
	taken, err := l.m.commit(ctx, offsets)
	if err != nil {
		op.Err = err.Error()
	}
	if len(taken) == 0 { // an earlier try may have been taken
		l.w.rec.Complete(op, history.Info)
		return
	}
	op.Mops = slices.DeleteFunc(slices.Clone(op.Mops), func(m history.Mop) bool { return !slices.Contains(taken, m.Key) })
	l.w.rec.Complete(op, history.OK)
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, k := range taken {
		if l.dirty[k] == offsets[k] {
			delete(l.dirty, k)
		}
	}
}

func sortedKeys(set map[history.Key]int64) []history.Key {
	return slices.SortedFunc(maps.Keys(set), compareKeys)
}

// leave ends the life in good order.
func (l *life) leave() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	l.m.close(ctx)
	l.person.leave()
}

// die ends the life: whatever the client says from here on, nobody hears it.
func (l *life) die() {
	l.w.rec.Note(history.Op{Process: l.process, F: history.Crash})
	l.dead.Store(true)
	l.silence()
	l.w.net.Reset(clientHost(l.process))
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	l.m.close(ended)
	l.person.leave()
}

// silence cuts the client from everybody, until hears.
func (l *life) silence() {
	l.w.net.Cut(clientHost(l.process), "")
	l.w.net.Cut("", clientHost(l.process))
}

func (l *life) hears() {
	l.w.net.Mend(clientHost(l.process), "")
	l.w.net.Mend("", clientHost(l.process))
}

// nativeMember is a member with the native client.
type nativeMember struct{ g *client.Group }

// native is a memberKind.
func native(l *life, topics []string) {
	keys := func(parts []client.TopicPartition) (keys []history.Key) {
		for _, p := range parts {
			keys = append(keys, history.Key{Topic: p.Topic, Partition: p.Partition})
		}
		return keys
	}
	m := new(nativeMember)
	var err error
	m.g, err = l.c.JoinGroup(client.GroupConfig{
		Group: l.group, Topics: topics, CommitInterval: -1, MaxPollInterval: time.Minute,
		Assigned: func(parts []client.TopicPartition) { l.note(history.Assigned, keys(parts)) },
		Revoked:  func(parts []client.TopicPartition) { l.revoked(keys(parts)) },
		Lost:     func(parts []client.TopicPartition) { l.note(history.Lost, keys(parts)) },
		Consumer: client.ConsumerConfig{MaxWait: 100 * time.Millisecond, MaxPartitionBytes: 2 << 10},
	})
	if err != nil {
		panic("sim: " + err.Error())
	}
	l.m = m
}

func (m *nativeMember) membership() (string, int32) {
	return m.g.MemberID(), m.g.MemberEpoch()
}

func (m *nativeMember) poll(ctx context.Context) ([]history.Mop, error) {
	f, err := m.g.Poll(ctx)
	if err == nil {
		err = f.Err
	}
	if err != nil {
		return nil, err
	}
	mop := history.Mop{Key: history.Key{Topic: f.Topic, Partition: f.Partition}}
	for r, err := range f.Records() {
		if err != nil {
			return nil, err
		}
		mop.Records = append(mop.Records, history.Record{Offset: r.Offset, Value: valueOf(r.Value)})
	}
	return []history.Mop{mop}, nil
}

func (m *nativeMember) polled() {}

// commits implements groupMember: where the member has been given nothing, it may commit
// where it began.
func (m *nativeMember) commits(offsets map[history.Key]int64) map[history.Key]int64 {
	for _, a := range m.g.Assigned() {
		k := history.Key{Topic: a.Topic, Partition: a.Partition}
		if _, ok := offsets[k]; !ok && a.Offset >= 0 {
			offsets[k] = a.Offset
		}
	}
	return offsets
}

// commit implements groupMember: between two polls, it commits what they returned.
func (m *nativeMember) commit(ctx context.Context, offsets map[history.Key]int64) ([]history.Key, error) {
	if err := m.g.Commit(ctx); err != nil {
		return nil, err
	}
	return sortedKeys(offsets), nil
}

func (m *nativeMember) close(ctx context.Context) { _ = m.g.Close(ctx) }
