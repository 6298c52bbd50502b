package sim

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/flotilla-log/flotilla/internal/history"
	"github.com/flotilla-log/flotilla/internal/node"
	"github.com/flotilla-log/flotilla/internal/vfs"
	"github.com/flotilla-log/flotilla/replication/transport"
)

// joiner is a node that a fleet was not founded with.
type joiner struct {
	*member
	at     string // host:port at which the others reach it
	cancel func()
	done   chan struct{} // closed when its start has ended
	err    error         // of that, set before
}

func (fl *fleet) newJoiner(id int32) *joiner {
	fl.joiners++
	m := &member{id: id, disk: vfs.NewMem(fl.seed*fleetNodes + 100 + uint64(id)), starts: 16 * fl.joiners} // its chance is its own
	return &joiner{member: m, at: m.peerAddr()}
}

// begin starts a node that joins at some of the fleet's, or, at none, has joined. It
// does not wait for it.
func (fl *fleet) begin(j *joiner, at ...*member) { fl.join(j, func(*node.Options) {}, at...) }

// join is begin with other options.
func (fl *fleet) join(j *joiner, tune func(*node.Options), at ...*member) {
	j.starts++
	fl.trace.add(fmt.Sprintf("NODE %d START %d, joining at %d addresses", j.id, j.starts, len(at)))
	l, err := fl.net.Listen(j.addr())
	if err != nil {
		fl.problem("node %d: %v", j.id, err)
		return
	}
	between, err := fl.net.Listen(j.at)
	if err != nil {
		fl.problem("node %d: %v", j.id, err)
		return
	}
	opt := fl.options(j.member, j.disk, l)
	opt.ClusterID = ""
	opt.Join = &node.Join{Listener: between, Advertise: j.at, Dial: fl.dialFrom(j.member)}
	for _, m := range at {
		opt.Join.Addresses = append(opt.Join.Addresses, m.peerAddr())
	}
	tune(&opt)
	ctx, cancel := context.WithCancel(context.Background())
	j.cancel, j.done = cancel, make(chan struct{})
	go func() {
		defer close(j.done)
		if j.node, j.err = node.Start(ctx, opt); j.err != nil {
			j.node = nil
			_ = l.Close()
		}
	}()
}

// joined waits until a node serves.
func (fl *fleet) joined(j *joiner, patience time.Duration) bool {
	select {
	case <-j.done:
	case <-time.After(patience):
		fl.problem("node %d has not joined in %s", j.id, patience)
		return false
	}
	if j.err != nil {
		fl.problem("node %d: %v", j.id, j.err)
	}
	return j.err == nil
}

// leave ends a node, and leaves its disk to the next start.
func (fl *fleet) leave(j *joiner, e end, seed uint64) {
	if j.done == nil {
		return
	}
	j.disk.Freeze()
	fl.trace.add(fmt.Sprintf("NODE %d %s", j.id, e.name))
	next := e.left(j.disk, seed)
	fl.net.Reset(j.host())
	fl.within(func() {
		j.cancel()
		<-j.done
		if j.node != nil {
			ended, end := context.WithCancel(context.Background())
			end()
			_ = j.node.Close(ended)
		}
	})
	j.node, j.done, j.disk = nil, nil, next
}

// await waits until something is so.
func (fl *fleet) await(what string, so func() bool) bool {
	for range 600 {
		if so() {
			return true
		}
		time.Sleep(100 * time.Millisecond)
	}
	fl.problem("a minute is over: %s", what)
	return false
}

// learns waits until a node has applied that its replica of the metadata is there, without
// a vote, one of so many.
func (fl *fleet) learns(j *joiner, learners int) bool {
	return fl.await(fmt.Sprintf("node %d has no metadata", j.id), func() bool {
		for _, s := range j.node.Stats().Shards {
			if s.ID == 0 {
				return !s.Votes && s.Voters == fleetNodes && s.Learners == learners
			}
		}
		return false
	})
}

// leadsSome waits until a node leads a data shard.
func (fl *fleet) leadsSome(j *joiner) bool {
	return fl.await(fmt.Sprintf("node %d leads nothing", j.id), func() bool { return len(j.node.Leads()) > 0 })
}

