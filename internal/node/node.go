// Package node composes one node: it opens a data directory, recovers what is
// in it, starts the broker, and serves clients. The binary and the simulator
// start the same node; what differs is the files, the network, the clock and
// the randomness that they hand to it.
package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"path"
	"sync"
	"sync/atomic"
	"time"

	"github.com/flotilla-log/flotilla/broker"
	"github.com/flotilla-log/flotilla/consumergroup"
	"github.com/flotilla-log/flotilla/internal/admin"
	"github.com/flotilla-log/flotilla/internal/config"
	"github.com/flotilla-log/flotilla/internal/vfs"
	"github.com/flotilla-log/flotilla/kafka"
	"github.com/flotilla-log/flotilla/log/control"
	"github.com/flotilla-log/flotilla/log/journal"
	"github.com/flotilla-log/flotilla/partition/store"
	"github.com/flotilla-log/flotilla/replication"
	"github.com/flotilla-log/flotilla/replication/transport"
	"github.com/flotilla-log/flotilla/wire/server"
)

// Options configures a node. The zero value of a field that has a default means
// that one; the others are needed.
type Options struct {
	FS        vfs.FS
	Dir       string // data directory; created if it does not exist
	NodeID    int32
	ClusterID string // of the directory; "": whatever it is, and a new one for a fresh directory
	Version   string // of the software
	Commit    string // that it was built from

	// Cluster is the nodes of a cluster, this one included; nil: it is alone.
	// ClusterID has to be given with it.
	Cluster *Cluster

	// Join, in the place of Cluster, has it join one that is there, or go on as a node
	// that has. ClusterID need not be given with it.
	Join *Join

	// Listener takes the clients' connections; Advertise is the host:port that
	// they are told, by default the listener's own. MoreListeners are others,
	// whose names are unique and not broker.ClientListener, which is this one's.
	Listener      net.Listener
	Advertise     string
	MoreListeners []Listener

	Rack string // where the node stands, for clients; "": nobody says

	Shards           uint32 // data shards of a fresh directory, or of the cluster that is founded; default 4
	JournalBytes     int64  // default 1 GiB
	JournalFileBytes int64  // default 64 MiB
	MemoryBytes      int64  // of tails, requests and answers together; default 1 GiB
	FlushAge         time.Duration
	IdleFiles        int // of segments, kept open unused; default the store's

	// Admin takes the connections of metrics and health; nil: there is no such
	// listener. The node closes it. Profiles allows Go profiles there, CommitMax
	// is how long a commit of the journal may take before the node is not ready,
	// by default 10 s.
	Admin     net.Listener
	Profiles  bool
	CommitMax time.Duration

	Limits  Limits
	Clients ClientLimits

	// NoAutoCreateTopics keeps the topics that Kafka clients ask for, and that do
	// not exist, from being created.
	NoAutoCreateTopics bool

	// KafkaGroups and NativeGroups return what looks after the consumer groups of clients
	// of one protocol, for tests; default: the broker.
	KafkaGroups  func(*broker.Broker) kafka.Groups
	NativeGroups func(*broker.Broker) server.Groups

	// Resolve looks up an advertised host, to warn of one that means nothing;
	// default: by the machine's resolver.
	Resolve func(ctx context.Context, host string) error

	ProducerExpiry time.Duration // of idempotent producers that send nothing; default 24 h
	HashInterval   time.Duration // between state hashes of a shard; default 10 min
	SessionTimeout time.Duration // out of contact, before a node is fenced; default 9 s

	// ReplicaLag is how long ago a replica may have had all records and count as in
	// sync; default 30 s.
	ReplicaLag time.Duration

	// RackAware has consumers that say their rack read from an in-sync replica there.
	RackAware bool

	// BalanceInterval is how often to look for leaderships that another node is to
	// have; 0: they stay where they are.
	BalanceInterval time.Duration

	// CatchUpRate bounds what the node's replicas that are behind pull together, in bytes
	// a second; default 64 MiB.
	CatchUpRate int64

	// ScrubRate is how many bytes a second of the segments are read to look for
	// damage, 0: none, and ScrubInterval how often all of them are; default 7 days.
	ScrubRate     int64
	ScrubInterval time.Duration
	// RetentionInterval is how long data may stay after its retention.ms; default
	// 5 min.
	RetentionInterval time.Duration

	// DefaultPartitions and DefaultReplication are what a topic gets if nobody
	// says; defaults: 1, and three replicas, or as many as there are nodes. Settings are
	// what Kafka clients are told of the node's.
	DefaultPartitions  int32
	DefaultReplication int32
	Settings           []config.KafkaSetting

	// OffsetsPartitions and OffsetsReplication are how __consumer_offsets is created;
	// defaults: 50, and three replicas, or as many as there are nodes.
	OffsetsPartitions  int32
	OffsetsReplication int32

	// Groups are the settings of consumer groups; default: DefaultGroups.
	Groups Groups

	// LagInterval is how often the lags of groups are looked for; negative: never;
	// default 10 s.
	LagInterval time.Duration

	// DiskReserveBytes has to be free on the disk for records to be taken.
	// Default: what the node may still have to write when it takes no more,
	// half of MemoryBytes and a journal file, but at most a twentieth of the
	// disk.
	DiskReserveBytes int64

	// Now and Rand are the node's only clock of its own and its only chance. Rand is
	// safe for concurrent use, and for clients not to be guessed: the ids of fetch
	// sessions are of it.
	Now  func() time.Time
	Rand io.Reader
	Log  *slog.Logger

	// RefuseDamage has a node of several refuse to start when its data is damaged, as
	// one does that is alone, instead of having the others replace it: see Heals.
	RefuseDamage bool

	// For tests; see broker.Options. featureLevel makes the node one of an older
	// version, to which a newer level is unknown.
	replicaVersions func(replication.ShardID) []uint16
	featureLevel    uint16
}

