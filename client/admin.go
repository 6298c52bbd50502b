package client

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/flotilla-log/flotilla/internal/errcode"
	"github.com/flotilla-log/flotilla/wire/frame"
	"github.com/flotilla-log/flotilla/wire/pb"
)

// Admin looks after topics. A request that changes something is never sent again
// once it may have taken effect: the error then matches ErrUnknownOutcome, and
// the caller asks, with DescribeTopic, before trying again. Otherwise requests
// are retried until they succeed, RequestTimeout has passed or ctx ends.
type Admin struct{ c *Client }

// Admin returns an Admin on c's connections.
func (c *Client) Admin() *Admin { return &Admin{c: c} }

// TopicSpec is a topic to be created.
type TopicSpec struct {
	Name              string
	Partitions        int32             // 0: the cluster's default
	ReplicationFactor int32             // 0: the cluster's default
	Configs           map[string]string // by name, such as "segment.bytes"
	ValidateOnly      bool              // check everything, create nothing
}

// CreateTopic creates a topic and returns its id.
func (a *Admin) CreateTopic(ctx context.Context, spec TopicSpec) (TopicID, error) {
	req := &pb.CreateTopicRequest{
		Name:              spec.Name,
		Partitions:        spec.Partitions,
		ReplicationFactor: spec.ReplicationFactor,
		ValidateOnly:      spec.ValidateOnly,
		TimeoutMs:         a.c.serverTimeoutMS(),
	}
	for name, value := range spec.Configs {
		req.Configs = append(req.Configs, &pb.Config{Name: name, Value: value})
	}
	resp := new(pb.CreateTopicResponse)
	if err := a.change(ctx, frame.KindCreateTopic, req, resp); err != nil {
		return TopicID{}, fmt.Errorf("client: create topic %q: %w", spec.Name, err)
	}
	var id TopicID
	copy(id[:], resp.TopicId)
	return id, nil
}

// DeleteTopic deletes the topic that has the name now, with all its records.
func (a *Admin) DeleteTopic(ctx context.Context, name string) error {
	req := &pb.DeleteTopicRequest{Name: name, TimeoutMs: a.c.serverTimeoutMS()}
	if err := a.change(ctx, frame.KindDeleteTopic, req, new(pb.DeleteTopicResponse)); err != nil {
		return fmt.Errorf("client: delete topic %q: %w", name, err)
	}
	return nil
}

// change sends a request, and sends it again, to any node, only after it
// certainly had no effect.
func (a *Admin) change(ctx context.Context, kind frame.Kind, req, resp proto.Message) error {
	ctx, cancel := context.WithTimeout(ctx, a.c.cfg.RequestTimeout)
	defer cancel()
	l := a.c.anyLink()
	for failures := 1; ; failures++ {
		_, sent, err := l.do(ctx, &call{kind: kind, req: req, resp: resp})
		if err == nil {
			return nil
		}
		if sent && mayHaveHappened(err) {
			return unknown(err)
		}
		if !retriable(err) || a.c.meta.image.Load().hopeless(err) {
			return err
		}
		if !pause(ctx, a.c.backoff(failures)) {
			return errors.Join(ctx.Err(), err)
		}
		l = a.c.linkAfter(err)
	}
}

// Cluster is the nodes of a cluster.
type Cluster struct {
	ID    string
	Nodes []Node
}

// Node is one node of a cluster.
type Node struct {
	ID      int32
	Address string // host:port for clients
	Rack    string // may be empty
}

// Topic is a topic as Metadata lists it.
type Topic struct {
	Name    string
	ID      TopicID
	Leaders []int32 // node id by partition; -1: none now
	Err     error   // why nothing else is known; always nil in ListTopics
}

// Metadata returns the nodes, and the topics of the given names in that order.
// A topic that cannot be described has its Err set. A node that may be behind, and
// so cannot say whether there is such a topic, is not believed: others are asked,
// until Config.RequestTimeout has passed.
func (a *Admin) Metadata(ctx context.Context, names ...string) (Cluster, []Topic, error) {
	return a.metadata(ctx, &pb.MetadataRequest{Names: names})
}

