package main

// joinHurtTable lists the guards of damage in a cluster that nodes have joined: who is
// asked, and what a fresh directory is made for.
var joinHurtTable = []mutant{
	{
		name: "a node that has joined heals",
		file: "internal/node/damage.go",
		old:  "several := opt.Join != nil || opt.Cluster != nil",
		new:  "several := opt.Cluster != nil",
		pkg:  "./internal/node", test: "TestHeals", want: "one that has joined: false, want true",
	},
	{
		name: "the fresh directory of a node that has joined has joined too",
		file: "internal/node/aside.go",
		old:  "Joins: a.Joins, Nodes: a.Nodes,\n\t}",
		new:  "Nodes: a.Nodes,\n\t}",
		pkg:  "./internal/node", test: "TestAsideOfJoined", want: "the fresh directory is",
	},
	{
		name: "half set aside, a directory says that it joins",
		file: "internal/node/join.go",
		old:  "\t\t\treturn set.Joins, nil\n",
		new:  "\t\t\treturn set.Joins && err == nil, err\n",
		pkg:  "./internal/node", test: "TestAsideOfJoined", want: "half set aside, it joins: false",
	},
	{
		name: "another's files are not given up",
		file: "internal/node/join.go",
		old:  "case !opt.Heals(damage) || len(partsSay(opt.FS, opt.Dir)) == 0:",
		new:  "case !opt.Heals(damage):",
		pkg:  "./internal/node", test: "TestNameless", want: "another's files: fresh true",
	},
	{
		name: "who is not told where its cluster is says so",
		file: "internal/node/join.go",
		old:  "case len(opt.Join.Addresses) == 0:",
		new:  "case len(opt.Join.Addresses) < 0:",
		pkg:  "./internal/node", test: "TestNameless", want: "no address: fresh true",
	},
	{
		name: "those that have joined are asked who can do without a founder",
		file: "internal/node/damage.go",
		old:  "\t\tif !slices.Contains(all, id) {\n\t\t\tall = append(all, id)",
		new:  "\t\tif !slices.Contains(all, id) && id < 0 {\n\t\t\tall = append(all, id)",
		pkg:  "./internal/sim", test: "TestJoinHeals", want: "has not got its place back in",
	},
	{
		name: "a founder's directory is not given up for one that joins",
		file: "internal/node/damage.go",
		old:  "case founder && n.joining != nil:",
		new:  "case founder && n.joining == nil && n.opt.NodeID < 0:",
		pkg:  "./internal/sim", test: "TestJoinHeals", want: "give cluster.nodes instead of join",
	},
	{
		name: "all that anybody knows of is asked",
		file: "broker/roll.go",
		old:  "\t\t\tif all.Nodes[id] == \"\" {",
		new:  "\t\t\tif len(all.Nodes) == 0 {",
		pkg:  "./broker", test: "TestAskRoll", want: "(-want +got)",
	},
}