// Listener is a further listener for clients.
type Listener struct {
	net.Listener
	Name      string
	Advertise string // host:port that its clients are told; default: its own
}

// Limits are what an operator bounds beside connections; see broker.Limits.
type Limits = broker.Limits

// Groups are the settings of consumer groups, but for NewID.
type Groups = consumergroup.Options

// MigrationPolicy is Groups.Migration: group.consumer.migration.policy.
type MigrationPolicy = consumergroup.MigrationPolicy

// DefaultGroups returns the defaults of Groups.
func DefaultGroups() Groups { return consumergroup.DefaultOptions() }

// ClientLimits are what an operator bounds of connections; see server.Options.
type ClientLimits struct {
	Connections      int
	ConnectionsPerIP int
	InFlight         int
	InFlightBytes    int64
	RequestBytes     int
	IdleTimeout      time.Duration

	// FetchSessions are those of Kafka clients; default 1000, negative: none.
	FetchSessions int
}

// minMemoryBytes is what a node needs to take the default's largest batches.
const minMemoryBytes = 4 << 20

// Node is a running node.
type Node struct {
	opt    Options
	idTurn chan struct{} // 1-buffered: held while id is changed
	id     identity

	clusterID string // of id, and never changes
	lock      io.Closer
	spare     *spare
	votes     *control.Votes
	meta      *control.Log
	jour      *journal.Journal
	store     *store.Store
	broker    *broker.Broker
	server    *server.Server
	kafka     *kafka.Server
	admin     *admin.Server

	requests, small, answers *broker.Budget

	healing  atomic.Pointer[wait]          // who waits with damaged data; nil: nobody
	setAside atomic.Int64                  // sets of damaged data in the directory
	joining  *joining                      // nil: it does not
	founding atomic.Pointer[founding]      // who answers other nodes before that; nil: nobody yet
	serves   atomic.Pointer[broker.Broker] // who answers calls of other nodes
	started  atomic.Bool                   // what admin may look at is set
	stopping atomic.Bool
	cause    atomic.Pointer[error] // of broken

	serving   sync.WaitGroup
	failed    chan error // 1-buffered: the first error that the node must stop for
	broken    atomic.Bool
	closing   sync.Once
	closeErr  error
	recovered time.Duration
}

