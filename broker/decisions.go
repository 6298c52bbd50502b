package broker

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/flotilla-log/flotilla/broker/coordinator"
	"github.com/flotilla-log/flotilla/consumergroup"
	"github.com/flotilla-log/flotilla/consumergroup/record"
	"github.com/flotilla-log/flotilla/internal/errcode"
	"github.com/flotilla-log/flotilla/log/batch"
	"github.com/flotilla-log/flotilla/partition"
	"github.com/flotilla-log/flotilla/replication"
)

// errNotFolded reports an internal partition of which this replica has no state
// to go on from: it is in quarantine, or deleted.
var errNotFolded = errors.New("broker: an internal partition is not folded here")

// internalLog is an internal partition, as its coordinator on this node sees it. Its
// methods may be called beside each other, but Propose one at a time.
type internalLog struct {
	b  *Broker
	at *placed

	mu    sync.Mutex
	under *decision // that Propose proposes; nil: none
}

// decision is one that is under way.
type decision struct {
	term, number uint64
	proposal     *produceProposal
	bytes        int // guarded by internalLog.mu, like those below
	records      int
}

var _ coordinator.Log = (*internalLog)(nil)

// internalLog returns an internal partition of which this node has a replica, and
// false if there is none.
func (b *Broker) internalLog(topic TopicID, index int32) (*internalLog, bool) {
	at := b.dir.find(topic, index)
	if at == nil || at.config.Internal == partition.NotInternal {
		return nil, false
	}
	return &internalLog{b: b, at: at}, true
}

// Propose replicates records as one decision, all or none: term is that in which it
// was decided, number the last of the term + 1, from 1 on (R3). It returns nil once
// they are applied here, an error that matches coordinator.ErrRefused if they never will
// be, and any other if that is not known. While the disk is nearly full it waits. It
// keeps nothing of records.
func (l *internalLog) Propose(ctx context.Context, term, number uint64, records []record.Record) error {
	d := &decision{term: term, number: number, records: len(records)}
	command, err := l.command(d, records)
	if err != nil {
		return fmt.Errorf("%w: %w", coordinator.ErrRefused, err)
	}
	d.bytes = len(command.Batches)
	done := make(chan error, 1)
	d.proposal = &produceProposal{
		Queue: uint32(l.at.number), Command: command, CommandBytes: d.bytes,
		Done: func(r partition.Result, err error) {
			switch {
			case err == nil && r.Code != errcode.None:
				err = fmt.Errorf("%w: %w", coordinator.ErrRefused, r.Err())
			case errors.Is(err, replication.ErrNotLeader): // it waited, and was not proposed
				err = fmt.Errorf("%w: %w", coordinator.ErrRefused, err)
			case err == nil:
				l.count(d)
			}
			done <- err
		},
	}
	if err := l.at.shard.replica.Propose(d.proposal); err != nil {
		return fmt.Errorf("%w: %w", coordinator.ErrRefused, err)
	}
	l.set(d)
	defer l.set(nil)
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	if l.at.shard.replica.Cancel(d.proposal) {
		return fmt.Errorf("%w: it waited for room, and was not proposed: %w", coordinator.ErrRefused, ctx.Err())
	}
	return ctx.Err()
}

// Extend has the decision that Propose proposes, if it waits for an entry still, be of
// records, which begin with those that it has had, and reports whether it is. It keeps
// nothing of records.
func (l *internalLog) Extend(term, number uint64, records []record.Record) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	d := l.under
	if d == nil || d.term != term || d.number != number || !l.at.shard.replica.Waits(d.proposal) {
		return false
	}
	command, err := l.command(d, records)
	if err != nil || !l.at.shard.replica.Amend(d.proposal, command, len(command.Batches)) {
		return false // what is wrong with the records, Propose of the next decision says
	}
	d.bytes, d.records = len(command.Batches), len(records)
	return true
}

// command returns what decides records.
func (l *internalLog) command(d *decision, records []record.Record) (partition.Decision, error) {
	batches, err := decisionBatches(l.b.opt.Now().UnixMilli(), int(l.at.config.MaxMessageBytes), records)
	return partition.Decision{Number: l.at.number, Term: d.term, Seq: d.number, Batches: batches}, err
}

// set notes which decision is under way; nil: none.
func (l *internalLog) set(d *decision) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.under = d
}

// count adds a decision to the topic's traffic.
func (l *internalLog) count(d *decision) {
	l.mu.Lock()
	bytes, records := d.bytes, d.records
	l.mu.Unlock()
	l.at.traffic.batchesIn.Add(1)
	l.at.traffic.recordsIn.Add(uint64(records))
	l.at.traffic.bytesIn.Add(uint64(bytes))
}

// Confirm returns nil if term leads the partition's shard at a moment after the call:
// a majority has said so (R19).
func (l *internalLog) Confirm(ctx context.Context, term uint64) error {
	leads, err := l.at.shard.replica.Confirm(ctx)
	if err == nil && leads != term {
		return replication.ErrNotLeader
	}
	return err
}

// Groups calls f with what the partition's applied records say, while nothing more of
// its shard is applied: f is short, and keeps a Clone of it at most. It returns
// errNotFolded, and does not call f, if there is nothing to go on from.
func (l *internalLog) Groups(f func(*consumergroup.Groups)) error {
	m := l.at.shard.machine
	m.mu.Lock()
	defer m.mu.Unlock()
	if index, ok := m.state.Quarantined(l.at.number); ok {
		return fmt.Errorf("%w: %w", errNotFolded, l.b.quarantineError(l.at, index))
	}
	folded, ok := m.state.Folded(l.at.number).(foldedGroups)
	if !ok {
		return fmt.Errorf("%w: it was deleted", errNotFolded)
	}
	f(folded.Groups)
	return nil
}

// decisionBatches makes record batches of records, one behind the other, each of at
// most maxBytes, or of a single record that takes more.
func decisionBatches(nowMS int64, maxBytes int, records []record.Record) ([]byte, error) {
	var w batch.Builder
	w.Reset()
	var out []byte
	end := func() (err error) {
		out, err = w.Build(out, batch.None, batch.DefaultLevel)
		w.Reset()
		return err
	}
	for _, r := range records {
		if w.Len() > 0 && w.SizeWith(nowMS, r.Key, r.Value, nil) > maxBytes {
			if err := end(); err != nil {
				return nil, err
			}
		}
		if err := w.Append(nowMS, r.Key, r.Value, nil); err != nil {
			return nil, err
		}
	}
	return out, end()
}
