package broker

import (
	"bytes"
	"io"
	"log/slog"

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

	state *partition.State
	out   partition.Outcome // reused

	// returned is a capture that did not become durable. It comes back on
	// another goroutine than Apply's, which alone may requeue it.
	returned chan *partition.Capture
}

// Apply implements replication.FSM.
func (m *machine) Apply(index, term uint64, entry []byte) ([]partition.Result, error) {
	if err := m.state.Apply(index, term, entry, &m.out); err != nil {
		return nil, err
	}
	var pin *store.Pin
	for i := range m.out.Effects {
		e := &m.out.Effects[i]
		key := uint32(e.Number)
		switch e.Kind {
		case partition.EffectAppended:
			if pin == nil {
				pin = m.node.Pin(len(entry))
			}
			m.store.Append(key, e.BaseOffset, e.LastOffset, e.LeaderEpoch, e.Batch, pin)
		case partition.EffectLogStartMoved:
			m.store.SetLogStart(key, e.LogStart)
		case partition.EffectCreated:
			m.store.Create(key, e.TopicID, e.Index, storeConfig(e.Config))
			m.publish(e.Number)
		case partition.EffectDeleted:
			m.store.Delete(key)
			m.dir.remove(partitionKey{e.TopicID, e.Index})
		case partition.EffectConfigSet:
			m.store.Configure(key, storeConfig(e.Config))
			m.publish(e.Number)
		}
	}
	if pin != nil {
		pin.Release()
	}
	return m.out.Results, nil
}

func storeConfig(c partition.Config) store.Config { return store.Config{SegmentBytes: c.SegmentBytes} }

// publish lets everybody find a partition as the state has it now.
func (m *machine) publish(n partition.Number) {
	v, ok := m.state.Partition(n)
	if !ok {
		return // deleted by a later command of the same entry
	}
	m.dir.put(&placed{
		key: partitionKey{v.TopicID, v.Index}, shard: m.shard, number: n,
		baseEpoch: v.BaseEpoch, config: v.Config, stamp: v.MetadataIndex,
	})
}

// AppliedBatch implements replication.FSM.
func (m *machine) AppliedBatch() { m.store.AppliedBatch() }

// Capture implements replication.FSM.
func (m *machine) Capture() (replication.Capture, error) {
	select {
	case c := <-m.returned:
		m.state.Requeue(c)
	default:
	}
	return &capture{m: m, state: m.state.Capture(), token: m.store.Capture()}, nil
}

// Restore implements replication.FSM.
func (m *machine) Restore(checkpoint io.Reader) error {
	state, err := restoreState(checkpoint)
	if err != nil {
		return err
	}
	m.state = state
	var restored []store.Restored
	for v := range state.Partitions() {
		r := store.Restored{
			Key: uint32(v.Number), TopicID: v.TopicID, Index: v.Index,
			LogStart: v.LogStart, End: v.End, Config: storeConfig(v.Config),
		}
		for _, e := range state.Epochs(v.Number) {
			r.Epochs = append(r.Epochs, store.Epoch{Epoch: e.Epoch, Start: e.Start})
		}
		restored = append(restored, r)
	}
	damage, err := m.store.Restore(restored)
	if err != nil {
		return err
	}
	for _, d := range damage {
		v, _ := state.Partition(partition.Number(d.Key))
		m.log.Error("a range of a partition is damaged; reads of it will fail",
			"topic_id", v.TopicID, "partition", v.Index, "from", d.From, "to", d.To, "err", d.Err)
	}
	for v := range state.Partitions() {
		m.publish(v.Number)
	}
	return nil
}

// restoreState reads a checkpoint; nothing at all is that of a new shard.
func restoreState(checkpoint io.Reader) (*partition.State, error) {
	first := make([]byte, 1)
	switch _, err := io.ReadFull(checkpoint, first); err {
	case nil:
	case io.EOF:
		return partition.New(), nil
	default:
		return nil, err
	}
	return partition.Restore(io.MultiReader(bytes.NewReader(first), checkpoint))
}

// capture is a data shard's checkpoint on its way to the disk.
type capture struct {
	m     *machine
	state *partition.Capture
	token store.Token
}

// Persist implements replication.Capture.
func (c *capture) Persist(w io.Writer) error {
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
	if err := c.m.store.Checkpointed(c.token); err != nil {
		c.m.log.Warn("files that are not needed any more could not be removed; the next start removes them", "err", err)
	}
}

// Abandon implements replication.Capture.
func (c *capture) Abandon() {
	c.m.store.Abandon(c.token)
	c.m.returned <- c.state
}
