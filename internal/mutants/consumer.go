package main

// consumerTable lists the guards of groups that the coordinator assigns (KIP-848).
var consumerTable = []mutant{
	{
		name: "a regular expression means the whole name of a topic",
		file: "consumergroup/regex.go",
		old:  "`)\\z`)",
		new:  "`)`)",
		pkg:  "./consumergroup", test: "TestRegex", want: "matches \"orders2\"",
	},
	{
		name: "what makes a regular expression mean the whole name is no part of it",
		file: "consumergroup/regex.go",
		old:  "tree.String()",
		new:  "pattern",
		pkg:  "./consumergroup", test: "TestRegex", want: "\"\\\\Qa.b\"",
	},
	{
		name: "what a regular expression compiles to is bounded",
		file: "consumergroup/regex.go",
		old:  "n > MaxRegexInstructions {\n\t\treturn nil, invalid",
		new:  "n < 0 {\n\t\treturn nil, invalid",
		pkg:  "./consumergroup", test: "TestRegexRefused", want: "more than 1000 instructions",
	},
}
