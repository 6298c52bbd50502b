package metadata

import (
	"fmt"
	"math"
	"slices"

	"github.com/flotilla-log/flotilla/internal/errcode"
)

// State is the replicated state of the metadata shard. Its methods belong to
// one goroutine, the one that applies Raft's entries; the Images that it gives
// out are for everybody.
type State struct {
	im Image
}

// New returns the state of a metadata shard to which nothing was applied.
func New() *State { return &State{im: newImage()} }

// Result is the answer to one command. If Code is not errcode.None, nothing but
// the image's index and term changed.
type Result struct {
	Kind   Kind
	Code   errcode.Code
	Detail string // what was wrong, if Code is not errcode.None

	// Index is the metadata index of the command itself: the stamp of whatever
	// it changed.
	Index uint64

	// ProducerID is the first id of the block that AllocateProducerIDs took,
	// and -1 from other commands.
	ProducerID int64
}

// Err returns nil if Code is errcode.None, and else an *errcode.Error.
func (r *Result) Err() error {
	if r.Code == errcode.None {
		return nil
	}
	return &errcode.Error{Code: r.Code, Detail: r.Detail}
}

// Apply applies one committed entry. index and term are the Raft entry's.
//
// An error means that the replica cannot go on: ErrDamaged, ErrUnsupported, or
// ErrOrder if index is not above every applied one or term is below the last.
// The state is then as it was. A command that is refused is no error; a command
// that was decided in another term than the entry's is refused with
// errcode.NotController (R3). Apply keeps no reference to data.
func (s *State) Apply(index, term uint64, data []byte) (Result, error) {
	if index <= s.im.index || term < s.im.term {
		return Result{}, fmt.Errorf("%w: index %d term %d after index %d term %d", ErrOrder, index, term, s.im.index, s.im.term)
	}
	decided, c, err := Decode(data)
	if err != nil {
		return Result{}, fmt.Errorf("entry %d: %w", index, err)
	}
	s.im.index, s.im.term = index, term
	a := application{im: &s.im, res: Result{Kind: c.kind(), Index: index, ProducerID: -1}}
	if decided != term {
		a.refuse(errcode.Errorf(errcode.NotController, "decided in term %d, committed in %d", decided, term))
	} else {
		c.apply(&a)
	}
	return a.res, nil
}

// Image returns what the state is now. It costs the same whatever the state
// holds.
func (s *State) Image() *Image {
	im := s.im
	return &im
}

// application is one command while it is applied. Commands check everything
// first, and change im only then.
type application struct {
	im  *Image
	res Result
}

// refuse answers with err, and reports whether there is one.
func (a *application) refuse(err *errcode.Error) bool {
	if err == nil {
		return false
	}
	a.res.Code, a.res.Detail = err.Code, err.Detail
	return true
}

// fail is refuse for an error made on the spot.
func (a *application) fail(c errcode.Code, format string, args ...any) {
	a.refuse(errcode.Errorf(c, format, args...))
}

func (TermStart) apply(*application) {}

func (c SetClusterID) apply(a *application) {
	switch {
	case a.refuse(checkStrings(c.ClusterID)):
	case c.ClusterID == "":
		a.fail(errcode.InvalidRequest, "cluster id is empty")
	case a.im.clusterID != "" && a.im.clusterID != c.ClusterID:
		a.fail(errcode.InconsistentClusterID, "cluster id is %q already, not %q", a.im.clusterID, c.ClusterID)
	default:
		a.im.clusterID = c.ClusterID
	}
}

func (c RegisterNode) apply(a *application) {
	old := a.im.Node(c.ID)
	strings := []string{c.Rack}
	for _, ad := range c.Addresses {
		strings = append(strings, ad.Listener, ad.Host)
	}
	switch {
	case a.refuse(checkStrings(strings...)):
	case c.ID < 0 || c.Incarnation == 0:
		a.fail(errcode.InvalidRegistration, "node %d, incarnation %d", c.ID, c.Incarnation)
	case len(c.Addresses) > MaxAddresses:
		a.fail(errcode.InvalidRegistration, "node %d with %d addresses, at most %d", c.ID, len(c.Addresses), MaxAddresses)
	case old == nil && a.im.nodes.rows >= MaxNodes:
		a.fail(errcode.PolicyViolation, "the cluster has %d nodes, at most %d", a.im.nodes.rows, MaxNodes)
	case old != nil && old.Incarnation != c.Incarnation && old.Incarnation != c.Replaces:
		a.fail(errcode.DuplicateBrokerRegistration, "node %d is registered by another data directory", c.ID)
	case c.FeatureLevel > 0 && c.FeatureLevel < a.im.featureLevel:
		a.fail(errcode.UnsupportedVersion, "node %d knows feature levels up to %d, and the cluster is at %d; start a newer version on it", c.ID, c.FeatureLevel, a.im.featureLevel)
	default:
		n := &Node{ID: c.ID, Incarnation: c.Incarnation, Rack: c.Rack, Addresses: c.Addresses, UpdatedAt: a.res.Index, FeatureLevel: c.FeatureLevel}
		if n.FeatureLevel == 0 && old != nil && old.Incarnation == c.Incarnation {
			n.FeatureLevel = old.FeatureLevel
		}
		n.Fenced = old != nil && old.Incarnation == c.Incarnation && old.Fenced
		a.im.nodes = a.im.nodes.put(c.ID, n)
	}
}

