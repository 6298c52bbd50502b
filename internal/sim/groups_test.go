package sim

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/flotilla-log/flotilla/client"
	"github.com/flotilla-log/flotilla/internal/history"
	"github.com/flotilla-log/flotilla/internal/node"
)

// groupStorm is a storm while consumer groups of several clients and protocols consume:
// their members die, leave, are silent for longer than a session and shorter, and come
// back, and the nodes that coordinate them get into trouble as in any storm.
type groupStorm struct {
	*storm
	teams []team

	mu       sync.Mutex
	consumed map[string]map[history.Key]int64 // by group: the offset after the last record that it was given
	ends     map[string]int                   // how often lives ended, by how
}

// team is who takes part in a group.
type team struct {
	group   string
	members []memberKind
}

// teams are those of a storm: in the groups of KIP-848 clients of both protocols are
// together.
func teams() []team {
	all := []team{{"native", []memberKind{native, native, native}}}
	if kafka848 == nil {
		return append(all, team{"more", []memberKind{native, native}})
	}
	return append(all, team{"classic", []memberKind{kafkaClassic, kafkaClassic, kafkaClassic}}, team{"mixed", []memberKind{kafka848, native, kafka848}})
}

// groupSettings are the settings of groups in a simulation.
func groupSettings() node.Groups {
	opt := node.DefaultGroups()
	opt.ConsumerSessionTimeout, opt.ConsumerHeartbeatInterval = groupSession, groupHeartbeat
	opt.InitialRebalanceDelay = time.Second
	return opt
}

func newGroupStorm(fl *fleet) *groupStorm {
	gs := &groupStorm{storm: newStorm(fl), teams: teams(), consumed: make(map[string]map[history.Key]int64), ends: make(map[string]int)}
	gs.groups = groupSettings()
	gs.topics, gs.keys = []string{"stays0"}, nil
	for p := range 3 + fl.rng.Int32N(4) {
		gs.keys = append(gs.keys, history.Key{Topic: gs.topics[0], Partition: p})
	}
	for _, t := range gs.teams {
		gs.consumed[t.group] = make(map[history.Key]int64)
	}
	return gs
}

// run is the history.
func (gs *groupStorm) run() {
	gs.net.SetLatency("", "", 0, time.Duration(gs.rng.IntN(1000))*time.Microsecond)
	gs.faults(gs.calm)
	if !gs.startAll() || !gs.createTopics(gs.topics, int32(len(gs.keys))) {
		return
	}
	gs.until = time.Now().Add(stormLasts)
	producing := gs.employ(gs.until)
	gs.handOver()
	if !gs.rage() || !gs.heal(gs.calm) {
		return
	}
	producing.wait()
	gs.progress(gs.keys)
	gs.drain()
	if gs.readAfterCut() {
		p := gs.hire()
		defer p.leave()
		for _, t := range gs.teams {
			gs.tell(p, t.group)
		}
		gs.healthy()
	}
}

// employ starts the members of groups and who looks after them, and the producers,
// which it returns: they send until a time.
func (gs *groupStorm) employ(until time.Time) *crew {
	hire := func(f func(p *person)) chan struct{} {
		p, done := gs.hire(), make(chan struct{})
		gs.clients.Go(func() {
			defer close(done)
			defer p.leave()
			f(p)
		})
		return done
	}
	producers := new(crew)
	l := load{keys: gs.keys, maxBytes: 50, maxPause: time.Second, timeout: 2 * time.Minute, until: until}
	for range 2 {
		producers.done = append(producers.done, hire(func(p *person) { p.produce(l) }))
	}
	for _, t := range gs.teams {
		for _, kind := range t.members {
			seat := gs.hire() // draws how its lives go
			gs.clients.Go(func() {
				defer seat.leave()
				for seat.rest(3 * time.Second) {
					gs.live(seat, t.group, kind)
				}
			})
		}
	}
	hire(func(p *person) {
		for p.rest(500 * time.Millisecond) {
			gs.tell(p, gs.teams[p.rng.IntN(len(gs.teams))].group)
		}
	})
	hire(func(p *person) {
		for p.rest(time.Second) {
			gs.describe(p, gs.teams[p.rng.IntN(len(gs.teams))].group)
		}
	})
	return producers
}

// handOver hands leaderships over now and then.
func (gs *groupStorm) handOver() {
	p := gs.hire()
	gs.clients.Go(func() {
		defer p.leave()
		for p.rest(10 * time.Second) {
			_, _ = p.c.Admin().TransferShard(gs.stopping, p.rng.Uint32N(1+fleetShards), client.AnyNode)
		}
	})
}

// live is one life of a member. After the storm nobody dies any more.
func (gs *groupStorm) live(seat *person, group string, kind memberKind) {
	l := gs.hire().join(group, kind, gs.topics)
	l.Given = func(key history.Key, next int64) {
		gs.mu.Lock()
		defer gs.mu.Unlock()
		gs.consumed[group][key] = max(gs.consumed[group][key], next)
	}
	draw := func() time.Time {
		return time.Now().Add(5*time.Second + time.Duration(seat.rng.Int64N(int64(20*time.Second))))
	}
	for until := draw(); gs.stopping.Err() == nil; {
		if l.poll(200*time.Millisecond) && seat.rng.IntN(10) == 0 {
			seat.rest(2 * time.Second) // it works on what it was given
		}
		if now := time.Now(); now.Before(until) || now.After(gs.until) {
			continue
		}
		until = draw()
		how, end := "leaves", l.leave
		switch n := seat.rng.IntN(6); {
		case n < 2:
			how, end = "dies", l.die
		case n < 5:
			how, end = "is silent", nil
		}
		gs.mu.Lock()
		gs.ends[how]++
		gs.mu.Unlock()
		gs.trace.add(fmt.Sprintf("MEMBER process %d of %s %s", l.process, group, how))
		if end != nil {
			end()
			return
		}
		l.silence()
		seat.rest(2 * groupSession)
		l.hears()
	}
	l.leave()
}

