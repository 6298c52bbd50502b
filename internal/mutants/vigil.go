package main

// vigilTable lists the guards of how a node waits for others before it serves.
var vigilTable = []mutant{
	{
		name: "who waits for others asks them less and less often",
		file: "internal/node/vigil.go",
		old:  "pause = min(2*pause, lastRound) {",
		new:  "pause = min(pause, lastRound) {",
		pkg:  "./internal/node", test: "TestVigilRounds", want: "waits: rounds at",
	},
	{
		name: "why a node waits is said once",
		file: "internal/node/vigil.go",
		old:  "again := v.said && v.why == why",
		new:  "again := v.said && v.why == why+why+\" \"",
		pkg:  "./internal/node", test: "TestVigilSays", want: "the log has",
	},
	{
		name: "the wait for others ends when nothing can be recorded",
		file: "internal/node/vigil.go",
		old:  "\t\tcase err := <-v.fault:\n\t\t\treturn err\n",
		new:  "",
		pkg:  "./internal/node", test: "TestVigilRounds", want: "a fault: rounds at",
	},
}
