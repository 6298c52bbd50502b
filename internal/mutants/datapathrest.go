package main

// dataPathRestTable lists the guards of what Kafka's requests cost on one node.
var dataPathRestTable = []mutant{
	{
		name: "a topic is as small for many partitions as for one",
		file: "broker/topics.go",
		old:  "Partitions: len(t.Assignment), assignment: t.Assignment}",
		new:  "Partitions: len(t.Assignment), assignment: slices.Repeat(t.Assignment, 20)}",
		pkg:  "./kafka", test: "TestLargeTopicCostsWhatIsAsked", want: "want at most 409600",
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
	{
		name: "the time of our own disk is not the peer's",
		file: "internal/delivery/range.go",
		old:  "if late := r.read(func() { n, err = r.from.Read(b) }); late != nil {",
		new:  "if n, err = r.from.Read(b); false {\n\t\tvar late error",
		pkg:  "./internal/delivery", test: "TestColdDiskIsTheNodes", want: "was cut off, for it was counted that the disk took 100 s",
	},
	{
		name: "the time of sendfile is not the peer's",
		file: "internal/delivery/sendfile_linux.go",
		old:  "late := read(func() { m, e = unix.Sendfile(int(out), int(in), &pos, int(min(n-sent, 1<<30))) })",
		new:  "var late error\n\t\t\t\tm, e = unix.Sendfile(int(out), int(in), &pos, int(min(n-sent, 1<<30)))",
		pkg:  "./internal/delivery", test: "TestSendfileIsTheNodes", want: "after 0 calls",
	},
}
