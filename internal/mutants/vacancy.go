package main

// vacancyTable holds the mutants of what clients are told of leaders that were just
// lost.
var vacancyTable = []mutant{
	{
		name: "leaders: the one that is named has given no sign of life",
		file: "broker/vacancy.go", old: "!b.awaitSigns(ctx, shards) || !b.noteLosses(time.Now()) {", new: "!b.noteLosses(time.Now()) {",
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
		name: "leaders: a produce is refused before it is known who leads",
		file: "broker/produce.go", old: "p.b.afterHandovers(p.refused, func(bool) { p.done(p.results) })", new: "p.done(p.results)",
		pkg: "./broker", test: "TestRefusalsNameTheLeader", want: "a produce: ",
	},
	{
		name: "leaders: a fetch is refused before it is known who leads",
		file: "broker/fetch.go", old: "f.b.afterHandovers(unled, func(", new: "f.b.afterHandovers(nil, func(",
		pkg: "./broker", test: "TestRefusalsNameTheLeader", want: "a fetch: ",
	},
	{
		name: "leaders: a stream is refused before it is known who leads",
		file: "broker/stream.go", old: "	if over == nil {", new: "	if over == nil || over != nil {",
		pkg: "./broker", test: "TestRefusalsNameTheLeader", want: "a stream: ",
	},
	{
		name: "leaders: a fetch of a leader that has begun to serve is refused",
		file: "broker/fetch.go", old: "return s.replica.Leading() != 0 })", new: "return false && s.replica.Leading() != 0 })",
		pkg: "./broker", test: "TestReadsAwaitOpening", want: "a fetch of a leader",
	},
	{
		name: "leaders: offsets are asked of a leader that does not serve yet",
		file: "broker/cluster.go", old: "	b.awaitHandovers(ctx, unled)\n", new: "",
		pkg: "./broker", test: "TestReadsAwaitOpening", want: "offsets of a leader",
	},
	{
		name: "leaders: the end of an epoch is asked of a leader that does not serve yet",
		file: "broker/epochs.go", old: "	b.awaitHandovers(ctx, unled)\n", new: "",
		pkg: "./broker", test: "TestReadsAwaitOpening", want: "the end of an epoch of a leader",
	},
	{
		name: "leaders: one that does not come is waited for by each that asks",
		file: "broker/handover.go", old: "h.over.Err() != nil && h.term != term {", new: "h.over.Err() != nil {",
		pkg: "./broker", test: "TestHandoverInVain", want: "refused again after",
	},
	{
		name: "leaders: one that does not come is waited for in one term only",
		file: "broker/handover.go", old: "if h == nil || h.over.Err() != nil && h.term != term {", new: "if h == nil {",
		pkg: "./broker", test: "TestHandoverInVain", want: "refused after 0s",
	},
	{
		name: "leaders: who has no time for it waits for one",
		file: "broker/produce.go", old: "p.room.until.Sub(p.b.opt.Now()) < handoverPatience:", new: "false:",
		pkg: "./broker", test: "TestHandoverInVain", want: "a produce of half a second",
	},
	{
		name: "client: a producer waits although it knows who leads by now",
		file: "client/request.go", old: "			moved[i] = true", new: "			moved[i] = false",
		pkg: "./client", test: "TestProducerFollowsHint", want: "was acknowledged after",
	},
	{
		name: "client: a consumer waits although it knows who leads by now",
		file: "client/fetcher.go", old: "		q.retryAt = time.Time{}", new: "		_ = q.retryAt",
		pkg: "./client", test: "TestConsumerFollowsHint", want: "was read after",
	},
	{
		name: "produce: a shard that opens its term refuses",
		file: "broker/opening.go", old: "	if opening == nil {", new: "	if opening != nil || opening == nil {",
		pkg: "./broker", test: "TestProduceAwaitsOpening", want: "a batch for a leader that opens its term",
	},
}
