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
		file: "log/journal/pace.go", old: "if j.awaited || j.refusedLocked() || j.stuckLocked() || j.wantsBeyondLocked() {", new: "if j.failed != nil {",
		pkg: "./log/journal", test: "TestGrowthKeepsPace", want: "want another at once",
	},
	{
		name: "journal: a new file is not ready before the last is full",
		file: "log/journal/pace.go", old: "ready := room - room/4", new: "ready := 8 * room",
		pkg: "./log/journal", test: "TestGrowthKeepsPace", want: "before the last is full",
	},
	{
		name: "journal: a new file is not ready before the limit is reached",
		file: "log/journal/pace.go", old: ", p.share(j.committedLocked()-p.taken, p.spare))", new: ", 0*p.spare)",
		pkg: "./log/journal", test: "TestGrowthBeforeTheLimit", want: "before the limit is reached, want",
	},
	{
		name: "journal: half of the limit is a reason to hurry",
		file: "log/journal/pace.go", old: "if j.awaited || j.refusedLocked()", new: "if j.awaited || j.tightLocked()",
		pkg: "./log/journal", test: "TestGrowthBeforeTheLimit", want: "when half of the limit is taken; want a few",
	},
	{
		name: "journal: a file that is there to be written next does not keep it from being stuck",
		file: "log/journal/ring.go", old: "return j.crampedLocked() || j.at == len(j.files)-1 && j.space", new: "return !j.copyFitsLocked() || j.space",
		pkg: "./log/journal", test: "TestGrowthBeforeTheLimit", want: "is half full",
	},
	{
		name: "a start does not need room to count a file of the ring",
		file: "log/journal/mend.go",
		old:  "if !s.counted || int(s.ring.slots) < startFiles || ",
		new:  "if true || ",
		pkg:  "./log/journal", test: "TestUncountedOnFullDisk", want: "no space left",
	},
}