const lateTopic = "stays1"

// joinHistory has a node join while clients write, and end at any moment of that. When it
// has, it goes on without being told where the cluster is, at another address even; a topic
// that is made then is written to while it leads a part of it, and while any of the nodes
// is away.
func joinHistory(fl *fleet) {
	rng := rand.New(rand.NewPCG(fl.seed, 12))
	fl.meshed = true
	calm := transport.Faults{MaxDelay: time.Duration(rng.IntN(1000)) * time.Microsecond}
	fl.faults(calm)
	if !fl.startAll() || !fl.createTopics([]string{"stays0"}, 2) {
		return
	}
	keys := []history.Key{{Topic: "stays0"}, {Topic: "stays0", Partition: 1}}
	writers := fl.employ(fleetPlan{
		keys: keys, topics: []string{"stays0"}, producers: 2, records: 40, maxBytes: 1000,
		events: 3, gap: time.Second,
	})
	j := fl.newJoiner(4)
	defer func() { fl.leave(j, killed, 0) }()
	ends := []end{killed, cutEnd(vfs.Lose), cutEnd(vfs.Keep), cutEnd(vfs.Coin)}
	for range rng.IntN(4) {
		fl.begin(j, fl.members[rng.IntN(fleetNodes)])
		time.Sleep(time.Duration(rng.IntN(1500)) * time.Millisecond)
		fl.leave(j, ends[rng.IntN(len(ends))], rng.Uint64())
	}
	fl.begin(j, fl.members[rng.IntN(fleetNodes)])
	if !fl.joined(j, time.Minute) || !fl.learns(j, 1) {
		return
	}
	fl.leave(j, ends[rng.IntN(len(ends))], rng.Uint64())
	if rng.IntN(2) == 0 {
		j.at = j.host() + ":9095"
	}
	fl.begin(j)
	if !fl.joined(j, time.Minute) || !fl.learns(j, 1) {
		return
	}
	fl.await("node 4 is not in contact", func() bool { return fl.placed(j) })
	if !fl.createTopics([]string{lateTopic}, 4) || !fl.leadsSome(j) {
		return
	}
	for p := range int32(4) {
		keys = append(keys, history.Key{Topic: lateTopic, Partition: p})
	}
	fl.progress(keys)
	founder := fl.members[rng.IntN(fleetNodes)]
	fl.cut(founder)
	fl.progress(keys)
	if !fl.start(founder) || !fl.leadsSome(j) {
		return
	}
	time.Sleep(settle)
	fl.leave(j, ends[rng.IntN(len(ends))], rng.Uint64())
	fl.progress(keys)
	fl.begin(j)
	if !fl.joined(j, time.Minute) {
		return
	}
	writers.wait()
	fl.stop()
	fl.clients.Wait()
	if !fl.heal(calm) || !fl.healthy() {
		return
	}
	time.Sleep(settle)
	fl.readAll()
	select {
	case err := <-j.node.Failed():
		fl.problem("node %d failed: %v", j.id, err)
	default:
	}
}

// placed reports whether the founders send clients to a node: it is in contact.
func (fl *fleet) placed(j *joiner) bool {
	for _, m := range fl.members {
		t, ok := fl.brokers(m)
		if !ok || !slices.Contains(t, j.id) {
			return false
		}
	}
	return true
}

// brokers returns the nodes that a node sends Kafka clients to.
func (fl *fleet) brokers(m *member) (ids []int32, ok bool) {
	resp, ok := ask[*kmsg.MetadataResponse](fl, m, kmsg.NewPtrMetadataRequest())
	if !ok {
		return nil, false
	}
	for _, b := range resp.Brokers {
		ids = append(ids, b.NodeID)
	}
	return ids, true
}

// usedAlone returns a disk from which a node has served without a cluster.
func (fl *fleet) usedAlone(j *joiner) *vfs.Mem {
	l, err := fl.net.Listen(j.addr())
	if err != nil {
		fl.problem("node %d: %v", j.id, err)
		return j.disk
	}
	n, err := node.Start(context.Background(), fl.options(j.member, j.disk, l))
	if err != nil {
		fl.problem("node %d, alone: %v", j.id, err)
		return j.disk
	}
	if err := n.Close(context.Background()); err != nil {
		fl.problem("node %d, alone: %v", j.id, err)
	}
	return j.disk
}

