package main

// paceTable holds the mutants of how fast a journal's ring grows.
var paceTable = []mutant{
	{
		name: "journal: a new file is written as fast as the disk takes it",
		file: "log/journal/pace.go", old: "	for off >= p.due() {", new: "	for false && off >= p.due() {",
		pkg: "./log/journal", test: "TestGrowthKeepsPace", want: "are there when the last is",
	},
	{
		name: "journal: a new file keeps its pace though room is wanted",
		file: "log/journal/pace.go", old: "if j.awaited || j.at < len(j.files)-1 || j.tightLocked() || j.stuckLocked() || j.wantsBeyondLocked() {", new: "if j.failed != nil {",
		pkg: "./log/journal", test: "TestGrowthKeepsPace", want: "want another at once",
	},
	{
		name: "journal: a new file is not ready before the last is full",
		file: "log/journal/pace.go", old: "ready := p.room - p.room/4", new: "ready := 8 * p.room",
		pkg: "./log/journal", test: "TestGrowthKeepsPace", want: "before the last is full",
	},
	{
		name: "a start does not need room to count a file of the ring",
		file: "log/journal/mend.go",
		old:  "if !s.counted || int(s.ring.slots) < startFiles || ",
		new:  "if true || ",
		pkg:  "./log/journal", test: "TestUncountedOnFullDisk", want: "no space left",
	},
}
