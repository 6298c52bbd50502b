package main

// stormTable lists the guards of the simulator's network, and of what its storms
// found.
var stormTable = []mutant{
	{
		name: "a mended way of the network is still cut by another name",
		file: "internal/netsim/netsim.go",
		old:  "if p.isCut && !n.isCutLocked(p.link) {",
		new:  "if p.isCut {",
		pkg:  "./internal/netsim", test: "TestMend", want: "through the cut of all that a says",
	},
	{
		name: "room for what is before the entry that opens a term",
		file: "replication/link.go",
		old:  "return term < req.Term && req.LeaderCommitIndex <= applied",
		new:  "return term < req.Term && req.LeaderCommitIndex <= applied && len(req.Entries) > 0 && req.Entries[len(req.Entries)-1].Term == req.Term",
		pkg:  "./replication", test: "TestLinkUnproven", want: "before the entry that opens the term: false",
	},
	{
		name: "a cut of the network of every host is one",
		file: "internal/netsim/netsim.go",
		old:  "		if _, ok := n.cuts[l]; ok {\n			return true\n		}\n	}\n	return false\n",
		new:  "		if _, ok := n.cuts[l]; ok {\n			return l.from != \"\" && l.to != \"\"\n		}\n	}\n	return false\n",
		pkg:  "./internal/netsim", test: "TestMend", want: "want context deadline exceeded",
	},
	{
		name: "what a follower has said stands for a heartbeat for a while only",
		file: "replication/insync.go",
		old:  "ago >= 0 && ago < heartbeatAfter",
		new:  "ago >= 0",
		pkg:  "./replication", test: "TestLinkSparesHeartbeats", want: "after an answer to a heartbeat: ",
	},
	{
		name: "what a follower has said in one term is no heartbeat of another",
		file: "replication/insync.go",
		old:  "return ok && term == p.term && ago",
		new:  "return ok && ago",
		pkg:  "./replication", test: "TestLinkSparesHeartbeats", want: "in another term: ",
	},
	{
		name: "answers to heartbeats do not spare heartbeats",
		file: "replication/insync.go",
		old:  "	if !isHeartbeat(req) {\n		p.answered[id] = now\n	}\n",
		new:  "	p.answered[id] = now\n",
		pkg:  "./replication", test: "TestLinkSparesHeartbeats", want: "after an answer to a heartbeat: ",
	},
	{
		name: "what says what is committed is no heartbeat",
		file: "replication/link.go",
		old:  "req.PrevLogEntry == 0 && req.LeaderCommitIndex == 0 && len(req.Entries) == 0",
		new:  "len(req.Entries) == 0",
		pkg:  "./replication", test: "TestLinkSparesHeartbeats", want: "want it spared: true",
	},
}
