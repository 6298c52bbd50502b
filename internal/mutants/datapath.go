package main

// dataPathTable lists the guards of what Kafka clients may keep others from: the
// memory of Fetches, and that of decompression.
var dataPathTable = []mutant{
	{
		name: "who takes no answers gives way to Fetches",
		file: "kafka/writing.go",
		old:  " || c.unsent.waitedFor(&c.s.fetches)",
		new:  "",
		pkg:  "./kafka", test: "TestDeafFetches", want: "EOF",
	},
	{
		name: "who takes no answers gives way to small Fetches",
		file: "kafka/fetchmemory.go",
		old:  "return u.small.Load() > 0 && m.small.Waiting() > 0 || u.large",
		new:  "return u.large",
		pkg:  "./kafka", test: "TestDeafFetches", want: "EOF",
	},
	{
		name: "answers behind Fetches that wait",
		file: "kafka/fetchmemory.go",
		old:  "if q.turn.Load() != q && q.polls.Some() {",
		new:  "if q.turn.Load() == q && q.polls.Some() {",
		pkg:  "./kafka", test: "TestFetchBehindFetch", want: "EOF",
	},
	{
		name: "a Fetch that waits for memory yields that of its request",
		file: "kafka/fetchmemory.go",
		old:  "giveWay(errClaimYields)",
		new:  "",
		pkg:  "./kafka", test: "TestClaimYields", want: "ended by 5 after 30s, want 5s",
	},
	{
		name: "a pause is not the peer's time",
		file: "wire/intake/answer.go",
		old:  "o.lookLocked(max(o.left, 0))",
		new:  "o.lookLocked(0)",
		pkg:  "./wire/intake", test: "TestPause", want: "a deadline after two pauses",
	},
	{
		name: "no deadline for who was too slow",
		file: "wire/intake/answer.go",
		old:  "\tif o.slow {\n\t\treturn ErrUntaken\n\t}\n\treturn o.nc",
		new:  "\treturn o.nc",
		pkg:  "./wire/intake", test: "TestPause", want: "a deadline for one that was too slow",
	},
	{
		name: "a delivery says when it waits for the node",
		file: "internal/delivery/delivery.go",
		old:  "if d.peer.Pause != nil {",
		new:  "if d.peer.Pause != nil && d.bytes < 0 {",
		pkg:  "./internal/delivery", test: "TestRoomIsTheNodes", want: "told of 0 pauses",
	},
	{
		name: "what needs little memory does not wait for what needs much",
		file: "broker/unfold.go",
		old:  "if bytes <= smallUnfoldBytes {",
		new:  "if bytes < 0 {",
		pkg:  "./broker", test: "TestMuchIsApart", want: "one that needs little:",
	},
	{
		name: "who was in sync long ago is not",
		file: "replication/insync.go",
		old:  " && !at.Before(since):",
		new:  ":",
		pkg:  "./replication", test: "TestInSync", want: "half a minute and more after it was there last",
	},
	{
		name: "who follows at a distance is in sync",
		file: "replication/insync.go",
		old:  "\t\ts.at = s.since\n",
		new:  "",
		pkg:  "./replication", test: "TestInSync", want: "one that is never at the end",
	},
	{
		name: "an end is kept until it is reached",
		file: "replication/insync.go",
		old:  "\tcase s.end > 0 && match < s.end:\n\t\treturn\n",
		new:  "\tcase s.end > 0 && match < s.end:\n",
		pkg:  "./replication", test: "TestInSync", want: "one that is never at the end",
	},
	{
		name: "who needs records is not in sync",
		file: "replication/insync.go",
		old:  "p.lagging[id] == 0 && ",
		new:  "",
		pkg:  "./replication", test: "TestInSync", want: "one that has to catch up from records",
	},
	{
		name: "min.insync.replicas goes by time",
		file: "broker/policy.go",
		old:  "if want := min(p.minInsync, voters); len(inSync) < want {",
		new:  "if want := min(p.minInsync, voters); len(inSync) < min(want, 2) {",
		pkg:  "./broker", test: "TestInsyncByTime", want: "with a replica that is gone for long",
	},
	{
		name: "the memory of Fetches has metrics",
		file: "kafka/server.go",
		old:  ", \"small fetches\": s.fetches.small, \"fetches\": s.fetches.large}",
		new:  "}",
		pkg:  "./internal/node", test: "TestMetricsAreComplete", want: "no flotilla_memory_limit_bytes{for=\"small fetches\"}",
	},
}
