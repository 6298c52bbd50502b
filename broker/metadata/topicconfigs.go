package metadata

import (
	"math"
	"strconv"
)

// The keys of the topic configs that something here reads, as in Kafka.
const (
	ConfigCleanupPolicy      = "cleanup.policy"
	ConfigCompressionType    = "compression.type"
	ConfigGzipLevel          = "compression.gzip.level"
	ConfigLZ4Level           = "compression.lz4.level"
	ConfigZstdLevel          = "compression.zstd.level"
	ConfigMaxMessageBytes    = "max.message.bytes"
	ConfigMinInsyncReplicas  = "min.insync.replicas"
	ConfigRetentionBytes     = "retention.bytes"
	ConfigRetentionMS        = "retention.ms"
	ConfigSegmentBytes       = "segment.bytes"
	ConfigSegmentMS          = "segment.ms"
	ConfigTimestampAfterMS   = "message.timestamp.after.max.ms"
	ConfigTimestampBeforeMS  = "message.timestamp.before.max.ms"
	ConfigTimestampType      = "message.timestamp.type"
	configMaxCompactionLagMS = "max.compaction.lag.ms"
	configMinCompactionLagMS = "min.compaction.lag.ms"
	configRemoteStorage      = "remote.storage.enable"
)

// Values of message.timestamp.type, cleanup.policy and compression.type. The
// other values of compression.type are names of codecs.
const (
	TimestampCreateTime     = "CreateTime"
	TimestampLogAppendTime  = "LogAppendTime"
	CleanupDelete           = "delete"
	cleanupCompact          = "compact"
	CompressionProducer     = "producer"
	CompressionUncompressed = "uncompressed"
)

// weekMS is Kafka's default of retention.ms and segment.ms.
var weekMS = strconv.Itoa(7 * 24 * 60 * 60 * 1000)

// greatest is Kafka's way to say never.
var greatest = strconv.Itoa(math.MaxInt64)

