package main

// letGoTable lists the guards of what answers and buffers are held for, and how long.
var letGoTable = []mutant{
	{
		name: "memory waits 20 ms for a native client",
		file: "wire/server/conn.go",
		old:  "Hold: s.opt.PushHold,",
		new:  "Hold: 100 * s.opt.PushHold,",
		pkg:  "./wire/server", test: "TestStalledConsumer", want: "a fetch is held up by",
	},
	{
		name: "answers behind others hold nothing",
		file: "kafka/request.go",
		old:  "\t\ta.body.LetGo() //",
		new:  "\t\t//",
		pkg:  "./kafka", test: "TestAnswerOfALoneRequestIsKept", want: "an answer behind one that waits is not let go of",
	},
	{
		name: "the only answer is not let go of",
		file: "kafka/request.go",
		old:  "q.turn.Load() != q && len(q.inflight) > 1 {",
		new:  "len(q.inflight) > 0 {",
		pkg:  "./kafka", test: "TestAnswerOfALoneRequestIsKept", want: "the only answer was let go of",
	},
	{
		name: "the buffer of a Fetch is lent again",
		file: "kafka/fetch.go",
		old:  "\tq.recycle() // f.m",
		new:  "\t// f.m",
		pkg:  "./kafka", test: "TestBuffersAreLent", want: "of 8 requests one after the other, 0 had a buffer again",
	},
	{
		name: "the buffer of a Produce that is refused is lent again",
		file: "kafka/produce.go",
		old:  "\tp.s.buffers.Give(p.raw)\n\tp.send(a)",
		new:  "\tp.send(a)",
		pkg:  "./kafka", test: "TestBuffersAreLent", want: "of 8 requests one after the other, 0 had a buffer again",
	},
	{
		name: "the buffer of any other request is lent again",
		file: "kafka/writing.go",
		old:  "\tq.recycle()\n",
		new:  "",
		pkg:  "./kafka", test: "TestBuffersAreLent", want: "of 8 requests one after the other, 0 had a buffer again",
	},
}
