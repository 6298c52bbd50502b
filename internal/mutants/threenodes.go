package main

// threeNodesTable lists the guards of measuring three nodes, and of the log's newest
// entries in memory.
var threeNodesTable = []mutant{
	{
		name: "no node of a cluster that did not start is left",
		file: "internal/peer/cluster.go",
		old:  "if err != nil && errs[i] == nil {",
		new:  "if err != nil && errs[i] == nil && s == nil {",
		pkg:  "./internal/peer", test: "TestCluster", want: "the other one goes on",
	},
	{
		name: "a measured run has records",
		file: "bench/peers/session.go",
		old:  "settled := pair > 0 || s.Agree > 0",
		new:  "settled := pair < 0",
		pkg:  "./bench/peers", test: "TestSessionEnds", want: "no records",
	},
	{
		name: "an entry that was not stored is not kept in memory",
		file: "replication/recent.go",
		old:  "\tif err := r.entryLog.append(logs); err != nil {\n\t\treturn err\n\t}\n\tr.mu.Lock()\n\tdefer r.mu.Unlock()\n",
		new:  "\terr := r.entryLog.append(logs)\n\tr.mu.Lock()\n\tdefer r.mu.Unlock()\n\tdefer func() { _ = err }()\n",
		pkg:  "./replication", test: "TestRecentLog", want: "not stored: entry 4 is there",
	},
	{
		name: "a truncated entry is forgotten",
		file: "replication/recent.go",
		old:  "n > 0 && r.logs[n-1].Index >= index; n",
		new:  "n > 0 && r.logs[n-1].Index < index; n",
		pkg:  "./replication", test: "TestRecentLog", want: "truncated: entry 3",
	},
	{
		name: "what is kept in memory of a log is bounded",
		file: "replication/recent.go",
		old:  "for r.bytes > r.limit {",
		new:  "for r.bytes < 0 {",
		pkg:  "./replication", test: "TestRecentLog", want: "above the limit: entry 4 was read from the log 0 times",
	},
	{
		name: "what is applied everywhere is forgotten",
		file: "replication/recent.go",
		old:  "r.forget(min(index, max(r.keep(), 1)-1))",
		new:  "r.forget(min(index, 0))",
		pkg:  "./replication", test: "TestRecentLog", want: "everybody has it: entry 1 was read from the log 0 times",
	},
	{
		name: "a batch in a tail keeps its own entry's memory, not a request's",
		file: "replication/link.go",
		old:  "\t\tunshare(req.Entries)\n",
		new:  "",
		pkg:  "./replication", test: "TestLinkUnshares", want: "in the memory of the request",
	},
	{
		name: "a fault's wait is for a record that was due since",
		file: "bench/failover/writer.go",
		old:  "f == nil || due.Before(f.at) ||",
		new:  "f == nil ||",
		pkg:  "./bench/failover", test: "TestWriter", want: "partition 0 waited",
	},
}
