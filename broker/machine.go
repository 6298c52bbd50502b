package broker

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"runtime/debug"
	"sync"

	"github.com/flotilla-log/flotilla/internal/errcode"
	"github.com/flotilla-log/flotilla/partition"
	"github.com/flotilla-log/flotilla/partition/store"
	"github.com/flotilla-log/flotilla/replication"
)

// machine is a data shard's FSM: the deterministic state, and the bytes that
// follow it.
type machine struct {
	shard *dataShard
	store *store.Shard
	node  *store.Store
	dir   *directory
	log   *slog.Logger

	id          replication.ReplicaID
	hashes      *hashes
	quarantines *quarantines
	poison      func(*partition.Effect) // tests: panics in place of what would; else nil

	// mu guards state against those that look at it beside Apply. It is held
	// while an entry is applied, and never over I/O.
	mu sync.Mutex
	// placed is told of each partition that comes or is configured, freed when
	// something was deleted that has files, perhaps. Neither blocks.
	placed func(partitionKey)
	freed  func()

	unsound func() // told that a partition went into quarantine; does not block

	state *partition.State
	out   partition.Outcome // reused

	// Guarded by mu: what takes the place of state, nil: nothing; and at which index that
	// was the last time.
	succession  *succession
	succeededAt uint64

	// term is that of the last entry applied, and told the one that those who wait
	// were told of. They are Apply's goroutine's.
	term, told uint64

	// The entry that is being applied, and the pin of it, nil until the first
	// batch.
	entry []byte
	pin   *store.Pin

	// returned is a capture that did not become durable. It comes back on
	// another goroutine than Apply's, which alone may requeue it.
	returned chan *partition.Capture
}

// Apply implements replication.FSM.
func (m *machine) Apply(index, term uint64, entry []byte) (results []partition.Result, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	defer func() {
		if p := recover(); p != nil { // not one command's: see partition.Quarantine
			err = fmt.Errorf("%w: entry %d: %v\n%s", partition.ErrBroken, index, p, debug.Stack())
		}
	}()
	m.entry = entry
	err = m.state.Apply(index, term, entry, &m.out)
	if m.pin != nil {
		m.pin.Release()
	}
	m.entry, m.pin = nil, nil
	if err != nil {
		return nil, needsNewer(err)
	}
	m.term = term
	if m.succession != nil {
		m.succession.keep(index, term, entry)
	}
	m.shard.version.Store(uint32(m.state.ApplyVersion()))
	for i := range m.out.Quarantines {
		m.quarantine(&m.out.Quarantines[i], entry)
	}
	if m.out.HashAsked {
		m.hash(index)
	}
	m.publishState()
	return m.out.Results, nil
}

// follow does what an effect of the present entry says.
func (m *machine) follow(e *partition.Effect) {
	if m.poison != nil {
		m.poison(e)
	}
	key := uint32(e.Number)
	switch e.Kind {
	case partition.EffectAppended:
		if m.pin == nil {
			m.pin = m.node.Pin(len(m.entry))
		}
		m.store.Append(key, e.BaseOffset, e.LastOffset, e.LeaderEpoch, e.Batch, m.pin)
	case partition.EffectLogStartMoved:
		m.store.SetLogStart(key, e.LogStart)
		m.freed()
	case partition.EffectCreated:
		m.store.Create(key, e.TopicID, e.Index, storeConfig(e.Config))
		m.publish(e.Number)
	case partition.EffectDeleted:
		m.store.Delete(key)
		m.dir.remove(partitionKey{e.TopicID, e.Index})
		m.freed()
	case partition.EffectConfigSet:
		m.store.Configure(key, storeConfig(e.Config))
		m.publish(e.Number)
	}
}

// hash has the state's hash at index made and reported. A state of which a part
// is in quarantine has none: it is not what its entries say.
func (m *machine) hash(index uint64) {
	if !m.state.Whole() {
		m.log.Warn("no state hash: a partition is in quarantine on this replica", "shard", m.shard.id, "index", index)
		return
	}
	report := replication.HashReport{Shard: m.shard.id, Replica: m.id, Index: index}
	m.hashes.add(hashJob{report: report, state: m.state.Freeze()})
}

// idleProducers lists producers that have appended nothing for expiryMS by the
// shard clock, as it will be once an entry of nowMS is applied.
func (m *machine) idleProducers(nowMS, expiryMS int64, limit int) partition.ExpireProducers {
	m.mu.Lock()
	defer m.mu.Unlock()
	until := max(m.state.ClockMS(), nowMS) - expiryMS
	return partition.ExpireProducers{UntilMS: until, Producers: m.state.IdleProducers(until, limit)}
}

// epochEnd answers OffsetForLeaderEpoch for a partition; see
// partition.State.EpochEnd.
func (m *machine) epochEnd(n partition.Number, epoch int32) (partition.EpochEnd, errcode.Code) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.state.EpochEnd(n, epoch)
}

// epochAt returns the leader epoch of a partition's record at an offset, or -1.
func (m *machine) epochAt(n partition.Number, offset int64) int32 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.state.EpochAt(n, offset)
}

// producerCount returns how many producers a partition remembers.
func (m *machine) producerCount(n partition.Number) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	v, _ := m.state.Partition(n)
	return v.Producers
}

// producersOf lists a partition's producers, in no order.
func (m *machine) producersOf(n partition.Number) []partition.ProducerView {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.state.ProducersOf(n)
}