// Start starts a node. When it returns, what the directory holds is recovered,
// clients are served and, if the node is alone, it leads its shards. A directory that is in
// use, another node's, or of a newer format is an error, and nothing in it is
// touched. One of a cluster that is not founded yet waits until it is: see
// Cluster. It gives up when ctx ends.
func Start(ctx context.Context, opt Options) (*Node, error) {
	if opt.Shards == 0 {
		opt.Shards = 4
	}
	if opt.MemoryBytes == 0 {
		opt.MemoryBytes = 1 << 30
	}
	if opt.CommitMax == 0 {
		opt.CommitMax = 10 * time.Second
	}
	if opt.MemoryBytes < minMemoryBytes {
		return nil, fmt.Errorf("node: memory of %d bytes; give at least %d", opt.MemoryBytes, minMemoryBytes)
	}
	if opt.Advertise == "" {
		opt.Advertise = opt.Listener.Addr().String()
	}
	for i := range opt.MoreListeners {
		if l := &opt.MoreListeners[i]; l.Advertise == "" {
			l.Advertise = l.Addr().String()
		}
	}
	n := &Node{opt: opt, idTurn: make(chan struct{}, 1), failed: make(chan error, 1)}
	if opt.Join != nil {
		n.joining = newJoining(n)
	}
	n.startAdmin()
	start := opt.Now()
	n.phase("recovery", true)
	err := n.meetOthers(ctx)
	if err == nil {
		err = n.open(ctx)
	}
	if err != nil {
		_ = n.stop(context.Background())
		return nil, err
	}
	n.phase("recovery", false)
	n.recovered = opt.Now().Sub(start)
	n.requests, n.small = broker.NewBudget(opt.MemoryBytes/4), broker.NewBudget(opt.MemoryBytes/16)
	n.answers = broker.NewBudget(opt.MemoryBytes * 3 / 16)
	kafkaGroups, nativeGroups := kafka.Groups(n.broker), server.Groups(n.broker)
	if opt.KafkaGroups != nil {
		kafkaGroups = opt.KafkaGroups(n.broker)
	}
	if opt.NativeGroups != nil {
		nativeGroups = opt.NativeGroups(n.broker)
	}
	n.kafka = kafka.New(kafka.Options{
		Broker: n.broker, Groups: kafkaGroups, Log: opt.Log, Version: opt.Version, Requests: n.requests, SmallRequests: n.small, Answers: n.answers,
		MaxInFlight: opt.Clients.InFlight, MaxInFlightBytes: opt.Clients.InFlightBytes,
		MaxRequestBytes: opt.Clients.RequestBytes, IdleTimeout: opt.Clients.IdleTimeout,
		MaxSessions: opt.Clients.FetchSessions, Now: opt.Now, Rand: opt.Rand,
		AutoCreateTopics: !opt.NoAutoCreateTopics, Resolve: opt.Resolve,
	})
	n.broker.ServePassedOn(n.kafka.AnswerPassedOn)
	n.server = server.New(server.Options{
		Kafka: n.kafka, Groups: nativeGroups,
		Broker: n.broker, Log: opt.Log, Version: opt.Version, Requests: n.requests, SmallRequests: n.small, Answers: n.answers,
		MaxConnections: opt.Clients.Connections, MaxConnectionsIP: opt.Clients.ConnectionsPerIP,
		MaxInFlight: opt.Clients.InFlight, MaxInFlightBytes: opt.Clients.InFlightBytes,
		MaxFrameBytes: opt.Clients.RequestBytes, IdleTimeout: opt.Clients.IdleTimeout,
	})
	n.started.Store(true)
	for i, via := range n.listeners() {
		l := opt.Listener
		if i > 0 {
			l = opt.MoreListeners[i-1]
		}
		n.serving.Go(func() {
			if err := n.server.Serve(l, via); err != nil {
				n.fail(fmt.Errorf("node: listener %s: %w", via.Name, err))
			}
		})
	}
	return n, nil
}

