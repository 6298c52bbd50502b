package sim

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/flotilla-log/flotilla/internal/history"
	"github.com/flotilla-log/flotilla/internal/node"
	"github.com/flotilla-log/flotilla/internal/vfs"
)

// joinedStage is three founders, and a node that has joined and leads a part of a topic.
func (fl *fleet) joinedStage() (j *joiner, keys []history.Key, ok bool) {
	fl.meshed = true
	j = fl.newJoiner(4)
	if !fl.startAll() {
		return j, nil, false
	}
	fl.begin(j, fl.members[fl.rng.IntN(fleetNodes)])
	if !fl.joined(j, time.Minute) || !fl.learns(j, 1) || !fl.await("node 4 is not in contact", func() bool { return fl.placed(j) }) {
		return j, nil, false
	}
	if !fl.createTopics([]string{lateTopic}, 4) || !fl.leadsSome(j) {
		return j, nil, false
	}
	for p := range int32(4) {
		keys = append(keys, history.Key{Topic: lateTopic, Partition: p})
	}
	fl.flood(keys, 60)
	return j, keys, true
}

// wholeWith is whole of a fleet that a node has joined: its replicas of the data shards
// vote as the others do.
func (fl *fleet) wholeWith(j *joiner) bool {
	return fl.await("the replicas are not whole again", func() bool {
		for _, m := range append([]*member{j.member}, fl.members[:]...) {
			if m.node == nil {
				return false
			}
			for _, s := range m.node.Stats().Shards {
				metadata, joins := s.ID == 0, m == j.member
				if s.Voters != fleetNodes || s.Votes == (metadata && joins) || metadata && s.Learners != 1 || !metadata && s.Learners != 0 {
					return false
				}
			}
		}
		return true
	})
}

// carriesOn has the cluster take records while one of the founders is away, for which the
// vote of the node that joined is needed, and has all that was acknowledged be there.
func (fl *fleet) carriesOn(j *joiner, keys []history.Key) {
	if !fl.wholeWith(j) {
		return
	}
	founder := fl.members[fl.rng.IntN(fleetNodes)]
	fl.cut(founder)
	fl.progress(keys)
	if !fl.start(founder) {
		return
	}
	fl.leave(j, killed, 0) // what it has now says that it has joined
	fl.begin(j)
	if !fl.joined(j, time.Minute) || !fl.wholeWith(j) {
		return
	}
	fl.conclude(keys...)
}

// joinedHurtHistory damages what a node has that joined: it is started as if nothing had
// happened, without being told where the cluster is, may lose its power on the way, and
// has its place again.
func joinedHurtHistory(fl *fleet) {
	j, keys, ok := fl.joinedStage()
	defer func() { fl.leave(j, killed, 0) }()
	if !ok {
		return
	}
	fl.leave(j, killed, 0)
	fl.loseRing(j.member)
	for range fl.rng.IntN(4) {
		fl.begin(j)
		time.Sleep(time.Duration(fl.rng.IntN(9000)) * time.Millisecond)
		fl.leave(j, cutEnd(vfs.Unsynced(fl.rng.IntN(3))), fl.rng.Uint64())
	}
	fl.begin(j)
	if !fl.joined(j, rejoins) {
		return
	}
	if n := setsAside(j.member); n != 1 {
		fl.problem("%d sets are aside, want one", n)
	}
	fl.carriesOn(j, keys)
}

// joinedNamelessHistory damages what says that a node has joined. It has to be told
// again where the cluster is, and then has its place again.
func joinedNamelessHistory(fl *fleet) {
	j, keys, ok := fl.joinedStage()
	defer func() { fl.leave(j, killed, 0) }()
	if !ok {
		return
	}
	fl.leave(j, killed, 0)
	const file = dataDir + "/IDENTITY"
	if err := j.disk.Corrupt(file, 5, func(b []byte) { b[0] ^= 1 }); err != nil {
		fl.problem("%v", err)
	}
	before := filesOf(fl, j.disk)
	fl.begin(j)
	fl.refused(j, node.ErrDamagedIdentity, "say with join where nodes of its cluster are")
	if d := differ(before, filesOf(fl, j.disk)); d != "" {
		fl.problem("node %d is refused, and has changed %s", j.id, d)
	}
	fl.begin(j, fl.members[fl.rng.IntN(fleetNodes)])
	if fl.joined(j, rejoins) {
		fl.carriesOn(j, keys)
	}
}

