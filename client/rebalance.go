package client

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/flotilla-log/flotilla/internal/errcode"
	"github.com/flotilla-log/flotilla/wire/frame"
	"github.com/flotilla-log/flotilla/wire/pb"
)

// Epochs that a heartbeat says instead of the member's.
const (
	leaveEpoch       = -1
	staticLeaveEpoch = -2
)

// heartbeats tells the coordinator that the member lives, until the Group is closed.
func (g *Group) heartbeats() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	var unreleased time.Time // since when another member has the instance id
	var session tenure       // by the last answer
	for failures := 0; ; {
		select {
		case <-timer.C:
		case <-g.beat:
		case <-g.ctx.Done():
			return
		}
		interval, err := g.heartbeat(failures, &session)
		switch {
		case g.ctx.Err() != nil:
			return
		case err == nil:
			failures, unreleased = 0, time.Time{}
			timer.Reset(interval)
		case isUnreleased(err) && (unreleased.IsZero() || g.c.cfg.Now().Sub(unreleased) < unreleasedMax):
			if unreleased.IsZero() {
				unreleased = g.c.cfg.Now()
			}
			timer.Reset(idle)
		case isFenced(err):
			failures = 0 // the program hears of it, and then the member joins again
		case retriable(err) && !g.c.meta.image.Load().hopeless(err):
			failures++
			g.mu.Lock()
			g.whole = true // the answer may be lost, not only the request
			epoch := g.epoch
			g.mu.Unlock()
			wait := g.c.backoff(failures)
			if left, bounded := session.left(g.c.cfg.Now()); bounded && epoch > 0 {
				if left <= 0 {
					g.lose(epoch, fmt.Errorf("%w: no answer for a whole session: %w", ErrLost, err))
				} else {
					wait = min(wait, left)
				}
			}
			timer.Reset(wait)
		default:
			g.end(fmt.Errorf("client: group %q: %w", g.cfg.Group, noGroups(err)))
			return
		}
	}
}

// turn has the program's goroutine look what there is to do.
func (g *Group) turn() {
	g.pending.Store(true)
	poke(g.turned)
}

// end ends the membership with an error, which Poll and Records return.
func (g *Group) end(err error) {
	g.mu.Lock()
	g.err = err
	g.mu.Unlock()
	g.turn()
}

const (
	// idle is how often a member that has to wait looks whether it still has to.
	idle = time.Second

	// unreleasedMax is how long a static member waits for its instance id. If it has
	// crashed, the coordinator learns of that by the end of its session, 45 s by
	// default.
	unreleasedMax = 2 * time.Minute
)

// isUnreleased reports that another member has the instance id.
func isUnreleased(err error) bool {
	code, _ := CodeOf(err)
	return code == errcode.UnreleasedInstanceID
}

// tenure is how long a member is one without the coordinator's word. Then others may
// have its partitions, and it is not told of it.
type tenure struct {
	since  time.Time     // when the last heartbeat that was answered was sent
	length time.Duration // 0: not known
}

// left returns how much of it is left, and false if it is not known.
func (s tenure) left(now time.Time) (time.Duration, bool) {
	return s.length - now.Sub(s.since), s.length > 0
}

// heartbeat sends one, and returns when the next is due.
func (g *Group) heartbeat(failures int, s *tenure) (time.Duration, error) {
	if g.overdue() {
		return idle, nil
	}
	g.mu.Lock()
	if g.lost || g.left {
		g.mu.Unlock()
		return idle, nil // what it has lost it must not read any more when it joins
	}
	epoch, version := g.epoch, g.versions
	req := g.heartbeatLocked()
	g.joining = true
	g.mu.Unlock()
	resp := new(pb.GroupHeartbeatResponse)
	began, ctx := g.c.cfg.Now(), g.ctx
	if left, bounded := s.left(began); bounded && left > 0 && epoch > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, left)
		defer cancel()
	}
	if _, err := g.c.askCoordinatorOnce(ctx, g.cfg.Group, frame.KindGroupHeartbeat, req, resp, failures); err != nil {
		if ctx.Err() != nil && g.ctx.Err() == nil {
			err = fmt.Errorf("%w: %w", ErrTimeout, err)
		}
		if isFenced(err) {
			g.lose(epoch, err)
		}
		return 0, err
	}
	if err := g.heard(epoch, version, resp); err != nil {
		return 0, err
	}
	*s = tenure{began, time.Duration(resp.SessionMs) * time.Millisecond}
	return max(time.Duration(resp.IntervalMs)*time.Millisecond, time.Millisecond), nil
}

