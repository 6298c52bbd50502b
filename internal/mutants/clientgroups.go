package main

// clientGroupsTable holds the guards of the client's members of groups.
var clientGroupsTable = []mutant{
	{
		name: "client groups: a record that the program works on is not worked off",
		file: "client/group.go",
		old:  "if !done && err == nil {",
		new:  "if err == nil {",
		pkg:  "./client", test: "TestGroupCommit", want: "want 9",
	},
	{
		name: "client groups: at most once commits before",
		file: "client/groupcommit.go",
		old:  "if g.cfg.Delivery != AtMostOnce {",
		new:  "if g.cfg.Delivery != AtMostOnce || ctx != nil {",
		pkg:  "./client", test: "TestGroupCrash", want: "want 20",
	},
	{
		name: "client groups: what is given away is committed first",
		file: "client/rebalance.go",
		old:  "if g.cfg.CommitInterval > 0 {\n\t\tif err",
		new:  "if g.cfg.CommitInterval < 0 {\n\t\tif err",
		pkg:  "./client", test: "TestGroup", want: "records were read, want each of 100 once",
	},
	{
		name: "client groups: a partition is given away before others have it",
		file: "client/rebalance.go",
		old:  "\t\t_ = g.co.Unassign(a.Topic, a.Partition) // it may be lost meanwhile\n",
		new:  "\t\t_ = a\n",
		pkg:  "./client", test: "TestGroup", want: "FAIL",
	},
	{
		name: "client groups: what was taken is put back when there is something to give away",
		file: "client/group.go",
		old:  "return g.pending.Load() && g.cfg.Delivery == AtLeastOnce",
		new:  "return false && g.cfg.Delivery == AtLeastOnce",
		pkg:  "./client", test: "TestGroup", want: "beside b, want 2",
	},
	{
		name: "client groups: who is lost commits nothing",
		file: "client/rebalance.go",
		old:  "g.lost, g.epoch, g.target, g.whole = true, 0, nil, true",
		new:  "g.lost, g.epoch, g.target, g.whole = false, 0, nil, true",
		pkg:  "./client", test: "TestGroupLost", want: "a heard",
	},
	{
		name: "client groups: who takes too long leaves",
		file: "client/rebalance.go",
		old:  "if since == 0 || g.c.cfg.Now()",
		new:  "if since >= 0 || g.c.cfg.Now()",
		pkg:  "./client", test: "TestGroupTakesTooLong", want: "b begins at",
	},
	{
		name: "client groups: a static member keeps its place",
		file: "client/rebalance.go",
		old:  "req.MemberEpoch = staticLeaveEpoch",
		new:  "req.MemberEpoch = leaveEpoch",
		pkg:  "./client", test: "TestGroupStatic", want: "the other one heard",
	},
	{
		name: "client groups: a static member waits for its instance id",
		file: "client/rebalance.go",
		old:  "case isUnreleased(err) && (",
		new:  "case isUnreleased(err) && err == nil && (",
		pkg:  "./client", test: "TestGroupStatic", want: "UNRELEASED_INSTANCE_ID",
	},
	{
		name: "client groups: a coordinator that is silent is looked for elsewhere",
		file: "client/coordinator.go",
		old:  "if c.alone(c.meta.image.Load()) {",
		new:  "if addr != \"\" {",
		pkg:  "./client", test: "TestGroupMovesCoordinator", want: "by the new coordinator, want 110",
	},
	{
		name: "client groups: a coordinator that has moved is looked for",
		file: "client/coordinator.go",
		old:  "return !answered || code == errcode.NotCoordinator ||",
		new:  "return !answered ||",
		pkg:  "./client", test: "TestGroupMovesCoordinator", want: "by the new coordinator, want 110",
	},
	{
		name: "client groups: the second attempt to delete a group finds none",
		file: "client/groups.go",
		old:  "tries = tries || sent",
		new:  "tries = tries && sent",
		pkg:  "./client", test: "TestGroupsAdmin", want: "GROUP_ID_NOT_FOUND",
	},
}
