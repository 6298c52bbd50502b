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

// plainLZ4 is what librdkafka does with a server that has no consumer groups.
const plainLZ4 = "librdkafka compresses with lz4 only where FindCoordinator is offered, which it takes for the sign of a broker that " +
	"knows lz4. Consumer groups are not built yet, so it is not, and the records arrive as they are, uncompressed. Other codecs are not concerned."

// programs are the columns, in their order. without names the rows that a
// program leaves out: its client cannot do that, or does not show the answer.
var programs = []program{
	{name: "franz-go", client: "franz-go 1.22.3"},
	{name: "java", client: "Java 4.3.1", without: []string{"AlterConfigs"}},
	{name: "librdkafka", client: "librdkafka 2.15.1", fails: map[string]string{"Produce, lz4": plainLZ4}, without: []string{
		"DescribeCluster", "DescribeTopicPartitions", "OffsetForLeaderEpoch", "ListConfigResources", "DescribeLogDirs",
		"DescribeProducers",
	}},
	{name: "kcat", client: "kcat 1.7.1", topicMade: true, fails: map[string]string{"Produce, lz4": plainLZ4}, without: []string{
		"DescribeCluster", "DescribeTopicPartitions", "CreateTopics", "OffsetForLeaderEpoch", "DescribeConfigs",
		"IncrementalAlterConfigs", "AlterConfigs", "ListConfigResources", "DescribeLogDirs", "DescribeProducers",
		"CreatePartitions", "DeleteRecords", "DeleteTopics",
	}},
	{name: "kafkajs", client: "kafkajs 2.2.4", without: []string{
		"DescribeCluster", "DescribeTopicPartitions", "Produce, snappy", "Produce, lz4", "Produce, zstd",
		"Fetch from the beginning, by assignment", "OffsetForLeaderEpoch", "IncrementalAlterConfigs",
		"ListConfigResources", "DescribeLogDirs", "DescribeProducers",
	}},
}
