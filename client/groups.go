package client

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/flotilla-log/flotilla/internal/errcode"
	"github.com/flotilla-log/flotilla/wire/frame"
	"github.com/flotilla-log/flotilla/wire/pb"
)

// Groups looks after consumer groups, also those of Kafka's clients. Its requests are
// repeated until they are answered, RequestTimeout has passed or ctx ends: what they
// do, they do no more if it is done twice.
type Groups struct{ c *Client }

// Groups returns a Groups on c's connections.
func (c *Client) Groups() *Groups { return &Groups{c: c} }

// GroupListing is a group as List has it.
type GroupListing struct {
	Group string
	Type  string // "consumer": the server assigns; "classic": a member does
	State string // as docs/groups.md calls it, such as "Stable"
	// ProtocolType is "consumer"; something else of groups that are not of consumers;
	// empty of one that has only offsets.
	ProtocolType string
}

// List returns all groups, by name. Each node is asked for those that it looks after;
// with an error some may be missing.
func (gs *Groups) List(ctx context.Context) ([]GroupListing, error) {
	ctx, cancel := context.WithTimeout(ctx, gs.c.cfg.RequestTimeout)
	defer cancel()
	cluster, _, err := gs.c.Admin().Metadata(ctx)
	if err != nil {
		return nil, err
	}
	all := make(map[string]GroupListing)
	var errs []error
	for _, n := range cluster.Nodes {
		if err := gs.listOf(ctx, n, all); err != nil {
			errs = append(errs, fmt.Errorf("client: groups of node %d: %w", n.ID, noGroups(err)))
		}
	}
	return slices.SortedFunc(maps.Values(all), func(a, b GroupListing) int { return cmp.Compare(a.Group, b.Group) }), errors.Join(errs...)
}

func (gs *Groups) listOf(ctx context.Context, n Node, all map[string]GroupListing) error {
	req := new(pb.ListGroupsRequest)
	for {
		resp := new(pb.ListGroupsResponse)
		if _, _, err := gs.c.link(n.Address).do(ctx, &call{kind: frame.KindListGroups, req: req, resp: resp, feature: frame.FeatureGroups}); err != nil {
			return err
		}
		for _, g := range resp.Groups {
			all[g.Group] = GroupListing{Group: g.Group, Type: g.Type, State: g.State, ProtocolType: g.ProtocolType}
		}
		if !resp.More {
			return nil
		}
		after := req.After
		if len(resp.Groups) > 0 {
			after = resp.Groups[len(resp.Groups)-1].Group
		}
		if after <= req.After {
			return fmt.Errorf("%w: no progress", ErrProtocol)
		}
		req.After = after
	}
}

// GroupDescription is a group with its members.
type GroupDescription struct {
	GroupListing
	Assignor    string // that the members share; empty: none now
	Epoch       int32  // -1: of a classic group
	TargetEpoch int32  // likewise
	Members     []GroupMember
}

// GroupMember is a member of a group.
type GroupMember struct {
	ID         string
	InstanceID string // empty: not static
	Rack       string
	Epoch      int32 // -1: of a classic group
	ClientID   string
	ClientHost string
	Topics     []string // that it subscribes to by name
	Regex      string
	Classic    bool // it speaks the classic protocol
	Assigned   []TopicPartition
	Target     []TopicPartition // what it is to have; empty of a classic group
}

// Describe returns a group with its members, by id. The error has the code
// GROUP_ID_NOT_FOUND if there is no such group.
func (gs *Groups) Describe(ctx context.Context, group string) (GroupDescription, error) {
	var d GroupDescription
	req := &pb.DescribeGroupRequest{Group: group}
	for {
		resp := new(pb.DescribeGroupResponse)
		if err := gs.ask(ctx, group, frame.KindDescribeGroup, req, resp); err != nil {
			return GroupDescription{}, fmt.Errorf("client: describe group %q: %w", group, err)
		}
		before := d.Members
		d = GroupDescription{
			GroupListing: GroupListing{Group: group, Type: resp.Type, State: resp.State, ProtocolType: resp.ProtocolType},
			Assignor:     resp.Assignor, Epoch: resp.Epoch, TargetEpoch: resp.TargetEpoch, Members: before,
		}
		for _, m := range resp.Members {
			d.Members = append(d.Members, GroupMember{
				ID: m.MemberId, InstanceID: m.InstanceId, Rack: m.Rack, Epoch: m.MemberEpoch, ClientID: m.ClientId, ClientHost: m.ClientHost,
				Topics: m.Topics, Regex: m.Regex, Classic: m.Classic, Assigned: partitionsOf(m.Assigned), Target: partitionsOf(m.Target),
			})
		}
		if !resp.More {
			return d, nil
		}
		if len(d.Members) == len(before) {
			return GroupDescription{}, fmt.Errorf("client: describe group %q: %w: no progress", group, ErrProtocol)
		}
		req.AfterMember = d.Members[len(d.Members)-1].ID
	}
}

