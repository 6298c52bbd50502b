package broker

import (
	"bytes"
	"io"
	"sync/atomic"

	"github.com/flotilla-log/flotilla/broker/metadata"
	"github.com/flotilla-log/flotilla/replication"
)

// metaMachine is the metadata shard's FSM.
type metaMachine struct {
	state   *metadata.State
	image   atomic.Pointer[metadata.Image] // what readers see
	applied func()                         // told after each run of entries
	changed broadcast                      // likewise

	result [1]metadata.Result
}

// Apply implements replication.FSM.
func (m *metaMachine) Apply(index, term uint64, entry []byte) ([]metadata.Result, error) {
	r, err := m.state.Apply(index, term, entry)
	if err != nil {
		return nil, needsNewer(err)
	}
	m.result[0] = r
	// Published before the result is answered: who was told of a topic finds it.
	m.image.Store(m.state.Image())
	return m.result[:], nil
}

// AppliedBatch implements replication.FSM.
func (m *metaMachine) AppliedBatch() {
	m.applied()
	m.changed.send()
}

// Capture implements replication.FSM. An image costs nothing, and is written
// whole.
func (m *metaMachine) Capture() (replication.Capture, error) {
	return metaCapture{m.state.Image()}, nil
}

// Restore implements replication.FSM.
func (m *metaMachine) Restore(checkpoint io.Reader) error {
	b, err := io.ReadAll(checkpoint)
	if err != nil {
		return err
	}
	m.state = metadata.New()
	if len(b) > 0 {
		if m.state, err = metadata.Restore(bytes.NewReader(b)); err != nil {
			return needsNewer(err)
		}
	}
	m.image.Store(m.state.Image())
	m.changed.send()
	return nil
}

// metaCapture is the metadata's checkpoint on its way to the disk.
type metaCapture struct{ image *metadata.Image }

// Persist implements replication.Capture.
func (c metaCapture) Persist(w io.Writer) error { return c.image.WriteSnapshot(w) }

// Durable implements replication.Capture.
func (metaCapture) Durable() {}

// Abandon implements replication.Capture.
func (metaCapture) Abandon() {}
