package client

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/flotilla-log/flotilla/internal/errcode"
	"github.com/flotilla-log/flotilla/wire/frame"
	"github.com/flotilla-log/flotilla/wire/pb"
)

// mark takes note that what was handed out of a partition is worked off.
func (g *Group) mark(cur *cursor) {
	if g.cfg.Delivery == AtMostOnce || g.cfg.CommitInterval < 0 {
		return
	}
	g.markCursor(cur)
}

// markCursor takes a partition's position for what is worked off.
func (g *Group) markCursor(cur *cursor) {
	g.co.mu.Lock()
	a, position := cur.assigned(), cur.position
	g.co.mu.Unlock()
	g.mu.Lock()
	defer g.mu.Unlock()
	if h := g.owned[a]; h != nil && position >= 0 && !g.lost {
		h.done = position
	}
}

// assigned is the partition of a cursor. The Consumer's lock is held.
func (cur *cursor) assigned() assigned {
	return assigned{TopicPartition{cur.topic, cur.partition}, cur.group}
}

// markAll is mark for all partitions.
func (g *Group) markAll() {
	for _, cur := range g.co.all() {
		g.mark(cur)
	}
}

func (co *Consumer) all() []*cursor {
	co.mu.Lock()
	defer co.mu.Unlock()
	return slices.Clone(co.cursors)
}

// Commit commits all that was handed out, the record that the program works on, or
// what the last Poll returned, included; of a partition of which nothing was, where the
// member begins, as soon as that is looked up. It returns when that is on a majority. A
// partition that the member does not have any more is passed over; if the group has
// lost the member the error matches ErrLost, and nothing is committed.
func (g *Group) Commit(ctx context.Context) error {
	if g.cfg.Delivery == AtLeastOnce { // else it is committed
		for _, cur := range g.co.all() {
			g.markCursor(cur)
		}
	}
	return g.commitNow(ctx, nil)
}

// CommitOffsets commits, of each partition that is named, the offset of the next record
// to be worked off: for a program that works on several records at once, and alone knows
// which of those that it was handed out are done. A negative CommitInterval keeps the
// rest from counting as worked off. CommitOffsets may be called by any goroutine; of
// two calls for a partition the later one counts, also if it goes back. It returns when
// all is on a majority.
//
// Of a partition that the member does not have, or not any more, nothing is committed:
// the error, which comes when the others are, matches ErrNoPartition. If the group has
// lost the member it matches ErrLost, and nothing is committed. A member that delivers
// AtMostOnce has committed what it was handed out, and takes nothing of it back.
func (g *Group) CommitOffsets(ctx context.Context, offsets map[TopicPartition]int64) error {
	if g.cfg.Delivery != AtLeastOnce {
		return errors.New("client: CommitOffsets of a member that delivers AtMostOnce: what it was handed out is committed")
	}
	for p, offset := range offsets {
		if offset < 0 {
			return fmt.Errorf("client: commit of offset %d of topic %q, partition %d", offset, p.Topic, p.Partition)
		}
	}
	some, absent := g.markOffsets(offsets)
	if err := g.commitNow(ctx, some); err != nil {
		return err
	}
	return absent
}

// markOffsets takes offsets for what is worked off, and returns of which partitions. The
// error is of those that the member does not have.
func (g *Group) markOffsets(offsets map[TopicPartition]int64) (some []assigned, absent error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	some = make([]assigned, 0, len(offsets)) // not nil, which is all
	for a, h := range g.owned {
		if offset, ok := offsets[a.TopicPartition]; ok {
			h.done = offset
			some = append(some, a)
		}
	}
	for _, p := range slices.SortedFunc(maps.Keys(offsets), compareNames) {
		if !slices.ContainsFunc(some, func(a assigned) bool { return a.TopicPartition == p }) {
			absent = errors.Join(absent, &PartitionError{Topic: p.Topic, Partition: p.Partition, Offset: offsets[p], Err: ErrNoPartition})
		}
	}
	return some, absent
}