// partitionsOf lists partitions, by topic and number. Those of a topic that is gone
// have no name, and are left out.
func partitionsOf(topics []*pb.GroupTopic) (out []TopicPartition) {
	for _, t := range topics {
		for _, p := range t.Partitions {
			if t.Name != "" {
				out = append(out, TopicPartition{t.Name, p})
			}
		}
	}
	slices.SortFunc(out, comparePartitions)
	return out
}

func comparePartitions(a, b TopicPartition) int {
	return cmp.Or(cmp.Compare(a.Topic, b.Topic), cmp.Compare(a.Partition, b.Partition))
}

// ask sends a request to a group's coordinator.
func (gs *Groups) ask(ctx context.Context, group string, kind frame.Kind, req, resp proto.Message) error {
	ctx, cancel := context.WithTimeout(ctx, gs.c.cfg.RequestTimeout)
	defer cancel()
	_, err := gs.c.askCoordinator(ctx, group, kind, req, resp)
	return err
}

// Delete deletes a group that has no members, with its offsets. The error has the code
// NON_EMPTY_GROUP if it has, and GROUP_ID_NOT_FOUND if there is no such group.
func (gs *Groups) Delete(ctx context.Context, group string) error {
	ctx, cancel := context.WithTimeout(ctx, gs.c.cfg.RequestTimeout)
	defer cancel()
	tries := false // one may have been done
	for failures := 1; ; failures++ {
		sent, err := gs.c.askCoordinatorOnce(ctx, group, frame.KindDeleteGroup, &pb.DeleteGroupRequest{Group: group}, new(pb.DeleteGroupResponse), failures-1)
		code, _ := CodeOf(err)
		switch {
		case err == nil, tries && code == errcode.GroupIDNotFound:
			return nil
		case !retriable(err) || !pause(ctx, gs.c.backoff(failures)):
			if sent && (mayHaveHappened(err) || code == errcode.NotCoordinator) {
				err = unknown(err)
			}
			return fmt.Errorf("client: delete group %q: %w", group, noGroups(err))
		}
		tries = tries || sent
	}
}

// CommittedOffset is where a group goes on in a partition.
type CommittedOffset struct {
	TopicPartition
	Offset   int64  // of the next record to be consumed
	Metadata string // what whoever committed it has said of it
}

// Offsets returns all that a group has committed, by topic and partition: nothing if
// there is no such group.
func (gs *Groups) Offsets(ctx context.Context, group string) ([]CommittedOffset, error) {
	var all []CommittedOffset
	req := &pb.FetchOffsetsRequest{Group: group, All: true}
	for {
		resp := new(pb.FetchOffsetsResponse)
		if err := gs.ask(ctx, group, frame.KindFetchOffsets, req, resp); err != nil {
			return nil, fmt.Errorf("client: offsets of group %q: %w", group, err)
		}
		for _, o := range resp.Offsets {
			all = append(all, CommittedOffset{TopicPartition{o.Topic, o.Partition}, o.Offset, o.Metadata})
		}
		if !resp.More {
			return all, nil
		}
		if len(resp.Offsets) == 0 {
			return nil, fmt.Errorf("client: offsets of group %q: %w: no progress", group, ErrProtocol)
		}
		last := all[len(all)-1]
		req.AfterTopic, req.AfterPartition = last.Topic, last.Partition
	}
}

// SetOffsets commits offsets of a group that has no members, back as well as forth, and
// makes it if there is none. On return they are on a majority. With an error some may
// be set. The error has the code UNKNOWN_MEMBER_ID if the group has members: it knows
// better where they are.
func (gs *Groups) SetOffsets(ctx context.Context, group string, offsets map[TopicPartition]int64) error {
	if len(offsets) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, gs.c.cfg.RequestTimeout)
	defer cancel()
	req, resp := &pb.CommitOffsetsRequest{Group: group, MemberEpoch: leaveEpoch}, new(pb.CommitOffsetsResponse)
	parts := slices.SortedFunc(maps.Keys(offsets), comparePartitions)
	for _, p := range parts {
		t, err := gs.c.topic(ctx, p.Topic)
		if err != nil {
			return fmt.Errorf("client: set offsets of group %q: %w", group, err)
		}
		req.Offsets = append(req.Offsets, &pb.GroupOffset{TopicId: t.id[:], Partition: p.Partition, Offset: offsets[p], LeaderEpoch: -1})
	}
	if _, err := gs.c.askCoordinator(ctx, group, frame.KindCommitOffsets, req, resp); err != nil {
		return fmt.Errorf("client: set offsets of group %q: %w", group, err)
	}
	return groupResults("set offsets", group, parts, resp.Results)
}