// ListTopics returns all topics, sorted by name.
func (a *Admin) ListTopics(ctx context.Context) ([]Topic, error) {
	_, topics, err := a.metadata(ctx, &pb.MetadataRequest{All: true})
	return topics, err
}

func (a *Admin) metadata(ctx context.Context, req *pb.MetadataRequest) (Cluster, []Topic, error) {
	ctx, cancel := context.WithTimeout(ctx, a.c.cfg.RequestTimeout)
	defer cancel()
	for failures := 1; ; failures++ {
		resp, err := a.c.askMetadata(ctx, a.c.anyLink(), req, a.c.patience(failures-1))
		if err == nil && !fromBehind(resp) {
			cluster, topics := fromMetadata(resp)
			return cluster, topics, nil
		}
		if err != nil && (!retriable(err) || a.c.meta.image.Load().hopeless(err)) {
			return Cluster{}, nil, fmt.Errorf("client: metadata: %w", err)
		}
		if err == nil {
			a.c.meta.update(func(img *image) { img.meet(resp.Nodes) }) // they may know more
		}
		a.c.links.next.Add(1)
		if pause(ctx, a.c.backoff(failures)) {
			continue
		}
		if err != nil {
			return Cluster{}, nil, fmt.Errorf("client: metadata: %w", errors.Join(ctx.Err(), err))
		}
		cluster, topics := fromMetadata(resp)
		return cluster, topics, nil
	}
}

// fromBehind reports whether the node that answered cannot say of some topic
// whether it exists.
func fromBehind(resp *pb.MetadataResponse) bool {
	return slices.ContainsFunc(resp.Topics, func(t *pb.Topic) bool {
		return t.Error != nil && errcode.Code(t.Error.Code) == errcode.LeaderNotAvailable
	})
}

func fromMetadata(resp *pb.MetadataResponse) (Cluster, []Topic) {
	cluster := Cluster{ID: resp.ClusterId}
	for _, n := range resp.Nodes {
		cluster.Nodes = append(cluster.Nodes, Node{ID: n.Id, Address: n.Address, Rack: n.Rack})
	}
	topics := make([]Topic, len(resp.Topics))
	for i, t := range resp.Topics {
		topics[i] = Topic{Name: t.Name, Leaders: t.Leaders, Err: fromServer(t.Error)}
		copy(topics[i].ID[:], t.TopicId)
	}
	return cluster, topics
}

// TopicDescription is a topic with its settings and partitions.
type TopicDescription struct {
	Name       string
	ID         TopicID
	Configs    map[string]string // those set on the topic
	AllConfigs []TopicConfig     // all that there are, by name
	Partitions []PartitionDescription
}

// TopicConfig is one config of a topic, as it holds.
type TopicConfig struct {
	Name, Value string
	Default     bool // not set on the topic
}

// PartitionDescription is one partition as the node that answered knows it.
type PartitionDescription struct {
	Partition      int32
	Leader         int32 // node id; -1: none now
	LeaderEpoch    int32
	LogStartOffset int64 // -1, like the next three: unknown to that node
	HighWatermark  int64
	SizeBytes      int64 // of its data files
	UnlinkBytes    int64 // of those, what is deleted and goes with the next checkpoint
	Shard          uint32
}

// DescribeTopic returns a topic's settings and partitions. Offsets and sizes
// may lag behind: Offsets asks the leaders.
func (a *Admin) DescribeTopic(ctx context.Context, name string) (TopicDescription, error) {
	d := TopicDescription{Name: name, Configs: make(map[string]string)}
	req := &pb.DescribeTopicRequest{Name: name}
	for {
		resp := new(pb.DescribeTopicResponse)
		if err := a.c.ask(ctx, frame.KindDescribeTopic, req, resp); err != nil {
			return TopicDescription{}, fmt.Errorf("client: describe topic %q: %w", name, err)
		}
		copy(d.ID[:], resp.TopicId)
		d.AllConfigs = topicConfigs(resp.Configs)
		for _, cfg := range d.AllConfigs {
			if !cfg.Default {
				d.Configs[cfg.Name] = cfg.Value
			}
		}
		for _, p := range resp.Partitions {
			d.Partitions = append(d.Partitions, PartitionDescription{
				Partition: p.Partition, Leader: p.Leader, LeaderEpoch: p.LeaderEpoch,
				LogStartOffset: p.LogStartOffset, HighWatermark: p.HighWatermark,
				SizeBytes: p.SizeBytes, UnlinkBytes: p.UnlinkBytes, Shard: p.Shard,
			})
		}
		if !resp.More {
			return d, nil
		}
		next := int32(len(d.Partitions))
		if next <= req.FirstPartition {
			return TopicDescription{}, fmt.Errorf("client: describe topic %q: %w: no progress", name, ErrProtocol)
		}
		// By id from here on: the name may come to stand for another topic.
		req = &pb.DescribeTopicRequest{TopicId: resp.TopicId, FirstPartition: next}
	}
}

