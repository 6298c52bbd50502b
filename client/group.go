package client

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"iter"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Defaults of GroupConfig.
const (
	DefaultCommitInterval  = 5 * time.Second
	DefaultMaxPollInterval = 5 * time.Minute
)

// Delivery says when a Group commits, and so what a crash does.
type Delivery int

const (
	// AtLeastOnce commits what the program has worked off: records that Records or
	// Poll gave it, once it asks for the next ones. After a crash those that came
	// since the last commit come again, to whoever has the partition then.
	AtLeastOnce Delivery = iota

	// AtMostOnce commits what was read of a partition before the first of its records
	// is handed out. After a crash those of them that were not worked off do not come
	// again: up to ConsumerConfig.MaxPartitionBytes, or one batch, of each partition.
	AtMostOnce
)

// TopicPartition names a partition.
type TopicPartition struct {
	Topic     string
	Partition int32
}

// GroupConfig is how a program takes part in a consumer group. Group, and Topics or
// Regex, are required.
type GroupConfig struct {
	Group string

	// Topics are subscribed to by name, those that Regex matches beside them, also
	// such as are made later: RE2's syntax, on the whole name.
	Topics []string
	Regex  string

	Delivery Delivery

	// CommitInterval is how often AtLeastOnce commits, in the background; default 5 s.
	// It also commits when a partition is given away, and in Close. A negative value
	// leaves all commits to Commit and CommitOffsets.
	CommitInterval time.Duration

	// Start is where to begin in a partition of which the group has committed
	// nothing, or what does not exist any more: Beginning, the default, or End.
	Start int64

	// InstanceID makes the member static: a program that is restarted within a
	// session, with the same InstanceID, has its partitions again, and nobody else has
	// them meanwhile. It has to differ between the members of a group.
	InstanceID string

	// Assignor is "uniform" or "range"; empty: the server's choice, uniform. The one
	// that most members ask for is taken.
	Assignor string

	// MaxPollInterval is how long the program may work on what it was given; default
	// 5 min. After that the member leaves, so that others go on, and joins again with
	// the next Poll. It is also how long it may take to give partitions away.
	MaxPollInterval time.Duration

	// Assigned is told of partitions that the member has from now on, Revoked of such
	// as it is about to give away, which are committed after it has returned, and Lost
	// of such as others may have already, as the coordinator says, or has said nothing
	// for a whole session: there is nothing to commit. They are called
	// from within Poll, Records and Close, may call the Group's other methods, and may
	// be nil.
	Assigned, Revoked, Lost func([]TopicPartition)

	// Consumer says how far ahead to read. It has no Assignments, and OutOfRange is
	// Start unless it is set.
	Consumer ConsumerConfig
}

func (cfg GroupConfig) withDefaults() (GroupConfig, error) {
	setDefault(&cfg.CommitInterval, DefaultCommitInterval)
	setDefault(&cfg.MaxPollInterval, DefaultMaxPollInterval)
	setDefault(&cfg.Start, Beginning)
	setDefault(&cfg.Consumer.OutOfRange, cfg.Start)
	switch {
	case cfg.Group == "":
		return cfg, errors.New("client: GroupConfig without a Group")
	case len(cfg.Topics) == 0 && cfg.Regex == "":
		return cfg, errors.New("client: GroupConfig without Topics and Regex")
	case cfg.Delivery != AtLeastOnce && cfg.Delivery != AtMostOnce:
		return cfg, fmt.Errorf("client: Delivery %d", cfg.Delivery)
	case cfg.Start != Beginning && cfg.Start != End:
		return cfg, fmt.Errorf("client: Start %d is neither Beginning nor End", cfg.Start)
	case cfg.MaxPollInterval < time.Millisecond:
		return cfg, fmt.Errorf("client: MaxPollInterval %v", cfg.MaxPollInterval)
	case len(cfg.Consumer.Assignments) > 0:
		return cfg, errors.New("client: the partitions of a group are assigned by the server")
	}
	return cfg, nil
}