// commits commits in the background what is worked off.
func (g *Group) commits() {
	t := time.NewTicker(g.cfg.CommitInterval)
	defer t.Stop()
	for {
		select {
		case <-t.C:
		case <-g.ctx.Done():
			return
		}
		if err := g.commitNow(g.ctx, nil); err != nil && g.ctx.Err() == nil && !errors.Is(err, ErrLost) {
			g.c.cfg.Logger.Warn("commit failed", "group", g.cfg.Group, "error", err)
		}
	}
}

// beforehand commits, for AtMostOnce, what is about to be handed out. With an error it
// is put back.
func (g *Group) beforehand(ctx context.Context, fetched []Fetched) error {
	if g.cfg.Delivery != AtMostOnce {
		return nil
	}
	g.mu.Lock()
	before := make(map[assigned]int64)
	for i := range fetched {
		a := fetched[i].cur.assigned()
		if h := g.owned[a]; h != nil && fetched[i].Err == nil {
			if _, there := before[a]; !there {
				before[a] = h.done
			}
			h.done = fetched[i].next
		}
	}
	g.mu.Unlock()
	err := g.commitNow(ctx, nil)
	if err == nil {
		return nil
	}
	g.mu.Lock()
	for a, done := range before {
		if h := g.owned[a]; h != nil {
			h.done = done
		}
	}
	g.mu.Unlock()
	for i := range slices.Backward(fetched) {
		g.co.putBack(&fetched[i])
	}
	return err
}

// commitNow commits what is worked off and not committed, of some partitions or, with
// nil, of all. One commit is under way at a time, so that none overtakes a later one.
func (g *Group) commitNow(ctx context.Context, some []assigned) error {
	select {
	case g.commit <- struct{}{}:
		defer func() { <-g.commit }()
	case <-ctx.Done():
		return ctx.Err()
	}
	for {
		g.mu.Lock()
		epoch, renewed, lost := g.epoch, g.renewed, g.lost
		sent := g.uncommittedLocked(some)
		g.mu.Unlock()
		switch {
		case lost: // nothing is marked any more, so that there may be nothing to send
			return ErrLost
		case len(sent) == 0:
			return nil
		case epoch == 0:
			return ErrLost
		}
		err := g.commitAt(ctx, epoch, sent)
		if code, _ := CodeOf(err); code != errcode.StaleMemberEpoch {
			return err
		}
		poke(g.beat)
		select {
		case <-renewed:
		case <-ctx.Done():
			return errors.Join(ctx.Err(), err)
		}
	}
}

// toCommit is an offset on its way.
type toCommit struct {
	assigned
	offset int64
}

func (g *Group) uncommittedLocked(some []assigned) (out []toCommit) {
	for a, h := range g.owned {
		if h.done >= 0 && h.done != h.committed && (some == nil || slices.Contains(some, a)) {
			out = append(out, toCommit{a, h.done})
		}
	}
	slices.SortFunc(out, func(a, b toCommit) int { return compareNames(a.TopicPartition, b.TopicPartition) })
	return out
}

