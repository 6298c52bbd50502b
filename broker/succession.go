package broker

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/flotilla-log/flotilla/partition"
	"github.com/flotilla-log/flotilla/replication"
)

const (
	// maxSuccessionBytes bounds the entries that are kept while another replica's state
	// comes; then a newer one is asked for.
	maxSuccessionBytes = 32 << 20

	// maxSwitchEntries is how many entries may be applied to another replica's state
	// while those that are committed wait.
	maxSwitchEntries = 32

	// successionTick is how often to look whether this replica has come to the index of
	// the other one's state.
	successionTick = 5 * time.Millisecond
)

var (
	// errOvertaken ends a succession: the replica has changed in a way that it does not
	// follow. It may be begun again.
	errOvertaken = errors.New("broker: the replica was overtaken by its log, or by a checkpoint of another one")

	// errPanicsHere matches the error of a succession in which an entry panicked again.
	errPanicsHere = errors.New("broker: handling an entry of the log panics here again")
)

// succession is how another replica's state takes the place of a machine's that has
// partitions in quarantine, while both go on:
//
//	entries applied here     ... F .......... Y ...... now
//	kept from here on            |----------------------|
//	the other replica's state                 |.........|  Y, brought up to now
//
// What is kept covers Y: the other replica was asked when this one was at F, and had
// to be as far.
type succession struct {
	of      *partition.State   // what it is to take the place of
	from    uint64             // F
	numbers []partition.Number // in quarantine at F

	// Guarded by the machine's mu.
	kept  []keptEntry
	bytes int
	over  bool // more than maxSuccessionBytes came

	pending []keptBatch // appended by entries that were applied to the other's state
}

type keptEntry struct {
	index, term uint64
	entry       []byte // shared (R1)
}

// keptBatch is a batch of a partition in quarantine that the store does not have yet.
type keptBatch struct {
	e     partition.Effect
	entry []byte
}

// begin begins a succession, which end ends. Nil: nothing is in quarantine.
func (m *machine) begin() *succession {
	m.mu.Lock()
	defer m.mu.Unlock()
	h := &succession{of: m.state, from: m.state.Index()}
	for v := range m.state.Partitions() {
		if _, in := m.state.Quarantined(v.Number); in {
			h.numbers = append(h.numbers, v.Number)
		}
	}
	if len(h.numbers) == 0 {
		return nil
	}
	m.succession = h
	return h
}

func (m *machine) end() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.succession = nil
}

// keep notes an entry that was applied.
func (h *succession) keep(index, term uint64, entry []byte) {
	if h.bytes += len(entry); h.bytes > maxSuccessionBytes {
		h.over, h.kept = true, nil
		return
	}
	h.kept = append(h.kept, keptEntry{index, term, entry})
}

// holdsLocked returns why the succession cannot go on, if so.
func (h *succession) holdsLocked(m *machine) error {
	switch {
	case m.state != h.of:
		return fmt.Errorf("%w: it has another state since index %d", errOvertaken, h.from)
	case h.over:
		return fmt.Errorf("%w: more than %d bytes since index %d", errOvertaken, maxSuccessionBytes, h.from)
	case m.state.QuarantinedPartitions() != len(h.numbers):
		return fmt.Errorf("%w: other partitions are in quarantine than at index %d", errOvertaken, h.from)
	}
	for _, n := range h.numbers {
		if _, in := m.state.Quarantined(n); !in {
			return fmt.Errorf("%w: partition %d is in quarantine no more", errOvertaken, n)
		}
	}
	return nil
}

// graft calls append for a partition in quarantine, while no entry is applied.
func (m *machine) graft(h *succession, take func() error) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := h.holdsLocked(m); err != nil {
		return err
	}
	return take()
}

