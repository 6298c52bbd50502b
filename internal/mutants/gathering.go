package main

// gatheringTable lists the guards of what is gathered: proposals into an entry, and
// commits of offsets into a decision.
var gatheringTable = []mutant{
	{
		name: "proposer: what is small waits for the entry in flight",
		file: "replication/proposer.go",
		old:  "pr.flying > 0 && pr.bytes < min(thinBytes, pr.maxEntryBytes)",
		new:  "false && pr.bytes < min(thinBytes, pr.maxEntryBytes)",
		pkg:  "./replication", test: "TestReplicaGathersBehind", want: "want [0 1 3]",
	},
	{
		name: "proposer: what is not small does not wait",
		file: "replication/proposer.go",
		old:  "pr.flying > 0 && pr.bytes < min(thinBytes, pr.maxEntryBytes)",
		new:  "pr.flying > 0",
		pkg:  "./replication", test: "TestGatherBehind", want: "--- FAIL: TestGatherBehind/together_not",
	},
	{
		name: "proposer: a whole entry does not wait",
		file: "replication/proposer.go",
		old:  "pr.flying > 0 && pr.bytes < min(thinBytes, pr.maxEntryBytes)",
		new:  "pr.flying > 0 && pr.bytes < thinBytes",
		pkg:  "./replication", test: "TestGatherBehind", want: "--- FAIL: TestGatherBehind/a_whole_entry",
	},
	{
		name: "proposer: what waited goes when an entry has landed",
		file: "replication/proposer.go",
		old:  "pr.flying--\n\tif pr.waitingLocked() > 0 {",
		new:  "pr.flying--\n\tif pr.waitingLocked() < 0 {",
		pkg:  "./replication", test: "TestGatherBehind", want: "nobody was woken",
	},
	{
		name: "proposer: what is in an entry is not changed any more",
		file: "replication/proposer.go",
		old:  "\tif !p.queued || p.cancelled {\n\t\treturn false\n\t}\n\tpr.bytes += bytes",
		new:  "\tif p.cancelled {\n\t\treturn false\n\t}\n\tpr.bytes += bytes",
		pkg:  "./replication", test: "TestAmend", want: "a proposal was changed that is in an entry",
	},
	{
		name: "proposer: what grows while it waits may be enough to go",
		file: "replication/proposer.go",
		old:  "command, commandBytes, bytes\n\tif pr.waitingLocked() > 0 {",
		new:  "command, commandBytes, bytes\n\tif pr.waitingLocked() < 0 {",
		pkg:  "./replication", test: "TestAmend", want: "nobody was woken for what is large enough",
	},
	{
		name: "a decision that waits is extended",
		file: "broker/coordinator/decider.go",
		old:  "d.opt.Log.Extend(d.opt.Term, number, rs) {",
		new:  "len(rs) == 0 {",
		pkg:  "./broker/coordinator", test: "TestExtends", want: "what waited together is applied: answered",
	},
	{
		name: "a decision is extended up to a bound",
		file: "broker/coordinator/decider.go",
		old:  "min(d.opt.MaxProposalBytes, maxExtendBytes)",
		new:  "d.opt.MaxProposalBytes",
		pkg:  "./broker/coordinator", test: "TestExtends", want: "a proposal was extended to",
	},
	{
		name: "what a decision was extended by is proposed once",
		file: "broker/coordinator/decider.go",
		old:  "\t\t\td.proposing = rs\n\t\t\td.taken(n)\n",
		new:  "\t\t\td.proposing = rs\n",
		pkg:  "./broker/coordinator", test: "TestExtends", want: "proposals of",
	},
	{
		name: "a decision of another number is not extended (R3)",
		file: "broker/decisions.go",
		old:  "d == nil || d.term != term || d.number != number ||",
		new:  "d == nil || d.term != term ||",
		pkg:  "./broker", test: "TestDecisionGrows", want: "another number: extended true",
	},
	{
		name: "a decision of another term is not extended (R3)",
		file: "broker/decisions.go",
		old:  "d == nil || d.term != term || d.number != number ||",
		new:  "d == nil || d.number != number ||",
		pkg:  "./broker", test: "TestDecisionGrows", want: "another term: extended true",
	},
}
