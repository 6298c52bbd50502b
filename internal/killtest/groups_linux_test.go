//go:build cluster && clients

package killtest

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/flotilla-log/flotilla/client"
	"github.com/flotilla-log/flotilla/internal/grouplife"
	"github.com/flotilla-log/flotilla/internal/history"
)

// memberProcess is the first process of a history that is a life of a member.
const memberProcess = 1000

// What TestClusterGroups has.
const (
	groupPartitions = 48
	groupMembers    = 50 // of each group
	groupRestless   = 10 // of them, who leave, die and fall silent
	groupProducers  = 3
)

// team is who takes part in a group, in turns.
type team struct {
	group string
	kinds []memberKind
}

// teams have 500 members together.
var teams = []team{
	{"native-1", []memberKind{native}},
	{"native-2", []memberKind{native}},
	{"native-3", []memberKind{native}},
	{"classic-1", []memberKind{kafkaClassic}},
	{"classic-2", []memberKind{kafkaClassic}},
	{"classic-3", []memberKind{kafkaClassic}},
	{"consumer-1", []memberKind{kafka848}},
	{"consumer-2", []memberKind{kafka848}},
	{"mixed-1", []memberKind{native, kafka848}},
	{"mixed-2", []memberKind{kafka848, native}},
}

// groupFaults are what happens to a node that coordinates groups while their members
// come and go.
var groupFaults = []string{"kill -9", "SIGSTOP", "cut off from the nodes", "cut off from all", "cut off from the clients"}

// crowd is the members of all groups.
type crowd struct {
	*chaos
	admin *client.Client
	kafka *kgo.Client

	lives    atomic.Int32
	restless atomic.Bool // members leave, die and fall silent

	mu       sync.Mutex
	present  map[string]map[*member]bool      // by group
	consumed map[string]map[history.Key]int64 // by group: the offset after the last record that it was given
	ends     map[string]int                   // how often lives ended, by how
}

// gather starts the members of all groups, and who asks what they have committed.
func (w *crowd) gather() {
	for n, t := range teams {
		w.present[t.group], w.consumed[t.group] = make(map[*member]bool), make(map[history.Key]int64)
		for i := range groupMembers {
			chance := rand.New(rand.NewPCG(w.load.seed, 2<<32+uint64(n*groupMembers+i)))
			w.load.group.Go(func() {
				for wait(w.load.ctx, time.Duration(chance.Int64N(int64(4*time.Second)))) {
					w.live(chance, t.group, t.kinds[i%len(t.kinds)], i < groupRestless)
				}
			})
		}
	}
	w.load.group.Go(func() {
		for n := 0; wait(w.load.ctx, 200*time.Millisecond); n++ {
			w.tell(teams[n%len(teams)].group)
		}
	})
}

// live is one life of a member.
func (w *crowd) live(chance *rand.Rand, group string, kind memberKind, restless bool) {
	own := rand.New(rand.NewPCG(chance.Uint64(), 0))
	m := &member{Life: &grouplife.Life{
		Recorder: w.load.rec, Process: memberProcess + w.lives.Add(1), Group: group, Value: valueOf,
		Commits: func() bool { return own.IntN(3) == 0 },
	}}
	m.Given = func(key history.Key, next int64) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.consumed[group][key] = max(w.consumed[group][key], next)
	}
	if err := m.join(kind, w.ps.addr(chance.IntN(len(w.ps.nodes)))); err != nil {
		w.load.fail("a member of group %s, %s: %w", group, kind.name, err)
		return
	}
	w.count(m, true, "")
	draw := func() time.Time {
		return time.Now().Add(5*time.Second + time.Duration(chance.Int64N(int64(25*time.Second))))
	}
	for until := draw(); w.load.ctx.Err() == nil; {
		m.Poll(time.Second)
		wait(w.load.ctx, time.Duration(chance.Int64N(int64(500*time.Millisecond))))
		switch now := time.Now(); {
		case !restless || !w.restless.Load():
			until = draw()
			continue
		case now.Before(until):
			continue
		}
		switch chance.IntN(4) {
		case 0:
			w.count(m, false, "left")
			m.leave()
			return
		case 1, 2:
			w.count(m, false, "died")
			m.die()
			return
		default:
			w.count(m, true, "were silent for longer than a session")
			m.line.cut(true)
			wait(w.load.ctx, groupSession*3/2)
			m.line.cut(false)
			until = draw()
		}
	}
	m.die()
}

