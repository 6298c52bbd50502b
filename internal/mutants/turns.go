package main

// turnsTable holds the mutants of catch-ups under load.
var turnsTable = []mutant{
	{
		name: "catch-up: all shards pull at once",
		file: "broker/pulls.go", old: "	return before < maxTurns\n", new: "	return before >= 0\n",
		pkg: "./broker", test: "TestPullsTakeTurns", want: "turns differ",
	},
	{
		name: "catch-up: the latest round does not go first",
		file: "broker/pulls.go", old: "if other.Round > j.Round || other.Round == j.Round && came < p.jobs[j] {", new: "if other != j && came < p.jobs[j] {",
		pkg: "./broker", test: "TestPullsTakeTurns", want: "turns differ",
	},
	{
		name: "catch-up: one that stands still holds up the others",
		file: "broker/pulls.go", old: "turnPatience = 5 * time.Second", new: "turnPatience = time.Hour",
		pkg: "./broker", test: "TestPullsTakeTurns", want: "turns differ",
	},
	{
		name: "catch-up: a checkpoint is taken though the log does not go on from it",
		file: "replication/catchup.go", old: "if len(*outdated(req)) > 0 {", new: "if len(*outdated(req)) > 1 {",
		pkg: "./replication", test: "TestCatchUpToANewerCheckpoint", want: "checkpoints were installed, want one",
	},
	{
		name: "catch-up: the leader does not say that its log has gone on",
		file: "replication/catchup.go", old: "return first <= index+1", new: "return first > 0",
		pkg: "./replication", test: "TestCatchUpToANewerCheckpoint", want: "checkpoints were installed, want one",
	},
}
