package main

// stormTable lists the guards of the simulator of several nodes: that its faults
// are faults, and that its clocks step.
var stormTable = []mutant{
	{
		name: "a mended way of the network is still cut by another name",
		file: "internal/netsim/netsim.go",
		old:  "if p.isCut && !n.isCutLocked(p.link) {",
		new:  "if p.isCut {",
		pkg:  "./internal/netsim", test: "TestMend", want: "through the cut of all that a says",
	},
	{
		name: "a cut of the network of every host is one",
		file: "internal/netsim/netsim.go",
		old:  "		if _, ok := n.cuts[l]; ok {\n			return true\n		}\n	}\n	return false\n",
		new:  "		if _, ok := n.cuts[l]; ok {\n			return l.from != \"\" && l.to != \"\"\n		}\n	}\n	return false\n",
		pkg:  "./internal/netsim", test: "TestMend", want: "want context deadline exceeded",
	},
}
