// Package broker is one node's service, below its listeners: produce, fetch and
// topics, on top of the metadata shard and the data shards that the node
// carries. Listeners translate requests and answers; what they mean is decided
// here, the same for every protocol.
//
// A topic exists once the metadata shard has applied its creation. Its
// partitions then follow as commands in the data shards' own logs (R2): the
// reconciler of each shard's leader compares the two and proposes what is
// missing, so that a crash between the two is made good at the next start.
package broker

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/flotilla-log/flotilla/broker/metadata"
	"github.com/flotilla-log/flotilla/consumergroup"
	"github.com/flotilla-log/flotilla/internal/config"
	"github.com/flotilla-log/flotilla/internal/histogram"
	"github.com/flotilla-log/flotilla/internal/vfs"
	"github.com/flotilla-log/flotilla/log/control"
	"github.com/flotilla-log/flotilla/log/journal"
	"github.com/flotilla-log/flotilla/partition"
	"github.com/flotilla-log/flotilla/partition/store"
	"github.com/flotilla-log/flotilla/replication"
)

// Options configures a Broker. What it is given is open, and stays open until
// Close has returned.
type Options struct {
	NodeID      int32
	ClusterID   string
	Version     string     // of the software, for those who ask
	Incarnation uint64     // of the node's data directory
	Listeners   []Listener // for clients; ClientListener is one of them
	Rack        string     // where the node stands; "": nobody says
	Shards      uint32     // data shards of the cluster: 1 to Shards

	// Established says that the node has served before: every replica has to be
	// on record. Otherwise those that are not are made.
	Established bool

	// Cluster is the other nodes too; nil: this one is alone.
	Cluster *Cluster

	FS          vfs.FS
	ShardsDir   string // holds a directory of checkpoints for each shard
	Journal     *journal.Journal
	Votes       *control.Votes
	MetadataLog *control.Log
	Store       *store.Store

	// DefaultPartitions and DefaultReplication are what a topic gets if nobody
	// says (num.partitions, default.replication.factor); defaults: 1, and three
	// replicas, or as many as there are nodes.
	DefaultPartitions  int32
	DefaultReplication int32

	// Groups are the settings of consumer groups, but for NewID; default:
	// consumergroup.DefaultOptions.
	Groups consumergroup.Options

	// LagInterval is how often the lags of groups are looked for, at most; negative:
	// never; default 10 s.
	LagInterval time.Duration

	// OffsetsPartitions and OffsetsReplication are how many partitions and replicas
	// __consumer_offsets is created with (offsets.topic.num.partitions,
	// offsets.topic.replication.factor); defaults: 50, and 3, or as many as there are
	// nodes.
	OffsetsPartitions  int32
	OffsetsReplication int32

	// Settings are the node's, for those who ask for them.
	Settings []config.KafkaSetting

	// RetentionInterval is how long data may stay after its time is over;
	// default 5 min.
	RetentionInterval time.Duration
	Limits            Limits

	Now  func() time.Time
	Rand io.Reader
	Log  *slog.Logger
	// ProducerExpiry is how long an idempotent producer is remembered that
	// appends nothing (producer.id.expiration.ms); default 24 h.
	ProducerExpiry time.Duration

	// ReplicaLag is how long ago a replica may have had all of its shard's log last
	// and count as in sync (replica.lag.time.max); default 30 s.
	ReplicaLag time.Duration

	// RackAware has consumers that say their rack read from an in-sync replica there
	// (KIP-392); else everybody reads from leaders.
	RackAware bool

	// HashInterval is how often the leader of a data shard that was written to
	// asks its replicas for their state hashes (hash.interval); default 10 min.
	HashInterval time.Duration

	// BalanceInterval is how often to look for leaderships that another node is to
	// have (leader.balance.interval); 0: they stay where they are.
	BalanceInterval time.Duration

	// SessionTimeout is how long a node may be out of contact before it is fenced
	// (broker.session.timeout); default 9 s.
	SessionTimeout time.Duration

	// CatchUpRate bounds what the replicas of this node that are behind their leaders'
	// logs, and repairs, pull together while all are in their first rounds, in bytes a
	// second (catch.up.bytes.per.second); default 64 MiB. PullBytes bounds the memory for
	// what was pulled, and as much again for what others pull; default 16 MiB.
	CatchUpRate int64
	PullBytes   int64

	// ScrubRate is how many bytes a second are read of the segments to look for
	// damage (scrub.bytes.per.second); 0: nothing is looked for. ScrubInterval is
	// how often all of them are (scrub.interval); default 7 days.
	ScrubRate     int64
	ScrubInterval time.Duration

	// QuarantineDir keeps what is needed to repeat a panic (R5). It is made when
	// there is something to keep.
	QuarantineDir string

	// FeatureLevel is the newest that this node says it knows; default, and at
	// most, metadata.MaxFeatureLevel. Less makes it an older version, as far as
	// the others can tell.
	FeatureLevel uint16

	// RecordLevel is told the cluster's feature level before anything that only
	// this level allows is written, and records it durably, so that a version
	// that does not know the level refuses the directory. Default: nothing.
	RecordLevel func(level uint16) error

	// OnStateHash is told each state hash that a replica of this node has made
	// (R4), from a goroutine of the broker's. Default: nothing.
	OnStateHash func(replication.HashReport)

	// DiskDir is the data directory, and DiskReserveBytes what has to be free on
	// its disk for records to be taken; 0: nothing. KeepFreeBytes of it are left
	// by checkpoints too.
	DiskDir          string
	DiskReserveBytes int64
	KeepFreeBytes    int64
	OnDisk           func(DiskState) // told after each look at the disk; nil: nobody

	OnFailed func(error)                    // told of what this node must stop for, once or more
	OnPhase  func(name string, begins bool) // told of checkpoints and deletions

	// ReplicaVersions returns the newest apply version that each replica of a data
	// shard knows, and 0 for one that has not said (R4). Default: this node's own,
	// as the only replica.
	ReplicaVersions func(shard replication.ShardID) []uint16

	// For tests. poison is called before an effect is followed, and may panic;
	// wrap puts another version's machine in the place of a data shard's; reads is
	// told of each partition that is looked at for a consumer.
	poison func(*partition.Effect)
	reads  func(*FetchPart)
	wrap   func(replication.FSM[partition.Result]) replication.FSM[partition.Result]
}