// tell asks for what a group has committed.
func (gs *groupStorm) tell(p *person, group string) {
	op := history.Op{Process: p.process, F: history.FetchOffsets, In: &history.Membership{Group: group}}
	op = gs.rec.Invoke(op)
	all, err := p.c.Groups().Offsets(context.Background(), group)
	if err != nil {
		op.Err = err.Error()
		gs.rec.Complete(op, history.Fail)
		return
	}
	for _, k := range gs.keys {
		m := history.Mop{Key: k, From: history.NoOffset}
		if n := slices.IndexFunc(all, func(o client.CommittedOffset) bool { return o.Topic == k.Topic && o.Partition == k.Partition }); n >= 0 {
			m.From = all[n].Offset
		}
		op.Mops = append(op.Mops, m)
	}
	gs.rec.Complete(op, history.OK)
}

// describe takes it for a problem if the coordinator says that two members have a
// partition.
func (gs *groupStorm) describe(p *person, group string) {
	d, err := p.c.Groups().Describe(gs.stopping, group)
	if err != nil {
		return
	}
	owner := make(map[client.TopicPartition]string)
	for _, m := range d.Members {
		for _, part := range m.Assigned {
			if other, ok := owner[part]; ok {
				gs.problem("group %s: %s[%d] is assigned to %s and to %s", group, part.Topic, part.Partition, other, m.ID)
			}
			owner[part] = m.ID
		}
	}
}

// drain waits until every group has been given all that there is.
func (gs *groupStorm) drain() {
	p := gs.hire()
	defer p.leave()
	began := time.Now()
	for {
		var behind []string
		ends, err := p.c.Admin().Offsets(context.Background(), gs.topics[0], client.Latest)
		if err != nil {
			behind = append(behind, err.Error())
		}
		gs.mu.Lock()
		for i, end := range ends {
			for _, t := range gs.teams {
				if at := gs.consumed[t.group][history.Key{Topic: gs.topics[0], Partition: int32(i)}]; at < end {
					behind = append(behind, fmt.Sprintf("group %s has been given [0, %d) of [0, %d) of partition %d", t.group, at, end, i))
				}
			}
		}
		gs.mu.Unlock()
		if len(behind) == 0 {
			return
		}
		if time.Since(began) > 2*time.Minute {
			gs.problem("two minutes after all was mended: %v", behind)
			return
		}
		time.Sleep(time.Second)
	}
}

// verdict is fleetVerdict with groups.
func (gs *groupStorm) verdict(problems []string, h history.History) ([]string, *history.Report) {
	opt := history.Options{Idempotent: true, Assigned: true, Final: true, Keep: 3, Groups: make(map[string][]string)}
	for _, t := range gs.teams {
		opt.Groups[t.group] = gs.topics
	}
	r := history.Check(h, opt)
	if r.Err() != nil {
		problems = append(problems, r.String())
	}
	return problems, r
}

// runGroupStorm is runStorm with groups.
func runGroupStorm(t *testing.T, seed uint64, bug func(fl *fleet)) (problems []string, tr *trace, gs *groupStorm, r *history.Report) {
	problems, tr, _ = runFleet(t, seed, func(fl *fleet) {
		gs = newGroupStorm(fl)
		fl.hashes = 5 * time.Second
		if bug != nil {
			fl.hashes = 0
			bug(fl)
		}
		gs.run()
	})
	problems, r = gs.verdict(problems, tr.history)
	return problems, tr, gs, r
}

// TestGroupHistories runs storms over consumer groups: each record is given to a member
// of each group at least once, no partition to two at a time, committed offsets never
// go back, and none is lost.
func TestGroupHistories(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	ops := make(map[history.F]history.Outcomes)
	ends := make(map[string]int)
	n := 6
	if kafka848 == nil {
		n = 3
	}
	all := seeds(t, n, 1)
	t.Cleanup(func() {
		t.Logf("%d histories: %v; members: %v", len(all), ops, ends)
		for _, f := range []history.F{history.Assigned, history.Revoked, history.Commit, history.FetchOffsets} {
			if ops[f].OK < 5*len(all) {
				t.Errorf("%d times %s: too few to show anything", ops[f].OK, f)
			}
		}
		if ends["is silent"] < len(all) {
			t.Errorf("members were silent %d times: too few to show anything", ends["is silent"])
		}
	})
	for _, seed := range all {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			t.Parallel()
			problems, tr, gs, r := runGroupStorm(t, seed, nil)
			report(t, seed, problems, tr)
			mu.Lock()
			defer mu.Unlock()
			for f, n := range r.Ops {
				was := ops[f]
				ops[f] = history.Outcomes{OK: was.OK + n.OK, Fail: was.Fail + n.Fail, Info: was.Info + n.Info, Open: was.Open + n.Open}
			}
			for how, n := range gs.ends {
				ends[how] += n
			}
		})
	}
}
