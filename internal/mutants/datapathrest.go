package main

// dataPathRestTable lists the guards of what Kafka's requests cost on one node.
var dataPathRestTable = []mutant{
	{
		name: "a topic is as small for many partitions as for one",
		file: "broker/topics.go",
		old:  "Partitions: len(t.Assignment), assignment: t.Assignment}",
		new:  "Partitions: len(t.Assignment), assignment: slices.Concat(t.Assignment, t.Assignment)}",
		pkg:  "./kafka", test: "TestLargeTopicCostsWhatIsAsked", want: "want at most 65536",
	},
	{
		name: "what DescribeTopicPartitions answers is counted",
		file: "kafka/describetopicpartitions.go",
		old:  "if !p.hold(ctx, s.describedBytes(len(names), left)) {",
		new:  "if s.describedBytes(len(names), left) < 0 {",
		pkg:  "./kafka", test: "TestAnswerAboveAllMemory", want: "want the connection's end",
	},
	{
		name: "answers that were written arrive as well",
		file: "kafka/conn.go",
		old:  "begun, c.asked = true, true",
		new:  "begun, c.asked = true, len(c.inflight) > 1",
		pkg:  "./kafka", test: "TestLastAnswersArrive", want: "want 10 answers of more than 2000",
	},
	{
		name: "a fetch that is over is not noted",
		file: "internal/delivery/polls.go",
		old:  "if !q.over && !p.ended {",
		new:  "if !p.ended {",
		pkg:  "./internal/delivery", test: "TestPollThatIsOver", want: "a fetch is kept that is over",
	},
}