// commitAt commits offsets under a member epoch.
func (g *Group) commitAt(ctx context.Context, epoch int32, sent []toCommit) error {
	req, resp := g.commitRequest(epoch, sent), new(pb.CommitOffsetsResponse)
	_, err := g.c.askCoordinator(ctx, g.cfg.Group, frame.KindCommitOffsets, req, resp)
	switch {
	case isFenced(err) || isNoGroup(err):
		g.lose(epoch, err)
		return fmt.Errorf("%w: %w", ErrLost, err)
	case err != nil:
		return fmt.Errorf("client: commit of group %q: %w", g.cfg.Group, err)
	case len(resp.Results) != len(sent):
		return fmt.Errorf("%w: %d results for %d offsets", ErrProtocol, len(resp.Results), len(sent))
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for i, s := range sent {
		if partErr := fromServer(resp.Results[i].Error); partErr != nil {
			if !isGone(partErr) {
				err = &PartitionError{Topic: s.Topic, Partition: s.Partition, Offset: s.offset, Err: partErr}
			}
			continue
		}
		if h := g.owned[s.assigned]; h != nil {
			h.committed = s.offset
		}
	}
	return err
}

func (g *Group) commitRequest(epoch int32, sent []toCommit) *pb.CommitOffsetsRequest {
	req := &pb.CommitOffsetsRequest{Group: g.cfg.Group, MemberId: g.member, MemberEpoch: epoch, InstanceId: g.cfg.InstanceID}
	for i := range sent {
		s := &sent[i]
		req.Offsets = append(req.Offsets, &pb.GroupOffset{TopicId: s.id[:], Partition: s.Partition, Offset: s.offset, LeaderEpoch: -1})
	}
	return req
}

// isGone reports that a topic or partition is not there any more.
func isGone(err error) bool {
	code, _ := CodeOf(err)
	return code == errcode.UnknownTopicID || code == errcode.UnknownTopicOrPartition || code == errcode.InconsistentTopicID
}

// isFenced reports that the group has lost the member.
func isFenced(err error) bool {
	code, _ := CodeOf(err)
	return code == errcode.FencedMemberEpoch || code == errcode.UnknownMemberID
}

// isNoGroup reports that there is no such group, or, when a member joins, that it is
// one that the server cannot assign.
func isNoGroup(err error) bool {
	code, _ := CodeOf(err)
	return code == errcode.GroupIDNotFound
}

// fetchCommitted returns what the group has committed of partitions that the member
// has, -1 where that is nothing. Of what is missing in it the topic is gone.
func (g *Group) fetchCommitted(ctx context.Context, parts []assigned) (map[assigned]int64, error) {
	g.mu.Lock()
	epoch, renewed := g.epoch, g.renewed
	g.mu.Unlock()
	req, resp := &pb.FetchOffsetsRequest{Group: g.cfg.Group, MemberId: g.member, MemberEpoch: epoch}, new(pb.FetchOffsetsResponse)
	for i := range parts {
		req.Partitions = append(req.Partitions, &pb.PartitionRef{TopicId: parts[i].id[:], Partition: parts[i].Partition})
	}
	_, err := g.c.askCoordinator(ctx, g.cfg.Group, frame.KindFetchOffsets, req, resp)
	code, _ := CodeOf(err)
	switch {
	case code == errcode.StaleMemberEpoch:
		poke(g.beat)
		select {
		case <-renewed:
			return nil, errAgain
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-g.ctx.Done():
			return nil, ErrClosed
		}
	case isFenced(err):
		g.lose(epoch, err)
		return nil, errAgain
	case err != nil:
		return nil, fmt.Errorf("client: offsets of group %q: %w", g.cfg.Group, err)
	case len(resp.Offsets) != len(parts):
		return nil, fmt.Errorf("%w: %d offsets for %d partitions", ErrProtocol, len(resp.Offsets), len(parts))
	}
	out := make(map[assigned]int64)
	for i, o := range resp.Offsets {
		switch partErr := fromServer(o.Error); {
		case partErr == nil:
			out[parts[i]] = o.Offset
		case isGone(partErr):
		case !retriable(partErr):
			return nil, &PartitionError{Topic: parts[i].Topic, Partition: parts[i].Partition, Offset: -1, Err: partErr}
		case !pause(ctx, g.c.backoff(1)):
			return nil, errors.Join(ctx.Err(), partErr)
		default:
			return nil, errAgain // the coordinator may be behind
		}
	}
	return out, nil
}

// errAgain says that what was to be done has changed meanwhile.
var errAgain = errors.New("client: the assignment has changed")

// errAbsent says that partitions which the member has are not there, or not yet, as far
// as its client can tell.
var errAbsent = errors.New("client: the topic is not known")

// sorted are the keys of a set of partitions, in order.
func sorted[V any](set map[assigned]V) []assigned {
	return slices.SortedFunc(maps.Keys(set), func(a, b assigned) int { return compareNames(a.TopicPartition, b.TopicPartition) })
}

func compareNames(a, b TopicPartition) int {
	return cmp.Or(cmp.Compare(a.Topic, b.Topic), cmp.Compare(a.Partition, b.Partition))
}
