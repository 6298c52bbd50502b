package node

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/flotilla-log/flotilla/replication"
)

// A cluster is founded once, by the nodes that cluster.nodes lists, each with a
// fresh directory. What it is founded with is its plan. A node goes from *fresh*
// to *planned*, when it has recorded the plan in IDENTITY, and from there to
// *founded*, when it knows that every node of the plan has recorded it; only then
// do its replicas start. It never goes back, and records one plan in the life of
// its directory.
//
// So no two plans are ever started: each of them would have been recorded by a
// directory of every node, and no directory records two. That holds whatever
// crashes, whoever loses a directory meanwhile, and even with two processes under
// one id. A node that has lost its directory comes back with another incarnation
// than the plan's and founds nothing (R11), as all the others know the plan by then
// if anything was ever served; how it takes its place again, rejoin says.

// founders are the directories that a cluster is founded with: for each node its
// id and the directory's incarnation, as "1=00c0ffee00c0ffee,2=...", ascending by
// id. The text is the form that IDENTITY has; "" means none.
type founders string

// founder is one of founders.
type founder struct {
	node        int32
	incarnation hexNumber
}

// errFounders reports a text that is no founders.
var errFounders = errors.New("node: not a list of founders")

func foundersOf(all []founder) founders {
	all = slices.SortedFunc(slices.Values(all), func(a, b founder) int { return cmp.Compare(a.node, b.node) })
	parts := make([]string, len(all))
	for i, f := range all {
		parts[i] = fmt.Sprintf("%d=%016x", f.node, uint64(f.incarnation))
	}
	return founders(strings.Join(parts, ","))
}

// parseFounders splits a list of founders, which has one form only.
func parseFounders(text string) (all []founder, err error) {
	for part := range strings.SplitSeq(text, ",") {
		id, incarnation, _ := strings.Cut(part, "=")
		var f founder
		n, bad := strconv.ParseInt(id, 10, 32)
		if bad != nil || f.incarnation.UnmarshalText([]byte(incarnation)) != nil || f.incarnation == 0 {
			return nil, fmt.Errorf("%w: %q", errFounders, text)
		}
		f.node = int32(n)
		all = append(all, f)
	}
	for i := range all {
		if all[i].node < 0 || i > 0 && all[i].node <= all[i-1].node {
			return nil, fmt.Errorf("%w: %q: ids do not ascend", errFounders, text)
		}
	}
	if string(foundersOf(all)) != text {
		return nil, fmt.Errorf("%w: %q", errFounders, text)
	}
	return all, nil
}

// list returns the founders; f has been parsed before.
func (f founders) list() []founder {
	if f == "" {
		return nil
	}
	all, err := parseFounders(string(f))
	if err != nil {
		panic("node: " + err.Error())
	}
	return all
}

// ids returns the nodes' ids.
func (f founders) ids() []int32 {
	var ids []int32
	for _, one := range f.list() {
		ids = append(ids, one.node)
	}
	return ids
}

// incarnation returns what the directory of a node was called, 0 if the node is
// no founder.
func (f founders) incarnation(node int32) hexNumber {
	for _, one := range f.list() {
		if one.node == node {
			return one.incarnation
		}
	}
	return 0
}

// plan is what a cluster is founded with.
type plan struct {
	clusterID string
	shards    uint32 // data shards: 1 to shards
	founders  founders
}

// voters returns a shard's first voters: a replica on each founder, whose
// incarnation follows from the directories' random ones, so that all nodes know
// it, and a replica of another plan never has it.
func (p plan) voters(shard replication.ShardID) []replication.ReplicaID {
	var ids []replication.ReplicaID
	for _, node := range p.founders.ids() {
		sum := sha256.Sum256(fmt.Appendf(nil, "%q %d %s %d %d", p.clusterID, p.shards, p.founders, shard, node))
		ids = append(ids, replication.ReplicaID{Node: node, Incarnation: binary.LittleEndian.Uint64(sum[:]) | 1}) // never zero
	}
	return ids
}