func (o Options) withDefaults() Options {
	o.Limits = o.Limits.withDefaults()
	if o.ProducerExpiry == 0 {
		o.ProducerExpiry = defaultProducerExpiry
	}
	if o.Groups.MaxGroups == 0 {
		o.Groups = consumergroup.DefaultOptions()
	}
	if o.LagInterval == 0 {
		o.LagInterval = defaultLagInterval
	}
	if o.OffsetsPartitions == 0 {
		o.OffsetsPartitions = defaultOffsetsPartitions
	}
	if o.OffsetsReplication == 0 {
		o.OffsetsReplication = defaultOffsetsReplication
	}
	if o.ReplicaLag == 0 {
		o.ReplicaLag = defaultReplicaLag
	}
	if o.HashInterval == 0 {
		o.HashInterval = defaultHashInterval
	}
	if o.FeatureLevel == 0 {
		o.FeatureLevel = metadata.MaxFeatureLevel
	}
	if o.SessionTimeout == 0 {
		o.SessionTimeout = defaultSessionTimeout
	}
	if o.CatchUpRate == 0 {
		o.CatchUpRate = defaultCatchUpRate
	}
	if o.PullBytes == 0 {
		o.PullBytes = defaultPullBytes
	}
	if o.ScrubInterval == 0 {
		o.ScrubInterval = defaultScrubInterval
	}
	if o.RecordLevel == nil {
		o.RecordLevel = func(uint16) error { return nil }
	}
	if o.OnStateHash == nil {
		o.OnStateHash = func(replication.HashReport) {}
	}
	if o.wrap == nil {
		o.wrap = func(m replication.FSM[partition.Result]) replication.FSM[partition.Result] { return m }
	}
	if o.reads == nil {
		o.reads = func(*FetchPart) {}
	}
	if o.ReplicaVersions == nil {
		o.ReplicaVersions = ownVersion
	}
	return o
}

