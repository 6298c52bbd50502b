package main

// coordinatorsTable lists the guards of which node coordinates a group, and of what its
// coordinator is told.
var coordinatorsTable = []mutant{
	{
		name: "a group's partition is Kafka's",
		file: "broker/groups.go",
		old:  "high != utf8.RuneError {",
		new:  "high != utf8.RuneError && r < 0 {",
		pkg:  "./broker", test: "TestOffsetsPartition", want: "offsetsPartition(",
	},
	{
		name: "a coordinator is told what was deleted",
		file: "broker/coordinators.go",
		old:  "\t\t\tdeleted = append(deleted,",
		new:  "\t\t\t_ = append(deleted,",
		pkg:  "./broker", test: "TestDeletedTopicsAreForgotten", want: "deleted: there are offsets of",
	},
	{
		name: "a coordinator that begins is told what was deleted",
		file: "broker/coordinators.go",
		old:  "len(gone) > 0 {",
		new:  "len(gone) > 1<<20 {",
		pkg:  "./broker", test: "TestDeletedTopicsAreForgotten", want: "deleted while nobody coordinated: there are offsets of",
	},
	{
		name: "a decision fits into an entry",
		file: "broker/coordinators.go",
		old:  "most: min(most, maxDecisionBytes)",
		new:  "most: max(most, maxDecisionBytes)",
		pkg:  "./broker", test: "TestManyOffsets", want: "there is no coordinator",
	},
	{
		name: "a coordinator asks for the ends of what others have",
		file: "broker/lag.go",
		old:  "leader >= 0 && leader != b.opt.NodeID {",
		new:  "false {",
		pkg:  "./broker", test: "TestLag", want: "three nodes",
	},
	{
		name: "a partition whose end nobody tells is told of",
		file: "broker/lag.go",
		old:  "s.Unknown++",
		new:  "_ = s.Unknown",
		pkg:  "./broker", test: "TestLag", want: "a node is cut off",
	},
	{
		name: "who is ahead of what this node knows has no lag",
		file: "broker/lag.go",
		old:  "lag := max(e.end-max(c.offset, e.start), 0)",
		new:  "lag := e.end - max(c.offset, e.start)",
		pkg:  "./broker", test: "TestLag", want: "three nodes",
	},
	{
		name: "what was deleted is no lag",
		file: "broker/lag.go",
		old:  "max(c.offset, e.start), 0)",
		new:  "c.offset, 0)",
		pkg:  "./broker", test: "TestLag", want: "three nodes",
	},
	{
		name: "groups with a lag of their own are bounded",
		file: "broker/lag.go",
		old:  "if len(s.Groups) > l.most {",
		new:  "if false {",
		pkg:  "./broker", test: "TestLag", want: "three nodes",
	},
	{
		name: "groups that become one label become one series",
		file: "internal/admin/metrics.go",
		old:  "Records: is.Records + g.Records, Largest: max(is.Largest, g.Largest)}",
		new:  "Records: g.Records, Largest: max(0*is.Largest, g.Largest)}",
		pkg:  "./internal/admin", test: "TestLagLabels", want: "series",
	},
	{
		name: "a group's label is UTF-8",
		file: "internal/admin/metrics.go",
		old:  "label := strings.ToValidUTF8(cmp.Or(g.Group, otherGroups), \"\\uFFFD\")",
		new:  "_ = strings.ToValidUTF8\n\t\tlabel := cmp.Or(g.Group, otherGroups)",
		pkg:  "./internal/admin", test: "TestLagLabels", want: "panic",
	},
	{
		name: "who joins finds the topic that was made just before",
		file: "broker/groups.go",
		old:  "\t\tb.coordinators.tell(nil) // who joins may have made its topic just before\n",
		new:  "",
		pkg:  "./broker", test: "TestNewTopicIsAssigned", want: "a member that joins for a topic",
	},
}
