package broker

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/flotilla-log/flotilla/internal/errcode"
	"github.com/flotilla-log/flotilla/log/batch"
	"github.com/flotilla-log/flotilla/partition"
	"github.com/flotilla-log/flotilla/replication"
)

type produceProposal = replication.Proposal[partition.Result]

// produce is one Produce under way.
type produce struct {
	b       *Broker
	room    unfoldingRoom
	done    func([]ProduceResult)
	byShard map[*dataShard][]*produceProposal // what is gathered, and not proposed yet

	patience context.Context // of awaitOpening, by the first that waits; nil: none has

	// The metadata's voters were asked whether this node leads, and what came of
	// it; see checkProducer.
	asked  bool
	unsure error

	mu      sync.Mutex
	timer   *time.Timer
	results []ProduceResult
	parts   []pendingPart
	left    int          // parts without an answer, and one while parts are being proposed
	refused []*dataShard // that this node does not lead
}

// pendingPart is what is known of a part that has no answer yet.
type pendingPart struct {
	answered bool
	shard    *dataShard // nil: it is not known
	grown    int64      // bytes of Broker.grown that what it was recompressed to has, until the answer
	proposal *produceProposal
}

// Produce appends each part's batch to its partition, and answers all of them
// at once, within timeout, by calling done, from any goroutine; done must not
// block. Parts of one partition take effect in their order, and so do those of
// two calls made one after the other.
//
// Each batch is checked as foreign bytes; one that is refused changes nothing. A
// batch's bytes are the broker's, which may change its header, until done says
// that it was appended; those of one that failed are never the caller's again.
//
// A part that is not answered in time by its shard fails with
// REQUEST_TIMED_OUT: its batch may have been appended or may still be, unless
// the detail says that it was not.
//
// While the disk is nearly full (Options.DiskReserveBytes) batches wait, and at
// timeout fail with KAFKA_STORAGE_ERROR: they were not appended, and can be sent
// again.
//
// If it panics, done is not called, and nothing stays counted of what it had not
// proposed.
//
// Produce itself waits, at most for timeout, while the tails of the node's
// partitions are above their memory budget: who calls it for a connection reads
// no more from it meanwhile, and TCP tells the sender. It waits too, for a second at
// most, while a shard of the parts has this node as its new leader and is not served
// yet: the others name it by then, so a client that were refused would be sent back.
// A refusal because others lead waits as long until it is known who does.
func (b *Broker) Produce(parts []ProducePart, timeout time.Duration, done func([]ProduceResult)) {
	began := b.opt.Now()
	if err := b.admit(parts, timeout); err != nil {
		results := make([]ProduceResult, len(parts))
		for i := range results {
			results[i] = failed(err)
		}
		done(results)
		return
	}
	p := &produce{
		b:       b,
		room:    unfoldingRoom{b: b, ctx: b.stopping, until: began.Add(timeout)},
		done:    done,
		byShard: make(map[*dataShard][]*produceProposal, 1),
		results: make([]ProduceResult, len(parts)),
		parts:   make([]pendingPart, len(parts)),
		left:    len(parts) + 1,
	}
	proposed := false
	defer func() {
		if !proposed { // a panic
			p.abandon()
		}
	}()
	for i := range parts {
		shard, proposal, refused := b.prepare(p, i, &parts[i])
		if refused != nil {
			p.answer(i, b.refusedBatch(&parts[i], refused))
			continue
		}
		p.parts[i].proposal = proposal
		p.byShard[shard] = append(p.byShard[shard], proposal)
	}
	p.mu.Lock()
	p.timer = time.AfterFunc(p.room.until.Sub(b.opt.Now()), p.expire)
	p.mu.Unlock()
	p.propose()
	proposed = true
	p.release()
}

// propose proposes what is gathered, and forgets it.
func (p *produce) propose() {
	for shard, proposals := range p.byShard {
		if err := shard.replica.Propose(proposals...); err != nil {
			refuse(proposals, err)
		}
	}
	clear(p.byShard)
}

func refuse(proposals []*produceProposal, err error) {
	for _, proposal := range proposals {
		proposal.Done(partition.Result{}, err)
	}
}

// abandon counts no more what was not proposed.
func (p *produce) abandon() {
	for _, proposals := range p.byShard {
		refuse(proposals, errAbandoned)
	}
	for i := range p.parts {
		p.mu.Lock() // what was proposed may be answered meanwhile
		making := p.parts[i].grown > 0 && p.parts[i].proposal == nil
		p.mu.Unlock()
		if making {
			p.answer(i, failed(CodeOf(errAbandoned)))
		}
	}
}

