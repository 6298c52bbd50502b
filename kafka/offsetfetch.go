package kafka

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/flotilla-log/flotilla/consumergroup"
	"github.com/flotilla-log/flotilla/consumergroup/record"
	"github.com/flotilla-log/flotilla/internal/errcode"
)

// foundBytes is one committed offset of an answer as it lies in memory.
const foundBytes = 128

// offsetFetch answers with committed offsets: of one group, or of several from version 8
// on. From version 9 on a member of KIP-848 says its epoch, and from version 10 on
// topics are named by their ids. There are no transactions, so every offset is stable.
//
// Each partition that is asked for is answered, with -1 if there is no offset. Of all
// of a group, those are that were committed to topics as they are now.
func (s *Server) offsetFetch(ctx context.Context, p *peer, req *kmsg.OffsetFetchRequest) kmsg.Response {
	groups := req.Groups
	if req.Version < 8 {
		groups = []kmsg.OffsetFetchRequestGroup{singleGroup(req)}
	}
	within, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	found := make([]offsetsFound, 0, len(groups))
	var size int64
	for i := range groups {
		f := s.findOffsets(within, req.Version, &groups[i])
		size += resultBytes + f.bytes()
		if found = append(found, f); size > p.mostAnswer() {
			break
		}
	}
	if !p.hold(ctx, size) {
		return nil
	}
	resp := kmsg.NewPtrOffsetFetchResponse()
	resp.Version = req.Version
	for i := range found {
		resp.Groups = append(resp.Groups, found[i].answer(p, req.Version))
	}
	if req.Version < 8 {
		ofSingleGroup(resp)
	}
	return resp
}

// singleGroup is the group that a request before version 8 asks about. From version 2
// on null is all of its topics.
func singleGroup(req *kmsg.OffsetFetchRequest) kmsg.OffsetFetchRequestGroup {
	g := kmsg.NewOffsetFetchRequestGroup()
	g.Group = req.Group
	if req.Topics != nil || req.Version < 2 {
		g.Topics = make([]kmsg.OffsetFetchRequestGroupTopic, len(req.Topics))
	}
	for i := range req.Topics {
		g.Topics[i].Topic, g.Topics[i].Partitions = req.Topics[i].Topic, req.Topics[i].Partitions
	}
	return g
}

// ofSingleGroup moves the answer to where it is before version 8.
func ofSingleGroup(resp *kmsg.OffsetFetchResponse) {
	g := resp.Groups[0]
	resp.Groups, resp.ErrorCode = nil, g.ErrorCode
	for i := range g.Topics {
		from, to := &g.Topics[i], kmsg.NewOffsetFetchResponseTopic()
		to.Topic = from.Topic
		for j := range from.Partitions {
			part := &from.Partitions[j]
			to.Partitions = append(to.Partitions, kmsg.OffsetFetchResponseTopicPartition{
				Partition: part.Partition, Offset: part.Offset, LeaderEpoch: part.LeaderEpoch, Metadata: part.Metadata, ErrorCode: part.ErrorCode,
			})
		}
		resp.Topics = append(resp.Topics, to)
	}
}

// offsetsFound is what was found for one group of an OffsetFetch.
type offsetsFound struct {
	group   *kmsg.OffsetFetchRequestGroup
	err     *errcode.Error // of the group
	topics  []placed       // those of the request, or those with offsets
	unknown []*errcode.Error
	offsets []consumergroup.FetchedOffset // those of each topic together, but for unknown ones
}

func (f *offsetsFound) bytes() int64 {
	n := foundBytes * int64(len(f.offsets)+len(f.topics))
	for i := range f.offsets {
		n += int64(len(f.offsets[i].Metadata))
	}
	return n + foundBytes*asked(f.group.Topics, func(t *kmsg.OffsetFetchRequestGroupTopic) int { return len(t.Partitions) })
}

// findOffsets finds the committed offsets of one group.
func (s *Server) findOffsets(ctx context.Context, version int16, g *kmsg.OffsetFetchRequestGroup) offsetsFound {
	f := offsetsFound{group: g}
	ask := &consumergroup.FetchRequest{Group: g.Group, MemberID: required(g.MemberID), MemberEpoch: g.MemberEpoch, All: g.Topics == nil}
	for i := range g.Topics {
		t, err := s.fetchedTopic(version, &g.Topics[i])
		f.topics, f.unknown = append(f.topics, t), append(f.unknown, err)
		if err != nil {
			continue
		}
		for _, part := range g.Topics[i].Partitions {
			ask.Partitions = append(ask.Partitions, consumergroup.FetchPartition{Topic: t.name, TopicID: record.TopicID(t.id), Partition: part})
		}
	}
	r := s.groups.FetchOffsets(ctx, ask)
	if f.err = r.Err; f.err != nil {
		return f
	}
	f.offsets = r.Offsets
	if ask.All {
		s.placeAll(&f)
	}
	return f
}