// publishState lets everybody see limits and counts as the state has them now.
func (m *machine) publishState() {
	m.shard.producers.Store(int64(m.state.Producers()))
	if n := int64(m.state.QuarantinedPartitions()); m.shard.quarantined.Swap(n) < n {
		m.unsound() // by an earlier run's quarantine, perhaps, to which this one has come
	}
	if now := m.state.Limits(); m.shard.limits.Load() == nil || *m.shard.limits.Load() != now {
		m.shard.limits.Store(&now)
	}
}

func storeConfig(c partition.Config) store.Config { return store.Config{SegmentBytes: c.SegmentBytes} }

// publish lets everybody find a partition as the state has it now.
func (m *machine) publish(n partition.Number) {
	v, ok := m.state.Partition(n)
	if !ok {
		panic(fmt.Sprintf("broker: partition %d of shard %d was changed and is not there", n, m.shard.id))
	}
	// While entries are applied again, as of the quarantine that is to come.
	index, _ := m.state.Quarantined(n)
	m.dir.put(&placed{
		key: partitionKey{v.TopicID, v.Index}, shard: m.shard, number: n,
		baseEpoch: v.BaseEpoch, config: v.Config, stamp: v.MetadataIndex, quarantine: index,
	})
	m.placed(partitionKey{v.TopicID, v.Index})
}

// AppliedBatch implements replication.FSM.
func (m *machine) AppliedBatch() {
	m.store.AppliedBatch()
	if m.term != m.told {
		m.told = m.term
		m.shard.turned()
	}
}

// Capture implements replication.FSM.
func (m *machine) Capture() (replication.Capture, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	select {
	case c := <-m.returned:
		m.state.Requeue(c)
	default:
	}
	return &capture{m: m, state: m.state.Capture(), token: m.store.Capture(), succeededAt: m.succeededAt}, nil
}

// Restore implements replication.FSM.
func (m *machine) Restore(checkpoint io.Reader) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	state, err := restoreState(checkpoint)
	if err != nil {
		return needsNewer(err)
	}
	before := m.state
	if before != nil {
		// The other replica's state is what its entries say.
		if err := m.quarantines.end(m.shard.id, state.Index()); err != nil {
			return err
		}
		m.shard.unsettled.Store(false)
	}
	m.state = state
	m.out.Follow = m.follow
	m.shard.version.Store(uint32(state.ApplyVersion()))
	if err := m.quarantines.replay(m.shard.id, state); err != nil {
		return err
	}
	m.publishState()
	put := m.store.Restore
	if before != nil {
		put = m.store.Replace
		select {
		case <-m.returned: // its state is not there any more
		default:
		}
	}
	damage, err := put(restoredOf(state))
	if err != nil {
		return err
	}
	for _, d := range damage {
		v, _ := state.Partition(partition.Number(d.Key))
		m.log.Error("a range of a partition is damaged; reads of it fail until it is repaired",
			"shard", m.shard.id, "topic_id", v.TopicID, "partition", v.Index, "from", d.From, "to", d.To, "err", d.Err)
	}
	if before != nil {
		m.unpublish(before)
	}
	for v := range state.Partitions() {
		m.publish(v.Number)
	}
	return nil
}

// unpublish takes away the partitions that a state had and the present one has
// not: they were deleted while this replica was behind.
func (m *machine) unpublish(before *partition.State) {
	for v := range before.Partitions() {
		if _, stays := m.state.Partition(v.Number); stays {
			continue
		}
		if _, again := m.state.Lookup(v.TopicID, v.Index); !again {
			m.dir.remove(partitionKey{v.TopicID, v.Index})
		}
		m.freed()
	}
}

// restoreState reads a checkpoint; nothing at all is that of a new shard.
func restoreState(checkpoint io.Reader) (*partition.State, error) {
	first := make([]byte, 1)
	switch _, err := io.ReadFull(checkpoint, first); err {
	case nil:
	case io.EOF:
		return partition.Folding(folding).New(), nil
	default:
		return nil, err
	}
	return partition.Folding(folding).Restore(io.MultiReader(bytes.NewReader(first), checkpoint))
}

// capture is a data shard's checkpoint on its way to the disk.
type capture struct {
	m     *machine
	state *partition.Capture
	token store.Token

	succeededAt uint64 // the machine's
}

// Persist implements replication.Capture.
func (c *capture) Persist(w io.Writer) error {
	// A checkpoint may cover the entry that put a partition into quarantine: what
	// says so has to be durable first.
	if err := c.m.quarantines.write(); err != nil {
		return err
	}
	dirty := c.state.Dirty()
	ends := make([]store.End, len(dirty))
	for i, d := range dirty {
		ends[i] = store.End{Key: uint32(d.Number), End: d.End}
	}
	if err := c.m.store.FlushTo(ends); err != nil {
		return err
	}
	return c.state.WriteDelta(w)
}

// Durable implements replication.Capture.
func (c *capture) Durable() {
	if c.state.Whole() {
		c.m.settled(c.state.Index(), c.succeededAt)
	}
	if !c.m.shard.catchUp.busy.Load() {
		// Nobody goes on with it: the log is followed.
		if err := c.m.store.DropPrefetch(); err != nil {
			c.m.log.Warn("what a catch-up has pulled could not be removed; the next checkpoint tries again", "err", err)
		}
	}
	if err := c.m.store.Checkpointed(c.token); err != nil {
		c.m.log.Warn("files that are not needed any more could not be removed; the next start removes them", "err", err)
	}
}

// Abandon implements replication.Capture.
func (c *capture) Abandon() {
	c.m.store.Abandon(c.token)
	c.m.returned <- c.state
}