// meetOthers has the other nodes, if there are any, reach this one.
func (n *Node) meetOthers(ctx context.Context) error {
	if n.joining != nil {
		if err := n.joining.begin(ctx); err != nil {
			return err
		}
	}
	if n.opt.Cluster != nil {
		n.opt.Cluster.Peers.Serve(n.answer)
	}
	return nil
}

// listeners returns what clients are told of the listeners, the first one's
// first.
func (n *Node) listeners() []broker.Listener {
	all := []broker.Listener{{Name: broker.ClientListener, Advertise: n.opt.Advertise}}
	for _, l := range n.opt.MoreListeners {
		all = append(all, broker.Listener{Name: l.Name, Advertise: l.Advertise})
	}
	return all
}

// Streams returns what the streams of native clients cost now.
func (n *Node) Streams() server.StreamStats { return n.server.Streams() }

// open opens the directory, once it has a sound one: see heal. One whose fresh
// directory is damaged too is given up on.
func (n *Node) open(ctx context.Context) error {
	err := n.openAll(ctx)
	for range 2 { // what an earlier start began, and one damage more
		if err == nil || ctx.Err() != nil || !errors.Is(err, ErrSettingAside) && !n.opt.Heals(err) {
			return err
		}
		if err := n.reset(); err != nil {
			return err
		}
		if err := n.heal(ctx, err); err != nil {
			return err
		}
		err = n.openAll(ctx)
	}
	return err
}

// reset closes what a failed openAll has left open, and forgets that it failed.
func (n *Node) reset() error {
	if f := n.founding.Swap(nil); f != nil {
		f.end()
	}
	err := n.closeAll()
	n.broker, n.store, n.jour, n.meta, n.votes, n.lock = nil, nil, nil, nil, nil, nil
	select {
	case <-n.failed:
	default:
	}
	n.broken.Store(false)
	n.cause.Store(nil)
	return err
}