// TestJoin is about a node that joins a cluster while clients write.
func TestJoin(t *testing.T) {
	t.Parallel()
	for _, seed := range seeds(t, 60, 3) {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			t.Parallel()
			problems, tr, _ := runFleet(t, seed, joinHistory)
			report(t, seed, fleetVerdict(problems, tr.history), tr)
		})
	}
}

// refused wants a node's start to end with an error that says something.
func (fl *fleet) refused(j *joiner, want error, says string) {
	select {
	case <-j.done:
		if !errors.Is(j.err, want) || !strings.Contains(j.err.Error(), says) {
			fl.problem("node %d: %v, want %q", j.id, j.err, says)
		}
	case <-time.After(time.Minute):
		fl.problem("node %d waits, and is not refused; want %q", j.id, says)
	}
	fl.leave(j, killed, 0)
}

// TestJoinRefused lists why a node does not join: it ends with an error that says what to
// do, or waits, and the cluster stays as it is.
func TestJoinRefused(t *testing.T) {
	t.Parallel()
	problems, tr, _ := runFleet(t, 1, func(fl *fleet) {
		fl.meshed = true
		nobody := fl.newJoiner(5)
		fl.begin(nobody, fl.members[0])
		time.Sleep(time.Minute)
		if !fl.trace.saw("waiting to join the cluster; clients are not served yet") || !fl.trace.saw("nobody of a cluster answers at node1:9093") {
			fl.problem("a node does not say that nobody answers")
		}
		if !fl.startAll() || !fl.joined(nobody, time.Minute) || !fl.learns(nobody, 1) {
			return
		}
		defer func() { fl.leave(nobody, killed, 0) }()

		founder := fl.newJoiner(2)
		founder.moved, founder.at = true, "node2:9097"
		fl.begin(founder, fl.members[0])
		fl.refused(founder, node.ErrRefused, "node 2 is one of those that the cluster was founded with; give this one a node.id of its own")

		self := fl.newJoiner(1)
		self.moved, self.at = true, "node1:9097"
		fl.begin(self, fl.members[0])
		fl.refused(self, node.ErrRefused, "at node1:9093 is node 1 of cluster \"sim\" already; give this one a node.id of its own")

		living := fl.newJoiner(5)
		living.moved, living.at = true, "node5:9097"
		fl.begin(living, fl.members[0])
		fl.refused(living, node.ErrRefused, "node 5 is up with the directory of incarnation")

		other := fl.newJoiner(6)
		fl.join(other, func(opt *node.Options) { opt.ClusterID = "elsewhere" }, fl.members[0])
		fl.refused(other, node.ErrRefused, `is cluster "sim", and cluster.id says "elsewhere"`)

		used := fl.newJoiner(6)
		used.disk = fl.usedAlone(used)
		fl.begin(used, fl.members[0])
		fl.refused(used, node.ErrMembers, "was begun by a node that does not join a cluster")

		begun := fl.newJoiner(7)
		fl.begin(begun, fl.members[0])
		if !fl.joined(begun, time.Minute) {
			return
		}
		fl.leave(begun, killed, 0)
		fl.join(begun, func(opt *node.Options) { _ = opt.Join.Listener.Close(); opt.Join = nil })
		fl.refused(begun, node.ErrMembers, "and cannot serve alone")

		fl.begin(begun)
		if !fl.joined(begun, time.Minute) || !fl.learns(begun, 2) {
			return
		}
		fl.leave(begun, killed, 0)
		again := fl.newJoiner(7) // it has lost its directory
		fl.begin(again, fl.members[1])
		if fl.joined(again, time.Minute) {
			fl.await("the metadata is of the old directory", func() bool {
				return fl.trace.saw("a node has lost its data directory, and a fresh one takes its place") && fl.learns(again, 2)
			})
		}
		fl.leave(again, killed, 0)
		fl.stop()
		fl.healthy()
	})
	report(t, 1, problems, tr)
}