// errAbandoned answers a part whose produce panicked, which nobody sees.
var errAbandoned = errors.New("broker: a produce was given up")

// recode returns part i's batch as its topic wants it, at most mostBytes long: if
// it has to be made, in memory that was taken before.
func (b *Broker) recode(p *produce, i int, sent []byte, rules *policy, sum *batch.Summary, mostBytes int) ([]byte, error) {
	bytes, recodes, refused := rules.recodes(sum, mostBytes)
	if !recodes && refused == nil {
		return sent, nil
	}
	if refused == nil {
		refused = b.takeGrown(p, i, bytes)
	}
	if refused != nil {
		return nil, refused
	}
	payload, err := rules.recode(sent, sum, mostBytes, &p.room)
	if err != nil {
		return nil, err
	}
	p.keepGrown(i, int64(len(payload)))
	return payload, nil
}

// takeGrown takes memory for what part i is recompressed to, or waits for it.
func (b *Broker) takeGrown(p *produce, i int, bytes int64) *errcode.Error {
	if !b.grown.TryAcquire(bytes) {
		p.propose() // they make room, and may be the only ones that do
		if err := p.room.await(b.grown, bytes, "no room in time for what recompression makes of the batch"); err != nil {
			return err
		}
	}
	p.parts[i].grown = bytes
	return nil
}

// keepGrown gives back what part i took and did not need.
func (p *produce) keepGrown(i int, bytes int64) {
	if part := &p.parts[i]; bytes < part.grown {
		p.b.grown.Release(part.grown - bytes)
		part.grown = bytes
	}
}

// admit waits until the tails have room for the batches.
func (b *Broker) admit(parts []ProducePart, timeout time.Duration) *errcode.Error {
	if b.disk.state().Low {
		// They wait where they do not hold up the connection, for long perhaps: a
		// deletion may follow on it.
		return nil
	}
	bytes := int64(0)
	for i := range parts {
		bytes += int64(len(parts[i].Batch))
	}
	if b.opt.Store.TryAdmit(bytes) {
		return nil
	}
	ctx, cancel := context.WithTimeout(b.stopping, timeout)
	defer cancel()
	err := b.opt.Store.Admit(ctx, bytes)
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil && b.stopping.Err() == nil:
		return errcode.Errorf(errcode.RequestTimedOut, "no room in memory in time; nothing was appended")
	case ctx.Err() != nil:
		return errcode.Errorf(errcode.NotLeaderOrFollower, "the node is stopping; nothing was appended")
	}
	return CodeOf(err)
}

// prepare checks one part and makes its proposal.
func (b *Broker) prepare(p *produce, i int, part *ProducePart) (*dataShard, *produceProposal, error) {
	at := b.dir.find(part.Topic, part.Index)
	if at != nil && at.epoch() < 0 && b.awaitOpening(p, at.shard) {
		at = b.dir.find(part.Topic, part.Index) // entries of other terms were applied meanwhile
	}
	if at == nil {
		return nil, nil, b.absent(part.Topic, part.Index)
	}
	p.parts[i].shard = at.shard
	if err := at.checkNotInternal("write to it"); err != nil {
		return nil, nil, err
	}
	if at.quarantined() {
		return nil, nil, b.quarantineError(at, at.quarantine)
	}
	if at.epoch() < 0 {
		return nil, nil, errcode.Errorf(errcode.NotLeaderOrFollower, "node %d does not lead partition %d", b.opt.NodeID, part.Index)
	}
	rules := b.policy(at)
	if err := b.checkInsync(rules, at.shard); err != nil {
		return nil, nil, err
	}
	most := min(int(at.config.MaxMessageBytes), b.MaxBatchBytes())
	if len(part.Batch) > most {
		return nil, nil, errcode.Errorf(errcode.MessageTooLarge,
			"a batch of %d bytes; the topic takes %d (max.message.bytes)", len(part.Batch), most)
	}
	nowMS := b.opt.Now().UnixMilli()
	lim := batch.Limits{MaxBatchBytes: most, MaxDecompressedBytes: maxDecompressedBytes, Room: &p.room}
	lim.LogAppendTime = at.config.LogAppendTime
	if !lim.LogAppendTime {
		lim = rules.limits(lim, nowMS)
	}
	sum, err := batch.Validate(part.Batch, lim)
	if err != nil {
		return nil, nil, err
	}
	if err := b.checkProducer(p, sum.Producer.ID); err != nil {
		return nil, nil, err
	}
	payload, err := b.recode(p, i, part.Batch, rules, &sum, most)
	if err != nil {
		return nil, nil, err
	}
	switch {
	case at.config.LogAppendTime:
		batch.SetLogAppendTime(payload, nowMS)
	case sum.LatestTimestamp != sum.MaxTimestamp || sum.Attributes.LogAppendTime():
		batch.SetCreateTime(payload, sum.LatestTimestamp)
	}
	records, size := uint64(sum.Records), uint64(len(payload))
	return at.shard, &produceProposal{
		Queue:   uint32(at.number),
		Payload: payload,
		Done: func(r partition.Result, err error) {
			if err == nil && r.Reason == partition.ReasonQuarantined {
				err = b.quarantineError(at, uint64(r.Want))
			}
			if err == nil && r.Code == errcode.None && !r.Duplicate {
				at.traffic.batchesIn.Add(1)
				at.traffic.recordsIn.Add(records)
				at.traffic.bytesIn.Add(size)
			}
			p.answer(i, produceResult(&r, err))
		},
	}, nil
}

