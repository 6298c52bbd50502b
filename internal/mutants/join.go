package main

// joinTable lists the guards of nodes that come to a cluster that is there: what they
// are refused for, what they get, and how the others find them.
var joinTable = []mutant{
	{
		name: "who carries no shards of a factor gets some",
		file: "broker/metadata/spread.go",
		old:  "\ts.count(have)\n",
		new:  "\tif s.count(have); len(have) > 0 {\n\t\treturn nil\n\t}\n",
		pkg:  "./broker", test: "TestShardsForWhoComesBack", want: "which has come back and carries nothing",
	},
	{
		name: "who has enough shards of a factor gets no more",
		file: "broker/metadata/spread.go",
		old:  "lacks[i] = max(perNode-s.carried[i], 0)",
		new:  "lacks[i] = perNode",
		pkg:  "./broker/metadata", test: "TestSpreadBeside", want: "enough: differs",
	},
	{
		name: "a node that joins has no founder's id",
		file: "broker/join.go",
		old:  "if b.founder(int32(r.ID)) { // each",
		new:  "if false { // each",
		pkg:  "./internal/sim", test: "TestJoinRefused", want: `want "node 2 is one of those that the cluster was founded with`,
	},
	{
		name: "a directory that joins serves in no other way",
		file: "internal/node/founding.go",
		old:  "case id.Joins && id.Founded:",
		new:  "case id.Joins && id.Founded && id.NodeID < 0:",
		pkg:  "./internal/node", test: "TestMembersRefused", want: "cannot serve alone",
	},
	{
		name: "an address that leads nowhere is not the only one",
		file: "internal/node/book.go",
		old:  "\tb.turn[node]++ //",
		new:  "\t//",
		pkg:  "./internal/node", test: "TestBook", want: "is dialled at",
	},
}
