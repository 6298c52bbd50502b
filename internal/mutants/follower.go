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
	{
		name: "nobody is sent to and fro between a leader and its follower",
		file: "broker/follower.go",
		old:  "case errcode.OffsetNotAvailable, errcode.UnknownLeaderEpoch, errcode.NotLeaderOrFollower:",
		new:  "case errcode.OffsetNotAvailable:",
		pkg:  "./broker", test: "TestFollowerReads", want: "is sent to and fro",
	},
	{
		name: "what a follower has not got yet is not out of range",
		file: "broker/fetch.go",
		old:  "if !confirmed.current(b, p) {",
		new:  "if p.epoch() >= 0 && !confirmed.current(b, p) {",
		pkg:  "./broker", test: "TestFollowerReads", want: "want OFFSET_NOT_AVAILABLE",
	},
	{
		name: "a follower knows the leader epoch",
		file: "broker/follower.go",
		old:  "return sameEpoch(known, p.baseEpoch+int32(term))",
		new:  "return sameEpoch(-1, p.baseEpoch+int32(term))",
		pkg:  "./broker", test: "TestFollowerReads", want: "want FENCED_LEADER_EPOCH",
	},
	{
		name: "who is ahead of a follower waits",
		file: "broker/follower.go",
		old:  "r.ahead = r.Err.Code == errcode.OffsetNotAvailable",
		new:  "r.ahead = false",
		pkg:  "./broker", test: "TestFollowerReads", want: "did not wait",
	},
	{
		name: "a follower sends back to the leader",
		file: "broker/follower.go",
		old:  "if ok && leader != b.opt.NodeID {",
		new:  "if false {",
		pkg:  "./broker", test: "TestFollowerReads", want: "is not sent back",
	},
	{
		name: "nobody is sent to a replica that may be gone",
		file: "broker/follower.go",
		old:  "min(nearerLag, b.opt.ReplicaLag)",
		new:  "b.opt.ReplicaLag",
		pkg:  "./broker", test: "TestFollowerReads", want: "sent to a replica that is cut off",
	},
}
