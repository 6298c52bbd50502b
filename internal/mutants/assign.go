package main

// assignTable lists the guards of the assignors of consumer groups.
var assignTable = []mutant{
	{
		name: "a member keeps what it had",
		file: "consumergroup/assign/uniform.go",
		old:  "\tu.keep()\n\tu.fill()",
		new:  "\tmembers = slices.Clone(members)\n\tfor i := range members {\n\t\tmembers[i].Target = nil\n\t}\n\tu.group = newGroup(topics, members)\n\tu.keep()\n\tu.fill()",
		pkg:  "./consumergroup/assign", test: "TestUniformMovesLittle", want: "partitions of others moved as a member left",
	},
	{
		name: "partitions move from members with many to members with few",
		file: "consumergroup/assign/uniform.go",
		old:  "\tu.level()\n",
		new:  "",
		pkg:  "./consumergroup/assign", test: "TestUniform", want: "could give it one",
	},
	{
		name: "an assignment becomes more even over members in between",
		file: "consumergroup/assign/uniform.go",
		old:  "for done := 0; done < len(s.queue); {",
		new:  "for done := 0; done < 1; {",
		pkg:  "./consumergroup/assign", test: "TestUniformPath", want: "want 2 each",
	},
	{
		name: "what was given out since moves first",
		file: "consumergroup/assign/uniform.go",
		old:  "(s.u.had[p.topic][p.index] != at) != free",
		new:  "!free",
		pkg:  "./consumergroup/assign", test: "TestAgainstKafka", want: "moves, Kafka's",
	},
	{
		name: "of members that are as near, the lightest gets a partition",
		file: "consumergroup/assign/uniform.go",
		old:  "if s.best == nobody || s.u.load(m) < s.u.load(s.best) {",
		new:  "if s.best == nobody {",
		pkg:  "./consumergroup/assign", test: "TestAgainstKafka", want: "line ",
	},
	{
		name: "a target that cannot be is not believed",
		file: "consumergroup/assign/uniform.go",
		old:  "if p >= 0 && p < u.topics[t].Partitions && u.owner[t][p] == nobody {",
		new:  "if p >= 0 && p < u.topics[t].Partitions {",
		pkg:  "./consumergroup/assign", test: "TestUniformDistrustsTargets", want: "(-want +got):",
	},
	{
		name: "an assignment does not depend on the order of members",
		file: "consumergroup/assign/assign.go",
		old:  "return cmp.Or(cmp.Compare(a.InstanceID, b.InstanceID), cmp.Compare(a.ID, b.ID))",
		new:  "return 0",
		pkg:  "./consumergroup/assign", test: "TestUniform", want: "another answer in another order",
	},
	{
		name: "static members stand before others in ranges",
		file: "consumergroup/assign/assign.go",
		old:  "return cmp.Compare(b.InstanceID, a.InstanceID)",
		new:  "return cmp.Compare(a.InstanceID, b.InstanceID)",
		pkg:  "./consumergroup/assign", test: "TestRangeStatic", want: "(-want +got):",
	},
}