// Group is a member of a consumer group: the servers give it partitions of the topics
// that it subscribes to, each to one member of the group, and it commits how far it
// is. It looks for the group's coordinator by itself, and again whenever that moves.
//
// Partitions come and go within Poll, Records and Close only, which are for one
// goroutine at a time: while the program works on what it was given, nothing of it is
// given away, for up to MaxPollInterval. Heartbeats and commits go on in the
// background. Offsets that are committed never go back, unless the program seeks or
// says so to CommitOffsets, or somebody sets them while the group has no members.
type Group struct {
	c      *Client
	cfg    GroupConfig
	co     *Consumer
	member string

	ctx    context.Context // ends with Close: the lifetime of the goroutines
	cancel context.CancelFunc
	wg     sync.WaitGroup
	beat   chan struct{} // 1-buffered: there is something to tell the coordinator
	turned chan struct{} // 1-buffered: there is something for the program's goroutine to do
	commit chan struct{} // holds a token while a commit is under way

	// working is since when the program works on what it was given, in Unix
	// nanoseconds; 0: it waits for more.
	working atomic.Int64
	pending atomic.Bool // there is something for settle to do

	membership
}

// membership is what is said between the coordinator and the program's goroutine.
type membership struct {
	mu       sync.Mutex
	epoch    int32              // of the member; 0: it has to join
	renewed  chan struct{}      // closed and replaced when epoch changes
	target   map[assigned]bool  // what the coordinator has last said that it has
	owned    map[assigned]*held // what it reads
	versions uint64             // of owned
	told     uint64             // the newest version that the coordinator has heard
	whole    bool               // the coordinator is to hear all
	lost     bool               // owned is others' by now, and the program has yet to hear of it
	left     bool               // for the program took too long; it has yet to poll
	joining  bool               // the coordinator may have heard of the member
	err      error              // that ended it
}

// assigned is a partition of one life of a topic.
type assigned struct {
	TopicPartition
	id TopicID
}

// held is how far the program is in a partition.
type held struct {
	done      int64 // offset after what is worked off; -1: nothing
	committed int64 // -1: nothing
}

// JoinGroup makes a member of a group. It joins at once, in the background: errors of
// that are Poll's and Records'.
func (c *Client) JoinGroup(cfg GroupConfig) (*Group, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	var id [16]byte
	if _, err := rand.Read(id[:]); err != nil {
		return nil, fmt.Errorf("client: a member's id: %w", err)
	}
	g := &Group{
		c: c, cfg: cfg, member: hex.EncodeToString(id[:]),
		beat: make(chan struct{}, 1), turned: make(chan struct{}, 1), commit: make(chan struct{}, 1),
		membership: membership{owned: make(map[assigned]*held), renewed: make(chan struct{})},
	}
	if g.co, err = c.NewConsumer(cfg.Consumer); err != nil {
		return nil, err
	}
	for _, name := range cfg.Topics {
		c.meta.want(name)
	}
	g.working.Store(c.cfg.Now().UnixNano())
	g.ctx, g.cancel = context.WithCancel(c.ctx)
	g.wg.Go(g.heartbeats)
	if cfg.Delivery == AtLeastOnce && cfg.CommitInterval > 0 {
		g.wg.Go(g.commits)
	}
	return g, nil
}

// MemberID returns the id that the member has in its group.
func (g *Group) MemberID() string { return g.member }

// MemberEpoch returns the epoch that the member has in its group (KIP-848): a later one
// after each rebalance; 0 while it has none.
func (g *Group) MemberEpoch() int32 {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.epoch
}

// Poll returns what has been read of one of the member's partitions, at most
// ConsumerConfig.MaxPartitionBytes or one batch, and waits for it until ctx ends or
// the Group is closed (ErrClosed). What it returned the last time counts as worked off.
func (g *Group) Poll(ctx context.Context) (Fetched, error) {
	defer g.works()
	g.markAll()
	for {
		if err := g.next(ctx); err != nil {
			return Fetched{}, err
		}
		g.co.mu.Lock()
		ready := g.co.takeLocked(min(1, len(g.co.ready)))
		g.co.mu.Unlock()
		if ready = g.sift(ready); len(ready) == 0 {
			continue
		}
		if err := g.beforehand(ctx, ready); errors.Is(err, ErrLost) {
			continue // the program hears of it
		} else if err != nil {
			return Fetched{}, err
		}
		g.co.passed(ready)
		g.co.c.tellConsumed(ready)
		return ready[0], nil
	}
}

