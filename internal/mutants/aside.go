package main

// asideTable lists the guards of damaged data that is set aside (R20): who may do
// without it, what is moved, and what is gone on with.
var asideTable = []mutant{
	{
		name: "damaged data is given up only when the others have all of it",
		file: "broker/without.go",
		old:  "if m.ID.Node != node && m.Match >= applied {",
		new:  "if m.ID.Node != node {",
		pkg:  "./broker", test: "TestNeeds", want: "one of them lacks an entry: needed false, want true",
	},
	{
		name: "who has damaged data does not count itself",
		file: "broker/without.go",
		old:  "if m.ID.Node != node && m.Match >= applied {",
		new:  "if m.Match >= applied {",
		pkg:  "./broker", test: "TestNeeds", want: "its copy is the only one: needed false, want true",
	},
	{
		name: "a deposed leader does not say that a node can be done without",
		file: "broker/without.go",
		old:  "if _, err := r.Confirm(ctx); err != nil {",
		new:  "if _, err := r.Confirm(ctx); err != nil && ctx == nil {",
		pkg:  "./broker", test: "TestWithout", want: "a node that is cut off says that shard",
	},
	{
		name: "the others are asked whether they can do without a damaged directory",
		file: "internal/node/damage.go",
		old:  "return broker.AskWithout(ctx, n.opt.Cluster.Peers, n.opt.NodeID, nodes)",
		new:  "return nil",
		pkg:  "./internal/sim", test: "TestHealDirected/the_only_copy", want: "does not wait:",
	},
	{
		name: "damage.policy refuse",
		file: "internal/node/damage.go",
		old:  " && !opt.RefuseDamage",
		new:  "",
		pkg:  "./internal/node", test: "TestHeals", want: "told to refuse: true, want false",
	},
	{
		name: "WHY is gone before the rest of a set",
		file: "internal/node/aside.go",
		old:  "if err := errors.Join(fsys.Remove(path.Join(set, WhyName)), fsys.SyncDir(set)); err != nil {",
		new:  "if err := fsys.SyncDir(set); err != nil {",
		pkg:  "./internal/node", test: "TestPruneAside", want: "a set that was being removed would be gone on with",
	},
	{
		name: "a set moves the parts of its own directory only",
		file: "internal/node/aside.go",
		old:  "case known && id.Incarnation != a.Lost && id.Incarnation != a.Fresh:",
		new:  "case !known && id.Incarnation != a.Lost && id.Incarnation == a.Fresh:",
		pkg:  "./internal/node", test: "TestAsideGuards", want: "the parts of another directory are moved",
	},
	{
		name: "nobody serves from a directory that is half set aside",
		file: "internal/node/aside.go",
		old:  "	if err == nil && set != nil {\n		err = fmt.Errorf(\"%w: see %s",
		new:  "	if err == nil && set != nil && set.done {\n		err = fmt.Errorf(\"%w: see %s",
		pkg:  "./internal/node", test: "TestAsideCut", want: "half set aside, it opens with",
	},
	{
		name: "a quarantined leader gives its checkpoint to nobody",
		file: "replication/link.go",
		old:  "		if err := l.sound(req.LastLogIndex); err != nil {\n",
		new:  "		if err := l.sound(req.LastLogIndex); err != nil && l.sound == nil {\n",
		pkg:  "./replication", test: "TestLinkUnsound", want: "is sent 2 times",
	},
	{
		name: "a quarantined leader hands over",
		file: "broker/repair.go",
		old:  "if len(damaged) == 0 && s.sound() == nil {",
		new:  "if len(damaged) == 0 {",
		pkg:  "./broker", test: "TestHeal", want: "is in quarantine on node",
	},
}
