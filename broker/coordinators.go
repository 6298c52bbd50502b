package broker

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/flotilla-log/flotilla/broker/coordinator"
	"github.com/flotilla-log/flotilla/broker/metadata"
	"github.com/flotilla-log/flotilla/consumergroup"
	"github.com/flotilla-log/flotilla/consumergroup/record"
	"github.com/flotilla-log/flotilla/partition"
)

// runnerDelay is how long after a Runner has ended by itself the next one of the same
// term begins.
const runnerDelay = time.Second

// maxDecisionBytes bounds the records of one decision, so that many groups share an
// entry with what else there is. With small journal files it is half of what they take
// as one record, and so is what is held of a group: it is one record.
const maxDecisionBytes = 512 << 10

// coordinators are the Runners of the partitions of __consumer_offsets that this node
// leads: one begins when the node leads the partition's shard and has applied its term's
// first command, and ends with the term, the partition, or the node.
type coordinators struct {
	b    *Broker
	opt  consumergroup.Options
	most int           // bytes of records in one decision
	wake chan struct{} // 1-buffered

	decisions, records atomic.Uint64 // applied

	mu sync.Mutex
	at map[int32]*coordination // by partition; nil once the broker stops

	telling sync.Mutex // for the two below: the newest metadata whose topics the Runners were told of
	told    *metadata.Image
	topics  *consumergroup.Topics
}

// coordination is what a node knows of one partition that it leads. Once it is entered
// it is replaced, never changed.
type coordination struct {
	log    *internalLog
	term   uint64
	number uint64              // of the last decision of the term that is known to be applied
	runner *coordinator.Runner // nil: none, for now
	over   bool                // what came of a decision is not known: there will be none in this term
	after  time.Time           // when the next one may begin
}

func newCoordinators(b *Broker) *coordinators {
	ids := &memberIDs{rand: b.opt.Rand}
	opt := b.opt.Groups
	opt.NewID = ids.next
	most := int(b.opt.Journal.MaxRecordBytes()) / 2
	opt.MaxGroupBytes = min(opt.MaxGroupBytes, most)
	return &coordinators{
		b: b, opt: opt, wake: make(chan struct{}, 1), at: make(map[int32]*coordination), most: min(most, maxDecisionBytes),
	}
}

// kick has the table looked at: who leads, or what partitions there are, has changed.
// It does not block.
func (c *coordinators) kick() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// runner returns the Runner of a partition, or nil.
func (c *coordinators) runner(index int32) *coordinator.Runner {
	c.mu.Lock()
	defer c.mu.Unlock()
	if at := c.at[index]; at != nil {
		return at.runner
	}
	return nil
}

// all returns the partitions whose groups are coordinated here: they have a Runner.
func (c *coordinators) all() (running []*coordination) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, at := range c.at {
		if at.runner != nil {
			running = append(running, at)
		}
	}
	return running
}

// run keeps the table for as long as the broker runs.
func (c *coordinators) run() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		changed := c.b.metaState.changed.wait() // before it is looked at
		if again := c.look(c.b.opt.Now()); again > 0 {
			timer.Reset(again)
		}
		select {
		case <-c.wake:
		case <-changed:
		case <-timer.C:
		case <-c.b.stopping.Done():
			c.close()
			return
		}
	}
}

// close stops all Runners, at once.
func (c *coordinators) close() {
	all := c.all()
	c.mu.Lock()
	c.at = nil
	c.mu.Unlock()
	var wg sync.WaitGroup
	for _, at := range all {
		wg.Go(func() { at.runner.Stop() })
	}
	wg.Wait()
}

// look makes the Runners those that there are to be, and returns when to look again at
// the latest; 0: when it is woken.
func (c *coordinators) look(now time.Time) (again time.Duration) {
	im := c.b.image()
	t := im.TopicByName(metadata.GroupsTopic)
	if t == nil {
		return 0
	}
	var begun []*coordination
	for i := range int32(len(t.Assignment)) {
		log, term := c.leads(partition.TopicID(t.ID), i)
		c.mu.Lock()
		at := c.at[i]
		c.mu.Unlock()
		if at != nil && at.term != term {
			c.set(i, nil)
			if at.runner != nil {
				at.runner.Stop()
			}
			at = nil
		}
		if term == 0 {
			continue
		}
		next := coordination{log: log, term: term}
		if at != nil {
			if at.over || at.runner != nil && !ended(at.runner) {
				continue
			}
			next = at.next(now)
			if at.runner != nil {
				c.report(i, at.runner.Stop())
				c.set(i, &next)
			}
			if wait := next.after.Sub(now); next.over || wait > 0 {
				again = max(again, wait)
				continue
			}
		}
		if err := c.begin(&next); err != nil {
			c.b.opt.Log.Error("a coordinator of groups cannot begin", "partition", i, "err", err)
			next.over = true
		} else {
			begun = append(begun, &next)
		}
		c.set(i, &next)
	}
	c.tell(begun)
	return again
}

// leads returns a partition, and the term in which this node leads it, 0 if it does not.
func (c *coordinators) leads(topic partition.TopicID, index int32) (*internalLog, uint64) {
	log, ok := c.b.internalLog(topic, index)
	if !ok || log.at.quarantined() {
		return nil, 0
	}
	return log, log.at.shard.replica.Leading()
}