func topicConfigs(configs []*pb.Config) []TopicConfig {
	out := make([]TopicConfig, len(configs))
	for i, c := range configs {
		out[i] = TopicConfig{Name: c.Name, Value: c.Value, Default: c.Source == pb.ConfigSource_CONFIG_SOURCE_DEFAULT}
	}
	return out
}

// At says which offset Offsets asks for.
type At int

const (
	Latest   At = iota // the high watermark: where the next record will be
	Earliest           // the log start offset
)

// Offsets returns an offset of each partition of a topic, by partition, as
// their leaders know it when they are asked.
func (a *Admin) Offsets(ctx context.Context, name string, at At) ([]int64, error) {
	found, err := a.offsets(ctx, name, offsetQuestion{at: at.pb()})
	if err != nil {
		return nil, err
	}
	offsets := make([]int64, len(found))
	for i, f := range found {
		offsets[i] = f.Offset
	}
	return offsets, nil
}

// TimedOffset is a record that was looked up by its timestamp.
type TimedOffset struct {
	Offset      int64     // -1: the partition has no such record
	Timestamp   time.Time // of that record; zero with offset -1
	LeaderEpoch int32     // of that record; -1 with offset -1
}

// OffsetsForTime returns, by partition, the first record, in the order of
// offsets, whose timestamp is t or later, in whole milliseconds (a t before
// 1970 counts as 1970). Later records may have earlier timestamps, if the
// producers gave them out of order.
func (a *Admin) OffsetsForTime(ctx context.Context, name string, t time.Time) ([]TimedOffset, error) {
	return a.offsets(ctx, name, atTime(t))
}

// OffsetsOfMaxTimestamp returns, by partition, the first record of the greatest
// timestamp.
func (a *Admin) OffsetsOfMaxTimestamp(ctx context.Context, name string) ([]TimedOffset, error) {
	return a.offsets(ctx, name, offsetQuestion{at: pb.OffsetAt_OFFSET_AT_MAX_TIMESTAMP})
}

// offsetQuestion is which offset of a partition is asked for.
type offsetQuestion struct {
	at          pb.OffsetAt
	timestampMS int64 // with OFFSET_AT_TIMESTAMP
}

// atTime asks for the first record whose timestamp is t or later.
func atTime(t time.Time) offsetQuestion {
	ms := t.UnixMilli()
	if t.After(time.UnixMilli(ms)) {
		ms++
	}
	return offsetQuestion{at: pb.OffsetAt_OFFSET_AT_TIMESTAMP, timestampMS: max(ms, 0)}
}

func (at At) pb() pb.OffsetAt {
	if at == Earliest {
		return pb.OffsetAt_OFFSET_AT_EARLIEST
	}
	return pb.OffsetAt_OFFSET_AT_LATEST
}

