package main

// electionsTable lists the guards of elections that somebody asks for.
var electionsTable = []mutant{
	{
		name: "an election asks the heir whether it would lead",
		file: "broker/elect.go",
		old:  "if to != b.opt.NodeID {\n\t\tif err := b.asksFit(ctx, m); err != nil {",
		new:  "if to == b.opt.NodeID {\n\t\tif err := b.asksFit(ctx, m); err != nil {",
		pkg:  "./broker", test: "TestElectPreferred", want: "for one that is unfit",
	},
	{
		name: "a heir has to be connected",
		file: "broker/elect.go",
		old:  "if !b.opt.Cluster.Peers.Connected(m.replica.Node) {",
		new:  "if false {",
		pkg:  "./broker", test: "TestElectPreferred", want: "for one that is away",
	},
	{
		name: "who leads already needs no election",
		file: "broker/elect.go",
		old:  "case leader == to:",
		new:  "case leader == -2:",
		pkg:  "./broker", test: "TestElectPreferred", want: "was asked again",
	},
	{
		name: "no unclean elections",
		file: "kafka/electleaders.go",
		old:  "req.ElectionType == electUnclean:",
		new:  "req.ElectionType == 77:",
		pkg:  "./kafka", test: "TestElectLeaders", want: "type 1",
	},
	{
		name: "only elections that are known",
		file: "kafka/electleaders.go",
		old:  "req.ElectionType != electPreferred:",
		new:  "req.ElectionType == 77:",
		pkg:  "./kafka", test: "TestElectLeaders", want: "type 2",
	},
	{
		name: "all partitions are those that had to move",
		file: "kafka/electleaders.go",
		old:  "err == nil || err.Code != errcode.ElectionNotNeeded {",
		new:  "true {",
		pkg:  "./kafka", test: "TestElectLeaders", want: "want nothing",
	},
}
