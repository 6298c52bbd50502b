package main

// followerTable lists the guards of what is told of replicas in sync, and of reads
// from followers.
var followerTable = []mutant{
	{
		name: "who is fenced is not in sync",
		file: "broker/insync.go",
		old:  "return n != nil && n.Fenced",
		new:  "return n == nil",
		pkg:  "./internal/sim", test: "TestInSyncIsTold", want: "cut off for long: produced with <nil>",
	},
	{
		name: "who lags is told by the leader",
		file: "broker/insync.go",
		old:  "known == nil {",
		new:  "true {",
		pkg:  "./internal/sim", test: "TestInSyncIsTold", want: "tells of [1 2 3] in sync",
	},
	{
		name: "the last change of those in sync holds",
		file: "broker/contacts.go",
		old:  ", cmp.Compare(a.change, l.change)) < 0",
		new:  ") <= 0",
		pkg:  "./broker", test: "TestHear", want: "one that was on its way for longer: [2] in sync, want [2 3]",
	},
	{
		name: "nodes in sync are told once each",
		file: "broker/contacts.go",
		old:  "k > 0 && id <= l.inSync[k-1]",
		new:  "k > 0 && id < l.inSync[k-1]",
		pkg:  "./broker", test: "TestContactBytes", want: "nodes twice: <nil>, want errContact",
	},
}
