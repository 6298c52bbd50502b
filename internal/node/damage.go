package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"path"
	"slices"

	"github.com/flotilla-log/flotilla/broker"
	"github.com/flotilla-log/flotilla/broker/metadata"
	"github.com/flotilla-log/flotilla/internal/vfs"
	"github.com/flotilla-log/flotilla/log/control"
	"github.com/flotilla-log/flotilla/log/journal"
	"github.com/flotilla-log/flotilla/replication"
)

// A node whose journal, control logs, checkpoints or identity are damaged below what
// was synced may have forgotten what it acknowledged and voted, and never votes again
// under its old name (R11, R20). Alone it refuses to start. One of several
//
//	waits    until a majority of the voters of each of its shards, without it, has all
//	         that was acknowledged, as the shards' leaders say; nothing on the disk
//	         has changed until then, so that mending it by hand is still possible
//	asks     for a fresh directory to be registered in the place of its own, which
//	         is written down before: see aside.go
//	moves    what it has out of the way, once the fresh one is registered
//
// and then takes its place as a node does that has lost its directory: see rejoin.
// Of two nodes that are damaged at once neither finds a majority without it, so both
// wait, and nothing is given up that a majority has.

// isDamage reports whether an error of a start says that files are not what was
// synced, and not that the disk, a setting or the version is wrong.
func isDamage(err error) bool {
	for _, no := range []error{ErrNewer, ErrWrongIdentity, ErrMembers, ErrInUse, ErrRepairing} {
		if errors.Is(err, no) {
			return false
		}
	}
	for _, damage := range []error{
		ErrDamagedIdentity, ErrMismatched, journal.ErrCorrupt, control.ErrCorrupt,
		replication.ErrCorrupt, replication.ErrLostLog, replication.ErrOldVote, broker.ErrForgotten, broker.ErrQuarantineDamaged,
	} {
		if errors.Is(err, damage) {
			return true
		}
	}
	return false
}

// Heals reports whether the next start of the node deals with what made it stop, or
// kept it from starting, by itself: damage that the other nodes can make good.
func (opt *Options) Heals(err error) bool {
	several := opt.Join != nil || opt.Cluster != nil && len(opt.Cluster.Nodes) > 1
	return several && !opt.RefuseDamage && (isDamage(err) || errors.Is(err, ErrNotOurs))
}

// heal deals with an error of open, for which everything but the lock is closed again.
// Nil says that open is to be tried again.
func (n *Node) heal(ctx context.Context, damage error) error {
	resumes := errors.Is(damage, ErrSettingAside)
	if !resumes && !n.opt.Heals(damage) {
		return damage
	}
	if n.opt.Cluster == nil {
		return fmt.Errorf("%w; say with cluster.nodes where the other nodes are", damage)
	}
	fsys, dir := n.opt.FS, n.opt.Dir
	lock, err := fsys.Lock(path.Join(dir, lockName))
	if errors.Is(err, vfs.ErrLocked) {
		return fmt.Errorf("%w: %s is served by another process; stop it, or give another directory", ErrInUse, dir)
	}
	if err != nil {
		return fmt.Errorf("node: %w", err)
	}
	err = n.replaceDamaged(ctx, damage)
	return errors.Join(err, lock.Close())
}

// replaceDamaged brings a damaged directory to where a fresh one has its place. The
// lock is held.
func (n *Node) replaceDamaged(ctx context.Context, damage error) error {
	fsys, dir := n.opt.FS, n.opt.Dir
	w := newWait(n.opt.Log, damage)
	n.healing.Store(w)
	defer n.healing.Store(nil)
	set, err := unfinishedAside(fsys, dir)
	if err != nil {
		return err
	}
	if set == nil {
		if set, err = n.giveUp(ctx, w); err != nil {
			return err
		}
	}
	n.opt.Log.Warn("the node's data is damaged; the other nodes have all of it, and a fresh directory takes the place of this one",
		"damage", set.Cause, "lost", fmt.Sprintf("%016x", uint64(set.Lost)), "fresh", fmt.Sprintf("%016x", uint64(set.Fresh)))
	if err := n.registerFresh(ctx, w, set); err != nil {
		return err
	}
	if err := set.move(fsys, dir); err != nil {
		return err
	}
	n.opt.Log.Warn("the damaged data was set aside, and the other nodes send theirs; once the cluster is healthy the folder can be removed",
		"folder", path.Join(dir, set.name()), "damage", set.Cause)
	return nil
}