// heartbeatLocked is what the coordinator is to hear: all, if it may not know it, and
// else what has changed.
func (g *Group) heartbeatLocked() *pb.GroupHeartbeatRequest {
	req := &pb.GroupHeartbeatRequest{Group: g.cfg.Group, MemberId: g.member, MemberEpoch: g.epoch, InstanceId: g.cfg.InstanceID}
	whole := g.whole || g.epoch == 0
	if whole {
		req.Subscription = &pb.GroupSubscription{
			Topics: g.cfg.Topics, Regex: g.cfg.Regex, Assignor: g.cfg.Assignor, RebalanceTimeoutMs: uint32(min(g.cfg.MaxPollInterval, maxTimeout).Milliseconds()),
		}
	}
	if whole || g.versions != g.told {
		req.Owned = new(pb.GroupPartitions)
		for _, a := range sorted(g.owned) {
			n := len(req.Owned.Topics)
			if n == 0 || string(req.Owned.Topics[n-1].TopicId) != string(a.id[:]) {
				req.Owned.Topics = append(req.Owned.Topics, &pb.GroupTopic{TopicId: a.id[:]})
				n++
			}
			req.Owned.Topics[n-1].Partitions = append(req.Owned.Topics[n-1].Partitions, a.Partition)
		}
	}
	return req
}