// count takes note of a member that is there, or not any more.
func (w *crowd) count(m *member, present bool, how string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.present[m.Group], m)
	if present {
		w.present[m.Group][m] = true
	}
	if how != "" {
		w.ends[how]++
	}
}

// produce sends to all partitions. Every record must get through.
func (w *crowd) produce() error {
	cl, err := w.load.connectKafka(kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerBatchMaxBytes(maxBatchBytes))
	if err != nil {
		return err
	}
	for i := range int32(groupProducers) {
		send := func(key history.Key, n int64) { w.load.sendKafka(kafkaProcess, cl, key, n) }
		process := int32(kafkaProcess)
		if i > 0 {
			p, err := w.admin.NewProducer(client.ProducerConfig{BatchBytes: 32 << 10, MaxBufferedBytes: 1 << 20})
			if err != nil {
				return err
			}
			w.load.producers = append(w.load.producers, p)
			process = producerProcess + i
			send = func(key history.Key, n int64) { w.load.mustSend(process, p, key, n) }
		}
		w.load.group.Go(func() {
			chance := w.load.chance(process)
			for n := int64(0); w.load.pace(chance, 40*time.Millisecond); n++ {
				send(history.Key{Topic: stable, Partition: chance.Int32N(groupPartitions)}, n)
			}
		})
	}
	return nil
}

// tell asks for what a group has committed.
func (w *crowd) tell(group string) {
	ctx, cancel := context.WithTimeout(w.load.ctx, clientTimeout)
	defer cancel()
	op := w.load.rec.Invoke(history.Op{Process: adminProcess, F: history.FetchOffsets, In: &history.Membership{Group: group}})
	all, err := w.admin.Groups().Offsets(ctx, group)
	if err != nil {
		op.Err = err.Error()
		w.load.rec.Complete(op, history.Fail)
		return
	}
	for p := range int32(groupPartitions) {
		m := history.Mop{Key: history.Key{Topic: stable, Partition: p}, From: history.NoOffset}
		if n := slices.IndexFunc(all, func(o client.CommittedOffset) bool { return o.Topic == stable && o.Partition == p }); n >= 0 {
			m.From = all[n].Offset
		}
		op.Mops = append(op.Mops, m)
	}
	w.load.rec.Complete(op, history.OK)
}

// coordinator returns which node coordinates a group, counted from 0.
func (w *crowd) coordinator(group string) int {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.load.ctx, phaseTimeout)
	defer cancel()
	req := kmsg.NewPtrFindCoordinatorRequest()
	req.CoordinatorKey, req.CoordinatorKeys = group, []string{group}
	for {
		resp, err := req.RequestWith(ctx, w.kafka)
		if err == nil && len(resp.Coordinators) == 1 && resp.Coordinators[0].NodeID >= 1 {
			return int(resp.Coordinators[0].NodeID) - 1
		}
		if !wait(ctx, 100*time.Millisecond) {
			w.t.Fatalf("who coordinates group %s: %+v, %v", group, resp, err)
		}
	}
}

// until waits until nothing is said to be missing, and returns what is after a time.
func (w *crowd) until(timeout time.Duration, missing func(ctx context.Context) []string) []string {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.load.ctx, timeout)
	defer cancel()
	for all := missing(ctx); ; {
		if len(all) == 0 || !wait(ctx, 500*time.Millisecond) {
			if err := context.Cause(w.load.ctx); err != nil {
				w.t.Fatal(err)
			}
			return all
		}
		if now := missing(ctx); ctx.Err() == nil { // else it was not told
			all = now
		}
	}
}

// unsettled returns what is missing until each group is stable, with all members, who
// have all partitions.
func (w *crowd) unsettled(ctx context.Context) (missing []string) {
	for _, t := range teams {
		d, err := w.admin.Groups().Describe(ctx, t.group)
		held := 0
		w.mu.Lock()
		for m := range w.present[t.group] {
			held += m.Holds()
		}
		w.mu.Unlock()
		if err != nil || d.State != "Stable" || len(d.Members) != groupMembers || held != groupPartitions {
			missing = append(missing, fmt.Sprintf("group %s is %s with %d members, %v, which have %d partitions", t.group, d.State, len(d.Members), err, held))
		}
	}
	return missing
}

