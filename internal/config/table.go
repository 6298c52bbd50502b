package config

import (
	"math"
	"time"
)

const (
	kib = int64(1) << 10
	mib = int64(1) << 20
	gib = int64(1) << 30
	tib = int64(1) << 40

	second = int64(time.Second)
	minute = int64(time.Minute)
	hour   = int64(time.Hour)

	// filesApart is how many of files.max are for what has no limit of its own:
	// journal, control logs, listeners.
	filesApart = 128

	fallbackMemory = gib
	fallbackFiles  = 1024
)

// The sections of the table.
const (
	sectionNode     = "Node and listeners"
	sectionStorage  = "Storage and memory"
	sectionLimits   = "Limits"
	sectionOperate  = "Operation"
	refusedConn     = "flotilla_connections_refused_total"
	throttlingError = "THROTTLING_QUOTA_EXCEEDED"
)

// The choices of replica.selector.class.
const (
	LeaderSelector    = "org.apache.kafka.common.replica.LeaderSelector"
	RackAwareSelector = "org.apache.kafka.common.replica.RackAwareReplicaSelector"
)

// Settings is the table of all settings.
var Settings = []Setting{
	{
		Key: "data.dir", Section: sectionNode, Kind: Text, Default: "flotilla-data",
		Doc:     "directory that holds everything",
		Explain: "It is made if it does not exist. One that is in use, belongs to another node or cluster, or holds something else is refused.",
	},
	{
		Key: "node.id", Section: sectionNode, Kind: Int, Default: "1", Min: 0, Max: math.MaxInt32,
		Doc: "this node's id, part of the directory's identity",
	},
	{
		Key: "cluster.id", Section: sectionNode, Kind: Text,
		Doc:     "refuse a directory of another cluster; a fresh one gets this id, or a random one",
		Explain: "With cluster.nodes it has to be given, the same for each of the nodes.",
	},
	{
		Key: "cluster.nodes", Section: sectionNode, Kind: Text,
		Doc:     "the nodes of a cluster, this one among them: ID@HOST:PORT,ID@HOST:PORT,ID@HOST:PORT",
		Explain: "At most 5, each by its node.id and the address at which the others reach its node.listen. Without it the node is alone. Fresh directories found the cluster together: all listed nodes have to be up once, with the same list and the same cluster.id. From then on a majority serves. The ids stay what they were then; addresses may change at a restart. More nodes come by join.",
	},
	{
		Key: "join", Section: sectionNode, Kind: Text,
		Doc:     "join a cluster that is there, with a fresh directory: HOST:PORT[,HOST:PORT], the node.listen of some of its nodes",
		Explain: "In the place of cluster.nodes, with a node.id of its own. The node waits until one of them answers, takes the cluster's id from there, and is registered. From then on its directory knows the cluster and where its nodes are: join may stay or go.",
	},
	{
		Key: "node.advertise", Section: sectionNode, Kind: Text, DefaultText: "what cluster.nodes says of this node, or node.listen",
		Doc:     "HOST:PORT at which the other nodes reach this one",
		Explain: "It is registered, and the others follow when it has changed at a restart. It has to be given with join if node.listen is an address such as 0.0.0.0.",
	},
	{
		Key: "node.listen", Section: sectionNode, Kind: Text, Default: "127.0.0.1:9192",
		Doc:     "address for the other nodes of a cluster: HOST:PORT",
		Explain: "Without node.tls.cert whoever reaches it can take part in the cluster: an address beyond this machine prints a warning then.",
	},
	{
		Key: "node.tls.cert", Section: sectionNode, Kind: Text,
		Doc:     "file of the certificate that this node shows to the other nodes, in PEM",
		Explain: "With node.tls.key and node.tls.ca, which are given together or not at all. Nodes then talk by TLS only, and each side wants a certificate of the other's.",
	},
	{
		Key: "node.tls.key", Section: sectionNode, Kind: Text,
		Doc: "file of the private key of node.tls.cert, in PEM",
	},
	{
		Key: "node.tls.ca", Section: sectionNode, Kind: Text,
		Doc: "file of the authorities that the other nodes' certificates are of, in PEM",
	},
	{
		Key: "rack", Section: sectionNode, Kind: Text,
		Doc:     "where this node stands: clients are told, and may read from a node of their own",
		Explain: "Kafka's broker.rack.",
	},
	{
		Key: "shards.per.node", Section: sectionNode, Kind: Int, Default: "2", Min: 1, Max: 64,
		Doc:     "data shards of a fresh directory; of a fresh cluster, for each of its nodes",
		Explain: "A shard is one Raft group that carries many partitions. An existing directory keeps its own number, and a cluster that of the node that founded it. Each replication factor below the number of nodes gets as many again, when the first topic asks for it; a node that has none of a factor's shards then, as it was away or joins later, gets to lead as many with a later topic of that factor.",
	},
	{
		Key: "listen", Section: sectionNode, Kind: Text, Default: "127.0.0.1:9092",
		Doc:     "address for clients, or several: HOST:PORT,NAME=HOST:PORT",
		Explain: "Each further listener has a name, and an advertised address of its own: clients are told that of the listener that they came in by. There is no authentication yet: an address beyond this machine prints a warning.",
	},
	{
		Key: "advertise", Section: sectionNode, Kind: Text, DefaultText: "the address listened on",
		Doc:     "host:port that clients are told; default: the address listened on",
		Explain: "For several listeners HOST:PORT,NAME=HOST:PORT, by their names in listen. A node says in its log when clients can hardly mean what they are told: an address of no machine, a name that does not resolve.",
	},
	{
		Key: "auto.create.topics.enable", Section: sectionNode, Kind: Bool, Default: "true",
		Doc:     "create a topic that a Kafka client asks for and that does not exist",
		Explain: "As Kafka's setting of this name. Clients that produce ask for it, and consumers that allow.auto.create.topics. Native clients create topics explicitly.",
	},
	{
		Key: "admin.listen", Section: sectionNode, Kind: Text, Default: "127.0.0.1:9292",
		Doc:     `address for metrics and health, or "off"`,
		Explain: "HTTP: /metrics, /healthz, /readyz, and /debug/pprof/ while admin.pprof is on. It has no authentication: an address beyond this machine prints a warning.",
	},
	{
		Key: "admin.pprof", Section: sectionNode, Kind: Bool, Default: "false",
		Doc:     "serve Go profiles at /debug/pprof/ of the admin listener",
		Explain: "Profiles cost time and show what is in memory, so they are off. A running node opens them for ten minutes when it gets SIGUSR1.",
	},

	{
		Key: "journal.bytes", Section: sectionStorage, Kind: Size, Default: "1GiB", Min: 4 * 32 * kib, Max: 16 * tib,
		Doc:     "most that the commit journal takes on disk, at least four files",
		Explain: "The journal is a ring of files in which every record is durable first. A larger one lets the node take longer bursts before checkpoints have to catch up, and makes a restart after a crash read more. It takes more for entries that nobody knows to be committed yet, as after a restart of several nodes, if they and what they wait for do not fit; it keeps these files then, and puts nothing else there.",
		Metric:  "flotilla_journal_live_bytes against flotilla_journal_limit_bytes; flotilla_journal_waiting",
		Error:   "REQUEST_TIMED_OUT for a produce that found no room before its deadline; nothing was appended",
	},
	{
		Key: "journal.file.bytes", Section: sectionStorage, Kind: Size, Default: "64MiB", Min: 32 * kib, Max: 4 * gib, Multiple: 4 * kib,
		Doc:     "size of one journal file, when it is made; four times the largest record batch",
		Explain: "An existing journal keeps the size of its files. A record batch takes at most a quarter of a file.",
	},
	{
		Key: "memory.bytes", Section: sectionStorage, Kind: Size, Min: 4 * mib, Max: 16 * tib,
		DefaultText: "a quarter of the machine's (of its cgroup's limit, if that is less), from 64MiB to 2GiB",
		computed: func(m Machine, _ *Values) int64 {
			if m.MemoryBytes == 0 {
				return fallbackMemory
			}
			return min(max(m.MemoryBytes/4/mib*mib, 64*mib), 2*gib)
		},
		Doc:     "bound of records and requests in memory",
		Explain: "Half of it is for records that are in the journal and not yet in segment files, a quarter for requests on their way in, a quarter for answers, and what streams push, on their way out. At the bound senders wait, and TCP tells them.",
		Metric:  `flotilla_memory_used_bytes against flotilla_memory_limit_bytes, flotilla_memory_waiting`,
		Error:   "the sender waits; a produce that waits beyond its deadline gets REQUEST_TIMED_OUT, and nothing was appended",
	},
	{
		Key: "disk.reserve.bytes", Section: sectionStorage, Kind: Size, Default: "0", Min: 0, Max: 16 * tib,
		DefaultText: "0, which is half of memory.bytes and a journal file, at most 5% of the disk",
		Doc:         "free space on the data directory's disk below which records wait",
		Explain:     "Below it records and topics are not taken; reads and deletions go on, and may use it. It ends by itself, an eighth above.",
		Metric:      "flotilla_disk_free_bytes against flotilla_disk_reserve_bytes; flotilla_disk_refuses_writes, flotilla_disk_refused_total",
		Error:       "KAFKA_STORAGE_ERROR, retriable, when a produce's deadline is over",
	},
	{
		Key: "flush.age", Section: sectionStorage, Kind: Duration, Default: "10s", Min: int64(time.Millisecond), Max: 24 * hour,
		Doc: "a partition's records go to its segment file when they are so old; those of many partitions one after the other, so that requests are not held up; they are in the journal at once",
	},

	{
		Key: "files.max", Section: sectionLimits, Kind: Int, Min: 256, Max: math.MaxInt32,
		DefaultText: "what the process may open (its hard limit), at most 1048576",
		computed: func(m Machine, _ *Values) int64 {
			if m.OpenFiles == 0 {
				return fallbackFiles
			}
			return min(max(m.OpenFiles, 256), 1<<20)
		},
		Doc:     "open files that the node plans with",
		Explain: "The node raises its own soft limit to the hard one. A quarter of what connections.max leaves is for segment files kept open though nobody uses them; files that hold unsynced writes or are being read come on top.",
		Metric:  "process_open_fds against process_max_fds; flotilla_segment_files_open",
		Error:   "a start is refused if it does not fit the process's limit",
	},
	{
		Key: "connections.max", Section: sectionLimits, Kind: Int, Min: 1, Max: 1_000_000,
		DefaultText: "10000, or half of files.max if that is less",
		computed:    func(_ Machine, v *Values) int64 { return min(10_000, v.Int("files.max")/2) },
		Doc:         "client connections at a time",
		Metric:      "flotilla_connections against flotilla_connections_limit; " + refusedConn + `{reason="max"}`,
		Error:       throttlingError + " in an Error frame, and the connection is closed",
	},
	{
		Key: "connections.max.per.ip", Section: sectionLimits, Kind: Int, Min: 1, Max: 1_000_000,
		DefaultText: "connections.max",
		computed:    func(_ Machine, v *Values) int64 { return v.Int("connections.max") },
		Doc:         "client connections from one address at a time",
		Explain:     "IPv6 addresses count by their /64, which is what one customer is given.",
		Metric:      refusedConn + `{reason="max_per_ip"}`,
		Error:       throttlingError + " in an Error frame, and the connection is closed",
	},
	{
		Key: "connections.idle.timeout", Section: sectionLimits, Kind: Duration, Default: "10m", Min: second, Max: 24 * hour,
		Doc:    "a connection that is silent for so long is closed",
		Metric: "flotilla_connections_closed_total{reason=\"timeout\"}",
		Error:  "the connection is closed",
	},
	{
		Key: "inflight.requests.max", Section: sectionLimits, Kind: Int, Default: "64", Min: 1, Max: 4096,
		Doc:     "requests of one connection that are not answered yet",
		Explain: "The node tells clients in its Hello. What a client sends beyond it is read when an answer has gone out.",
		Metric:  "flotilla_requests_in_flight",
		Error:   "none: the connection is not read from meanwhile",
	},
	{
		Key: "inflight.bytes.max", Section: sectionLimits, Kind: Size, Min: 128 * kib, Max: 16 * tib,
		DefaultText: "a thirty-second of memory.bytes, at least 128KiB",
		computed:    func(_ Machine, v *Values) int64 { return max(v.Bytes("memory.bytes")/32/kib*kib, 128*kib) },
		Doc:         "memory of one connection's requests that are not answered yet",
		Explain:     "One request may be larger when it is alone. An answer that waits for its turn holds no memory.",
		Metric:      "flotilla_memory_used_bytes{for=\"requests\"} of all connections together",
		Error:       "none: the connection is not read from meanwhile",
	},
	{
		Key: "fetch.sessions.max", Section: sectionLimits, Kind: Int, Default: "1000", Min: 0, Max: 100_000,
		Doc:     "fetch sessions of Kafka clients",
		Explain: "Kafka's max.incremental.fetch.session.cache.slots. A consumer with a session sends and is answered only what changed. All sessions together hold at most a thousand partitions for each that there may be, and no more than a sixteenth of memory.bytes has room for, at 512 bytes each. 0: none.",
		Metric:  "flotilla_fetch_sessions against flotilla_fetch_sessions_limit, flotilla_fetch_sessions_evicted_total",
		Error:   "none: the consumer goes on without a session, and sends all of its partitions in each fetch",
	},
	{
		Key: "request.bytes.max", Section: sectionLimits, Kind: Size, Default: "100MiB", Min: 17 * mib, Max: 2 * gib,
		Doc:     "largest frame that a client may send",
		Explain: "It holds the largest batch and 64KiB. It is lowered to a quarter of what memory.bytes leaves for requests (a sixteenth of it), unless the largest batch needs more. The node tells clients in its Hello.",
		Metric:  `flotilla_connections_closed_total{reason="too_large"}`,
		Error:   "the connection is closed: what follows a frame that is not read cannot be found",
	},
	{
		Key: "batch.bytes.max", Section: sectionLimits, Kind: Size, Default: "16MiB", Min: kib, Max: gib,
		Doc:     "largest record batch that any topic may take",
		Explain: "A topic's max.message.bytes cannot be above it. A quarter of journal.file.bytes bounds it too. Lower it only if no larger batch is stored: it could be too large to be answered.",
		Metric:  `flotilla_errors_total{code="MESSAGE_TOO_LARGE"}`,
		Error:   "MESSAGE_TOO_LARGE for a batch, INVALID_CONFIG for a topic that asks for more",
	},
	{
		Key: "partitions.max", Section: sectionLimits, Kind: Int, Default: "1000000", Min: 1, Max: 1_000_000,
		Doc:     "partitions of all topics together",
		Explain: "Topics that are there stay when it is lowered.",
		Metric:  "flotilla_partitions against flotilla_partitions_limit",
		Error:   "POLICY_VIOLATION for the topic that goes beyond it",
	},
	{
		Key: "topics.partitions.max", Section: sectionLimits, Kind: Int, Default: "100000", Min: 1, Max: 100_000,
		Doc:    "partitions of one topic",
		Metric: `flotilla_errors_total{code="INVALID_PARTITIONS"}`,
		Error:  "INVALID_PARTITIONS",
	},
	{
		Key: "producers.max", Section: sectionLimits, Kind: Int, Default: "500000", Min: 1, Max: 10_000_000,
		Doc:     "idempotent producers that one shard remembers",
		Explain: "A producer counts once for each partition it writes to. It is part of each shard's replicated state: the leader proposes it when it starts. When a new producer comes at the limit, the one that has been silent longest is forgotten if that is an hour or more.",
		Metric:  "flotilla_producers against flotilla_producers_limit",
		Error:   throttlingError + ", retriable",
	},
	{
		Key: "producer.id.expiration", Section: sectionLimits, Kind: Duration, Default: "24h", Min: minute, Max: 365 * 24 * hour,
		Doc:     "how long an idempotent producer is remembered that appends nothing",
		Explain: "A producer that comes back later, with batches that it had sent before, appends them again. Kafka's producer.id.expiration.ms.",
		Metric:  "flotilla_producers",
		Error:   "none: a forgotten producer may go on from any sequence",
	},
	{
		Key: "replica.lag.time.max", Section: sectionLimits, Kind: Duration, Default: "30s", Min: second, Max: hour,
		Doc:     "how long ago a replica may have had all records last and count as in sync",
		Explain: "Topics with a min.insync.replicas above 1 take records while so many replicas are in sync, and clients are told which ones are. A replica on a fenced node is not. It says nothing of when a record is acknowledged: a majority of the replicas has it then. Kafka's replica.lag.time.max.ms.",
		Metric:  "flotilla_errors_total{code=\"NOT_ENOUGH_REPLICAS\"}",
		Error:   "NOT_ENOUGH_REPLICAS, retriable, for topics that want more replicas than are in sync",
	},
	{
		Key: "replica.selector.class", Section: sectionOperate, Kind: Choice, Default: LeaderSelector, Choices: []string{LeaderSelector, RackAwareSelector},
		Doc:     "which replica consumers read from: the leader, or one of their own rack",
		Explain: "Kafka's setting of this name, with its two classes. With the second, Kafka consumers that set client.rack to the rack of a node are sent to that node, if it has an in-sync replica. Set it on all nodes.",
	},
	{
		Key: "offsets.partition.groups.max", Section: sectionLimits, Kind: Int, Default: "50000", Min: 1, Max: 10_000_000,
		Doc:     "consumer groups of one partition of __consumer_offsets",
		Explain: "So many may have committed or been assigned something, and so many may have members. Delete those that are not used, or raise it.",
		Metric:  "flotilla_groups, of all partitions that the node coordinates",
		Error:   "GROUP_MAX_SIZE_REACHED for who joins a further one, POLICY_VIOLATION for who commits for it",
	},
	{
		Key: "offsets.partition.offsets.max", Section: sectionLimits, Kind: Int, Default: "1000000", Min: 1, Max: 100_000_000,
		Doc:     "committed offsets of one partition of __consumer_offsets",
		Explain: "Those that are there can be committed anew all the same. Delete groups that are not used, or raise it.",
		Metric:  "flotilla_group_offsets, of all partitions that the node coordinates",
		Error:   "POLICY_VIOLATION for those that are new",
	},
	{
		Key: "offsets.partition.member.bytes.max", Section: sectionLimits, Kind: Size, Default: "64MiB", Min: 8 * mib, Max: 64 * gib,
		Doc:     "memory for the members of the groups of one partition of __consumer_offsets",
		Explain: "What is held of them: ids, what they say of themselves, assignments. One group's take at most 8 MiB. Have members subscribe to fewer topics, start fewer consumers, or raise it.",
		Metric:  "flotilla_group_member_bytes, of all partitions that the node coordinates",
		Error:   "GROUP_MAX_SIZE_REACHED for who joins; UNKNOWN_SERVER_ERROR if it is by the assignments",
	},
	{
		Key: "metrics.topics.max", Section: sectionLimits, Kind: Int, Default: "100", Min: 0, Max: 10_000,
		Doc:     "topics that have metrics of their own",
		Explain: "Topics beyond it are counted together, under the name (other). Which topic has its own is decided when it comes, at a start in no particular order.",
		Metric:  "flotilla_topic_* with the label topic",
		Error:   "none",
	},
	{
		Key: "metrics.groups.max", Section: sectionLimits, Kind: Int, Default: "100", Min: 0, Max: 10_000,
		Doc:     "consumer groups whose lag is a metric of its own",
		Explain: "Those that are furthest behind, each time. Groups beyond it are counted together, under the name (other).",
		Metric:  "flotilla_group_lag* with the label group",
		Error:   "none",
	},

	{
		Key: "drain.timeout", Section: sectionOperate, Kind: Duration, Default: "10s", Min: 0, Max: hour,
		Doc: "how long requests under way may take when the node is stopped",
	},
	{
		Key: "broker.session.timeout", Section: sectionOperate, Kind: Duration, Default: "9s", Min: second, Max: hour,
		Doc:     "how long a node may be out of contact before it is fenced",
		Explain: "Kafka's broker.session.timeout.ms. Clients are not sent to a fenced node, its replicas are offline, and nothing new is placed on it; it is unfenced when it is heard again. Who leads its shards is decided by their voters, within a second or two. The setting of the node that leads the metadata holds.",
	},
	{
		Key: "hash.interval", Section: sectionOperate, Kind: Duration, Default: "10m", Min: second, Max: 365 * 24 * hour,
		Doc:     "how often the replicas of a shard that was written to compare their states",
		Explain: "A replica whose state differs from the majority's stops.",
	},
	{
		Key: "catch.up.bytes.per.second", Section: sectionOperate, Kind: Size, Default: "64MiB", Min: 1 << 20, Max: 64 << 30,
		Doc:     "how fast all replicas of a node together pull what they lack from other nodes: behind their leaders' logs, in place of lost ones, or damaged",
		Explain: "A replica that cannot keep up with what is written meanwhile has it doubled round by round, for all of the node.",
		Metric:  "flotilla_catch_up_limit_bytes_per_second",
	},
	{
		Key: "scrub.bytes.per.second", Section: sectionOperate, Kind: Size, Default: "8MiB", Min: 0, Max: 64 << 30,
		Doc:     "how fast segments are read to look for damage that nobody has met yet; 0: not at all",
		Explain: "A damaged range is fetched from another replica. A pass that takes longer than scrub.interval is followed by the next one.",
		Metric:  "flotilla_scrub_age_seconds",
	},
	{
		Key: "scrub.interval", Section: sectionOperate, Kind: Duration, Default: "168h", Min: minute, Max: 365 * 24 * hour,
		Doc:    "how often all segments are read to look for damage",
		Metric: "flotilla_scrub_age_seconds",
	},
	{
		Key: "damage.policy", Section: sectionOperate, Kind: Choice, Default: "replace", Choices: []string{"replace", "refuse"},
		Doc:     "what a node of several does at a start that finds its journal, votes, metadata log or checkpoints damaged",
		Explain: "With replace it waits until the other nodes have all that was acknowledged without it, sets its damaged data aside in the data directory, and gets a fresh copy of it from them. With refuse it does not start, and neither does a node that is alone, whatever is set.",
		Metric:  "flotilla_damage_set_aside",
	},
	{
		Key: "retention.check.interval", Section: sectionOperate, Kind: Duration, Default: "5m", Min: second, Max: 24 * hour,
		Doc: "how long data may stay after a topic's retention.ms is over",
	},
	{
		Key: "leader.balance.interval", Section: sectionOperate, Kind: Duration, Default: "30s", Min: 0, Max: 24 * hour,
		Doc:     "how often a node looks for shards that it leads and another one is to lead; 0s: they stay where they are",
		Explain: "Each node is to lead its share. One that was away gets it back when two looks in a row have found it caught up. What `flotilla cluster transfer` has moved is moved back as well. Kafka's auto.leader.rebalance.enable and leader.imbalance.check.interval.seconds.",
		Metric:  "flotilla_shard_leading",
	},
	{
		Key: "num.partitions", Section: sectionOperate, Kind: Int, Default: "1", Min: 1, Max: 100_000,
		Doc:     "partitions of a topic whose creator does not say how many",
		Explain: "Kafka's num.partitions; topics that are created because a Kafka client asked for them get as many.",
	},
	{
		Key: "default.replication.factor", Section: sectionOperate, Kind: Int, Default: "-1", Min: -1, Max: 15,
		DefaultText: "-1, which is 3, or the number of nodes if there are fewer",
		Doc:         "replicas of a topic whose creator does not say how many",
		Explain:     "Kafka's default.replication.factor. A topic that asks for more replicas than there are nodes is refused. The first topic of a factor has shards made for it: see shards.per.node.",
	},
	{
		Key: "offsets.topic.num.partitions", Section: sectionOperate, Kind: Int, Default: "50", Min: 1, Max: 100_000,
		Doc:     "partitions that __consumer_offsets is created with",
		Explain: "Kafka's offsets.topic.num.partitions. The topic is made when the first consumer group asks for its coordinator; how many partitions it has then is for good. A group belongs to one of them.",
	},
	{
		Key: "offsets.topic.replication.factor", Section: sectionOperate, Kind: Int, Default: "3", Min: 1, Max: 15,
		Doc:     "replicas that __consumer_offsets is created with, at most one a node",
		Explain: "Kafka's offsets.topic.replication.factor. With fewer nodes there are as many replicas as nodes.",
	},
	{
		Key: "group.max.size", Section: sectionOperate, Kind: Int, Default: "10000", Min: 1, Max: 1_000_000,
		Doc:     "members of one consumer group",
		Explain: "Kafka's group.max.size and group.consumer.max.size, which have no bound by default. What is held of a group's members is bounded as well, at 8 MiB.",
	},
	{
		Key: "group.min.session.timeout", Section: sectionOperate, Kind: Duration, Default: "6s", Min: int64(time.Millisecond), Max: 24 * hour,
		Doc:     "shortest session.timeout.ms of a group's members",
		Explain: "Kafka's group.min.session.timeout.ms. It is for classic groups.",
	},
	{
		Key: "group.max.session.timeout", Section: sectionOperate, Kind: Duration, Default: "30m", Min: int64(time.Millisecond), Max: 24 * hour,
		Doc:     "longest session.timeout.ms of a group's members",
		Explain: "Kafka's group.max.session.timeout.ms. It is for classic groups.",
	},
	{
		Key: "group.initial.rebalance.delay", Section: sectionOperate, Kind: Duration, Default: "3s", Min: 0, Max: hour,
		Doc:     "how long an empty group waits for more members after the first one",
		Explain: "It waits as long again while more come, but never longer than their rebalance timeout. Kafka's group.initial.rebalance.delay.ms.",
	},
	{
		Key: "group.consumer.session.timeout", Section: sectionOperate, Kind: Duration, Default: "45s", Min: second, Max: hour,
		Doc:     "how long a member of a group that the server assigns may be silent",
		Explain: "Kafka's group.consumer.session.timeout.ms (KIP-848).",
	},
	{
		Key: "group.consumer.heartbeat.interval", Section: sectionOperate, Kind: Duration, Default: "5s", Min: int64(100 * time.Millisecond), Max: hour,
		Doc:     "how often such a member is told to send heartbeats, at the least",
		Explain: "Kafka's group.consumer.heartbeat.interval.ms (KIP-848). It has to be less than group.consumer.session.timeout.",
	},
	{
		Key: "group.consumer.heartbeat.interval.min", Section: sectionOperate, Kind: Duration, Default: "1s", Min: int64(10 * time.Millisecond), Max: hour,
		Doc:     "how often where there are few members: they hear of a change with a heartbeat",
		Explain: "A coordinator with up to 40 members has them send heartbeats this often, one with more as often as makes 40 a second. Set it to group.consumer.heartbeat.interval to have Kafka's behaviour.",
	},
	{
		Key: "group.consumer.migration.policy", Section: sectionOperate, Kind: Choice, Default: "bidirectional",
		Choices: []string{"disabled", "upgrade", "downgrade", "bidirectional"},
		Doc:     "whether groups with members change between the classic protocol and KIP-848's",
		Explain: "Kafka's setting of this name: see groups.md.",
	},
	{
		Key: "group.lag.interval", Section: sectionOperate, Kind: Duration, Default: "10s", Min: 0, Max: hour,
		Doc:     "how often a coordinator looks how far its groups are behind; 0: never",
		Explain: "It is for the metrics flotilla_group_lag*: flotilla group describe looks when it is asked. Less often where it would take more than a fiftieth of a core.",
	},
	{
		Key: "offset.metadata.max.bytes", Section: sectionOperate, Kind: Int, Default: "4096", Min: 0, Max: math.MaxInt16,
		Doc:     "bytes of the text that goes with a committed offset",
		Explain: "Kafka's setting of this name.",
	},
	{
		Key: "offsets.retention", Section: sectionOperate, Kind: Duration, Default: "168h", Min: minute, Max: 10 * 365 * 24 * hour,
		Doc:     "how long committed offsets are kept that nobody uses",
		Explain: "From when the group's last member has gone, or, in a group without members, from the commit: see groups.md. Kafka's offsets.retention.minutes.",
	},
	{
		Key: "offsets.retention.check.interval", Section: sectionOperate, Kind: Duration, Default: "10m", Min: second, Max: 24 * hour,
		Doc:     "how often offsets are looked for that are kept no longer",
		Explain: "Kafka's offsets.retention.check.interval.ms.",
	},
	{
		Key: "ready.commit.max", Section: sectionOperate, Kind: Duration, Default: "10s", Min: int64(10 * time.Millisecond), Max: hour,
		Doc:     "the node is not ready while one commit of the journal takes longer",
		Explain: "A disk that hangs answers nothing, not even an error; /readyz then says so, and a load balancer or orchestrator can act.",
		Metric:  "flotilla_journal_commit_running_seconds",
		Error:   "/readyz answers 503",
	},
	{
		Key: "log.level", Section: sectionOperate, Kind: Choice, Default: "info", Choices: []string{"debug", "info", "warn", "error"},
		Doc: "debug, info, warn or error",
	},
	{
		Key: "log.format", Section: sectionOperate, Kind: Choice, Default: "text", Choices: []string{"text", "json"},
		Doc: "text or json",
	},
}