// heard takes the answer to a heartbeat.
func (g *Group) heard(epoch int32, version uint64, resp *pb.GroupHeartbeatResponse) error {
	if resp.MemberEpoch <= 0 {
		return fmt.Errorf("%w: member epoch %d", ErrProtocol, resp.MemberEpoch)
	}
	var target map[assigned]bool
	if resp.Assignment != nil {
		target = make(map[assigned]bool)
		for _, t := range resp.Assignment.Topics {
			if len(t.TopicId) != len(TopicID{}) {
				return fmt.Errorf("%w: a topic id of %d bytes", ErrProtocol, len(t.TopicId))
			}
			for _, p := range t.Partitions {
				if t.Name != "" { // else it is gone, and will be taken away
					target[assigned{TopicPartition{t.Name, p}, TopicID(t.TopicId)}] = true
				}
			}
		}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.lost || g.epoch != epoch {
		return nil // lost meanwhile, by what a commit was answered
	}
	g.told, g.whole = version, false
	if g.epoch != resp.MemberEpoch {
		g.epoch = resp.MemberEpoch
		g.renewLocked()
	}
	if target != nil {
		g.target = target
		g.turn()
	}
	return nil
}

func (g *Group) renewLocked() {
	close(g.renewed)
	g.renewed = make(chan struct{})
}

// lose takes note that the group has lost the member that had an epoch. Nothing more is
// handed out of what it had.
func (g *Group) lose(epoch int32, why error) {
	g.mu.Lock()
	if g.epoch != epoch || g.lost {
		g.mu.Unlock()
		return
	}
	g.loseLocked()
	g.mu.Unlock()
	g.c.cfg.Logger.Warn("group has lost this member", "group", g.cfg.Group, "member", g.member, "error", why)
	g.letGo()
}

// loseLocked has the member join anew, once the program has heard of it.
func (g *Group) loseLocked() {
	g.lost, g.epoch, g.target, g.whole = true, 0, nil, true
	g.renewLocked()
	g.turn()
}

// letGo stops the reading of all partitions.
func (g *Group) letGo() {
	for _, a := range g.co.Assigned() {
		_ = g.co.Unassign(a.Topic, a.Partition) // it may be gone meanwhile
	}
}

// overdue reports that the program takes too long for what it was given, and has the
// member leave: others are to go on.
func (g *Group) overdue() bool {
	since := g.working.Load()
	if since == 0 || g.c.cfg.Now().Sub(time.Unix(0, since)) < g.cfg.MaxPollInterval {
		return false
	}
	g.mu.Lock()
	if g.left || g.epoch == 0 {
		g.mu.Unlock()
		return true
	}
	req := &pb.GroupHeartbeatRequest{Group: g.cfg.Group, MemberId: g.member, MemberEpoch: leaveEpoch, InstanceId: g.cfg.InstanceID}
	g.left = true
	g.loseLocked()
	g.mu.Unlock()
	g.c.cfg.Logger.Warn("the program has not polled for too long: leaving the group", "group", g.cfg.Group, "member", g.member, "limit", g.cfg.MaxPollInterval)
	g.letGo()
	ctx, cancel := context.WithTimeout(g.ctx, g.c.cfg.RequestTimeout)
	defer cancel()
	_, _ = g.c.askCoordinator(ctx, g.cfg.Group, frame.KindGroupHeartbeat, req, new(pb.GroupHeartbeatResponse)) // else its session ends by itself
	return true
}

// settle has the program's goroutine do what the coordinator has said: give partitions
// away, and take others.
func (g *Group) settle(ctx context.Context) error {
	for {
		g.pending.Store(false)
		g.mu.Lock()
		err, lost := g.err, g.lost
		var give, take []assigned
		if g.target != nil && !lost {
			for _, a := range sorted(g.owned) {
				if !g.target[a] {
					give = append(give, a)
				}
			}
			for _, a := range sorted(g.target) {
				if g.owned[a] == nil {
					take = append(take, a)
				}
			}
		}
		g.mu.Unlock()
		switch {
		case lost:
			g.mourn()
			if err != nil {
				return err
			}
		case err != nil:
			return err
		case len(give) > 0:
			if err := g.give(ctx, give); err != nil {
				return err
			}
		case len(take) > 0:
			err := g.take(ctx, take)
			if errors.Is(err, errAbsent) { // for now, or until the coordinator has heard so, too
				time.AfterFunc(idle, g.turn)
				return nil
			}
			if err != nil && !errors.Is(err, errAgain) {
				return err
			}
		default:
			return nil
		}
	}
}

// mourn tells the program what the member has lost, and has it join again.
func (g *Group) mourn() {
	g.mu.Lock()
	gone := sorted(g.owned)
	g.mu.Unlock()
	g.letGo()
	if g.cfg.Lost != nil && len(gone) > 0 {
		g.cfg.Lost(names(gone))
	}
	g.mu.Lock()
	clear(g.owned)
	g.versions++
	g.lost = false
	g.mu.Unlock()
	poke(g.beat)
}

// give gives partitions away: the program hears of it, what is worked off is
// committed, and then the coordinator is told.
func (g *Group) give(ctx context.Context, parts []assigned) error {
	if g.cfg.Revoked != nil {
		g.cfg.Revoked(names(parts))
	}
	if g.cfg.CommitInterval > 0 {
		if err := g.commitNow(ctx, parts); ctx.Err() != nil {
			return ctx.Err()
		} else if err != nil && !errors.Is(err, ErrLost) {
			g.c.cfg.Logger.Warn("commit of what is given away failed", "group", g.cfg.Group, "error", err)
		}
	}
	for _, a := range parts {
		_ = g.co.Unassign(a.Topic, a.Partition) // it may be lost meanwhile
	}
	g.mu.Lock()
	if !g.lost { // else the program hears of it once more, as lost
		for _, a := range parts {
			delete(g.owned, a)
		}
		g.versions++
	}
	g.mu.Unlock()
	poke(g.beat)
	return nil
}

// take begins to read partitions where the group has left them, and tells the program
// of those that it has begun with, also if it comes to no end.
func (g *Group) take(ctx context.Context, parts []assigned) error {
	begun, err := g.begin(ctx, parts)
	if g.cfg.Assigned != nil && len(begun) > 0 {
		g.cfg.Assigned(names(begun))
	}
	poke(g.beat)
	return err
}

// begin is take without the program.
func (g *Group) begin(ctx context.Context, parts []assigned) (begun []assigned, err error) {
	offsets, err := g.fetchCommitted(ctx, parts)
	if err != nil {
		return nil, err
	}
	absent := false
	for _, a := range parts {
		offset, there := offsets[a]
		start := Assignment{Topic: a.Topic, Partition: a.Partition, Offset: offset}
		if offset < 0 {
			start.Offset = g.cfg.Start
		}
		h := &held{done: -1, committed: offset}
		if there {
			if there, err = g.known(ctx, a); err != nil {
				return begun, err
			}
		}
		if !there {
			absent = true
			continue
		}
		g.mu.Lock()
		if g.lost || !g.target[a] {
			g.mu.Unlock()
			return begun, errAgain
		}
		g.owned[a] = h
		g.versions++
		g.mu.Unlock()
		if err := g.co.assign(a.id, start); err != nil {
			return begun, err
		}
		begun = append(begun, a)
	}
	if absent {
		return begun, errAbsent
	}
	return begun, nil
}

// known returns when the metadata has a partition of that life of its topic: the
// coordinator may know of it before others. It returns false if they say for good
// that there is none.
func (g *Group) known(ctx context.Context, a assigned) (bool, error) {
	g.c.meta.want(a.Topic)
	first := g.c.meta.image.Load().answers
	for {
		img, changed := g.c.meta.watch()
		t := img.topics[a.Topic]
		switch {
		case t != nil && t.err == nil && t.id == a.id && int(a.Partition) < len(t.leaders):
			return true, nil
		case t != nil && img.answers-first >= unknownTopicAnswers:
			return false, nil
		}
		if img.answers > first {
			g.c.links.next.Add(1) // another node may know more
		}
		poke(g.c.meta.refresh)
		select {
		case <-changed:
		case <-ctx.Done():
			return false, errors.Join(ctx.Err(), img.err)
		case <-g.ctx.Done():
			return false, ErrClosed
		}
	}
}

func names(parts []assigned) []TopicPartition {
	out := make([]TopicPartition, len(parts))
	for i, a := range parts {
		out[i] = a.TopicPartition
	}
	return out
}

// Close gives all partitions away, commits what is worked off, unless
// CommitInterval is negative, and leaves the group: others have the partitions at
// once, or, if the member is static, only when it does not come back within a
// session. It does as much of this as it can until ctx ends, or RequestTimeout has
// passed, and waits for the Group's goroutines.
//
// What the last Poll returned does not count as worked off; Commit before Close
// says that it is.
func (g *Group) Close(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, g.c.cfg.RequestTimeout)
	defer cancel()
	g.mu.Lock()
	parts, alive := sorted(g.owned), !g.lost && g.err == nil && g.epoch > 0
	g.mu.Unlock()
	var err error
	if alive && len(parts) > 0 {
		err = g.give(ctx, parts)
	}
	g.cancel()
	g.wg.Wait()
	_ = g.co.Close()
	g.mu.Lock()
	alive = !g.lost && g.err == nil && (g.epoch > 0 || g.joining)
	g.mu.Unlock()
	if !alive {
		return err
	}
	req := &pb.GroupHeartbeatRequest{Group: g.cfg.Group, MemberId: g.member, MemberEpoch: leaveEpoch, InstanceId: g.cfg.InstanceID}
	if g.cfg.InstanceID != "" {
		req.MemberEpoch = staticLeaveEpoch
	}
	_, left := g.c.askCoordinator(ctx, g.cfg.Group, frame.KindGroupHeartbeat, req, new(pb.GroupHeartbeatResponse))
	if isFenced(left) {
		left = nil // it is out already
	}
	return errors.Join(err, left)
}
