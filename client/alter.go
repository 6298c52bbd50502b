package client

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/flotilla-log/flotilla/wire/frame"
	"github.com/flotilla-log/flotilla/wire/pb"
)

// TopicChange says which of a topic's configs to change; others stay.
type TopicChange struct {
	Set          map[string]string // by name, such as "retention.ms"
	Delete       []string          // put back to their defaults
	ValidateOnly bool              // check everything, change nothing
}

// AlterTopic changes configs of the topic that has the name now, all of them or
// none, and returns all configs as they hold then, or, with ValidateOnly, would.
// A change that is made twice does no more than once, but may undo one that
// somebody else made in between.
func (a *Admin) AlterTopic(ctx context.Context, name string, change TopicChange) ([]TopicConfig, error) {
	req := &pb.AlterTopicRequest{
		Name: name, Delete: change.Delete, ValidateOnly: change.ValidateOnly, TimeoutMs: a.c.serverTimeoutMS(),
	}
	for _, k := range slices.Sorted(maps.Keys(change.Set)) {
		req.Set = append(req.Set, &pb.Config{Name: k, Value: change.Set[k]})
	}
	resp := new(pb.AlterTopicResponse)
	if err := a.change(ctx, frame.KindAlterTopic, req, resp); err != nil {
		return nil, fmt.Errorf("client: alter topic %q: %w", name, err)
	}
	return topicConfigs(resp.Configs), nil
}

// AddPartitions gives the topic that has the name now more partitions, total in
// all; they cannot be taken away again. On return this client knows of them, and
// so do its producers and consumers; others see them with their next refresh of
// metadata. From then on records of a key may go to another partition than
// before, so their order is only kept within each of the two; records that are
// there stay where they are.
//
// If the partitions are made, and no node tells of them before ctx ends or
// RequestTimeout has passed, the error says so and matches that of a context.
func (a *Admin) AddPartitions(ctx context.Context, name string, total int32, validateOnly bool) error {
	req := &pb.AddPartitionsRequest{Name: name, Total: total, ValidateOnly: validateOnly, TimeoutMs: a.c.serverTimeoutMS()}
	if err := a.change(ctx, frame.KindAddPartitions, req, new(pb.AddPartitionsResponse)); err != nil {
		return fmt.Errorf("client: add partitions to topic %q: %w", name, err)
	}
	if validateOnly {
		return nil
	}
	if err := a.c.awaitPartitions(ctx, name, int(total)); err != nil {
		return fmt.Errorf("client: topic %q has %d partitions now, and no node tells of them yet: %w", name, total, err)
	}
	return nil
}

// DeleteRecords deletes the records below an offset of each given partition of
// the topic that has the name now; BeforeEnd as an offset stands for the high
// watermark when DeleteRecords begins. It returns the log start offsets by
// partition: an offset at or below the present one changes nothing.
//
// The deletion is durable on return, and cannot be undone. It is repeated until
// RequestTimeout has passed, since that does no more than once; after an error
// some partitions may have been done, and others may be yet. If the name comes
// to stand for another topic meanwhile, the error matches ErrRecreated.
func (a *Admin) DeleteRecords(ctx context.Context, name string, before map[int32]int64) (map[int32]int64, error) {
	starts, err := a.deleteRecords(ctx, name, before)
	if err != nil {
		return nil, fmt.Errorf("client: delete records of topic %q: %w", name, err)
	}
	return starts, nil
}

// BeforeEnd as an offset of DeleteRecords stands for the high watermark.
const BeforeEnd int64 = -1

func (a *Admin) deleteRecords(ctx context.Context, name string, before map[int32]int64) (map[int32]int64, error) {
	if len(before) == 0 {
		return nil, errors.New("no partitions given")
	}
	ctx, cancel := context.WithTimeout(ctx, a.c.cfg.RequestTimeout)
	defer cancel()
	first, err := a.c.topic(ctx, name)
	if err != nil {
		return nil, err
	}
	// A later attempt must not delete what came after the first.
	if slices.Contains(slices.Collect(maps.Values(before)), BeforeEnd) {
		ends, err := a.Offsets(ctx, name, Latest)
		if err != nil {
			return nil, err
		}
		before = maps.Clone(before)
		for p, offset := range before {
			if offset == BeforeEnd && int(p) < len(ends) && p >= 0 {
				before[p] = ends[p]
			}
		}
	}
	starts := make(map[int32]int64, len(before))
	partitions := slices.Sorted(maps.Keys(before))
	err = a.onLeaders(ctx, name, partitions, func(l *link, t *topic, ps []int32) ([]int32, error) {
		if t.id != first.id {
			return ps, ErrRecreated
		}
		req, resp := &pb.DeleteRecordsRequest{TimeoutMs: a.c.serverTimeoutMS()}, new(pb.DeleteRecordsResponse)
		for _, p := range ps {
			req.Parts = append(req.Parts, &pb.DeleteRecordsPart{TopicId: t.id[:], Partition: p, BeforeOffset: before[p]})
		}
		if _, _, err := l.do(ctx, &call{kind: frame.KindDeleteRecords, req: req, resp: resp}); err != nil {
			return ps, err
		}
		return a.partResults(t, ps, len(resp.Results), func(i int) *pb.Error { return resp.Results[i].Error }, func(i int) {
			starts[ps[i]] = resp.Results[i].LogStartOffset
		})
	})
	return starts, err
}