// succeed brings the state of another replica up to this one's index, and has it take
// the place of this one's. The store has the batches of the partitions in quarantine up
// to their ends in state as it is given. An error leaves everything as it was, but for
// batches that the store has got.
func (m *machine) succeed(ctx context.Context, h *succession, state *partition.State) error {
	tick := time.NewTicker(successionTick)
	defer tick.Stop()
	for {
		m.mu.Lock()
		if err := m.catchUpLocked(h); err != nil {
			m.mu.Unlock()
			return err
		}
		kept, here := h.kept, m.state.Index()
		h.kept, h.bytes = nil, 0
		if len(kept) <= maxSwitchEntries && state.Index() <= here {
			err := h.apply(m, state, kept)
			if err == nil {
				err = m.catchUpLocked(h)
			}
			if err == nil {
				err = m.switchLocked(h, state)
			}
			m.mu.Unlock()
			if err == nil {
				m.shard.turned()
			}
			return err
		}
		m.mu.Unlock()
		if err := h.apply(m, state, kept); err != nil {
			return err
		}
		if state.Index() > here {
			select {
			case <-tick.C:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
	}
}

// apply applies the kept entries that are behind state to it.
func (h *succession) apply(m *machine, state *partition.State, kept []keptEntry) error {
	for _, k := range kept {
		if k.index <= state.Index() {
			continue
		}
		out := partition.Outcome{Follow: func(e *partition.Effect) {
			if m.poison != nil {
				m.poison(e)
			}
			if e.Kind == partition.EffectAppended && slices.Contains(h.numbers, e.Number) {
				h.pending = append(h.pending, keptBatch{*e, k.entry})
			}
		}}
		if err := state.Apply(k.index, k.term, k.entry, &out); err != nil {
			return err
		}
		if len(out.Quarantines) > 0 {
			q := &out.Quarantines[0]
			return fmt.Errorf("%w: entry %d, partition %d of %v: %s", errPanicsHere, q.EntryIndex, q.Index, q.TopicID, q.Panic)
		}
	}
	return nil
}

// catchUpLocked gives the store the batches that wait for it.
func (m *machine) catchUpLocked(h *succession) error {
	if err := h.holdsLocked(m); err != nil {
		return err
	}
	for _, b := range h.pending {
		if _, end, err := m.store.Bounds(uint32(b.e.Number)); err != nil || end != b.e.BaseOffset {
			return fmt.Errorf("broker: partition %d of shard %d ends at %d, and a batch of offset %d is the next one: %w", b.e.Number, m.shard.id, end, b.e.BaseOffset, errors.Join(err, errOvertaken))
		}
		pin := m.node.Pin(len(b.entry))
		m.store.Append(uint32(b.e.Number), b.e.BaseOffset, b.e.LastOffset, b.e.LeaderEpoch, b.e.Batch, pin)
		pin.Release()
	}
	h.pending = nil
	return nil
}

// switchLocked has state take the place of the machine's.
func (m *machine) switchLocked(h *succession, state *partition.State) error {
	for _, n := range h.numbers {
		v, ok := state.Partition(n)
		if !ok {
			continue
		}
		if _, end, err := m.store.Bounds(uint32(n)); err != nil || end != v.End {
			return fmt.Errorf("broker: partition %d of shard %d ends at %d in the other replica's state, and at %d here: %w", n, m.shard.id, v.End, end, errors.Join(err, errOvertaken))
		}
	}
	if err := state.Succeed(m.state); err != nil {
		return err
	}
	before := m.state
	m.state, m.succession = state, nil
	m.succeededAt = state.Index()
	m.shard.unsettled.Store(true)
	m.shard.version.Store(uint32(state.ApplyVersion()))
	m.publishState()
	for _, n := range h.numbers {
		v, ok := state.Partition(n)
		if !ok { // its deletion is what panicked
			was, _ := before.Partition(n)
			m.store.Delete(uint32(n))
			m.dir.remove(partitionKey{was.TopicID, was.Index})
			m.freed()
			continue
		}
		m.store.Configure(uint32(n), storeConfig(v.Config))
		m.store.SetLogStart(uint32(n), v.LogStart)
		m.publish(n)
	}
	return nil
}

// frozen returns a copy of the state, if it is what its entries say and has those up to
// an index.
func (m *machine) frozen(from uint64) (*partition.Frozen, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case !m.state.Whole():
		return nil, fmt.Errorf("partitions of shard %d are in quarantine here too", m.shard.id)
	case m.state.Index() < from:
		return nil, fmt.Errorf("shard %d is applied up to %d here, and %d is asked for", m.shard.id, m.state.Index(), from)
	}
	return m.state.Freeze(), nil
}

// settled ends the quarantines that a succession at an index has healed, now that a
// checkpoint has the state that came of it.
func (m *machine) settled(checkpoint, at uint64) {
	if err := m.quarantines.end(m.shard.id, at); err != nil {
		m.log.Warn("the quarantine file of a partition that is healed could not be removed; after a restart it is in quarantine, and healed again", "shard", m.shard.id, "err", err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.shard.soundFrom.Store(checkpoint)
	if m.succeededAt == at {
		m.shard.unsettled.Store(false)
	}
}

var _ replication.WholeCapture = (*capture)(nil)

// Whole implements replication.WholeCapture.
func (c *capture) Whole() bool { return c.state.Whole() }
