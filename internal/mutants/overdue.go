package main

// overdueTable lists the guards of the native client against a leader that says
// nothing more, and of a leader that is only slow.
var overdueTable = []mutant{
	{
		name: "overdue: a silent leader is left for a newer one",
		file: "client/overdue.go",
		old:  "	if connected && led >= 0 && (silent || led >= graceFactor*patience) {",
		new:  "	if connected && led >= graceFactor*patience && !silent {",
		pkg:  "./client", test: "TestSilentLeader", want: "where another node leads after 1 s",
	},
	{
		name: "overdue: who is overdue has others asked who leads",
		file: "client/overdue.go",
		old:  "	if due {\n\t\tpoke(m.refresh)",
		new:  "	if false {\n\t\tpoke(m.refresh)",
		pkg:  "./client", test: "TestSilentLeader", want: "where another node leads after 1 s",
	},
	{
		name: "overdue: streams that hear nothing are probed",
		file: "client/overdue.go",
		old:  "(late || listens && now.Sub(heard) >= idleStreamProbes*patience)",
		new:  "late",
		pkg:  "./client", test: "TestSilentLeaderIsRead", want: "where another node leads after 1 s",
	},
	{
		name: "overdue: fetches under way follow the leader",
		file: "client/fetcher.go",
		old:  "return img.elsewhere(q.topic, q.t.id, q.partition, node, q.t.leaders[q.partition].epoch)",
		new:  "return false && img.elsewhere(q.topic, q.t.id, q.partition, node, q.t.leaders[q.partition].epoch)",
		pkg:  "./client", test: "TestSilentLeaderIsRead", want: "where another node leads after 1 s",
	},
	{
		name: "overdue: a leader that answers pings may say itself that it is none",
		file: "client/overdue.go",
		old:  "(silent || led >= graceFactor*patience)",
		new:  "(silent || led >= 0)",
		pkg:  "./client", test: "TestDeposedLeader", want: "at least and not much more",
	},
	{
		name: "overdue: a deposed leader that does not say so is left",
		file: "client/overdue.go",
		old:  "(silent || led >= graceFactor*patience)",
		new:  "silent",
		pkg:  "./client", test: "TestDeposedLeader", want: "at least and not much more",
	},
	{
		name: "overdue: only a newer leader is a reason to leave one",
		file: "client/overdue.go",
		old:  "return known && now.node != node && now.epoch > epoch",
		new:  "return known && now.node != node",
		pkg:  "./client", test: "TestElsewhere", want: "the same epoch: true, want false",
	},
	{
		name: "overdue: the same leader is waited for",
		file: "client/overdue.go",
		old:  "return known && now.node != node && now.epoch > epoch",
		new:  "return known && now.epoch >= epoch",
		pkg:  "./client", test: "TestSlowLeader", want: "connections to the leader, want that one",
	},
	{
		name: "overdue: questions who leads have a bounded rate",
		file: "client/overdue.go",
		old:  "due := now.Sub(m.askedElsewhere) >= gap",
		new:  "due := gap > 0",
		pkg:  "./client", test: "TestSlowLeader", want: "questions who leads in 29 s",
	},
	{
		name: "overdue: who owes an answer is not asked something else",
		file: "client/links.go",
		old:  "!l.late.Load()",
		new:  "l != nil",
		pkg:  "./client", test: "TestOverdueElsewhere", want: "with two nodes that answer at once",
	},
	{
		name: "overdue: the only node is not asked who leads instead of it",
		file: "client/overdue.go",
		old:  "	if c.alone(c.meta.image.Load()) {\n\t\treturn\n\t}\n",
		new:  "",
		pkg:  "./client", test: "TestOverdueAlone", want: "questions to the only node",
	},
}
