package clienttest

// program is one of examples/, and a column of the table.
type program struct {
	name    string // its folder
	client  string // with its version
	without []string

	// fails maps rows that a client gets wrong with this server to the reason. The
	// table has a footnote for each, and a test fails when it has become right.
	fails map[string]string

	// topicMade says that the client has no way to make the topic, which is there
	// before the program runs.
	topicMade bool
}

// programs are the columns, in their order. without names the rows that a
// program leaves out: its client cannot do that, or does not show the answer.
var programs = []program{
	{name: "franz-go", client: "franz-go 1.22.3"},
	{name: "java", client: "Java 4.3.1", without: []string{"AlterConfigs"}},
	{name: "librdkafka", client: "librdkafka 2.15.1", without: []string{
		"DescribeCluster", "DescribeTopicPartitions", "OffsetForLeaderEpoch", "ListConfigResources", "DescribeLogDirs",
		"DescribeProducers", "ConsumerGroupDescribe",
	}},
	{name: "kcat", client: "kcat 1.7.1", topicMade: true, without: []string{
		"DescribeCluster", "DescribeTopicPartitions", "CreateTopics", "OffsetForLeaderEpoch", "DescribeConfigs",
		"IncrementalAlterConfigs", "AlterConfigs", "ListConfigResources", "DescribeLogDirs", "DescribeProducers",
		"CreatePartitions", "DeleteRecords", "DeleteTopics",
		"Heartbeat: a member hears of another one", "LeaveGroup: the others have its partitions", "OffsetFetch", "ListGroups",
		"DescribeGroups", "OffsetDelete", "DeleteGroups", "ConsumerGroupHeartbeat", "ConsumerGroupDescribe",
	}},
	{name: "kafkajs", client: "kafkajs 2.2.4", without: []string{
		"DescribeCluster", "DescribeTopicPartitions", "Produce, snappy", "Produce, lz4", "Produce, zstd",
		"Fetch from the beginning, by assignment", "OffsetForLeaderEpoch", "IncrementalAlterConfigs",
		"ListConfigResources", "DescribeLogDirs", "DescribeProducers",
		"OffsetDelete", "ConsumerGroupHeartbeat", "ConsumerGroupDescribe",
	}},
}