// DeleteOffsets forgets committed offsets. The error has the code
// GROUP_SUBSCRIBED_TO_TOPIC for topics that a member consumes.
func (gs *Groups) DeleteOffsets(ctx context.Context, group string, partitions ...TopicPartition) error {
	if len(partitions) == 0 {
		return nil
	}
	req, resp := &pb.DeleteOffsetsRequest{Group: group}, new(pb.DeleteOffsetsResponse)
	for _, p := range partitions {
		req.Partitions = append(req.Partitions, &pb.NamedPartition{Topic: p.Topic, Partition: p.Partition})
	}
	if err := gs.ask(ctx, group, frame.KindDeleteOffsets, req, resp); err != nil {
		return fmt.Errorf("client: delete offsets of group %q: %w", group, err)
	}
	return groupResults("delete offsets", group, partitions, resp.Results)
}

// groupResults returns the first error of a request's parts.
func groupResults(what, group string, parts []TopicPartition, results []*pb.GroupResult) error {
	if len(results) != len(parts) {
		return fmt.Errorf("client: %s of group %q: %w: %d results for %d partitions", what, group, ErrProtocol, len(results), len(parts))
	}
	for i, r := range results {
		if err := fromServer(r.Error); err != nil {
			err = &PartitionError{Topic: parts[i].Topic, Partition: parts[i].Partition, Offset: -1, Err: err}
			return fmt.Errorf("client: %s of group %q: %w", what, group, err)
		}
	}
	return nil
}

// GroupLag is how far a group is in a partition.
type GroupLag struct {
	TopicPartition
	Offset int64  // committed; -1: none
	End    int64  // of the partition, as its leader says; -1: the topic is gone
	Lag    int64  // records from Offset, or, without one, from the beginning, to End; -1: not known
	Member string // id of the member that has the partition; empty: none
}

// Lag returns how far a group is in each partition of which it has committed an offset,
// or which a member has, by topic and partition. d is what Describe returned. Offsets
// and ends are not of one moment, so that a group may seem to be ahead: that is a lag
// of 0.
func (gs *Groups) Lag(ctx context.Context, d GroupDescription) ([]GroupLag, error) {
	committed, err := gs.Offsets(ctx, d.Group)
	if err != nil {
		return nil, err
	}
	rows := make(map[TopicPartition]*GroupLag)
	for _, o := range committed {
		rows[o.TopicPartition] = &GroupLag{TopicPartition: o.TopicPartition, Offset: o.Offset, End: -1, Lag: -1}
	}
	for _, m := range d.Members {
		for _, p := range m.Assigned {
			if rows[p] == nil {
				rows[p] = &GroupLag{TopicPartition: p, Offset: -1, End: -1, Lag: -1}
			}
			rows[p].Member = m.ID
		}
	}
	topics := make(map[string]bool)
	for p := range rows {
		topics[p.Topic] = true
	}
	for _, topic := range slices.Sorted(maps.Keys(topics)) {
		ends, err := gs.c.Admin().Offsets(ctx, topic, Latest)
		if err == nil {
			var starts []int64
			if starts, err = gs.c.Admin().Offsets(ctx, topic, Earliest); err == nil {
				measure(rows, topic, starts, ends)
			}
		}
		if err != nil && !isGone(err) {
			return nil, err
		}
	}
	out := make([]GroupLag, 0, len(rows))
	for _, p := range slices.SortedFunc(maps.Keys(rows), comparePartitions) {
		out = append(out, *rows[p])
	}
	return out, nil
}

// measure fills in the lags of one topic.
func measure(rows map[TopicPartition]*GroupLag, topic string, starts, ends []int64) {
	for p, row := range rows {
		if p.Topic == topic && int(p.Partition) < min(len(ends), len(starts)) {
			row.End = ends[p.Partition]
			row.Lag = max(0, row.End-max(row.Offset, starts[p.Partition]))
		}
	}
}
