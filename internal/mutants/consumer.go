package main

// consumerTable lists the guards of groups that the coordinator assigns (KIP-848).
var consumerTable = []mutant{
	{
		name: "a regular expression means the whole name of a topic",
		file: "consumergroup/regex.go",
		old:  "return at != nil && at[0] == 0 && at[1] == len(topic)",
		new:  "return at != nil && at[0] == 0",
		pkg:  "./consumergroup", test: "TestRegex", want: "matches \"orders2\"",
	},
	{
		name: "of the ways in which a regular expression matches, the whole name is one",
		file: "consumergroup/regex.go",
		old:  "\tre.Longest()\n",
		new:  "",
		pkg:  "./consumergroup", test: "TestRegex", want: "\"a|ab\" does not match \"ab\"",
	},
	{
		name: "what a regular expression compiles to is bounded",
		file: "consumergroup/regex.go",
		old:  "n > MaxRegexInstructions {\n\t\treturn nil, invalid",
		new:  "n < 0 {\n\t\treturn nil, invalid",
		pkg:  "./consumergroup", test: "TestRegexRefused", want: "more than 2000 instructions",
	},
}