// settle waits until all groups are settled, and stay so for longer than it takes a
// member to join again.
func (w *crowd) settle() {
	w.t.Helper()
	var since time.Time
	missing := w.until(2*phaseTimeout, func(ctx context.Context) []string {
		missing := w.unsettled(ctx)
		if len(missing) > 0 {
			since = time.Time{}
			return missing
		}
		if since.IsZero() {
			since = time.Now()
		}
		if time.Since(since) < 2*groupHeartbeat {
			return []string{"all groups are settled, but not for long enough"}
		}
		return nil
	})
	if len(missing) > 0 {
		w.ps.check()
		w.t.Fatalf("after %v: %s", 2*phaseTimeout, strings.Join(missing, "\n"))
	}
}

// epochs returns the epoch of each group, and the generation of each classic one as its
// members know it.
func (w *crowd) epochs() map[string]int32 {
	all := make(map[string]int32)
	for _, op := range w.load.rec.History() {
		if op.In != nil && op.In.Member != "" {
			all[op.In.Group] = max(all[op.In.Group], op.In.Epoch)
		}
	}
	return all
}

// failOver kills the node that coordinates a group, starts it again, and wants no
// partition of any group to move meanwhile.
func (w *crowd) failOver(group string) {
	w.t.Helper()
	before := w.epochs()
	var steady []history.Op
	for _, t := range teams {
		steady = append(steady, w.load.rec.Invoke(history.Op{Process: adminProcess, F: history.Steady, In: &history.Membership{Group: t.group}}))
	}
	i := w.coordinator(group)
	w.ps.kill(i)
	w.progress(fmt.Sprintf("without node %d", i+1), 100)
	w.ps.start(i)
	w.ps.serving(i)
	w.progress(fmt.Sprintf("with node %d again", i+1), 100)
	wait(w.load.ctx, groupSession+2*groupHeartbeat) // who was lost at the takeover is missed by now
	if missing := w.unsettled(w.load.ctx); len(missing) > 0 {
		w.t.Errorf("after node %d was killed: %s", i+1, strings.Join(missing, "\n"))
	}
	for _, op := range steady {
		w.load.rec.Complete(op, history.OK)
	}
	if after := w.epochs(); !maps.Equal(before, after) {
		w.t.Errorf("after node %d was killed the groups' epochs are %v; before, they were %v", i+1, after, before)
	}
	w.t.Logf("node %d, which coordinates group %s, was killed and is back; the groups' epochs are %v", i+1, group, w.epochs())
}

// strikeCoordinator lets a fault happen to the node that coordinates a group, and end.
func (w *crowd) strikeCoordinator(f fault) {
	w.t.Helper()
	group := teams[w.chance.IntN(len(teams))].group
	i := w.coordinator(group)
	what := fmt.Sprintf("node %d, which coordinates group %s: %s", i+1, group, f.name)
	began := time.Now()
	end := f.begin(w.chaos, i)
	wait(w.load.ctx, 2*time.Second+time.Duration(w.chance.Int64N(int64(3*time.Second))))
	end()
	w.progress(what+", and over", 100)
	w.t.Logf("%s, for %v, and progress since", what, time.Since(began).Round(time.Millisecond))
	w.counts[f.name]++
	w.ps.check()
	wait(w.load.ctx, 2*time.Second)
}