// standing is what a node says of itself to another one, and the other answers
// with its own. It travels as IDENTITY is written: a line of JSON, and a line
// with its CRC32C.
type standing struct {
	Format      int       `json:"format"`
	ClusterID   string    `json:"cluster_id"`
	NodeID      int32     `json:"node_id"`
	Incarnation hexNumber `json:"incarnation"` // of its directory
	Nodes       []int32   `json:"nodes"`       // that its cluster.nodes lists, ascending

	Level uint16 `json:"level"` // newest feature level that it knows

	// Alone says that it has served from the directory without a cluster.
	Alone bool `json:"alone,omitempty"`

	// Founders and Shards are the recorded plan's; "" if it has none. Founded says
	// that the plan is known to be recorded by all of its nodes.
	Founders founders `json:"founders,omitempty"`
	Shards   uint32   `json:"shards,omitempty"`
	Founded  bool     `json:"founded,omitempty"`
}

// standingFormat is the version of a standing on the wire, and maxStandingBytes
// bounds one.
const (
	standingFormat   = 1
	maxStandingBytes = 64 << 10
)

// errStanding reports bytes that are no standing.
var errStanding = errors.New("node: not what a node says of itself")

func (s standing) encode() []byte {
	s.Format = standingFormat
	return seal(s)
}

// decodeStanding reads what another node says of itself. Its errors match
// errStanding.
func decodeStanding(b []byte) (standing, error) {
	if len(b) > maxStandingBytes {
		return standing{}, fmt.Errorf("%w: %d bytes, at most %d", errStanding, len(b), maxStandingBytes)
	}
	body, head, err := openSealed(b)
	if err != nil {
		return standing{}, fmt.Errorf("%w: %w", errStanding, err)
	}
	if head.Format != standingFormat {
		return standing{}, fmt.Errorf("%w: format %d, this version reads %d; run the same version on all nodes until the cluster is founded",
			errStanding, head.Format, standingFormat)
	}
	var s standing
	if err := json.Unmarshal(body, &s); err != nil {
		return standing{}, fmt.Errorf("%w: %w", errStanding, err)
	}
	if s.ClusterID == "" || s.NodeID < 0 || s.Incarnation == 0 || s.Founders != "" && s.Shards == 0 || s.Founded && s.Founders == "" {
		return standing{}, fmt.Errorf("%w: incomplete: %s", errStanding, body)
	}
	if s.Founders != "" {
		if _, err := parseFounders(string(s.Founders)); err != nil {
			return standing{}, fmt.Errorf("%w: %w", errStanding, err)
		}
	}
	return s, nil
}

// plan returns the recorded plan, and whether there is one.
func (s *standing) plan() (plan, bool) {
	return plan{clusterID: s.ClusterID, shards: s.Shards, founders: s.Founders}, s.Founders != ""
}

// fits says why s can be in no cluster with another node's standing, or nothing.
func (s *standing) fits(o *standing) string {
	switch {
	case o.ClusterID != s.ClusterID:
		return fmt.Sprintf("node %d is of cluster %q, and node %d of cluster %q; give both the same cluster.id", o.NodeID, o.ClusterID, s.NodeID, s.ClusterID)
	case !slices.Equal(o.Nodes, s.Nodes):
		return fmt.Sprintf("cluster.nodes lists nodes %s at node %d, and nodes %s at node %d; give all nodes the same list",
			list(o.Nodes), o.NodeID, list(s.Nodes), s.NodeID)
	}
	return ""
}

// takes reports whether a fresh node takes the plan of another one.
func (s *standing) takes(o *standing) bool {
	return s.Founders == "" && !s.Alone && s.fits(o) == "" && o.Founders.incarnation(s.NodeID) == s.Incarnation &&
		slices.Equal(o.Founders.ids(), s.Nodes)
}

// list writes ids for people.
func list(ids []int32) string {
	parts := make([]string, len(ids))
	for i, id := range ids {
		parts[i] = strconv.Itoa(int(id))
	}
	return strings.Join(parts, ", ")
}

// reply is what came of asking a node for its standing.
type reply struct {
	standing
	err error
}

// step is what a node does next on its way to a cluster.
type step struct {
	record plan     // that it takes, if it has founders
	rejoin plan     // of the cluster that knows it by a lost directory, if it has founders
	found  bool     // every node of its plan has recorded it
	wait   []string // what keeps it waiting, if it does nothing
}

