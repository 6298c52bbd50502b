package main

// roomTable lists the guards of the journal's room (R6): a leader finds room on its
// followers for what shows that it is one, whatever their rings hold.
var roomTable = []mutant{
	{
		name: "the ring grows for what no checkpoint can free",
		file: "log/journal/ring.go",
		old:  "|| stuck || j.wantsBeyondLocked())",
		new:  "|| stuck)",
		pkg:  "./replication", test: "TestRestartWithAFullRing", want: "leads after a minute",
	},
	{
		name: "it does not grow for what a checkpoint can free",
		file: "log/journal/space.go",
		old:  "over := pinned - j.limitOf(j.maxFiles)/2",
		new:  "over := pinned",
		pkg:  "./log/journal", test: "TestGrowsForPinned", want: "checkpoints make room",
	},
	{
		name: "what a ring has grown by holds nothing else",
		file: "log/journal/space.go",
		old:  "return j.limitOf(min(len(j.files), j.maxFiles)) }",
		new:  "return j.limitOf(len(j.files)) }",
		pkg:  "./log/journal", test: "TestGrowsForPinned", want: "and a limit of",
	},
	{
		name: "the last entry of a checkpoint stays",
		file: "log/journal/space.go",
		old:  "pinned += int64(e.bytes) // a log keeps",
		new:  "pinned += 0 // a log keeps",
		pkg:  "./log/journal", test: "TestGrowsForLastEntries", want: "of as many with one entry each",
	},
	{
		name: "the ring grows for a leader that waits",
		file: "log/journal/space.go",
		old:  "wanted = max(wanted, j.space.waiters[0].bytes)",
		new:  "wanted += 0",
		pkg:  "./log/journal", test: "TestGrowsForPinned", want: "another shard's, after a restart: context deadline exceeded",
	},
	{
		name: "urgent entries may have the disk's reserve",
		file: "log/journal/ring.go",
		old:  "|| j.space.urgent && j.wantsBeyondLocked() {",
		new:  "{",
		pkg:  "./log/journal", test: "TestGrowsIntoTheReserve", want: "4 files, want 5",
	},
	{
		name: "others may not",
		file: "log/journal/ring.go",
		old:  "|| j.space.urgent && j.wantsBeyondLocked() {",
		new:  "|| j.wantsBeyondLocked() {",
		pkg:  "./log/journal", test: "TestGrowsIntoTheReserve", want: "5 files, want 4",
	},
	{
		name: "a follower looks at no share",
		file: "replication/link.go",
		old:  "TryReserveFollowing(r.journal, bytes)",
		new:  "TryReserve(r.journal, bytes)",
		pkg:  "./replication", test: "TestFollowsWithALongSuffix", want: "has 1 lines, want 11",
	},
	{
		name: "a request without room tells what is committed of what is here",
		file: "replication/link.go",
		old:  "bare.Entries = req.Entries[:l.held(req.Entries)]",
		new:  "bare.Entries = nil",
		pkg:  "./replication", test: "TestLinkWithoutRoom", want: "Raft saw 0 entries",
	},
}
