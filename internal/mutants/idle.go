package main

// idleTable lists the guards of what an idle connection costs.
var idleTable = []mutant{
	{
		name: "an idle connection has a small buffer",
		file: "kafka/arrivals.go",
		old:  "if a.full >= busyReads && len(a.buf)",
		new:  "if len(a.buf)",
		pkg:  "./kafka", test: "TestArrivalsMemory", want: "after small requests",
	},
	{
		name: "a busy connection has a larger buffer",
		file: "kafka/arrivals.go",
		old:  "\t\ta.grow()\n",
		new:  "",
		pkg:  "./kafka", test: "TestArrivalsMemory", want: "want one of 4096 in the third",
	},
	{
		name: "a large request is read past the buffer",
		file: "kafka/arrivals.go",
		old:  "if a.next == a.end && a.err == nil && len(b) >= len(a.buf) {",
		new:  "if false {",
		pkg:  "./kafka", test: "TestArrivalsMemory", want: "want past the buffer",
	},
	{
		name: "the end that comes with the last bytes is told after them",
		file: "kafka/arrivals.go",
		old:  "\t\t\treturn a.takeErr()\n",
		new:  "\t\t\t_ = a.takeErr()\n",
		pkg:  "./kafka", test: "TestArrivalsEnd", want: "the end with the last bytes",
	},
	{
		name: "a read without progress is no loop",
		file: "kafka/arrivals.go",
		old:  "if tries == maxEmptyReads {",
		new:  "if tries == 1<<20 {",
		pkg:  "./kafka", test: "TestArrivalsWithoutProgress", want: "reads",
	},
}
