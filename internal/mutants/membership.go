package main

// membershipTable lists the guards of changes of a shard's members (R11).
var membershipTable = []mutant{
	{
		name: "a replica without a configuration gives no vote",
		file: "replication/membership.go",
		old:  "\tunknown := len(latest.Servers) == 0\n",
		new:  "\tunknown := false\n",
		pkg:  "./replication", test: "TestUnknownReplicaHasNoVote", want: "a replica without a configuration has given its vote",
	},
	{
		name: "who has no vote does not campaign",
		file: "replication/membership.go",
		old:  "votersOf(latest, r.opt.ID); !voter {",
		new:  "votersOf(latest, r.opt.ID); !voter && r.opt.ID.Node < 0 {",
		pkg:  "./replication", test: "TestUnknownReplicaHasNoVote", want: "a replica without a configuration campaigns",
	},
	{
		name: "a learner that lacks much gets no vote",
		file: "replication/membership.go",
		old:  "case match+lagEntries < last:",
		new:  "case match > last:",
		pkg:  "./replication", test: "TestPromoteWaitsForTheLog", want: "a learner that lacks much is promoted",
	},
	{
		name: "a learner that has not answered gets no vote",
		file: "replication/membership.go",
		old:  "case behind || match == 0:",
		new:  "case behind:",
		pkg:  "./replication", test: "TestPromoteWaitsForTheLog", want: "a learner that has not answered is promoted",
	},
	{
		name: "no change after which no majority answers",
		file: "replication/membership.go",
		old:  "\tif agreed < need {\n",
		new:  "\tif agreed < 0 {\n",
		pkg:  "./replication", test: "TestChangesRefused", want: "want replication: no majority of the voters would answer",
	},
	{
		name: "the leader does not remove itself",
		file: "replication/membership.go",
		old:  "\tif id == r.opt.ID {\n",
		new:  "\tif id == r.opt.ID && id.Node < 0 {\n",
		pkg:  "./replication", test: "TestChangesRefused", want: "the leader removes itself",
	},
	{
		name: "one change of members at a time",
		file: "replication/membership.go",
		old:  "!slices.Equal(latest.Servers, applied.Servers) {",
		new:  "len(latest.Servers) == 0 {",
		pkg:  "./replication", test: "TestOneChangeAtATime", want: "a change beside one that is not committed",
	},
	{
		name: "the log is kept for learners",
		file: "replication/peers.go",
		old:  "\tfor _, id := range p.members {\n\t\tif id != p.self {\n\t\t\tleast =",
		new:  "\tfor _, id := range p.voters {\n\t\tif id != p.self {\n\t\t\tleast =",
		pkg:  "./replication", test: "TestLinkRetains", want: "both voters have, and no learner",
	},
}
