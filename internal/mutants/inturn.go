package main

// inTurnTable lists the guards of what a Fetch holds that has others before it.
var inTurnTable = []mutant{
	{
		name: "a Fetch behind others is started in its turn",
		file: "kafka/conn.go",
		old:  "q.inTurn = q.api.inTurn && c.before.Load() > 0",
		new:  "q.inTurn = q.api.inTurn && c.before.Load() > 1<<20",
		pkg:  "./kafka", test: "TestFetchBehindOthers", want: "want it at once",
	},
	{
		name: "a Fetch that is started late hurries for who came meanwhile",
		file: "kafka/fetch.go",
		old:  "if f.inTurn && f.hurried != f.hurries.Load() {",
		new:  "if false {",
		pkg:  "./kafka", test: "TestFetchInTurnHurries", want: "with 11 names in the request behind it",
	},
	{
		name: "a Fetch that is started late waits if nobody hurries it",
		file: "kafka/conn.go",
		old:  "\tq.hurried = c.hurries.Load()\n",
		new:  "\tq.hurried = -1\n",
		pkg:  "./kafka", test: "TestFetchInTurnHurries", want: "with 1 names in the request behind it",
	},
	{
		name: "a large Fetch that has to wait hurries those before it",
		file: "kafka/conn.go",
		old:  "if (q.api.start == nil || q.inTurn) && size > hurryBytes {",
		new:  "if q.api.start == nil && size > hurryBytes {",
		pkg:  "./kafka", test: "TestLargeFetchHurries", want: "with a Fetch of 100 partitions behind a Produce",
	},
	{
		name: "Fetches are started as they come once others are answered",
		file: "kafka/writing.go",
		old:  "\t\tq.before.Add(-1)\n",
		new:  "",
		pkg:  "./kafka", test: "TestFetchInTurn", want: "a Fetch behind one that waits: ",
	},
	{
		name: "a Fetch behind one that waits for its turn does not overtake it",
		file: "kafka/conn.go",
		old:  "if q.inTurn || !q.api.inTurn {",
		new:  "if !q.api.inTurn {",
		pkg:  "./kafka", test: "TestFetchInTurn", want: "a Fetch behind one that is about to start: ",
	},
}