// giveUp waits until the cluster can do without what the directory holds, and notes
// durably that it is given up.
func (n *Node) giveUp(ctx context.Context, w *wait) (*aside, error) {
	a := aside{
		ClusterID: n.opt.ClusterID, NodeID: n.opt.NodeID, Shards: n.opt.Shards, AtMS: n.opt.Now().UnixMilli(), Cause: w.damage.Error(),
		Joins: n.joining != nil,
	}
	err := w.until(ctx, func(ctx context.Context) error {
		nodes, err := n.everybody(ctx)
		if err != nil {
			return err
		}
		if a.Lost, err = n.lostDirectory(ctx, nodes, w.damage); err != nil {
			return err
		}
		return broker.AskWithout(ctx, n.opt.Cluster.Peers, n.opt.NodeID, nodes)
	})
	if err != nil {
		return nil, err
	}
	if n.joining != nil {
		a.Nodes = addressListOf(n.joining.book.known())
	}
	return newAside(n.opt.FS, n.opt.Dir, a, n.opt.Rand)
}

// everybody returns all nodes of the cluster, ascending, and has those that have joined
// found where the others say: they may lead shards of this node's. The cluster has to
// know this node as what it was started as, since a fresh directory is made for that.
func (n *Node) everybody(ctx context.Context) ([]int32, error) {
	cluster, self := n.opt.Cluster, n.opt.NodeID
	known := func() []int32 {
		if n.joining != nil {
			return slices.Sorted(maps.Keys(n.joining.book.known()))
		}
		return slices.Sorted(slices.Values(cluster.Nodes))
	}
	roll, err := broker.AskRoll(ctx, cluster.Peers, self, known())
	if err != nil && n.joining != nil && len(n.opt.Join.Addresses) > 0 {
		if _, refused := n.joining.ask(ctx); refused != nil { // they may all be elsewhere
			return nil, final{refused}
		}
		roll, err = broker.AskRoll(ctx, cluster.Peers, self, known())
	}
	if err != nil {
		return nil, err
	}
	switch founder := slices.Contains(roll.Founders, self); {
	case founder && n.joining != nil:
		return nil, final{fmt.Errorf("%w: %s is of node %d, which is one of those that the cluster was founded with; give cluster.nodes instead of join",
			ErrMembers, n.opt.Dir, self)}
	case !founder && n.joining == nil:
		return nil, final{fmt.Errorf("%w: node %d has joined a cluster of nodes %s; leave cluster.nodes out, or give join",
			ErrMembers, self, list(roll.Founders))}
	}
	all := known()
	for _, id := range slices.Sorted(maps.Keys(roll.Nodes)) {
		if !slices.Contains(all, id) {
			all = append(all, id)
		}
	}
	if cluster.Met != nil {
		maps.DeleteFunc(roll.Nodes, func(_ int32, addr string) bool { return addr == "" })
		cluster.Met(roll.Nodes)
	}
	return slices.Sorted(slices.Values(all)), nil
}

// errNotKnown reports a damaged directory that the cluster does not know.
var errNotKnown = errors.New("it is not the one that the cluster knows")

// lostDirectory returns the incarnation of the damaged directory, which is the one
// that is registered for the node. Its IDENTITY, or if that is damaged one of the
// parts, has to say so: nothing of another node's is given up.
func (n *Node) lostDirectory(ctx context.Context, nodes []int32, damage error) (hexNumber, error) {
	fsys, dir := n.opt.FS, n.opt.Dir
	var says []uint64
	id, fresh, err := readIdentity(fsys, dir)
	switch {
	case err == nil && !fresh:
		if err := id.check(identity{ClusterID: n.opt.ClusterID, NodeID: n.opt.NodeID}, dir); err != nil {
			return 0, final{err}
		}
		if !id.Founded {
			return 0, final{damage} // it has nothing yet that others would know
		}
		says = append(says, uint64(id.Incarnation))
	case err == nil || errors.Is(err, ErrDamagedIdentity):
		says = partsSay(fsys, dir)
	default:
		return 0, final{err}
	}
	if len(says) == 0 {
		return 0, final{damage}
	}
	registered, err := broker.AskReplacement(ctx, n.opt.Cluster.Peers, n.opt.NodeID, nodes, broker.Replacement{Node: n.opt.NodeID, Level: n.level()})
	if err != nil {
		return 0, err
	}
	if !slices.Contains(says, registered) {
		return 0, final{fmt.Errorf("%w; and %w: node %d is of the directory of incarnation %016x, and this one is %016x",
			damage, errNotKnown, n.opt.NodeID, registered, says[0])}
	}
	return hexNumber(registered), nil
}

