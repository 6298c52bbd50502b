package main

// featuresTable holds the guards of feature levels and of how they are raised.
var featuresTable = []mutant{
	{
		name: "no feature level that a node does not know (R4)",
		file: "broker/metadata/state.go",
		old:  "if n.FeatureLevel < level {",
		new:  "if n.FeatureLevel+1 < level {",
		pkg:  "./broker/metadata", test: "TestScenarios", want: "node 2 knows feature levels up to 1, not 2",
	},
	{
		name: "no feature level that a node may not know (R4)",
		file: "broker/metadata/state.go",
		old:  "if n.FeatureLevel == 0 {",
		new:  "if n.FeatureLevel == 0 && level > MaxFeatureLevel {",
		pkg:  "./broker/metadata", test: "TestScenarios", want: "has not said which feature levels it knows",
	},
	{
		name: "no node that knows less than the cluster (R4)",
		file: "broker/metadata/state.go",
		old:  "case c.FeatureLevel > 0 && c.FeatureLevel < a.im.featureLevel:",
		new:  "case c.FeatureLevel > 0 && c.FeatureLevel+1 < a.im.featureLevel:",
		pkg:  "./broker/metadata", test: "TestScenarios", want: "UNSUPPORTED_VERSION",
	},
	{
		name: "a registration that does not say keeps what was said",
		file: "broker/metadata/state.go",
		old:  "if n.FeatureLevel == 0 && old != nil && old.Incarnation == c.Incarnation {",
		new:  "if n.FeatureLevel == 0 && old != nil && old.Incarnation == c.Replaces {",
		pkg:  "./broker/metadata", test: "TestScenarios", want: "knows=",
	},
	{
		name: "node levels of a snapshot are of nodes that are there, one each",
		file: "broker/metadata/snapshot.go",
		old:  "n == nil || n.FeatureLevel > 0 || level == 0",
		new:  "n == nil || level == 0",
		pkg:  "./broker/metadata", test: "TestRestoreNodeLevels", want: "twice: error = <nil>",
	},
	{
		name: "a registration has one form",
		file: "broker/metadata/command.go",
		old:  "if c.FeatureLevel = r.uint16(); c.FeatureLevel == 0 {",
		new:  "if c.FeatureLevel = r.uint16(); c.FeatureLevel == 0 && r == nil {",
		pkg:  "./broker/metadata", test: "TestDecodeErrors", want: "a node of feature level 0",
	},
	{
		name: "a level that would stop this node is not proposed (R4)",
		file: "broker/features.go",
		old:  "if level > b.opt.FeatureLevel {",
		new:  "if level > b.opt.FeatureLevel+1 {",
		pkg:  "./internal/node", test: "TestUpgrade", want: "want INVALID_UPDATE_VERSION and \"not known to node 1",
	},
	{
		name: "a dry run raises nothing",
		file: "broker/features.go",
		old:  "if level == before || validateOnly {",
		new:  "if level == before {",
		pkg:  "./internal/node", test: "TestUpgrade", want: "features: level 3",
	},
	{
		name: "a node of another version says again what it knows",
		file: "broker/members.go",
		old:  "n.FeatureLevel == self.FeatureLevel",
		new:  "n.FeatureLevel <= self.FeatureLevel",
		pkg:  "./internal/node", test: "TestUpgrade", want: "features: level 1, nodes [{1",
	},
	{
		name: "a directory of a level that a version does not know is refused (R4)",
		file: "internal/node/identity.go",
		old:  "if level > newest {",
		new:  "if level > newest+100 {",
		pkg:  "./internal/node", test: "TestUpgrade", want: "the older version starts",
	},
	{
		name: "a level of more than 16 bits is none",
		file: "wire/server/features.go",
		old:  "uint16(min(m.FeatureLevel, math.MaxUint16))",
		new:  "uint16(m.FeatureLevel & math.MaxUint16)",
		pkg:  "./wire/server", test: "TestFeatures", want: "want INVALID_UPDATE_VERSION",
	},
}
