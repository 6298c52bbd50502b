package broker

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/flotilla-log/flotilla/partition"
	"github.com/flotilla-log/flotilla/partition/store"
	"github.com/flotilla-log/flotilla/replication"
	"github.com/flotilla-log/flotilla/replication/transport"
)

const (
	// defaultCatchUpRate bounds what the first round of a catch-up pulls, in bytes a
	// second: a disk that serves clients has more.
	defaultCatchUpRate = 64 << 20

	// defaultPullBytes is the default of Options.PullBytes.
	defaultPullBytes = 16 << 20

	// pullTimeout is what one call for batches may take.
	pullTimeout = 30 * time.Second
)

var errNoSource = errors.New("broker: no replica has given what this one lacks")

// catchUp pulls what a data shard's replica lacks of another's checkpoint. It is
// the replica's CatchUp.
type catchUp struct {
	b     *Broker
	shard *dataShard
	begun bool        // the goroutine's that pulls
	busy  atomic.Bool // what was pulled waits for a checkpoint

	bytes atomic.Uint64 // pulled since the start
	left  atomic.Int64  // partitions that the present pull has not finished
}

var _ replication.CatchUp = (*catchUp)(nil)

// Pull implements replication.CatchUp.
func (c *catchUp) Pull(ctx context.Context, p replication.Pull) error {
	c.busy.Store(true) // before anything else: no checkpoint removes what is here already
	state, err := partition.Restore(bytes.NewReader(p.Checkpoint))
	if err != nil {
		return needsNewer(err)
	}
	if !c.begun {
		if err := c.shard.store.BeginPrefetch(); err != nil {
			return err
		}
		c.begun = true
	}
	wanted := restoredOf(state)
	c.left.Store(int64(len(wanted)))
	defer c.left.Store(0)
	j := &pullJob{c: c, Pull: p}
	c.b.pulls.begin(j)
	defer c.b.pulls.end(j)
	for _, r := range wanted {
		if err := j.partition(ctx, r); err != nil {
			return err
		}
		c.left.Add(-1)
	}
	return c.shard.store.SyncPrefetch()
}

// Settle implements replication.CatchUp.
func (c *catchUp) Settle() error { return c.Abandon() }

// Abandon implements replication.CatchUp.
func (c *catchUp) Abandon() error {
	err := c.shard.store.DropPrefetch()
	if err == nil {
		c.begun = false
		c.busy.Store(false)
	}
	return err
}

// restoredOf lists a state's partitions as the store takes them.
func restoredOf(state *partition.State) (all []store.Restored) {
	for v := range state.Partitions() {
		all = append(all, restoredPart(state, v))
	}
	return all
}

// restoredPart is one of restoredOf.
func restoredPart(state *partition.State, v partition.View) store.Restored {
	r := store.Restored{
		Key: uint32(v.Number), TopicID: v.TopicID, Index: v.Index,
		LogStart: v.LogStart, End: v.End, Config: storeConfig(v.Config),
	}
	for _, e := range state.Epochs(v.Number) {
		r.Epochs = append(r.Epochs, store.Epoch{Epoch: e.Epoch, Start: e.Start})
	}
	return r
}

// pullJob is one Pull.
type pullJob struct {
	c *catchUp
	replication.Pull
	at int // of Sources: who has answered last
}

// partition pulls what one partition lacks.
func (j *pullJob) partition(ctx context.Context, r store.Restored) error {
	p, err := j.c.shard.store.Prefetch(r)
	if err != nil {
		return err
	}
	for err == nil && !p.Done() {
		if err = j.c.b.pulls.turn(ctx, j); err != nil {
			break
		}
		var n int
		n, err = j.chunk(ctx, r, p)
		j.c.bytes.Add(uint64(n))
		if err == nil {
			err = j.c.b.pulls.spend(ctx, n)
		}
	}
	if err == nil || errors.Is(err, errNoSource) || ctx.Err() != nil {
		err = errors.Join(err, p.Finish()) // what is here is not pulled again
	}
	return errors.Join(err, p.Close())
}

// chunk pulls the next batches of a partition, from the first source that has
// them, when there is memory for them.
func (j *pullJob) chunk(ctx context.Context, r store.Restored, p *store.Prefetch) (n int, err error) {
	release, err := j.c.b.holdPull(ctx, j.c.b.pulls.taken)
	if err != nil {
		return 0, context.Cause(ctx)
	}
	defer release()
	request := pullRequest{
		shard: j.c.shard.id, index: j.Index, topic: r.TopicID, part: r.Index,
		maxBytes: pullBytes, offset: p.Next(), end: r.End,
	}
	var errs []error
	for range j.Sources {
		node := j.Sources[j.at%len(j.Sources)].Node
		n, err := j.ask(ctx, node, &request, p)
		if err == nil {
			return n, nil
		}
		if ctx.Err() != nil {
			return 0, context.Cause(ctx)
		}
		if !errors.Is(err, errSource) {
			return n, err
		}
		errs = append(errs, err)
		j.at++
	}
	return 0, fmt.Errorf("%w: partition %d of %v from offset %d on: %w", errNoSource, r.Index, partition.TopicID(r.TopicID), p.Next(), errors.Join(errs...))
}

// errSource matches an error after which another source may do.
var errSource = errors.New("broker: a source of batches")

// ask asks one node, and keeps what it gives.
func (j *pullJob) ask(ctx context.Context, node int32, request *pullRequest, p *store.Prefetch) (n int, err error) {
	a, err := j.c.b.pull(ctx, node, request)
	if err != nil {
		return 0, err
	}
	failed := func(err error) (int, error) { return 0, fmt.Errorf("%w, node %d: %w", errSource, node, err) }
	switch a.what {
	case pullDeleted:
		return 0, p.Skip(request.end)
	case pullMoved:
		if a.logStart <= request.offset {
			return failed(fmt.Errorf("%w: it says that its log starts at %d, above %d", errPull, a.logStart, request.offset))
		}
		return 0, p.Skip(a.logStart)
	}
	before := p.Next()
	if err := p.Append(a.batches); errors.Is(err, store.ErrPulled) {
		return failed(err)
	} else if err != nil {
		return 0, err
	}
	if p.Next() == before {
		return failed(fmt.Errorf("%w: it gives nothing from offset %d on", errPull, before))
	}
	return len(a.batches), nil
}

// pull asks a node for batches. Its errors match errSource.
func (b *Broker) pull(ctx context.Context, node int32, request *pullRequest) (pullAnswer, error) {
	return askSource(ctx, b, node, methodPull, request.encode(), decodePullAnswer)
}

// askSource makes a call for something that a replica lacks. Its errors match errSource.
func askSource[A any](ctx context.Context, b *Broker, node int32, m transport.Method, request []byte, decode func([]byte) (A, error)) (a A, err error) {
	if b.opt.Cluster == nil || b.opt.Cluster.Peers == nil {
		return a, fmt.Errorf("%w, node %d: this node has no way to ask others", errSource, node)
	}
	ctx, cancel := context.WithTimeout(ctx, pullTimeout)
	defer cancel()
	raw, err := b.opt.Cluster.Peers.Call(ctx, node, m, request)
	if err == nil {
		a, err = decode(raw)
	}
	if err != nil {
		err = fmt.Errorf("%w, node %d: %w", errSource, node, err)
	}
	return a, err
}
