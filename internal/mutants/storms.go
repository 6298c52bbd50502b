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
		pkg:  "./replication", test: "TestRestartFarOverTheShare", want: "leads after a minute",
	},
	{
		name: "a cut of the network of every host is one",
		file: "internal/netsim/netsim.go",
		old:  "		if _, ok := n.cuts[l]; ok {\n			return true\n		}\n	}\n	return false\n",
		new:  "		if _, ok := n.cuts[l]; ok {\n			return l.from != \"\" && l.to != \"\"\n		}\n	}\n	return false\n",
		pkg:  "./internal/netsim", test: "TestMend", want: "want context deadline exceeded",
	},
}