// fetchedTopic returns the topic that offsets are asked for of. One that is named does
// not have to exist.
func (s *Server) fetchedTopic(version int16, t *kmsg.OffsetFetchRequestGroupTopic) (placed, *errcode.Error) {
	if version >= offsetTopicIDVersion {
		return s.placedByID(t.TopicID)
	}
	found, _ := s.placedByName(t.Topic)
	return found, nil
}

// placeAll finds the topics of all offsets of a group, and leaves out offsets that
// were committed to an earlier topic of the name.
func (s *Server) placeAll(f *offsetsFound) {
	kept := make([]consumergroup.FetchedOffset, 0, len(f.offsets))
	for i := range f.offsets {
		o := &f.offsets[i]
		if n := len(f.topics); n == 0 || f.topics[n-1].name != o.Topic {
			t, _ := s.placedByName(o.Topic)
			f.topics = append(f.topics, t)
		}
		now := record.TopicID(f.topics[len(f.topics)-1].id)
		if none := (record.TopicID{}); now == o.TopicID || now == none || o.TopicID == none {
			kept = append(kept, *o)
		}
	}
	f.offsets = kept
}

// answer is the group's part of the answer.
func (f *offsetsFound) answer(p *peer, version int16) kmsg.OffsetFetchResponseGroup {
	out := kmsg.NewOffsetFetchResponseGroup()
	out.Group = f.group.Group
	if f.err != nil {
		if out.ErrorCode = p.error(f.err); version < 2 { // which has room for it with partitions only
			out.Topics = f.refused(out.ErrorCode)
		}
		return out
	}
	left := f.offsets
	for i := range f.topics {
		t := kmsg.NewOffsetFetchResponseGroupTopic()
		t.Topic, t.TopicID = f.topics[i].name, f.topics[i].id
		switch {
		case f.group.Topics == nil:
			t.Partitions, left = offsetsOf(left, t.Topic)
		case f.unknown[i] != nil:
			t.TopicID = f.group.Topics[i].TopicID
			t.Partitions = noOffsets(f.group.Topics[i].Partitions, p.error(f.unknown[i]))
		default:
			n := len(f.group.Topics[i].Partitions)
			t.Partitions, _ = offsetsOf(left[:n], t.Topic)
			left = left[n:]
		}
		if f.group.Topics == nil && (len(t.Partitions) == 0 || version >= offsetTopicIDVersion && t.TopicID == [16]byte{}) {
			continue // it is no more
		}
		out.Topics = append(out.Topics, t)
	}
	return out
}

// refused is an error for each partition that is asked for.
func (f *offsetsFound) refused(code int16) (out []kmsg.OffsetFetchResponseGroupTopic) {
	for i := range f.group.Topics {
		t := kmsg.NewOffsetFetchResponseGroupTopic()
		t.Topic, t.Partitions = f.group.Topics[i].Topic, noOffsets(f.group.Topics[i].Partitions, code)
		out = append(out, t)
	}
	return out
}

// offsetsOf answers the first offsets that are of a topic, and returns the rest.
func offsetsOf(offsets []consumergroup.FetchedOffset, topic string) (parts []kmsg.OffsetFetchResponseGroupTopicPartition, rest []consumergroup.FetchedOffset) {
	for len(offsets) > 0 && offsets[0].Topic == topic {
		o := &offsets[0]
		parts = append(parts, kmsg.OffsetFetchResponseGroupTopicPartition{Partition: o.Partition, Offset: o.Offset, LeaderEpoch: o.LeaderEpoch, Metadata: &o.Metadata})
		offsets = offsets[1:]
	}
	return parts, offsets
}

// noOffsets answers an error for each of some partitions.
func noOffsets(partitions []int32, code int16) []kmsg.OffsetFetchResponseGroupTopicPartition {
	out := make([]kmsg.OffsetFetchResponseGroupTopicPartition, len(partitions))
	for i, part := range partitions {
		out[i] = kmsg.OffsetFetchResponseGroupTopicPartition{Partition: part, Offset: -1, LeaderEpoch: -1, Metadata: new(string), ErrorCode: code}
	}
	return out
}