// Broker serves one node. All methods are safe for concurrent use.
type Broker struct {
	opt        Options
	dir        *directory
	meta       *replication.Replica[metadata.Result]
	metaState  *metaMachine
	shards     atomic.Pointer[map[replication.ShardID]*dataShard] // see carried
	carrying   sync.WaitGroup                                     // of runCarrying
	contacts   *contacts
	reconciler *reconciler
	retention  *retention
	failover   *failover
	watchdog   *watchdog
	balance    *balance
	relief     *relief

	coordinators *coordinators
	lags         *lags
	leaving      atomic.Bool   // HandOver was called
	freed        chan struct{} // 1-buffered: a checkpoint would free disk space
	producers    producerIDs

	hashes       *hashes
	quarantines  *quarantines
	repairs      *repairs
	given        givenState
	scrubber     *scrubber
	recorded     atomic.Uint32 // the feature level that RecordLevel has recorded
	altering     chan struct{} // 1-buffered: held while a topic's configs change
	adding       chan struct{} // 1-buffered: held while shards are added
	lookups      chan struct{} // holds a token for each look-up by time
	vacancyWaits chan struct{} // holds a token for each AwaitLeaders that waits
	handovers    handovers
	alive        *signs
	inspecting   chan struct{} // holds a token for each Inspect
	began        time.Time     // when Start was called
	forwards     chan struct{} // holds a token for each request of another node
	requests     chan struct{} // and for each of another node's client
	passing      *Budget       // of requests that are passed on
	passedOn     atomic.Pointer[PassedOn]
	absences     absences      // of data directories that others would replace
	replacements atomic.Uint64 // replicas that were replaced, as this node led their shards
	pulls        *pulls
	disk         *diskWatch
	creating     atomic.Int64 // partitions of topics that are being proposed
	grown        *Budget      // of what recompression has made
	unfolding    unfolding    // of memory to decompress in
	checkpoints  struct{ data, metadata checkpointCounters }
	removed      struct{ byRetention, byRequest atomic.Uint64 } // records

	stopping context.Context
	stop     context.CancelFunc
	group    sync.WaitGroup
}

// Start starts the node's replicas. Alone, it returns when they lead and serve:
// what the journal holds is applied by then. In a cluster it returns at once:
// who leads is for the voters to say. It gives up when ctx ends.
func Start(ctx context.Context, opt Options) (*Broker, error) {
	opt = opt.withDefaults()
	b := &Broker{opt: opt, began: opt.Now(), dir: newDirectory(opt.Limits.MetricTopics)}
	b.shards.Store(&map[replication.ShardID]*dataShard{})
	b.contacts = newContacts(b)
	b.checkpoints.data.times, b.checkpoints.metadata.times = histogram.New(histogram.Long), histogram.New(histogram.Long)
	b.producers.turn = make(chan struct{}, 1)
	b.grown, b.unfolding = NewBudget(maxGrownBytes), newUnfolding()
	b.altering, b.adding, b.lookups = make(chan struct{}, 1), make(chan struct{}, 1), make(chan struct{}, maxLookups)
	b.inspecting, b.forwards = make(chan struct{}, maxInspections), make(chan struct{}, maxForwarded)
	b.requests, b.passing = make(chan struct{}, maxPassedOn), NewBudget(passingBytes)
	b.vacancyWaits = make(chan struct{}, maxVacancyWaits)
	b.handovers.of = make(map[replication.ShardID]*handover)
	b.alive = newSigns(b.askAlive, b.group.Go)
	b.pulls = newPulls(&b.opt)
	b.stopping, b.stop = context.WithCancel(context.Background())
	b.freed = make(chan struct{}, 1)
	b.reconciler = newReconciler(b)
	b.hashes = newHashes(b.reportHash)
	b.quarantines = newQuarantines(opt.FS, opt.QuarantineDir, opt.OnFailed)
	b.repairs, b.scrubber = newRepairs(b), &scrubber{b: b}
	b.retention = newRetention(b, opt.RetentionInterval)
	b.failover, b.watchdog = newFailover(b), newWatchdog(b)
	b.balance, b.relief = newBalance(b), newRelief(b)
	b.coordinators = newCoordinators(b)
	b.lags = &lags{b: b, interval: opt.LagInterval, most: max(opt.Limits.MetricGroups, 0)}
	b.disk = newDiskWatch(&b.opt)
	b.disk.look() // before anything can be asked for
	defer context.AfterFunc(ctx, b.stop)()
	self, err := b.self()
	if err == nil {
		err = b.startAll()
	}
	if err != nil {
		err = errors.Join(err, b.why())
		_ = b.Close()
		return nil, err
	}
	b.group.Go(b.runCheckpoints)
	b.group.Go(func() { b.disk.run(b.stopping) })
	b.group.Go(func() { b.hashes.run(b.stopping.Done()) })
	b.group.Go(func() { b.quarantines.run(b.stopping.Done()) })
	b.group.Go(b.repairs.run)
	if opt.ScrubRate > 0 {
		b.group.Go(b.scrubber.run)
	}
	if opt.Cluster != nil {
		b.reconciler.kick()
		b.group.Go(func() { b.register(self) })
		b.group.Go(b.failover.run)
		b.group.Go(b.watchdog.run)
		b.group.Go(b.relief.run)
		if opt.BalanceInterval > 0 {
			b.group.Go(b.balance.run)
		}
		b.group.Go(b.watchReplaced)
		b.group.Go(b.runReplacing)
		b.group.Go(b.contacts.run)
		b.group.Go(b.runMeeting)
		if opt.Cluster.Peers != nil {
			b.group.Go(b.runFencing)
		}
		b.carrying.Go(b.runCarrying)
	} else {
		late, cancel := context.WithTimeout(b.stopping, settleTimeout)
		err = b.reconciler.settle(b.stopping, late.Done())
		cancel()
	}
	if b.stopping.Err() != nil || errors.Is(err, replication.ErrStopped) {
		return nil, errors.Join(errStartStopped, err, b.why(), b.Close())
	}
	if err != nil {
		// A topic that cannot be completed is no reason not to serve the others.
		opt.Log.Warn("partitions could not be made what the metadata says; trying again", "err", err)
		b.reconciler.kick()
	}
	b.group.Go(newUpkeep(b, opt.Now()).run)
	b.retention.changed() // look at every topic once
	b.group.Go(b.retention.run)
	b.group.Go(b.coordinators.run)
	b.group.Go(b.lags.run)
	b.group.Go(b.reconciler.run) // one pass at a time: what one of two removed, the other would miss
	return b, nil
}

