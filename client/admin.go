package client

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/protobuf/proto"

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
	for failures := 1; ; failures++ {
		_, sent, err := a.c.anyLink().do(ctx, &call{kind: kind, req: req, resp: resp})
		if err == nil {
			return nil
		}
		if sent && mayHaveHappened(err) {
			return unknown(err)
		}
		if !retriable(err) || a.c.meta.image.Load().hopeless(err) {
			return err
		}
		a.c.links.next.Add(1)
		if !pause(ctx, a.c.backoff(failures)) {
			return errors.Join(ctx.Err(), err)
		}
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
// A topic that cannot be described has its Err set.
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
		resp, err := a.c.askMetadata(ctx, a.c.anyLink(), req)
		if err == nil {
			cluster, topics := fromMetadata(resp)
			return cluster, topics, nil
		}
		if !retriable(err) || a.c.meta.image.Load().hopeless(err) {
			return Cluster{}, nil, fmt.Errorf("client: metadata: %w", err)
		}
		a.c.links.next.Add(1)
		if !pause(ctx, a.c.backoff(failures)) {
			return Cluster{}, nil, fmt.Errorf("client: metadata: %w", errors.Join(ctx.Err(), err))
		}
	}
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
	Partitions []PartitionDescription
}

// PartitionDescription is one partition as the node that answered knows it.
type PartitionDescription struct {
	Partition      int32
	Leader         int32 // node id; -1: none now
	LeaderEpoch    int32
	LogStartOffset int64 // -1, like the next two: unknown to that node
	HighWatermark  int64
	SizeBytes      int64
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
		for _, cfg := range resp.Configs {
			d.Configs[cfg.Name] = cfg.Value
		}
		for _, p := range resp.Partitions {
			d.Partitions = append(d.Partitions, PartitionDescription{
				Partition: p.Partition, Leader: p.Leader, LeaderEpoch: p.LeaderEpoch,
				LogStartOffset: p.LogStartOffset, HighWatermark: p.HighWatermark,
				SizeBytes: p.SizeBytes, Shard: p.Shard,
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

// At says which offset Offsets asks for.
type At int

const (
	Latest   At = iota // the high watermark: where the next record will be
	Earliest           // the log start offset
)

// Offsets returns an offset of each partition of a topic, by partition, as
// their leaders know it when they are asked.
func (a *Admin) Offsets(ctx context.Context, name string, at At) ([]int64, error) {
	ctx, cancel := context.WithTimeout(ctx, a.c.cfg.RequestTimeout)
	defer cancel()
	t, err := a.c.topic(ctx, name)
	if err != nil {
		return nil, err
	}
	offsets := make([]int64, len(t.leaders))
	left := make([]int32, len(t.leaders))
	for p := range left {
		left[p] = int32(p)
	}
	for failures := 1; ; failures++ {
		left, err = a.offsetsOf(ctx, name, at, left, offsets)
		if len(left) == 0 {
			return offsets, nil
		}
		if !retriable(err) {
			return nil, err
		}
		poke(a.c.meta.refresh)
		if !pause(ctx, a.c.backoff(failures)) {
			return nil, errors.Join(ctx.Err(), err)
		}
	}
}

// offsetsOf asks each leader once about the partitions in ask, and returns
// those that are still to be asked, with one reason.
func (a *Admin) offsetsOf(ctx context.Context, name string, at At, ask []int32, offsets []int64) (left []int32, err error) {
	t, err := a.c.topic(ctx, name)
	if err != nil {
		return ask, err
	}
	byNode := make(map[int32][]int32)
	for _, p := range ask {
		if int(p) >= len(t.leaders) {
			return ask, &PartitionError{Topic: name, Partition: p, Offset: -1, Err: ErrNoPartition}
		}
		byNode[t.leaders[p].node] = append(byNode[t.leaders[p].node], p)
	}
	for node, partitions := range byNode {
		missing, nodeErr := a.offsetsFrom(ctx, node, t, at, partitions, offsets)
		if nodeErr != nil {
			left, err = append(left, missing...), nodeErr
			if !retriable(err) {
				return left, err
			}
		}
	}
	return left, err
}

func (a *Admin) offsetsFrom(ctx context.Context, node int32, t *topic, at At, partitions []int32, offsets []int64) (left []int32, err error) {
	l := a.c.nodeLink(node)
	if l == nil {
		err := fmt.Errorf("%w: no leader known", ErrConnection)
		return partitions, &PartitionError{Topic: t.name, Partition: partitions[0], Offset: -1, Err: err}
	}
	req, resp := new(pb.ListOffsetsRequest), new(pb.ListOffsetsResponse)
	for _, p := range partitions {
		req.Parts = append(req.Parts, listOffsetsPart(t, p, at))
	}
	if _, _, err := l.do(ctx, &call{kind: frame.KindListOffsets, req: req, resp: resp}); err != nil {
		return partitions, err
	}
	if len(resp.Results) != len(partitions) {
		return partitions, fmt.Errorf("%w: %d results for %d parts", ErrProtocol, len(resp.Results), len(partitions))
	}
	for i, p := range partitions {
		r := resp.Results[i]
		if partErr := fromServer(r.Error); partErr != nil {
			a.c.misled(t.name, p, partErr)
			left, err = append(left, p), &PartitionError{Topic: t.name, Partition: p, Offset: -1, Err: partErr}
			continue
		}
		offsets[p] = r.Offset
	}
	return left, err
}

// listOffsetsPart asks for an offset of partition p.
func listOffsetsPart(t *topic, p int32, at At) *pb.ListOffsetsPart {
	part := &pb.ListOffsetsPart{TopicId: t.id[:], Partition: p, LeaderEpoch: t.leaders[p].epoch}
	if at == Earliest {
		part.At = pb.OffsetAt_OFFSET_AT_EARLIEST
	}
	return part
}

// serverTimeoutMS is how long a server may work on a request: less than the
// client waits, so that the client learns what became of it.
func (c *Client) serverTimeoutMS() uint32 {
	return uint32(max(1, min(c.cfg.RequestTimeout*3/4, maxTimeout).Milliseconds()))
}