func (c FenceNode) apply(a *application) {
	old := a.im.Node(c.ID)
	if old == nil || old.Incarnation != c.Incarnation {
		a.fail(errcode.StaleBrokerEpoch, "node %d is not registered by the directory %016x", c.ID, c.Incarnation)
		return
	}
	n := *old
	n.Fenced = c.Fenced
	a.im.nodes = a.im.nodes.put(c.ID, &n)
}

func (c CreateShard) apply(a *application) {
	switch {
	case a.im.Shard(c.ID) != nil:
		a.fail(errcode.DuplicateResource, "shard %d exists already", c.ID)
	case a.im.shards.rows >= MaxShards:
		a.fail(errcode.PolicyViolation, "the cluster has %d shards, at most %d", a.im.shards.rows, MaxShards)
	case a.refuse(a.checkReplicas(c.Replicas)):
	default:
		a.im.shards = a.im.shards.put(c.ID, &Shard{ID: c.ID, Replicas: c.Replicas, UpdatedAt: a.res.Index})
	}
}

func (c AddShards) apply(a *application) {
	n := len(c.Shards)
	if n == 0 || c.First == 0 || int64(c.First)+int64(n)-1 > math.MaxUint32 {
		a.fail(errcode.InvalidRequest, "%d shards from %d on", n, c.First)
		return
	}
	if a.im.shards.rows+n > MaxShards {
		a.fail(errcode.PolicyViolation, "%d shards more: the cluster has %d, at most %d", n, a.im.shards.rows, MaxShards)
		return
	}
	for i, s := range c.Shards {
		id := c.First + ShardID(i)
		switch {
		case a.im.Shard(id) != nil:
			a.fail(errcode.DuplicateResource, "shard %d exists already", id)
			return
		case a.refuse(a.checkReplicas(s.Replicas)):
			return
		case !slices.Contains(s.Replicas, s.Preferred):
			a.fail(errcode.InvalidReplicaAssignment, "node %d is to lead shard %d, and has no replica of it", s.Preferred, id)
			return
		}
	}
	for i, s := range c.Shards {
		shard := &Shard{
			ID: c.First + ShardID(i), Replicas: s.Replicas, UpdatedAt: a.res.Index,
			CreatedAt: a.res.Index, preferred: s.Preferred,
		}
		for _, node := range s.Replicas {
			shard.Founders = append(shard.Founders, Founder{node, a.im.Node(node).Incarnation})
		}
		a.im.shards = a.im.shards.put(shard.ID, shard)
	}
}

func (c SetShardReplicas) apply(a *application) {
	old := a.im.Shard(c.ID)
	switch {
	case old == nil:
		a.fail(errcode.ResourceNotFound, "no shard %d", c.ID)
	case a.refuse(a.checkReplicas(c.Replicas)):
	default:
		s := *old
		s.Replicas, s.UpdatedAt = c.Replicas, a.res.Index
		a.im.shards = a.im.shards.put(c.ID, &s)
	}
}

func (c AllocateProducerIDs) apply(a *application) {
	next := a.im.nextProducerID
	switch {
	case c.Count < 1 || c.Count > MaxProducerIDBlock:
		a.fail(errcode.InvalidRequest, "a block of %d producer ids, want 1 to %d", c.Count, MaxProducerIDBlock)
	case next > math.MaxInt64-int64(c.Count):
		a.fail(errcode.PolicyViolation, "no producer ids are left")
	default:
		a.res.ProducerID = next
		a.im.nextProducerID = next + int64(c.Count)
	}
}

func (c SetFeatureLevel) apply(a *application) {
	if !a.refuse(a.im.CheckFeatureLevel(c.Level)) {
		a.im.featureLevel = c.Level
	}
}

// CheckFeatureLevel returns nil if SetFeatureLevel would be accepted, or have
// nothing to do, and otherwise why not: errcode.InvalidRequest for level 0, and
// errcode.InvalidUpdateVersion for one that is lower than the cluster's, or that a
// node does not know, or may not.
func (im *Image) CheckFeatureLevel(level uint16) *errcode.Error {
	switch have := im.featureLevel; {
	case level < 1:
		return errcode.Errorf(errcode.InvalidRequest, "feature level %d, want 1 to %d", level, MaxFeatureLevel)
	case level < have:
		return errcode.Errorf(errcode.InvalidUpdateVersion, "the feature level is %d already, and is never lowered to %d", have, level)
	case level == have:
		return nil
	}
	for n := range im.Nodes() {
		if n.FeatureLevel == 0 {
			return errcode.Errorf(errcode.InvalidUpdateVersion, "node %d has not said which feature levels it knows; start this version on it, and try again", n.ID)
		}
		if n.FeatureLevel < level {
			return errcode.Errorf(errcode.InvalidUpdateVersion, "node %d knows feature levels up to %d, not %d; start a newer version on it, and try again", n.ID, n.FeatureLevel, level)
		}
	}
	return nil
}

// checkReplicas wants 1 to MaxReplicas registered nodes, none twice. ids is
// sorted.
func (a *application) checkReplicas(ids []NodeID) *errcode.Error {
	if len(ids) == 0 || len(ids) > MaxReplicas {
		return errcode.Errorf(errcode.InvalidReplicationFactor, "%d replicas, want 1 to %d", len(ids), MaxReplicas)
	}
	for i, id := range ids {
		if a.im.Node(id) == nil {
			return errcode.Errorf(errcode.InvalidReplicaAssignment, "node %d is not registered", id)
		}
		if slices.Contains(ids[:i], id) {
			return errcode.Errorf(errcode.InvalidReplicaAssignment, "node %d is named twice", id)
		}
	}
	return nil
}