// openAll opens the directory, and everything in it from the bottom up.
func (n *Node) openAll(ctx context.Context) (err error) {
	opt := &n.opt
	want := identity{ClusterID: opt.ClusterID, NodeID: opt.NodeID, Shards: opt.Shards, FeatureLevel: opt.featureLevel, Joins: opt.Join != nil}
	if n.id, _, n.lock, err = openDir(opt.FS, opt.Dir, want, opt.Rand); err != nil {
		return err
	}
	switch {
	case n.joining != nil:
		err = n.joining.finish(ctx)
	case opt.Cluster != nil:
		err = n.found(ctx)
	default:
		err = n.id.checkMembers(nil, opt.Dir)
	}
	if err != nil {
		return err
	}
	n.clusterID = n.id.ClusterID
	var members *broker.Cluster
	if opt.Cluster != nil {
		members = n.members()
	}
	if opt.DiskReserveBytes == 0 {
		if opt.DiskReserveBytes, err = defaultReserve(opt); err != nil {
			return err
		}
	}
	if err := n.pruneAside(); err != nil {
		return err
	}
	dir := func(name string) string { return path.Join(opt.Dir, name) }
	n.spare = openSpare(opt.FS, opt.Dir, opt.Log)
	controls := control.Options{MakeRoom: n.spare.release}
	if n.votes, err = control.OpenVotes(opt.FS, dir(votesDir), controls); err != nil {
		return err
	}
	if n.meta, err = control.OpenLog(opt.FS, dir(metadataDir), controls); err != nil {
		return err
	}
	n.jour, err = journal.Open(opt.FS, dir(journalDir), journal.Options{
		FileBytes: opt.JournalFileBytes, MaxBytes: opt.JournalBytes, KeepFreeBytes: opt.DiskReserveBytes,
		Uncounted: n.id.Generation == 0, // a directory from before there were counts
		Rand:      opt.Rand, Now: opt.Now, Logger: opt.Log, OnFailed: n.fail, OnEvent: n.journalEvent,
	})
	if err != nil {
		return err
	}
	n.store, err = store.Open(opt.FS, dir(dataDir), store.Options{
		MemoryBytes: opt.MemoryBytes/2 - 2*pullBytes(opt.MemoryBytes), TailMaxAge: opt.FlushAge, IdleFiles: opt.IdleFiles, KeepFreeBytes: keepFree(opt.DiskReserveBytes),
		Now: opt.Now, Logger: opt.Log, OnFailed: n.fail, OnEvent: n.storeEvent,
	})
	if err != nil {
		return err
	}
	n.broker, err = broker.Start(ctx, broker.Options{
		NodeID: n.id.NodeID, ClusterID: n.id.ClusterID, Version: opt.Version, Incarnation: uint64(n.id.Incarnation), Established: n.id.Started,
		Listeners: n.listeners(), Rack: opt.Rack, Shards: n.id.Shards, Cluster: members,
		FS: opt.FS, ShardsDir: dir(shardsDir),
		Journal: n.jour, Votes: n.votes, MetadataLog: n.meta, Store: n.store, Limits: opt.Limits,
		ReplicaVersions: opt.replicaVersions,
		ProducerExpiry:  opt.ProducerExpiry, HashInterval: opt.HashInterval, ReplicaLag: opt.ReplicaLag, RackAware: opt.RackAware, BalanceInterval: opt.BalanceInterval, SessionTimeout: opt.SessionTimeout,
		QuarantineDir: dir(quarantineDir), FeatureLevel: opt.featureLevel, RecordLevel: n.recordLevel,
		DiskDir: opt.Dir, DiskReserveBytes: opt.DiskReserveBytes, KeepFreeBytes: keepFree(opt.DiskReserveBytes), OnDisk: n.spare.look,
		Now: opt.Now, Rand: opt.Rand, Log: opt.Log, OnFailed: n.fail, OnPhase: n.phase,
		CatchUpRate: opt.CatchUpRate, PullBytes: pullBytes(opt.MemoryBytes),
		RetentionInterval: opt.RetentionInterval, ScrubRate: opt.ScrubRate, ScrubInterval: opt.ScrubInterval,
		DefaultPartitions: opt.DefaultPartitions, DefaultReplication: opt.DefaultReplication, Settings: opt.Settings,
		OffsetsPartitions: opt.OffsetsPartitions, OffsetsReplication: opt.OffsetsReplication, Groups: opt.Groups, LagInterval: opt.LagInterval,
	})
	if err != nil {
		return err
	}
	n.serves.Store(n.broker)
	n.idTurn <- struct{}{}
	defer func() { <-n.idTurn }()
	err = n.id.turn(opt.FS, opt.Dir)
	if n.id.Started && vfs.NoSpace(err) {
		// The directory stays of the generation that it is of, or on its way to the
		// next. No reason not to serve, and to take the deletions that make room.
		opt.Log.Warn("the disk is full; an older copy of a part of the data directory will not be told from this one until the next start", "err", err)
		return nil
	}
	return err
}

// answer answers a call of another node.
func (n *Node) answer(ctx context.Context, from int32, m transport.Method, payload []byte) ([]byte, error) {
	if f := n.founding.Load(); f != nil && m == broker.MethodStanding && !n.stopping.Load() {
		return f.answer(from, payload)
	}
	b := n.serves.Load()
	if b == nil || n.stopping.Load() {
		return nil, fmt.Errorf("node %d is starting or stopping", n.opt.NodeID)
	}
	return b.Answer(ctx, from, m, payload)
}