// partsSay returns of which directories the parts of one say that they are; none that
// can be read says nothing.
func partsSay(fsys vfs.FS, dir string) (incarnations []uint64) {
	for _, part := range countedDirs {
		if g, err := ReadGeneration(fsys, path.Join(dir, part)); err == nil {
			incarnations = append(incarnations, g.Incarnation)
		}
	}
	return incarnations
}

// registerFresh returns when the fresh directory is registered in the place of the
// damaged one.
func (n *Node) registerFresh(ctx context.Context, w *wait, a *aside) error {
	return w.until(ctx, func(ctx context.Context) error {
		nodes, err := n.everybody(ctx)
		if err != nil {
			return err
		}
		registered, err := broker.AskReplacement(ctx, n.opt.Cluster.Peers, n.opt.NodeID, nodes, broker.Replacement{
			Node: n.opt.NodeID, Level: n.level(), Incarnation: uint64(a.Fresh), Replaces: uint64(a.Lost),
		})
		switch {
		case errors.Is(err, broker.ErrReplaced):
			return final{fmt.Errorf("node: %w", err)}
		case err == nil && registered != uint64(a.Fresh):
			return fmt.Errorf("node %d is of the directory %016x still", n.opt.NodeID, registered)
		}
		return err
	})
}

// pruneAside keeps what was set aside from taking the room that the other nodes'
// records need.
func (n *Node) pruneAside() error {
	fsys, dir := n.opt.FS, n.opt.Dir
	sets, err := asides(fsys, dir)
	if err == nil {
		n.setAside.Store(int64(len(sets)))
	}
	if err != nil || len(sets) == 0 || n.id.Started {
		return err // a node that has started since has, or gets, the others' records
	}
	records, err := bytesBelow(fsys, path.Join(dir, sets[len(sets)-1].name(), dataDir))
	if err != nil {
		return fmt.Errorf("node: %w", err)
	}
	return pruneAside(fsys, dir, records+cmp.Or(n.opt.JournalBytes, journal.DefaultMaxBytes)+n.opt.DiskReserveBytes, n.opt.Log)
}

// wait is what a node with damage waits for.
type wait struct {
	damage error
	vigil  vigil
}

func newWait(log *slog.Logger, damage error) *wait {
	return &wait{damage: damage, vigil: vigil{
		log: log, args: []any{"damage", damage},
		line: "the node's data is damaged, and it waits for the other nodes; nothing of it has changed: put a sound copy back, or wait until they can do without it",
	}}
}

// healTime is how long one round of what is waited for may take: asking for the nodes, for
// the directory that is registered, and for who can do without it.
const healTime = 2 * rejoinTime

// final is an error for which asking again is of no use.
type final struct{ error }

func (f final) Unwrap() error { return f.error }

// until calls do until it succeeds, its error is final, or ctx ends. It says, once
// each, why it goes on.
func (w *wait) until(ctx context.Context, do func(context.Context) error) error {
	var last error
	return w.vigil.rounds(ctx, func() (outcome, error) {
		once, cancel := context.WithTimeout(ctx, healTime)
		defer cancel()
		if last = do(once); last == nil {
			return done, nil
		}
		if f, ok := errors.AsType[final](last); ok {
			return waits, f.error
		}
		w.vigil.say(last.Error())
		return waits, nil
	}, func() error {
		return errors.Join(w.damage, fmt.Errorf("it could not be replaced in time: %w", last))
	})
}

// text says what is damaged and what is waited for.
func (w *wait) text() string {
	return fmt.Sprintf("the data is damaged, and the node waits for the others: %s; %v", w.vigil.reason(), w.damage)
}

// level is the newest feature level that the node knows.
func (n *Node) level() uint16 { return cmp.Or(n.opt.featureLevel, metadata.MaxFeatureLevel) }
