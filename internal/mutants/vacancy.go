package main

// vacancyTable holds the mutants of what clients are told of leaders that were just
// lost.
var vacancyTable = []mutant{
	{
		name: "leaders: the one that is named has given no sign of life",
		file: "broker/vacancy.go", old: "if !b.awaitSigns(ctx, shards) || !b.noteLosses(time.Now()) {", new: "if !b.noteLosses(time.Now()) {",
		pkg: "./broker", test: "TestAwaitLeadersAsks", want: "as leaders, and node",
	},
	{
		name: "coordinators: who asks is told of the one that was lost",
		file: "broker/groups.go", old: "b.awaitLeaders(ctx, map[metadata.ShardID]bool{t.Assignment[index]: true})", new: "",
		pkg: "./broker", test: "TestFindCoordinatorAwaits", want: "which is lost",
	},
	{
		name: "leaders: nobody waits for those to come",
		file: "broker/vacancy.go", old: "		if len(shards) == 0 {", new: "		if len(shards) >= 0 {",
		pkg: "./broker", test: "TestAwaitLeaders", want: "which is lost or none",
	},
	{
		name: "leaders: without a majority they are waited for",
		file: "broker/vacancy.go", old: "return lost && reached > len(s.Replicas)/2", new: "return lost && reached > 0",
		pkg: "./broker", test: "TestAwaitLeaders", want: "without a majority the answer took",
	},
	{
		name: "leaders: who asks has gone, and is waited for",
		file: "broker/vacancy.go", old: "		case <-tick.C:\n		case <-ctx.Done():\n			return\n", new: "		case <-tick.C:\n",
		pkg: "./broker", test: "TestAwaitLeadersBounds", want: "who waits for 100ms waited for",
	},
	{
		name: "leaders: a node that was asked for a sign of life has given one",
		file: "broker/alive.go", old: "		s.ask(ctx, node)\n		cancel()\n		close(done)\n", new: "		close(done)\n		s.ask(ctx, node)\n		cancel()\n",
		pkg: "./broker", test: "TestSigns", want: "is to be a sign for who came before it",
	},
	{
		name: "produce: a shard that opens its term refuses",
		file: "broker/opening.go", old: "	if opening == nil {", new: "	if opening != nil || opening == nil {",
		pkg: "./broker", test: "TestProduceAwaitsOpening", want: "a batch for a leader that opens its term",
	},
}