// Records yields record after record of the member's partitions, and waits for more,
// until ctx ends, whose error is the last, or the Group is closed. A record counts as
// worked off when the loop asks for the next one; of a loop that is left, the last one
// does not, unless Commit is called. An error of one partition, a *PartitionError,
// does not end it.
//
// A record's bytes are valid until the next one is asked for.
func (g *Group) Records(ctx context.Context) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		defer g.works()
		for {
			if err := g.next(ctx); err != nil {
				yield(Record{}, err)
				return
			}
			g.co.mu.Lock()
			taken := g.co.takeLocked(min(1, len(g.co.ready)))
			g.co.mu.Unlock()
			if taken = g.sift(taken); len(taken) == 0 {
				continue
			}
			if err := g.beforehand(ctx, taken); errors.Is(err, ErrLost) {
				continue // the program hears of it
			} else if err != nil {
				yield(Record{}, err)
				return
			}
			g.co.c.tellConsumed(taken)
			done := false
			g.co.yieldFrom(ctx, &taken[0], func(r Record, err error) bool {
				g.works()
				done = !yield(r, err)
				if !done && err == nil {
					g.mark(taken[0].cur)
				}
				return !done && ctx.Err() == nil && !g.breaksOff()
			})
			if done {
				return
			}
			g.mark(taken[0].cur)
		}
	}
}

// next returns when there is something to hand out, and nothing to do before.
func (g *Group) next(ctx context.Context) error {
	g.waits()
	for {
		if err := g.settle(ctx); err != nil {
			return err
		}
		g.co.mu.Lock()
		ready := len(g.co.ready) > 0
		g.co.mu.Unlock()
		if ready {
			return nil
		}
		select {
		case <-g.co.arrived:
		case <-g.turned:
		case <-ctx.Done():
			return ctx.Err()
		case <-g.ctx.Done():
			return ErrClosed
		}
	}
}

// breaksOff reports that there is something to do before the next record: what is left
// of those that were taken is put back. With AtMostOnce it is committed, so whoever
// gets the partition next would not have it.
func (g *Group) breaksOff() bool { return g.pending.Load() && g.cfg.Delivery == AtLeastOnce }

// waits takes note that the program has worked off what it was given.
func (g *Group) waits() {
	g.working.Store(0)
	g.mu.Lock()
	left := g.left
	g.left = false
	g.mu.Unlock()
	if left {
		poke(g.beat)
	}
}

// works takes note that the program has something to work on.
func (g *Group) works() { g.working.Store(g.c.cfg.Now().UnixNano()) }

// sift leaves out errors of topics that are no more: the coordinator takes their
// partitions away.
func (g *Group) sift(fetched []Fetched) []Fetched {
	return slices.DeleteFunc(fetched, func(f Fetched) bool {
		if f.Err == nil || !errors.Is(f.Err, ErrRecreated) && !errors.Is(f.Err, ErrNoPartition) && !isGone(f.Err) {
			return false
		}
		g.c.cfg.Logger.Info("topic is gone", "group", g.cfg.Group, "topic", f.Topic, "partition", f.Partition, "error", f.Err)
		return true
	})
}

// passed moves the positions beyond what is handed out.
func (co *Consumer) passed(fetched []Fetched) {
	co.mu.Lock()
	defer co.mu.Unlock()
	for i := range fetched {
		if f := &fetched[i]; f.Err == nil && f.cur.epoch == f.epoch {
			f.cur.position = f.next
		}
	}
}

// Assigned returns the partitions that the member has, with the offset of the next
// record of each.
func (g *Group) Assigned() []Assignment { return g.co.Assigned() }

// Pause stops the reading of a partition, as Consumer.Pause does: the member keeps
// it. A partition that comes back later is not paused.
func (g *Group) Pause(topic string, partition int32) error { return g.co.Pause(topic, partition) }

// Resume goes on with a partition that was paused.
func (g *Group) Resume(topic string, partition int32) error { return g.co.Resume(topic, partition) }

// Paused returns the partitions that are paused.
func (g *Group) Paused() []Assignment { return g.co.Paused() }

// Position returns the offset of the next record of a partition; see
// Consumer.Position.
func (g *Group) Position(topic string, partition int32) (int64, error) {
	return g.co.Position(topic, partition)
}

// Seek goes on at another offset of a partition that the member has, or Beginning or
// End. With what is worked off from there on, the committed offset follows, back as
// well.
func (g *Group) Seek(topic string, partition int32, offset int64) error {
	return g.co.Seek(topic, partition, offset)
}

// SeekTime is Seek to the first record whose timestamp is from or later.
func (g *Group) SeekTime(topic string, partition int32, from time.Time) error {
	return g.co.SeekTime(topic, partition, from)
}