// set enters what is known of a partition; nil: nothing.
func (c *coordinators) set(index int32, at *coordination) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if at == nil {
		delete(c.at, index)
		return
	}
	c.at[index] = at
}

func ended(r *coordinator.Runner) bool {
	select {
	case <-r.Done():
		return true
	default:
		return false
	}
}

// next returns what follows on a Runner that has ended, in the same term.
func (at *coordination) next(now time.Time) coordination {
	next := *at
	if at.runner == nil {
		return next
	}
	out := at.runner.Stop()
	next.runner, next.number, next.over, next.after = nil, out.Number, !out.Known, now.Add(runnerDelay)
	return next
}

// report tells why a Runner has ended by itself.
func (c *coordinators) report(index int32, out coordinator.Outcome) {
	if out.Err != nil && c.b.stopping.Err() == nil {
		c.b.opt.Log.Warn("a coordinator of groups has ended; its groups' clients look for the next one",
			"partition", index, "again_in_this_term", out.Known, "err", out.Err)
	}
}

// begin starts a Runner, and has it looked at when it ends.
func (c *coordinators) begin(at *coordination) (err error) {
	at.runner, err = coordinator.Start(coordinator.Options{
		Log: at.log, Term: at.term, Number: at.number, Groups: c.opt, Now: c.b.opt.Now, MaxProposalBytes: c.most,
		OnApplied: func(records int) {
			c.decisions.Add(1)
			c.records.Add(uint64(records))
		},
	})
	if err != nil {
		return err
	}
	r := at.runner
	c.b.group.Go(func() {
		<-r.Done()
		c.kick()
	})
	return nil
}

// tell tells the Runners of the topics that this node knows now: those that have begun of
// all, and of what was deleted at any time that they have offsets of; the others of what
// has changed.
func (c *coordinators) tell(begun []*coordination) {
	c.telling.Lock()
	defer c.telling.Unlock()
	im := c.b.image() // no older one than the Runners know
	if im != c.told || len(begun) > 0 {
		c.tellOf(im, begun)
	}
}

// tellOf is tell for metadata that has changed, or with Runners that have begun. It is
// of its own so that a member that joins, on a stack that its connection keeps, does not
// pay for its frame.
func (c *coordinators) tellOf(im *metadata.Image, begun []*coordination) {
	var deleted []consumergroup.Topic
	changed := c.told == nil
	if !changed {
		for range im.TopicsSince(c.told) {
			changed = true
			break
		}
		for tomb := range im.TombstonesSince(c.told) {
			changed = true
			deleted = append(deleted, consumergroup.Topic{Name: tomb.Name, ID: record.TopicID(tomb.ID)})
		}
	}
	if changed {
		var infos []consumergroup.TopicInfo
		for t := range im.Topics() {
			infos = append(infos, consumergroup.TopicInfo{Name: t.Name, ID: record.TopicID(t.ID), Partitions: int32(len(t.Assignment))})
		}
		c.told, c.topics = im, consumergroup.NewTopics(int64(im.Index()), infos)
		for _, at := range c.all() {
			at.runner.Tell(c.topics, deleted)
		}
	}
	for _, at := range begun {
		at.runner.Tell(c.topics, nil)
		r, log := at.runner, at.log
		c.b.group.Go(func() {
			if gone := c.deleted(im, log); len(gone) > 0 {
				r.Tell(nil, gone)
			}
		})
	}
}

// deleted returns the topics that are deleted and that a partition has offsets of. That
// a topic is not known proves nothing, as this node may be behind (R17), unless it is
// alone.
func (c *coordinators) deleted(im *metadata.Image, log *internalLog) (gone []consumergroup.Topic) {
	var state *consumergroup.Groups
	if log.Groups(func(g *consumergroup.Groups) { state = g.Clone() }) != nil {
		return nil // the Runner says why
	}
	for _, t := range state.Topics() {
		id := metadata.TopicID(t.ID)
		if t.ID == (record.TopicID{}) || im.TopicByID(id) != nil {
			continue
		}
		if im.Tombstone(id) != nil || c.b.opt.Cluster == nil {
			gone = append(gone, t)
		}
	}
	return gone
}

// GroupStats are the numbers of the groups that a node coordinates.
type GroupStats struct {
	Coordinators int // partitions of __consumer_offsets
	Groups       int // that are recorded
	Members      int
	Offsets      int // committed
	Held         int // requests that wait for a rebalance
	Parked       int // answers that wait for records, or for a majority
	MemberBytes  int // of memory for members

	// Decisions are what was decided at once and is applied, and Records those of them,
	// from the start.
	Decisions, Records uint64

	// Load is the longest that one of the coordinators took to begin.
	Load time.Duration
}

func (c *coordinators) stats() GroupStats {
	s := GroupStats{Decisions: c.decisions.Load(), Records: c.records.Load()}
	for _, at := range c.all() {
		s.Coordinators++
		n, ok := at.runner.Counts()
		if !ok {
			continue
		}
		s.Groups += n.Groups.Groups
		s.Members += n.Groups.Members
		s.Offsets += n.Groups.Offsets
		s.Held += n.Groups.Held
		s.Parked += n.Parked
		s.MemberBytes += n.Groups.Bytes
		s.Load = max(s.Load, n.Load)
	}
	return s
}
