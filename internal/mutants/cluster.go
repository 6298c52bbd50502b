package main

// clusterTable lists the guards of nodes that make a cluster: that they found one,
// and what they do for each other.
var clusterTable = []mutant{
	{
		name: "a node that may be behind does not say that a topic is gone",
		file: "broker/topics.go",
		old:  "case t == nil && im.Tombstone(metadata.TopicID(topic)) == nil && b.mayBeBehind():",
		new:  "case t == nil && im.Tombstone(metadata.TopicID(topic)) == nil && false:",
		pkg:  "./broker", test: "TestAbsentElsewhere", want: "of a topic that it does not know",
	},
	{
		name: "a cluster starts when all have recorded its plan",
		file: "internal/node/plan.go",
		old:  "case planned && recorded == others:",
		new:  "case planned && 2*(recorded+1) > len(own.Nodes):",
		pkg:  "./internal/node", test: "TestFoundingCrashes", want: "two clusters",
	},
	{
		name: "a directory takes no plan of another directory (R11)",
		file: "internal/node/plan.go",
		old:  "o.Founders.incarnation(s.NodeID) == s.Incarnation &&",
		new:  "o.Founders.incarnation(s.NodeID) != 0 &&",
		pkg:  "./internal/node", test: "TestFoundingCrashes", want: "starts a plan in which its directory does not stand",
	},
	{
		name: "a directory records one plan",
		file: "internal/node/plan.go",
		old:  "return s.Founders == \"\" && !s.Alone",
		new:  "return !s.Alone",
		pkg:  "./internal/node", test: "TestDecide", want: "recorded by all: record, want found",
	},
	{
		name: "a founder without its directory founds nothing",
		file: "internal/node/plan.go",
		old:  "case mine == \"\" && theirs != \"\" && theirs.incarnation(s.NodeID) != s.Incarnation:",
		new:  "case mine == \"\" && theirs != \"\" && theirs.incarnation(s.NodeID) != s.Incarnation && id < 0:",
		pkg:  "./internal/node", test: "TestDecide", want: "want node 1 lost its directory",
	},
	{
		name: "a directory that was alone founds nothing",
		file: "internal/node/founding.go",
		old:  "case founded == nil && id.Started:",
		new:  "case founded == nil && id.Started && id.NodeID < 0:",
		pkg:  "./internal/node", test: "TestMembersRefused", want: "served from by a node that was alone",
	},
	{
		name: "who is not registered asks for nothing",
		file: "broker/forward.go",
		old:  "case b.image().Node(metadata.NodeID(from)) == nil:",
		new:  "case b.image().Node(metadata.NodeID(from)) == nil && from < 0:",
		pkg:  "./broker", test: "TestAnswer", want: "producer ids, of nobody",
	},
	{
		name: "a node registers itself alone",
		file: "broker/forward.go",
		old:  "if int32(c.ID) == from && c.Replaces == 0 {",
		new:  "if c.Replaces == 0 {",
		pkg:  "./broker", test: "TestAnswer", want: "another one: ",
	},
	{
		name: "nodes ask for a bounded number of things at once",
		file: "broker/broker.go",
		old:  "make(chan struct{}, maxForwarded)",
		new:  "make(chan struct{}, maxForwarded+1)",
		pkg:  "./broker", test: "TestAnswersBounded", want: "want it to wait",
	},
	{
		name: "a registration that is refused waits before it is tried again",
		file: "broker/members.go",
		old:  "changed = nil // what was refused",
		new:  "_ = changed // what was refused",
		pkg:  "./broker", test: "TestRefusedRegistrationWaits", want: "entries, want one a second",
	},
	{
		name: "a node that was replaced stops",
		file: "broker/members.go",
		old:  "if errors.Is(err, ErrReplaced) {",
		new:  "if errors.Is(err, ErrReplaced) && self.ID < 0 {",
		pkg:  "./broker", test: "TestReplacedNodeStops", want: "the node goes on",
	},
}