// joinedWipedHistory takes the directory of a node away that has joined.
func joinedWipedHistory(fl *fleet) {
	j, keys, ok := fl.joinedStage()
	defer func() { fl.leave(j, killed, 0) }()
	if !ok {
		return
	}
	fl.leave(j, killed, 0)
	j.disk = vfs.NewMem(fl.rng.Uint64())
	fl.begin(j, fl.members[fl.rng.IntN(fleetNodes)])
	if fl.joined(j, rejoins) {
		fl.carriesOn(j, keys)
	}
}

// founderHurtHistory damages what a founder has, of whose shards a node leads some that
// the founder is not told of by its settings.
func founderHurtHistory(fl *fleet) {
	j, keys, ok := fl.joinedStage()
	defer func() { fl.leave(j, killed, 0) }()
	if !ok {
		return
	}
	led := j.node.Leads()
	var m *member
	for _, one := range fl.members {
		for _, s := range one.node.Stats().Shards {
			for _, id := range led {
				if uint32(id) == uint32(s.ID) {
					m = one
				}
			}
		}
	}
	if m == nil {
		fl.problem("no founder has a replica of a shard that node %d leads: %v", j.id, led)
		return
	}
	fl.end(m, killed)
	fl.loseRing(m)
	fl.start(m)
	if fl.adopt(m, rejoins) {
		fl.carriesOn(j, keys)
	}
}

// foundersDirectoryHistory starts a founder with damaged data as one that joins, and one
// that has joined as a founder: neither is given another place than its own.
func foundersDirectoryHistory(fl *fleet) {
	j, keys, ok := fl.joinedStage()
	defer func() { fl.leave(j, killed, 0) }()
	if !ok {
		return
	}
	m := fl.members[0]
	fl.end(m, killed)
	sound := m.disk.KillClone()
	if err := m.disk.Corrupt(dataDir+"/IDENTITY", 5, func(b []byte) { b[0] ^= 1 }); err != nil {
		fl.problem("%v", err)
	}
	wrong := fl.newJoiner(m.id)
	wrong.disk, wrong.moved, wrong.at = m.disk, true, m.host()+":9097"
	fl.begin(wrong, fl.members[1])
	fl.refused(wrong, node.ErrMembers, "give cluster.nodes instead of join")
	m.disk = sound
	if fl.start(m) {
		fl.carriesOn(j, keys)
	}
}

// TestJoinHeals is about damage in a cluster that a node has joined.
func TestJoinHeals(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		history func(*fleet)
		long    int
		aside   bool // damaged data is set aside
	}{
		{"damaged", joinedHurtHistory, 20, true},
		{"nameless", joinedNamelessHistory, 3, true},
		{"wiped", joinedWipedHistory, 3, false},
		{"founder", founderHurtHistory, 3, true},
		{"wrong start", foundersDirectoryHistory, 1, false},
	} {
		for _, seed := range seeds(t, c.long, 1) {
			t.Run(fmt.Sprintf("%s,seed=%d", strings.ReplaceAll(c.name, " ", "_"), seed), func(t *testing.T) {
				t.Parallel()
				problems, tr, _ := runFleet(t, seed, c.history)
				if len(problems) == 0 && tr.saw(asideSaid) != c.aside {
					problems = append(problems, fmt.Sprintf("data was set aside: %t, want %t", !c.aside, c.aside))
				}
				report(t, seed, fleetVerdict(problems, tr.history), tr)
			})
		}
	}
}
