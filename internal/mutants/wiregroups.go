package main

// wireGroupsTable holds the guards of the native protocol's requests about groups.
var wireGroupsTable = []mutant{
	{
		name: "wire groups: a node that looks after them offers them",
		file: "wire/server/server.go",
		old:  "features = append(features, frame.FeatureGroups)",
		new:  "features = append(features, \"group\")",
		pkg:  "./wire/server", test: "TestOffersGroups", want: "want groups among them",
	},
	{
		name: "wire groups: only partitions that there are get a committed offset",
		file: "wire/server/groupoffsets.go",
		old:  "return t, q.s.opt.Broker.HasPartition(id, index)",
		new:  "return t, nil",
		pkg:  "./wire/server", test: "TestGroups", want: "committed:",
	},
	{
		name: "wire groups: no offset below 0 is committed",
		file: "wire/server/groupoffsets.go",
		old:  "if o.Offset < 0 {",
		new:  "if o.Offset < -1 {",
		pkg:  "./wire/server", test: "TestGroupsRefused", want: "want INVALID_REQUEST",
	},
	{
		name: "wire groups: offsets come in answers that fit",
		file: "wire/server/groupoffsets.go",
		old:  "bytes > maxGroupAnswerBytes && len(resp.Offsets) > 0",
		new:  "bytes < 0 && len(resp.Offsets) > 0",
		pkg:  "./wire/server", test: "TestGroupsInPages", want: "FAIL",
	},
	{
		name: "wire groups: the next page begins after the last one",
		file: "wire/server/groupoffsets.go",
		old:  "cmp.Compare(o.Partition, m.AfterPartition)) <= 0 {",
		new:  "cmp.Compare(o.Partition, m.AfterPartition)) < 0 {",
		pkg:  "./wire/server", test: "TestGroupsInPages", want: "offsets:",
	},
	{
		name: "wire groups: the coordinator hears of a connection's end",
		file: "wire/server/groups.go",
		old:  "m, err := q.group(ctx)",
		new:  "m, err := q.group(context.WithoutCancel(ctx))",
		pkg:  "./wire/server", test: "TestGroupsHearTheEnd", want: "was not told",
	},
	{
		name: "wire groups: what a member does not say has not changed",
		file: "wire/server/groups.go",
		old:  "Epoch: m.MemberEpoch, RebalanceTimeoutMS: -1,",
		new:  "Epoch: m.MemberEpoch, RebalanceTimeoutMS: 0,",
		pkg:  "./wire/server", test: "TestGroups", want: "answered by",
	},
}