// behind returns what groups were not given yet.
func (w *crowd) behind(ctx context.Context) (behind []string) {
	ends, err := w.admin.Admin().Offsets(ctx, stable, client.Latest)
	if err != nil {
		return []string{err.Error()}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, t := range teams {
		for p, end := range ends {
			if at := w.consumed[t.group][history.Key{Topic: stable, Partition: int32(p)}]; at < end {
				behind = append(behind, fmt.Sprintf("group %s was given [0, %d) of [0, %d) of partition %d", t.group, at, end, p))
			}
		}
	}
	return behind
}

// newCrowd starts three nodes, and the load's producers. Its members are yet to come.
func newCrowd(b *bench) (*crowd, error) {
	c := &chaos{t: b.t, net: newNetwork(b.t), chance: rand.New(rand.NewPCG(b.seed, 0)), counts: make(map[string]int)}
	c.ps = &processes{t: b.t, more: []string{
		"--group.consumer.session.timeout", groupSession.String(), "--group.consumer.heartbeat.interval", groupHeartbeat.String(),
		"--memory.bytes", "128MiB", "--log.level", "info",
	}}
	for i := range c.ps.nodes {
		c.ps.host[i], c.ps.data[i] = hostOf(i), filepath.Join(b.dir, fmt.Sprint("node-", i+1))
		c.ps.run[i] = append(c.net.in(i), b.binary)
	}
	c.ps.found(b.dir)
	w := &crowd{chaos: c, present: make(map[string]map[*member]bool), consumed: make(map[string]map[history.Key]int64), ends: make(map[string]int)}
	c.load = &load{addr: c.ps.addr(0), seed: b.seed, rec: history.NewRecorder(time.Now), gate: newGate()}
	c.load.ctx, c.load.cancel = context.WithCancelCause(b.t.Context())
	b.t.Cleanup(func() {
		c.load.stop()
		if b.keep() {
			b.save(b.dir, c.load)
		}
	})
	var err error
	if w.admin, err = c.load.connect(); err != nil {
		return nil, err
	}
	if _, err := w.admin.Admin().CreateTopic(c.load.ctx, topicSpec(stable, groupPartitions)); err != nil {
		return nil, err
	}
	if w.kafka, err = c.load.connectKafka(); err != nil {
		return nil, err
	}
	return w, w.produce()
}

// TestClusterGroups has 500 members of ten groups, of both protocols and of clients of
// both, consume what is written to three real processes. The node that coordinates a
// group is killed, and nobody notices. Then members leave, die, fall silent and come
// back while their coordinators are killed, stopped and cut off: each group is given
// each acknowledged record at least once, no partition is two members' in one epoch,
// and what is committed does not go back.
func TestClusterGroups(t *testing.T) {
	b := newBench(t)
	b.groups = make(map[string][]string)
	for _, team := range teams {
		b.groups[team.group] = []string{stable}
	}
	w, err := newCrowd(b)
	if err != nil {
		t.Fatal(err)
	}
	w.gather()
	w.settle()
	t.Logf("%d members are in %d groups, whose epochs are %v", w.lives.Load(), len(teams), w.epochs())
	w.failOver(teams[w.chance.IntN(len(teams))].group)

	w.restless.Store(true)
	for _, n := range w.chance.Perm(len(groupFaults)) {
		w.strikeCoordinator(faults[slices.IndexFunc(faults, func(f fault) bool { return f.name == groupFaults[n] })])
	}
	w.restless.Store(false)
	ctx, cancel := context.WithTimeout(t.Context(), 6*phaseTimeout) // what is waited for below has limits of its own
	defer cancel()
	if err := w.load.gate.shut(ctx); err != nil {
		t.Fatalf("not all is answered: %v", err)
	}
	if behind := w.until(2*phaseTimeout, w.behind); len(behind) > 0 {
		t.Errorf("%v after the last record was sent: %s", 2*phaseTimeout, strings.Join(behind, "\n")) // the history says why
	}
	w.settle()
	for _, team := range teams {
		w.tell(team.group)
	}
	if err := w.load.readTopic(ctx, w.admin, finalProcess, stable); err != nil {
		t.Fatal(err)
	}
	w.load.stop()
	b.verdict(0, w.load.rec.History(), true)
	w.sum()
}

// sum says what there was, and whether it was enough to show anything.
func (w *crowd) sum() {
	least := map[history.F]int{history.Assigned: 500, history.Revoked: 100, history.Lost: 10, history.Commit: 1000, history.FetchOffsets: 100}
	seen := make(map[history.F]int)
	for _, op := range w.load.rec.History() {
		if op.In != nil && op.Type == history.OK {
			seen[op.F]++
		}
	}
	for f, n := range least {
		if seen[f] < n {
			w.t.Errorf("%d times %s, want %d at least", seen[f], f, n)
		}
	}
	for _, how := range []string{"left", "died", "were silent for longer than a session"} {
		if w.ends[how] < 5 {
			w.t.Errorf("%d members %s, want 5 at least", w.ends[how], how)
		}
	}
	w.t.Logf("%d records acknowledged; %d lives of members: %v; epochs at the end %v; operations in groups: %v; faults: 1 x kill -9 with nobody gone, %v",
		w.load.acked.Load(), w.lives.Load(), w.ends, w.epochs(), seen, w.counts)
}
