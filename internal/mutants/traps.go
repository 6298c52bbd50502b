package main

// trapsTable lists what holds against Raft's traps (docs/raft.md), as far as no other
// table does.
var trapsTable = []mutant{
	{
		name: "trap 1: Raft does not restore what was committed",
		file: "replication/run.go",
		old:  "\tcfg.CommitTimeout = commitTimeout\n",
		new:  "\tcfg.CommitTimeout = commitTimeout\n\tcfg.RestoreCommittedLogs = true\n",
		pkg:  "./replication", test: "TestReplicaRestarts", want: "FAIL",
	},
	{
		name: "trap 3: a pipeline ends at a rejection",
		file: "replication/transport/pipeline.go",
		old:  "\t\tif !f.resp.Success {\n\t\t\treturn\n\t\t}\n",
		new:  "",
		pkg:  "./replication/transport", test: "TestMeshConformance", want: "a pipeline goes on after a rejection",
	},
	{
		name: "trap 4: a burst goes in few requests",
		file: "replication/run.go",
		old:  "cfg.MaxAppendEntries = maxAppendEntries",
		new:  "cfg.MaxAppendEntries = 1",
		pkg:  "./replication", test: "TestBurst", want: "a burst took",
	},
	{
		name: "trap 4: no more in flight than a request takes",
		file: "replication/open.go",
		old:  "\topt.MaxInFlight = min(opt.MaxInFlight, maxAppendEntries/2)\n",
		new:  "",
		pkg:  "./replication", test: "TestInFlightBound", want: "entries may be in flight",
	},
	{
		name: "trap 5: a vote that is not durable stops the replica",
		file: "replication/stable.go",
		old:  "\t\ts.halt(err)\n\t\treturn\n",
		new:  "\t\treturn\n",
		pkg:  "./replication", test: "TestVoterVoteFails", want: "no voter stopped although its vote was not durable",
	},
}
