package main

// reliefTable lists the guards of a leader whose disk is nearly full.
var reliefTable = []mutant{
	{
		name: "relief: a full disk leads nothing",
		file: "broker/relief.go",
		old:  "if !l.b.DiskState().Low {",
		new:  "if l.b.stopping.Err() == nil {",
		pkg:  "./broker", test: "TestRelief", want: "with a full disk",
	},
	{
		name: "relief: not without a majority that has room",
		file: "broker/relief.go",
		old:  "if have <= all/2 {",
		new:  "if have < 0 {",
		pkg:  "./broker", test: "TestReliefOfNobody", want: "2 full: its leadership was handed over",
	},
	{
		name: "relief: nothing comes back as soon as there is room",
		file: "broker/balance.go",
		old:  "if b.relief.recently() {",
		new:  "if b.relief == nil {",
		pkg:  "./broker", test: "TestRelief", want: "although there was no room a moment ago",
	},
	{
		name: "relief: who has room again may lead at once in place of a full one",
		file: "broker/relief.go",
		old:  "return nil, b.roomToLead(m.shard)",
		new:  "return nil, b.fitToLead(m.shard)",
		pkg:  "./broker", test: "TestReliefOfNobody", want: "the others have room, and node",
	},
	{
		name: "pulls: all shards of a node share a rate",
		file: "broker/pulls.go",
		old:  "\twait := p.pace.charge(bytes)\n",
		new:  "\tone := pace{bytesPerSecond: p.pace.bytesPerSecond, now: p.pace.now}\n\twait := one.charge(bytes)\n",
		pkg:  "./broker", test: "TestPullsShareARate", want: "8 shards, one in round 1",
	},
	{
		name: "pulls: what is pulled has memory",
		file: "broker/catchup.go",
		old:  "release, err := j.c.b.holdPull(ctx, j.c.b.pulls.taken)",
		new:  "release, err := func() {}, error(nil)",
		pkg:  "./broker", test: "TestPullMemory", want: "7 calls, 7 at a time",
	},
}
