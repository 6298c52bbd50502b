package main

// lookupTable lists the guards of a node that says whether a topic exists.
var lookupTable = []mutant{
	{
		name: "a node that does not know a topic by name asks how far the metadata is",
		file: "broker/lookup.go",
		old:  "\tt, err := l.b.TopicByName(name)\n\tif err != nil && err.Code == errcode.LeaderNotAvailable && l.catchUp(ctx) {",
		new:  "\tt, err := l.b.TopicByName(name)\n\tif err != nil && err.Code == errcode.LeaderNotAvailable && false {",
		pkg:  "./broker", test: "TestLookup", want: "a topic that there is not",
	},
	{
		name: "and one that does not know its id",
		file: "broker/lookup.go",
		old:  "\tt, err := l.b.TopicByID(id)\n\tif err != nil && err.Code == errcode.LeaderNotAvailable && l.catchUp(ctx) {",
		new:  "\tt, err := l.b.TopicByID(id)\n\tif err != nil && err.Code == errcode.LeaderNotAvailable && false {",
		pkg:  "./broker", test: "TestLookup", want: "an id that there is not",
	},
	{
		name: "what a node does not know when it is cut off may exist",
		file: "broker/lookup.go",
		old:  "l.asked, l.current = true, l.b.awaitCurrent(ctx) == nil",
		new:  "l.asked, l.current = true, l.b.awaitCurrent(ctx) == nil || true",
		pkg:  "./broker", test: "TestLookup", want: "cut off, topic u",
	},
	{
		name: "a request finds out once for all of its topics",
		file: "broker/lookup.go",
		old:  "\tif !l.asked {",
		new:  "\tif !l.asked || !l.current {",
		pkg:  "./broker", test: "TestLookup", want: "two topics took",
	},
	{
		name: "a node knows all of the metadata when it has applied it",
		file: "broker/lookup.go",
		old:  "return b.awaitApplied(ctx, done.index)",
		new:  "return b.awaitApplied(ctx, min(done.index, 1))",
		pkg:  "./broker", test: "TestLookup", want: "a topic that was made a moment ago",
	},
	{
		name: "only who leads the metadata says how far it is",
		file: "broker/lookup.go",
		old:  "if err := b.ConfirmController(ctx); err != nil {",
		new:  "if err := b.ConfirmController(ctx); err != nil && b.meta.Leading() == 0 {",
		pkg:  "./broker", test: "TestCurrentOfDeposed", want: "a leader that reaches nobody says",
	},
	{
		name: "Metadata finds out whether a topic exists",
		file: "kafka/metadata.go",
		old:  "\t\t\tt, err = look.ByName(ctx, name)\n",
		new:  "\t\t\tt, err = s.broker.TopicByName(name)\n",
		pkg:  "./internal/sim", test: "TestKafkaNoTopic", want: "Metadata: code 5",
	},
	{
		name: "DescribeTopicPartitions finds out whether a topic exists",
		file: "kafka/describetopicpartitions.go",
		old:  "look.ByName(ctx, name)",
		new:  "func() (broker.Topic, *errcode.Error) { _ = look; return s.broker.TopicByName(name) }()",
		pkg:  "./internal/sim", test: "TestKafkaNoTopic", want: "DescribeTopicPartitions: code 5",
	},
	{
		name: "DescribeConfigs finds out whether a topic exists",
		file: "kafka/describeconfigs.go",
		old:  "look.ByName(ctx, name)",
		new:  "s.broker.TopicByName(name)",
		pkg:  "./internal/sim", test: "TestKafkaNoTopic", want: "DescribeConfigs: code 5",
	},
}