// topicConfigs is the only list of topic configs, ascending by key: all that
// Kafka 4.3 has. Names, types, ranges and meanings are Kafka's; so are the
// defaults, but for segment.bytes, which suits a modest disk.
//
// Apply judges commands by it, so another range needs a feature level once
// there are clusters to be upgraded.
var topicConfigs = []ConfigDef{
	{
		Key: ConfigCleanupPolicy, Type: ConfigList, Default: CleanupDelete, Values: []string{cleanupCompact, CleanupDelete},
		Synonym: "log.cleanup.policy", check: checkCleanup,
		Doc: "What becomes of old records: delete removes whole segments by retention.ms and retention.bytes; with an empty list they stay. Compaction (compact) is not built yet, and refused.",
	},
	{
		Key: ConfigGzipLevel, Type: ConfigInt, Default: "-1", Min: -1, Max: 9, Synonym: ConfigGzipLevel, check: checkGzipLevel,
		Doc: "The level at which batches are compressed if compression.type is gzip: 1 to 9; -1: gzip's own default.",
	},
	{
		Key: ConfigLZ4Level, Type: ConfigInt, Default: "9", Min: 1, Max: 17, Synonym: ConfigLZ4Level,
		Doc: "The level at which batches are compressed if compression.type is lz4: at 9 fast, as Kafka does; at any other level the higher the smaller, and from 10 on alike.",
	},
	{
		Key: ConfigCompressionType, Type: ConfigString, Default: CompressionProducer, Synonym: ConfigCompressionType,
		Values: []string{CompressionUncompressed, "zstd", "lz4", "snappy", "gzip", CompressionProducer},
		Doc:    "How batches are stored: producer keeps them as they were sent; uncompressed, gzip, snappy, lz4 and zstd compress them anew if they were sent otherwise.",
	},
	{
		Key: ConfigZstdLevel, Type: ConfigInt, Default: "3", Min: -131072, Max: 22, Synonym: ConfigZstdLevel,
		Doc: "The level at which batches are compressed if compression.type is zstd: up to 2, 3 to 5, 6 to 9 and from 10 on are alike.",
	},
	{
		Key: "delete.retention.ms", Type: ConfigLong, Default: "86400000", Min: 0, Max: math.MaxInt64,
		Use: ConfigIgnored, Synonym: "log.cleaner.delete.retention.ms",
		Doc: "How long compaction keeps tombstones, in ms: there is no compaction yet.",
	},
	{
		Key: "file.delete.delay.ms", Type: ConfigLong, Default: "60000", Min: 0, Max: math.MaxInt64,
		Use: ConfigTranslated, Synonym: "log.segment.delete.delay.ms",
		Doc: "How long the files of deleted records stay, in ms: they go with the next checkpoint that is durable, which comes within moments, and never under a reader.",
	},
	{
		Key: "flush.messages", Type: ConfigLong, Default: greatest, Min: 1, Max: math.MaxInt64,
		Use: ConfigTranslated, Synonym: "log.flush.interval.messages",
		Doc: "After how many records to fsync: every batch is durable before it is acknowledged, as if this were 1.",
	},
	{
		Key: "flush.ms", Type: ConfigLong, Default: greatest, Min: 0, Max: math.MaxInt64,
		Use: ConfigTranslated,
		Doc: "After how many ms to fsync: every batch is durable before it is acknowledged, as if this were 0.",
	},
	{
		Key: "follower.replication.throttled.replicas", Type: ConfigList, Default: "", Use: ConfigIgnored, check: checkThrottled,
		Doc: "Replicas whose replication is throttled on followers: there is no such quota; a shard's catch-up is throttled by itself.",
	},
	{
		Key: "index.interval.bytes", Type: ConfigInt, Default: "4096", Min: 0, Max: math.MaxInt32,
		Use: ConfigIgnored, Synonym: "log.index.interval.bytes",
		Doc: "How dense the offset index is: it has a density of its own.",
	},
	{
		Key: "leader.replication.throttled.replicas", Type: ConfigList, Default: "", Use: ConfigIgnored, check: checkThrottled,
		Doc: "Replicas whose replication is throttled on leaders: there is no such quota; a shard's catch-up is throttled by itself.",
	},
	{
		Key: "local.retention.bytes", Type: ConfigLong, Default: "-2", Min: -2, Max: math.MaxInt64,
		Use: ConfigIgnored, Synonym: "log.local.retention.bytes",
		Doc: "How many bytes of a tiered partition stay on local disks: there is no tiered storage.",
	},
	{
		Key: "local.retention.ms", Type: ConfigLong, Default: "-2", Min: -2, Max: math.MaxInt64,
		Use: ConfigIgnored, Synonym: "log.local.retention.ms",
		Doc: "How long records of a tiered partition stay on local disks, in ms: there is no tiered storage.",
	},
	{
		Key: configMaxCompactionLagMS, Type: ConfigLong, Default: greatest, Min: 1, Max: math.MaxInt64,
		Use: ConfigIgnored, Synonym: "log.cleaner.max.compaction.lag.ms",
		Doc: "The longest that a record stays uncompacted, in ms: there is no compaction yet.",
	},
	{
		Key: ConfigMaxMessageBytes, Type: ConfigInt, Default: strconv.Itoa(1<<20 + 12), Min: 0, Max: 16 << 20, Synonym: "message.max.bytes",
		Doc: "The largest record batch that the topic takes, in bytes, as it is sent (compressed).",
	},
	{
		Key: ConfigTimestampAfterMS, Type: ConfigLong, Default: "3600000", Min: 0, Max: math.MaxInt64, Synonym: "log.message.timestamp.after.max.ms",
		Doc: "How far after the leader's clock a record's timestamp may be, in ms; not looked at with LogAppendTime.",
	},
	{
		Key: ConfigTimestampBeforeMS, Type: ConfigLong, Default: greatest, Min: 0, Max: math.MaxInt64, Synonym: "log.message.timestamp.before.max.ms",
		Doc: "How far before the leader's clock a record's timestamp may be, in ms; not looked at with LogAppendTime.",
	},
	{
		Key: ConfigTimestampType, Type: ConfigString, Default: TimestampCreateTime, Synonym: "log.message.timestamp.type",
		Values: []string{TimestampCreateTime, TimestampLogAppendTime},
		Doc:    "Whose timestamps records keep: CreateTime the producer's, LogAppendTime the leader's clock when it took the batch.",
	},
	{
		Key: "min.cleanable.dirty.ratio", Type: ConfigDouble, Default: "0.5", Min: 0, Max: 1,
		Use: ConfigIgnored, Synonym: "log.cleaner.min.cleanable.ratio",
		Doc: "Which part of a log may be uncompacted: there is no compaction yet.",
	},
	{
		Key: configMinCompactionLagMS, Type: ConfigLong, Default: "0", Min: 0, Max: math.MaxInt64,
		Use: ConfigIgnored, Synonym: "log.cleaner.min.compaction.lag.ms",
		Doc: "The least that a record stays uncompacted, in ms: there is no compaction yet.",
	},
	{
		Key: ConfigMinInsyncReplicas, Type: ConfigInt, Default: "1", Min: 1, Max: math.MaxInt32, Synonym: ConfigMinInsyncReplicas,
		Doc: "How many replicas have to be caught up for records to be taken. A majority of them has a record before it is acknowledged, whatever this is.",
	},
	{
		Key: "preallocate", Type: ConfigBool, Default: "false", Use: ConfigIgnored, Synonym: "log.preallocate",
		Doc: "Whether a segment's file is preallocated: the journal is, and segments are written in large pieces.",
	},
	{
		Key: "remote.log.copy.disable", Type: ConfigBool, Default: "false", Use: ConfigIgnored,
		Doc: "Whether a tiered topic copies nothing more: there is no tiered storage.",
	},
	{
		Key: "remote.log.delete.on.disable", Type: ConfigBool, Default: "false", Use: ConfigIgnored,
		Doc: "Whether tiered data goes when tiering is switched off: there is no tiered storage.",
	},
	{
		Key: configRemoteStorage, Type: ConfigBool, Default: "false", Use: ConfigIgnored, check: checkRemote,
		Doc: "Whether the topic is tiered: there is no tiered storage, so true is refused.",
	},
	{
		// Whatever is negative means -1, as in Kafka.
		Key: ConfigRetentionBytes, Type: ConfigLong, Default: "-1", Min: math.MinInt64, Max: math.MaxInt64, Synonym: "log.retention.bytes",
		Doc: "How many bytes a partition keeps before its oldest segments are deleted; -1: no limit.",
	},
	{
		Key: ConfigRetentionMS, Type: ConfigLong, Default: weekMS, Min: -1, Max: math.MaxInt64,
		Doc: "How long a segment is kept after the greatest timestamp in it, in ms; -1: no limit.",
	},
	{
		Key: ConfigSegmentBytes, Type: ConfigInt, Default: strconv.Itoa(256 << 20), Min: 1 << 20, Max: math.MaxInt32, Synonym: "log.segment.bytes",
		Doc: "The size of a segment, in bytes: what retention deletes at once.",
	},
	{
		Key: "segment.index.bytes", Type: ConfigInt, Default: "10485760", Min: 4, Max: math.MaxInt32,
		Use: ConfigIgnored, Synonym: "log.index.size.max.bytes",
		Doc: "The size of a segment's index: it is as large as the segment needs.",
	},
	{
		Key: "segment.jitter.ms", Type: ConfigLong, Default: "0", Min: 0, Max: math.MaxInt64, Use: ConfigIgnored,
		Doc: "By how much segment.ms differs at random: segments of many partitions may be begun together, which costs nothing until they hold records.",
	},
	{
		Key: ConfigSegmentMS, Type: ConfigLong, Default: weekMS, Min: 1, Max: math.MaxInt64,
		Doc: "How long a segment takes records, in ms, even if it is not full.",
	},
	{
		Key: "unclean.leader.election.enable", Type: ConfigBool, Default: "false", Use: ConfigTranslated, Synonym: "unclean.leader.election.enable",
		Doc: "Whether a replica that lacks acknowledged records may lead: it never may, as if this were false.",
	},
}