// recordLevel makes the directory say which feature level it may need.
func (n *Node) recordLevel(level uint16) error {
	raise := func(id *identity) { id.FeatureLevel = max(id.FeatureLevel, level) }
	err := n.changeIdentity(raise)
	if vfs.NoSpace(err) && n.spare.release() {
		err = n.changeIdentity(raise)
	}
	if err != nil && !vfs.NoSpace(err) && !vfs.NoFiles(err) {
		n.fail(err) // a write or a sync failed (R9)
	}
	return err
}

// changeIdentity makes the directory's identity durably what edit makes of it.
func (n *Node) changeIdentity(edit func(*identity)) error {
	n.idTurn <- struct{}{}
	defer func() { <-n.idTurn }()
	return n.id.change(n.opt.FS, n.opt.Dir, edit)
}

// fail notes the first error that the node must stop for (R9).
func (n *Node) fail(err error) {
	n.broken.Store(true)
	n.cause.CompareAndSwap(nil, &err)
	select {
	case n.failed <- err:
	default:
	}
}

// RequestBytes returns the memory that large requests hold now.
func (n *Node) RequestBytes() int64 { return n.requests.Used() }

// Failed gives the error for which the node must stop: some write or sync
// failed, or its state is damaged. The receiver closes the node.
func (n *Node) Failed() <-chan error { return n.failed }

// ClusterID returns the cluster's id.
func (n *Node) ClusterID() string { return n.clusterID }

// Advertised returns the address that clients of the first listener are told.
func (n *Node) Advertised() string { return n.opt.Advertise }

// Leads returns the shards that the node leads at the moment, 0 being the
// metadata shard.
func (n *Node) Leads() []replication.ShardID { return n.broker.Leads() }

// Stats returns the numbers of this moment.
func (n *Node) Stats() broker.Stats { return n.broker.Stats() }

// Recovered returns how long the start took.
func (n *Node) Recovered() time.Duration { return n.recovered }

// Close stops the node: it accepts and reads no more, answers what is under way
// until ctx ends, takes a checkpoint so that the next start is quick, and closes
// everything. All goroutines have ended when it returns. Nothing acknowledged is
// lost however it ends.
func (n *Node) Close(ctx context.Context) error {
	n.closing.Do(func() { n.closeErr = n.stop(ctx) })
	return n.closeErr
}

// stop closes what is open, from the top down.
func (n *Node) stop(ctx context.Context) error {
	n.stopping.Store(true)
	defer n.stopAdmin(ctx)
	if f := n.founding.Load(); f != nil {
		f.end()
	}
	var errs []error
	if n.server != nil {
		n.server.Close(ctx) // and its goroutine: see stopAdmin
		n.kafka.Close()
	}
	if n.broker != nil {
		if n.server != nil && ctx.Err() == nil && !n.broken.Load() {
			n.broker.HandOver(ctx)
			n.broker.Checkpoint()
		}
		errs = append(errs, n.broker.Close())
	}
	errs = append(errs, n.closeAll())
	if n.joining != nil {
		errs = append(errs, n.joining.end())
	}
	return errors.Join(errs...)
}

// closeAll closes what is below the broker, from the top down.
func (n *Node) closeAll() error {
	var errs []error
	if n.store != nil {
		errs = append(errs, n.store.Close())
	}
	if n.jour != nil {
		errs = append(errs, n.jour.Close())
	}
	if n.meta != nil {
		errs = append(errs, n.meta.Close())
	}
	if n.votes != nil {
		errs = append(errs, n.votes.Close())
	}
	if n.lock != nil {
		errs = append(errs, n.lock.Close())
	}
	return errors.Join(errs...)
}
