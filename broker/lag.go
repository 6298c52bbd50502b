package broker

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/flotilla-log/flotilla/broker/metadata"
	"github.com/flotilla-log/flotilla/consumergroup"
	"github.com/flotilla-log/flotilla/consumergroup/record"
	"github.com/flotilla-log/flotilla/replication/transport"
)

// methodEnds asks a node where partitions that it carries begin and end. The call names
// them, and the answer has the log start and the high watermark of each in the same
// order, both -1 for one that the node does not have (little-endian, offsets in bytes):
//
//	call:  0        16      20      answer: 0           8                16
//	       +--------+-------+- - -          +-----------+----------------+- - -
//	       | topic  | index |               | log start | high watermark |
//	       +--------+-------+- - -          +-----------+----------------+- - -
const methodEnds transport.Method = 21

const (
	endsCallBytes   = 16 + 4
	endsAnswerBytes = 8 + 8
	maxEndsCall     = 50_000 // partitions of one call: 1 MB

	endsTimeout = 2 * time.Second // that all nodes have to answer

	defaultLagInterval = 10 * time.Second

	// lagShare bounds what looking for lags takes of a core, whatever the interval: after
	// it has taken t, nothing is looked for in lagShare * t.
	lagShare = 50
)

var errEnds = errors.New("broker: not names of partitions whose ends can be asked for")

// GroupLag is how far a group is behind, by what it has committed.
type GroupLag struct {
	Group   string // "" for all groups without numbers of their own
	Records int64  // from what is committed, or the log start, to the high watermark, of all partitions together
	Largest int64  // of one partition
}

// LagStats are the lags of the groups that a node coordinates, as they were lately.
type LagStats struct {
	Groups  []GroupLag // the largest first, and last the others together, if there are any
	Unknown int        // partitions with a committed offset whose end was not known
	At      time.Time  // zero: they were not looked for yet
}

// lags looks for the lags of the groups that this node coordinates, from time to time,
// so that who scrapes metrics does not have to wait for other nodes.
type lags struct {
	b        *Broker
	interval time.Duration // at least; negative: never
	most     int           // groups with numbers of their own

	latest atomic.Pointer[LagStats]
}

// run looks for lags until the broker stops.
func (l *lags) run() {
	if l.interval < 0 {
		return
	}
	timer := time.NewTimer(l.interval)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-l.b.stopping.Done():
			return
		}
		wait := l.interval
		if running := l.b.coordinators.all(); len(running) > 0 {
			began := time.Now()
			s := l.look(l.b.stopping, running)
			l.latest.Store(&s)
			wait = max(wait, lagShare*time.Since(began))
		} else {
			l.latest.Store(nil)
		}
		timer.Reset(wait)
	}
}

// stats returns what was found last.
func (l *lags) stats() LagStats {
	if s := l.latest.Load(); s != nil {
		return *s
	}
	return LagStats{}
}

// extent is where a partition begins and ends.
type extent struct{ start, end int64 }

// committed is one committed offset.
type committed struct {
	group  int // index of its GroupLag
	key    partitionKey
	offset int64
}

// look returns the lags of the groups that are coordinated here.
func (l *lags) look(ctx context.Context, running []*coordination) LagStats {
	s := LagStats{At: l.b.opt.Now()}
	im := l.b.image()
	var all []committed
	keys := make(map[partitionKey]struct{}) // of all
	for _, at := range running {
		var state *consumergroup.Groups
		if at.log.Groups(func(g *consumergroup.Groups) { state = g.Clone() }) != nil {
			continue // the Runner says why
		}
		for _, name := range state.Names() {
			s.Groups = append(s.Groups, GroupLag{Group: name})
			for tp, v := range state.Committed(name) {
				if key, ok := committedKey(im, tp, v); ok {
					all = append(all, committed{len(s.Groups) - 1, key, v.Offset})
					keys[key] = struct{}{}
				}
			}
		}
	}
	ends := l.b.endsOf(ctx, keys)
	for _, c := range all {
		e, ok := ends[c.key]
		if !ok {
			s.Unknown++
			continue
		}
		lag := max(e.end-max(c.offset, e.start), 0) // a follower may be behind what was committed
		g := &s.Groups[c.group]
		g.Records += lag
		g.Largest = max(g.Largest, lag)
	}
	slices.SortFunc(s.Groups, func(x, y GroupLag) int {
		return cmp.Or(cmp.Compare(y.Records, x.Records), cmp.Compare(x.Group, y.Group))
	})
	if len(s.Groups) > l.most {
		var rest GroupLag
		for _, g := range s.Groups[l.most:] {
			rest.Records += g.Records
			rest.Largest = max(rest.Largest, g.Largest)
		}
		s.Groups = append(slices.Clip(s.Groups[:l.most:l.most]), rest)
	}
	return s
}

