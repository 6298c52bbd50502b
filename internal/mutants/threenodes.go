package main

// threeNodesTable lists the guards of measuring three nodes.
var threeNodesTable = []mutant{
	{
		name: "no node of a cluster that did not start is left",
		file: "internal/peer/cluster.go",
		old:  "if err != nil && errs[i] == nil {",
		new:  "if err != nil && errs[i] == nil && s == nil {",
		pkg:  "./internal/peer", test: "TestCluster", want: "the other one goes on",
	},
	{
		name: "a measured run has records",
		file: "bench/peers/session.go",
		old:  "settled := pair > 0 || s.Agree > 0",
		new:  "settled := pair < 0",
		pkg:  "./bench/peers", test: "TestSessionEnds", want: "no records",
	},
}
