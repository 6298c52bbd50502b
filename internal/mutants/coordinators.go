package main

// coordinatorsTable lists the guards of which node coordinates a group, and of what its
// coordinator is told.
var coordinatorsTable = []mutant{
	{
		name: "a group's partition is Kafka's",
		file: "broker/groups.go",
		old:  "range utf16.Encode([]rune(group))",
		new:  "range utf16.Encode([]rune(group))[:len([]rune(group))]",
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
}