// decide says what a node does next, from what it is and what the other listed
// nodes replied, by id. shards is how many the cluster gets if this node makes
// the plan, which only the one of the lowest id does.
func decide(own *standing, shards uint32, replies map[int32]reply) step {
	var out step
	fresh, recorded := 0, 0
	others := 0
	for _, id := range own.Nodes {
		if id == own.NodeID {
			continue
		}
		others++
		r := replies[id]
		if r.err == nil && r.NodeID == id && own.rejoins(&r.standing) {
			p, _ := r.plan()
			return step{rejoin: p}
		}
		why := own.judge(id, &r)
		switch {
		case why != "":
			out.wait = append(out.wait, why)
		case own.takes(&r.standing):
			p, _ := r.plan()
			return step{record: p}
		case r.Founders == "":
			if own.Founders == "" && r.Level != own.Level {
				out.wait = append(out.wait, fmt.Sprintf("node %d knows feature levels up to %d, and node %d up to %d; run one version on all nodes until the cluster is founded",
					id, r.Level, own.NodeID, own.Level))
				continue
			}
			fresh++
		case r.Founded:
			return step{found: true}
		default:
			recorded++
		}
	}
	switch p, planned := own.plan(); {
	case planned && recorded == others:
		return step{found: true}
	case !planned && fresh == others && own.NodeID == own.Nodes[0]:
		all := []founder{{own.NodeID, own.Incarnation}}
		for id, r := range replies {
			all = append(all, founder{id, r.Incarnation})
		}
		p.clusterID, p.shards, p.founders = own.ClusterID, shards, foundersOf(all)
		return step{record: p}
	case len(out.wait) == 0 && planned:
		out.wait = []string{"the other nodes are recording the plan of the cluster"}
	case len(out.wait) == 0:
		out.wait = []string{fmt.Sprintf("node %d, which has the lowest id, makes the plan of the cluster once all nodes are up", own.Nodes[0])}
	}
	return out
}

// judge says why a reply of the node id keeps own waiting, or nothing if it is
// one to count.
func (s *standing) judge(id int32, r *reply) string {
	if r.err != nil {
		return fmt.Sprintf("node %d does not answer: %v", id, r.err)
	}
	if r.NodeID != id {
		return fmt.Sprintf("where node %d is said to be, node %d answers; check cluster.nodes and node.id of both", id, r.NodeID)
	}
	if why := s.fits(&r.standing); why != "" {
		return why
	}
	mine, theirs := s.Founders, r.Founders
	switch {
	case r.Alone:
		return fmt.Sprintf("node %d has served alone from its directory; give it an empty one", id)
	case mine == "" && theirs != "" && theirs.incarnation(s.NodeID) == 0:
		return fmt.Sprintf("the cluster was founded with nodes %s, as node %d says, and node %d is none of them; to have it join, start it with join instead of cluster.nodes, and leave it out of the others' lists",
			list(theirs.ids()), id, s.NodeID)
	case mine == "" && theirs != "" && theirs.incarnation(s.NodeID) != s.Incarnation:
		return lost(s.NodeID, theirs.incarnation(s.NodeID), s.Incarnation, fmt.Sprintf("node %d knows", id))
	case mine != "" && theirs == "" && mine.incarnation(id) != r.Incarnation:
		return lost(id, mine.incarnation(id), r.Incarnation, fmt.Sprintf("node %d knows", s.NodeID))
	case mine != "" && theirs != "" && (theirs != mine || r.Shards != s.Shards):
		return fmt.Sprintf("node %d has the plan of another cluster (%s) than node %d (%s), and none can be started by both; if none has ever served, give all nodes empty directories",
			id, theirs, s.NodeID, mine)
	}
	return ""
}

// lost says that a node came back without its directory.
func lost(node int32, was, is hexNumber, who string) string {
	return fmt.Sprintf("node %d lost its directory: the cluster's plan, which %s, has it with the directory of incarnation %016x, and it came with a fresh one, %016x; "+
		"put the lost directory back; if the cluster has never served anything, give all nodes empty directories",
		node, who, uint64(was), uint64(is))
}