// committedKey returns the partition that an offset was committed for, and false if it
// is gone.
func committedKey(im *metadata.Image, tp consumergroup.TopicPartition, v *record.OffsetCommitValue) (partitionKey, bool) {
	t := im.TopicByName(tp.Topic)
	if t == nil || v.Offset < 0 || v.TopicID != (record.TopicID{}) && v.TopicID != record.TopicID(t.ID) || int(tp.Partition) >= len(t.Assignment) {
		return partitionKey{}, false
	}
	return partitionKey{TopicID(t.ID), tp.Partition}, true
}

// endsOf returns where partitions begin and end, as this node knows it, or the leaders of
// those that it does not carry; without those that nobody told in time.
func (b *Broker) endsOf(ctx context.Context, keys map[partitionKey]struct{}) map[partitionKey]extent {
	ends := make(map[partitionKey]extent)
	elsewhere := make(map[int32][]partitionKey) // by leader
	for key := range keys {
		if e, ok := b.extentHere(key); ok {
			ends[key] = e
		} else if leader := b.leaderOf(key.topic, key.index).Node; leader >= 0 && leader != b.opt.NodeID {
			elsewhere[leader] = append(elsewhere[leader], key)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, endsTimeout)
	defer cancel()
	var mu sync.Mutex
	var wg sync.WaitGroup
	for node, keys := range elsewhere {
		wg.Go(func() {
			for part := range slices.Chunk(keys, maxEndsCall) {
				there, err := b.askEnds(ctx, node, part)
				if err != nil {
					return // they are counted as unknown
				}
				mu.Lock()
				for i, e := range there {
					if e.end >= 0 {
						ends[part[i]] = e
					}
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return ends
}

// extentHere returns where a partition begins and ends if this node carries it.
func (b *Broker) extentHere(key partitionKey) (extent, bool) {
	p := b.dir.find(key.topic, key.index)
	if p == nil {
		return extent{}, false
	}
	start, end, err := p.shard.store.Bounds(uint32(p.number))
	return extent{start, end}, err == nil
}

func (b *Broker) askEnds(ctx context.Context, node int32, keys []partitionKey) ([]extent, error) {
	call := make([]byte, 0, len(keys)*endsCallBytes)
	for _, k := range keys {
		call = binary.LittleEndian.AppendUint32(append(call, k.topic[:]...), uint32(k.index))
	}
	raw, err := b.opt.Cluster.Peers.Call(ctx, node, methodEnds, call)
	if err != nil {
		return nil, err
	}
	if len(raw) != len(keys)*endsAnswerBytes {
		return nil, fmt.Errorf("broker: node %d answers with %d bytes for the ends of %d partitions", node, len(raw), len(keys))
	}
	ends := make([]extent, len(keys))
	for i := range ends {
		at := raw[i*endsAnswerBytes:]
		ends[i] = extent{int64(binary.LittleEndian.Uint64(at)), int64(binary.LittleEndian.Uint64(at[8:]))}
	}
	return ends, nil
}

// answerEnds answers methodEnds.
func (b *Broker) answerEnds(payload []byte) ([]byte, error) {
	if len(payload)%endsCallBytes != 0 || len(payload) > maxEndsCall*endsCallBytes {
		return nil, errEnds
	}
	answer := make([]byte, 0, len(payload)/endsCallBytes*endsAnswerBytes)
	for ; len(payload) > 0; payload = payload[endsCallBytes:] {
		key := partitionKey{TopicID(payload[:16]), int32(binary.LittleEndian.Uint32(payload[16:]))}
		e, ok := b.extentHere(key)
		if !ok {
			e = extent{-1, -1}
		}
		answer = binary.LittleEndian.AppendUint64(answer, uint64(e.start))
		answer = binary.LittleEndian.AppendUint64(answer, uint64(e.end))
	}
	return answer, nil
}