// offsets answers a question for every partition of a topic.
func (a *Admin) offsets(ctx context.Context, name string, q offsetQuestion) ([]TimedOffset, error) {
	ctx, cancel := context.WithTimeout(ctx, a.c.cfg.RequestTimeout)
	defer cancel()
	t, err := a.c.topic(ctx, name)
	if err != nil {
		return nil, err
	}
	found := make([]TimedOffset, len(t.leaders))
	all := make([]int32, len(t.leaders))
	for p := range all {
		all[p] = int32(p)
	}
	err = a.onLeaders(ctx, name, all, func(l *link, t *topic, partitions []int32) ([]int32, error) {
		req, resp := new(pb.ListOffsetsRequest), new(pb.ListOffsetsResponse)
		for _, p := range partitions {
			req.Parts = append(req.Parts, listOffsetsPart(t, p, q))
		}
		if _, _, err := l.do(ctx, &call{kind: frame.KindListOffsets, req: req, resp: resp}); err != nil {
			return partitions, err
		}
		return a.partResults(t, partitions, len(resp.Results), func(i int) *pb.Error { return resp.Results[i].Error }, func(i int) {
			r, f := resp.Results[i], &found[partitions[i]]
			*f = TimedOffset{Offset: r.Offset, LeaderEpoch: r.LeaderEpoch}
			if r.TimestampMs >= 0 {
				f.Timestamp = time.UnixMilli(r.TimestampMs)
			}
		})
	})
	if err != nil {
		return nil, err
	}
	return found, nil
}

// listOffsetsPart asks for an offset of partition p.
func listOffsetsPart(t *topic, p int32, q offsetQuestion) *pb.ListOffsetsPart {
	return &pb.ListOffsetsPart{
		TopicId: t.id[:], Partition: p, LeaderEpoch: t.leaders[p].epoch, At: q.at, TimestampMs: q.timestampMS,
	}
}

// onLeaders has ask done at the leaders of the given partitions until none is
// left: ask sends one request about some partitions that one node leads, and
// returns those that are still to be asked, with one reason. It is repeated
// while that is retriable and ctx has not ended.
func (a *Admin) onLeaders(ctx context.Context, name string, partitions []int32, ask func(*link, *topic, []int32) ([]int32, error)) error {
	left := partitions
	for failures := 1; ; failures++ {
		var err error
		left, err = a.onLeadersOnce(ctx, name, left, ask)
		if len(left) == 0 || !retriable(err) {
			return err
		}
		poke(a.c.meta.refresh)
		if !pause(ctx, a.c.backoff(failures)) {
			return errors.Join(ctx.Err(), err)
		}
	}
}

func (a *Admin) onLeadersOnce(ctx context.Context, name string, partitions []int32, ask func(*link, *topic, []int32) ([]int32, error)) (left []int32, err error) {
	t, err := a.c.topic(ctx, name)
	if err != nil {
		return partitions, err
	}
	byNode := make(map[int32][]int32)
	for _, p := range partitions {
		if p < 0 || int(p) >= len(t.leaders) {
			return partitions, &PartitionError{Topic: name, Partition: p, Offset: -1, Err: ErrNoPartition}
		}
		byNode[t.leaders[p].node] = append(byNode[t.leaders[p].node], p)
	}
	for node, ps := range byNode {
		missing, nodeErr := ps, error(&PartitionError{
			Topic: name, Partition: ps[0], Offset: -1, Err: fmt.Errorf("%w: no leader known", ErrConnection),
		})
		if l := a.c.nodeLink(node); l != nil {
			missing, nodeErr = ask(l, t, ps)
		}
		if nodeErr != nil {
			left, err = append(left, missing...), nodeErr
			if !retriable(err) {
				return left, err
			}
		}
	}
	return left, err
}

// partResults goes through the results of a request about partitions: use is
// called for each that is no error, and the others are left, with one reason.
func (a *Admin) partResults(t *topic, partitions []int32, results int, errorOf func(int) *pb.Error, use func(int)) (left []int32, err error) {
	if results != len(partitions) {
		return partitions, fmt.Errorf("%w: %d results for %d parts", ErrProtocol, results, len(partitions))
	}
	for i, p := range partitions {
		if partErr := fromServer(errorOf(i)); partErr != nil {
			a.c.misled(t.name, p, partErr)
			left, err = append(left, p), &PartitionError{Topic: t.name, Partition: p, Offset: -1, Err: partErr}
			continue
		}
		use(i)
	}
	return left, err
}

// serverTimeoutMS is how long a server may work on a request: less than the
// client waits, so that the client learns what became of it.
func (c *Client) serverTimeoutMS() uint32 {
	return uint32(max(1, min(c.cfg.RequestTimeout*3/4, maxTimeout).Milliseconds()))
}
