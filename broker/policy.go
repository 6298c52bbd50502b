package broker

import (
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/flotilla-log/flotilla/broker/metadata"
	"github.com/flotilla-log/flotilla/internal/errcode"
	"github.com/flotilla-log/flotilla/log/batch"
	"github.com/flotilla-log/flotilla/replication"
)

// policy is what a topic's configs mean for the batches that are proposed to it:
// what is judged once, by the leader, and no part of what is applied (R2).
type policy struct {
	topic *metadata.Topic // that it was made from

	recompress bool // into codec, what is of another
	codec      batch.Codec
	level      int

	beforeMS, afterMS int64 // how far from the clock a timestamp may be
	minInsync         int   // replicas
}

// policy returns what holds for a partition now. It is made once for each change
// of the topic.
func (b *Broker) policy(at *placed) *policy {
	t := b.image().TopicByID(metadata.TopicID(at.key.topic))
	p := at.policy.Load()
	if p != nil && (p.topic == t || t == nil) { // nil: it is being deleted
		return p
	}
	p = newPolicy(t)
	at.policy.Store(p)
	return p
}

func newPolicy(t *metadata.Topic) *policy {
	var configs []metadata.Config
	if t != nil {
		configs = t.Configs
	}
	p := &policy{
		topic:     t,
		beforeMS:  metadata.ConfigInt64(configs, metadata.ConfigTimestampBeforeMS),
		afterMS:   metadata.ConfigInt64(configs, metadata.ConfigTimestampAfterMS),
		minInsync: int(metadata.ConfigInt64(configs, metadata.ConfigMinInsyncReplicas)),
	}
	switch name := metadata.ConfigValue(configs, metadata.ConfigCompressionType); name {
	case metadata.CompressionProducer:
		return p
	case metadata.CompressionUncompressed:
		p.codec = batch.None
	default:
		p.codec, _ = batch.ParseCodec(name) // CheckConfigs lets no other pass
	}
	p.recompress = true
	switch p.codec {
	case batch.Gzip:
		p.level = int(metadata.ConfigInt64(configs, metadata.ConfigGzipLevel))
		if p.level < 0 {
			p.level = batch.DefaultLevel
		}
	case batch.LZ4:
		p.level = int(metadata.ConfigInt64(configs, metadata.ConfigLZ4Level))
	case batch.Zstd:
		p.level = int(metadata.ConfigInt64(configs, metadata.ConfigZstdLevel))
	}
	return p
}

// limits bounds the timestamps of a batch that is taken at nowMS.
func (p *policy) limits(lim batch.Limits, nowMS int64) batch.Limits {
	if nowMS > p.beforeMS {
		lim.MinTimestamp = nowMS - p.beforeMS
	}
	lim.MaxTimestamp = math.MaxInt64
	if p.afterMS < math.MaxInt64-nowMS {
		lim.MaxTimestamp = nowMS + p.afterMS
	}
	return lim
}

// recodes reports whether a batch that passed Validate has to be compressed
// anew, as the topic wants it, and how large it may become: at most mostBytes.
// What is certain to become larger is refused.
func (p *policy) recodes(sum *batch.Summary, mostBytes int) (bytes int64, recodes bool, refused *errcode.Error) {
	if !p.recompress || sum.Attributes.Codec() == p.codec {
		return 0, false, nil
	}
	size := batch.HeaderBytes + sum.RecordBytes
	switch {
	case p.codec != batch.None: // what does not get smaller may grow by a little
		size = min(size+size/64+1<<10, mostBytes)
	case size > mostBytes:
		return 0, false, p.tooLarge(fmt.Sprint(size), mostBytes)
	}
	return int64(size), true, nil
}

// recode returns a batch as the topic wants it, which it is not yet, at most
// mostBytes long, and made in memory of room.
func (p *policy) recode(b []byte, sum *batch.Summary, mostBytes int, room batch.Room) ([]byte, error) {
	var out []byte
	if p.codec == batch.None {
		out = make([]byte, 0, batch.HeaderBytes+sum.RecordBytes)
	}
	out, err := batch.Recompress(out, b, p.codec, p.level, batch.Limits{
		MaxBatchBytes: mostBytes, MaxDecompressedBytes: maxDecompressedBytes, Room: room,
	})
	switch {
	case errors.Is(err, batch.ErrTooLarge):
		return nil, p.tooLarge(fmt.Sprintf("more than %d", mostBytes), mostBytes)
	case err != nil:
		return nil, err
	}
	return out, nil
}

func (p *policy) tooLarge(bytes string, mostBytes int) *errcode.Error {
	return errcode.Errorf(errcode.MessageTooLarge, "a batch of %s bytes once it is %s, as the topic's compression.type says; the topic takes %d (max.message.bytes)",
		bytes, p.codec, mostBytes)
}

// maxLagEntries is how many entries of its shard's log a replica may lack and be
// handed its leadership: more than are on their way at a time.
const maxLagEntries = 128

// defaultReplicaLag is Options.ReplicaLag if nothing is set: Kafka's.
const defaultReplicaLag = 30 * time.Second

// checkInsync refuses what too few replicas would have soon. Whatever the topic
// says, a majority has it before it is acknowledged; and it cannot ask for more
// replicas than there are. Which replicas count is what clients are told: see
// Broker.inSync.
func (b *Broker) checkInsync(p *policy, s *dataShard) *errcode.Error {
	if p.minInsync <= 1 {
		return nil
	}
	var room [metadata.MaxReplicas]replication.Standing
	inSync, voters := b.inSync(room[:0], s)
	if want := min(p.minInsync, voters); len(inSync) < want {
		return errcode.Errorf(errcode.NotEnoughReplicas, "%d of %d replicas have had all records within %v (replica.lag.time.max) and are not fenced, the topic wants %d (min.insync.replicas); nothing was appended",
			len(inSync), voters, b.opt.ReplicaLag, want)
	}
	return nil
}