// produceResult answers what came of a proposal. As in Kafka, what a producer's
// epoch or sequence is refused for comes with the log start offset.
func produceResult(r *partition.Result, err error) ProduceResult {
	if err != nil {
		return failed(CodeOf(err))
	}
	if err := r.Err(); err != nil {
		f := failed(CodeOf(err))
		f.LogStart = r.LogStart
		return f
	}
	return ProduceResult{BaseOffset: r.BaseOffset, LogAppendTimeMS: r.LogAppendTimeMS, LogStart: r.LogStart}
}

// refusedBatch is the result of a batch that was not proposed. As in Kafka, what
// is refused for its records, or for want of replicas, comes with the log start
// offset; what is damaged, or too large, does not.
func (b *Broker) refusedBatch(part *ProducePart, err error) ProduceResult {
	r := failed(CodeOf(err))
	switch r.Err.Code {
	case errcode.InvalidRecord, errcode.InvalidTimestamp, errcode.UnsupportedCompressionType, errcode.NotEnoughReplicas:
		if at := b.dir.find(part.Topic, part.Index); at != nil {
			if start, _, err := at.shard.store.Bounds(uint32(at.number)); err == nil {
				r.LogStart = start
			}
		}
	}
	var records batch.RecordErrors
	if errors.As(err, &records) {
		r.Records = make([]RecordError, len(records))
		for i, re := range records {
			r.Records[i] = RecordError{Index: re.Index, Text: re.Err.Error()}
		}
	}
	return r
}

func failed(err *errcode.Error) ProduceResult {
	return ProduceResult{Err: err, BaseOffset: -1, LogAppendTimeMS: -1, LogStart: -1}
}

// answer settles part i, unless it is settled already.
func (p *produce) answer(i int, r ProduceResult) {
	p.mu.Lock()
	if p.parts[i].answered {
		p.mu.Unlock()
		return
	}
	grown := p.parts[i].grown
	if s := p.parts[i].shard; s != nil && r.Err != nil && r.Err.Code == errcode.NotLeaderOrFollower {
		p.refused = with(p.refused, s)
	}
	p.parts[i] = pendingPart{answered: true}
	p.results[i] = r
	p.mu.Unlock()
	if grown > 0 {
		p.b.grown.Release(grown)
	}
	p.release()
}

// release counts one answer, or the end of proposing, and after the last of
// them answers the request.
func (p *produce) release() {
	p.mu.Lock()
	p.left--
	last := p.left == 0
	if last && p.timer != nil {
		p.timer.Stop()
	}
	p.mu.Unlock()
	switch {
	case !last:
	case len(p.refused) == 0,
		p.patience != nil, p.unsure != nil, // it has waited
		p.room.until.Sub(p.b.opt.Now()) < handoverPatience: // it cannot
		p.done(p.results)
	default:
		p.b.afterHandovers(p.refused, func(bool) { p.done(p.results) })
	}
}

// expire answers what is still open when the time is up. A proposal that can be
// taken back was never proposed.
func (p *produce) expire() {
	for i := range p.parts {
		p.mu.Lock()
		part := p.parts[i]
		p.mu.Unlock()
		if part.answered {
			continue
		}
		err := errcode.Errorf(errcode.RequestTimedOut, "not answered in time; the batch may have been appended")
		if part.shard.replica.Cancel(part.proposal) {
			err = errcode.Errorf(errcode.RequestTimedOut, "no room in time; the batch was not appended")
			if full := p.b.disk.refusal(); full != nil {
				full.Detail += "; the batch was not appended"
				err = full
			}
		}
		p.answer(i, failed(err))
	}
}