// settleTimeout is how long a start waits for partitions that the metadata knows
// and that are not there yet: on a full disk they wait for room.
const settleTimeout = 5 * time.Second

func (b *Broker) startAll() error {
	// All are opened before the first one runs: what is refused is refused
	// before anything has changed.
	if err := b.openMetadata(); err != nil {
		return err
	}
	added, err := b.kept()
	if err != nil {
		return err
	}
	var shards []replication.ShardID
	if b.founder(b.opt.NodeID) {
		for id := range b.opt.Shards {
			shards = append(shards, replication.ShardID(id+1))
		}
	}
	for _, id := range append(shards, added...) {
		s, err := b.openData(id)
		if err != nil {
			return err
		}
		b.enter(s)
	}
	// What had been compacted is back after a crash. All let go of it before the
	// first one writes: on a full disk it would leave no room.
	for _, s := range b.carried() {
		s.replica.Compact()
	}
	if err := b.meta.Run(); err != nil {
		return err
	}
	for _, s := range b.carriedInOrder() {
		if err := s.replica.Run(); err != nil {
			return err
		}
	}
	if b.opt.Cluster != nil {
		return nil
	}
	if b.meta.WaitLeading(b.stopping.Done()) == 0 {
		return errStartStopped
	}
	for _, s := range b.carried() {
		if s.replica.WaitLeading(b.stopping.Done()) == 0 {
			return errStartStopped
		}
	}
	return b.bootstrap(b.stopping)
}

// why returns what stopped replicas, if some were stopped by an error.
func (b *Broker) why() error {
	var errs []error
	if b.meta != nil {
		errs = append(errs, b.meta.Failed())
	}
	for _, s := range b.carried() {
		errs = append(errs, s.replica.Failed())
	}
	return errors.Join(errs...)
}

var errStartStopped = errors.New("broker: a replica stopped while it was starting")

// Interrupt answers everything that is under way, with an error if need be, and
// refuses what comes. Close follows.
func (b *Broker) Interrupt() {
	b.stop()
	for _, s := range b.carried() {
		s.replica.Interrupt()
	}
	b.meta.Interrupt()
}

// Close stops the replicas. What is under way is answered with an error that
// says so.
func (b *Broker) Close() error {
	b.stop()
	b.carrying.Wait() // from then on there are no more replicas than carried knows
	var errs []error
	for _, s := range b.carried() {
		errs = append(errs, s.replica.Close())
	}
	if b.meta != nil {
		errs = append(errs, b.meta.Close())
	}
	// Only now: a checkpoint of a replica that has failed ends with the replica.
	b.group.Wait()
	return errors.Join(errs...)
}

// NodeID returns this node's id.
func (b *Broker) NodeID() int32 { return b.opt.NodeID }

// ClusterID returns the cluster's id.
func (b *Broker) ClusterID() string { return b.opt.ClusterID }

// MaxBatchBytes returns the largest batch that any topic can take.
func (b *Broker) MaxBatchBytes() int {
	most := int(b.opt.Journal.MaxRecordBytes()) - partition.EntryOverheadBytes - commandOverheadBytes
	if limit := b.opt.Limits.BatchBytes; limit > 0 {
		most = min(most, limit)
	}
	if b.opt.Cluster != nil {
		most = min(most, maxPulledBatch) // or a replica that is behind could not get it
	}
	return most
}

// image returns the newest metadata that this node has applied.
func (b *Broker) image() *metadata.Image { return b.metaState.image.Load() }
