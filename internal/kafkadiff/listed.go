package main

// listed is every difference that stays. docs/kafka.md shows it.
var listed = []difference{
	// Texts.
	{step: "*", path: "*ErrorMessage", texts: true, why: "The texts are Flotilla's own and say what to do; that there is one, or none, is compared."},
	{step: "{Produce,CreatePartitions,DescribeProducers} v*", path: "*ErrorMessage", kafka: absent, why: "Kafka leaves some errors without a text."},
	{step: "DescribeConfigs v*", path: "*.ErrorMessage", kafka: `""`, why: "Kafka leaves some errors without a text."},
	{step: "DescribeConfigs v* a config with its documentation", path: "*.Documentation", why: "The texts are Flotilla's own."},

	// What is not built is not offered.
	{step: "ApiVersions v*", path: "ApiKeys[{8,9,10,11,12,13,14,15,16,17,24,25,26,27,28,29,30,31,34,36,38,39,40,41,42,43,45,46,47,48,49,50,51,55,57,64,65,66,68,69,76,77,78,79,80,81,83,84,85,86,87,88,89,90,91,92}]",
		kafka: element, ours: absent, why: "Not built yet (consumer groups, transactions, security, quotas), or between Kafka's own nodes; none is faked."},
	{step: "ApiVersions v*", path: "FinalizedFeatures[*]", kafka: element, ours: absent, why: "A feature is finalised when it is built."},
	{step: "ApiVersions v*", path: "SupportedFeatures[*]", kafka: element, ours: absent, why: "A feature is offered when it is built."},
	{step: "DescribeConfigs v* resource type {16,32}", path: "Resources[*].{ErrorCode,Configs[*]}", why: "Client metrics and groups have no configs yet."},
	{step: "ListConfigResources v1 node loggers", path: "ConfigResources[1]", kafka: element, ours: absent, why: "Log levels are not configs."},
	{step: "CreateTopics v* *cleanup.policy=*compact*", path: "Topics[*].*", why: "Compaction is not built yet, and refused."},
	{step: "CreateTopics v4 cleanup.policy=compact", path: "Topics[*].ErrorCode", kafka: absent, ours: "INVALID_CONFIG", why: "Compaction is not built yet, and refused."},
	{step: "{Produce,Fetch} v*", path: "step", kafka: "answered", ours: "not asked", why: "What follows on a compacted topic."},
	{step: "Produce v* a transactional id and no transactional batch", path: "Topics[*].Partitions[2].{ErrorCode,BaseOffset,LogStartOffset}", why: "Transactions are not built yet."},
	{step: "Fetch v18 what was taken by partition 2", path: "Topics[*].Partitions[2].{HighWatermark,LastStableOffset,RecordBatches*}", why: "The same: Kafka appended, Flotilla refused."},

	// Defaults and configs.
	{step: "{CreateTopics,DescribeConfigs} v*", path: "*Configs[*segment.bytes]*.Value", kafka: "1073741824", ours: "268435456", why: "Flotilla's default: retention removes whole segments, so smaller ones keep closer to it."},
	{step: "{CreateTopics,DescribeConfigs} v*", path: "*Configs[min.insync.replicas]*", why: "Kafka with ELR sets it for the whole cluster; Flotilla has a default."},
	{step: "DescribeConfigs v* some configs of the node", path: "Resources[4 1].Configs[{auto.create.topics.enable,delete.topic.enable}]",
		kafka: element, ours: absent, why: "A node answers the defaults of topic configs; its settings are in docs/configuration.md."},
	{step: "DescribeConfigs v* some configs of the node", path: "Resources[4 1].Configs[log.retention.ms].Value", kafka: absent, ours: "604800000", why: "Kafka leaves it null and goes by log.retention.hours."},
	{step: "DescribeConfigs v* some configs of the node", path: "Resources[4 1].Configs[{broker.id,default.replication.factor,log.retention.hours,node.id,num.partitions}].ConfigType", kafka: "3", ours: "5", why: "Flotilla tells whole numbers of a node as long."},
	{step: "DescribeConfigs v* some configs of the node", path: "Resources[4 1].Configs[*].ReadOnly", kafka: absent, ours: "true", why: "A node takes its settings from flags, environment and file."},
	{step: "IncrementalAlterConfigs v* the node, unknown config", path: "Resources[4 1].Error*", why: "The same; Kafka stores what it does not know."},
	{step: "CreateTopics v7 *cleanup.policy=delete,delete", path: "*.Configs[cleanup.policy].Value", kafka: "delete,delete", ours: "delete", why: "Values are kept in one spelling."},
	{step: "CreateTopics v7 *min.cleanable.dirty.ratio=*", path: "*.Value", why: "Values are kept in one spelling."},
	{step: "CreateTopics v7 *preallocate=TRUE", path: "*.Value", kafka: "TRUE", ours: "true", why: "Values are kept in one spelling."},
	{step: "CreateTopics v7 *retention.ms= 1000 ", path: "*.Value", kafka: " 1000 ", ours: "1000", why: "Values are kept in one spelling."},
	{step: "CreateTopics v7 *max.message.bytes=2147483647", path: "Topics[*].*", why: "No batch may be larger than a quarter of a journal file."},
	{step: "CreateTopics v7 *internal.segment.bytes=1024", path: "Topics[*].*", why: "It is Kafka's own, for its tests."},
	{step: "CreateTopics v7 *validate only*", path: "Topics[*].TopicID", ours: absent, why: "Kafka answers the id of a topic that there will never be."},

	// Kafka fails, or never answers.
	{step: "{AlterConfigs v2 a topic twice,Produce v13 null records}", path: "*", why: "Kafka's handler throws and never answers; Flotilla answers an error."},
	{step: "Metadata v* neither name nor id", path: "*ErrorCode", kafka: "UNKNOWN_SERVER_ERROR", ours: "INVALID_REQUEST", why: "Kafka's handler throws."},
	{step: "DescribeTopicPartitions v0 name empty", path: "Topics[].*", why: "Kafka's handler throws; the name is invalid."},
	{step: "ListOffsets v* unknown isolation level", path: "*.ErrorCode", kafka: "UNKNOWN_SERVER_ERROR", ours: "INVALID_REQUEST", why: "Kafka's handler throws."},
	{step: "IncrementalAlterConfigs v* unknown operation", path: "*.Error*", why: "Kafka's handler throws."},
	{step: "Fetch v* unknown isolation level", path: "*", why: "Kafka's handler throws; Flotilla reads it as 0."},
	{step: "Fetch v* at most -* bytes*", path: "*", why: "Kafka's handler throws; Flotilla reads it as 0."},
	{step: "Produce v* {codec 5,codec 7,gzip bit on plain records,zstd bit on plain records}", path: "*.Partitions[*].{ErrorCode,LogStartOffset}", why: "Kafka's decompressor throws; Flotilla names the cause."},

	// What is otherwise on purpose.
	{step: "Metadata v* an unknown topic, to be created", path: "Topics[*].{ErrorCode,Partitions[0],TopicID}", why: "Flotilla answers when the topic is there; Kafka lets the client ask again."},
	{step: "Metadata v13 a name that collides, to be created", path: "Topics[*].ErrorCode", kafka: "UNKNOWN_TOPIC_OR_PARTITION", ours: "INVALID_TOPIC_EXCEPTION", why: "The client is told why there will be no such topic."},
	{step: "Fetch v* at most * bytes*", path: "*.RecordBatches*", why: "Kafka fills what is left with the beginning of a batch, which clients drop; Flotilla sends whole batches."},
	{step: "Produce v* {a batch and its beginning,log append time bit,delete horizon bit,reserved bit,a record's offset delta wrong}", path: "*.Partitions[*].{ErrorCode,BaseOffset,LogStartOffset,ErrorRecords[*]}",
		why: "Kafka takes it, or a part of it; Flotilla takes what is whole and as the format says."},
	{step: "Fetch v18 what was taken of {a batch and its beginning,log append time bit,delete horizon bit,reserved bit,a record's offset delta wrong}", path: "Topics[*].Partitions[*].{HighWatermark,LastStableOffset,RecordBatches*}",
		why: "The same."},
	{step: "Produce v* a record length *", path: "*.ErrorRecords[0]", kafka: absent, ours: element, why: "The record is named."},
	{step: "Produce v13 negative epoch", path: "*.Partitions[1].{ErrorCode,BaseOffset,LogStartOffset}", why: "Kafka takes a producer without an epoch; no idempotence can hold for it."},
	{step: "Produce v*", path: "*.Partitions[0].LogAppendTime", kafka: "base+*", ours: absent, why: "Kafka answers a duplicate with its own newest timestamp, even where the log's time is not used."},
	{step: "Produce v*", path: "*.Partitions[*].LogStartOffset", kafka: "0", ours: absent, why: "Kafka tells the log's start with some errors; Flotilla with none."},
	{step: "DescribeProducers v0 *", path: "*.LastTimestamp", ours: "<now>", why: "Flotilla remembers when a producer last wrote, which is what its expiry counts from, not what its records are dated."},
}
