package main

// carryTable lists the guards of shards that a founded cluster gets: who starts
// their replicas, under which name, and who is believed to lead them.
var carryTable = []mutant{
	{
		name: "another directory than the shard begins with has no place in it (R11)",
		file: "broker/cluster.go",
		old:  "|| !slices.Contains(im.Shard(metadata.ShardID(shard)).Founders, here) {",
		new:  "|| false && !slices.Contains(im.Shard(metadata.ShardID(shard)).Founders, here) {",
		pkg:  "./broker", test: "TestNotFounder", want: "another directory has the place",
	},
	{
		name: "a replica of an added shard never draws its incarnation",
		file: "broker/shards.go",
		old:  "if id.Incarnation == 0 && !b.founded(shard) {",
		new:  "if false {",
		pkg:  "./broker", test: "TestNotFounder", want: "want errNotFounder",
	},
	{
		name: "an added shard without its vote record is not begun again (R11)",
		file: "broker/shards.go",
		old:  "if s.ID == journal.ShardID(shard) && s.Last > 0 {",
		new:  "if s.ID == journal.ShardID(shard) && s.Last > 1<<40 {",
		pkg:  "./broker", test: "TestNotFounder", want: "want ErrForgotten",
	},
	{
		name: "a restart runs the added shards that are on the disk",
		file: "broker/carry.go",
		old:  "if id := replication.ShardID(s.ID); s.Last > 0 && !b.founded(id) {",
		new:  "if id := replication.ShardID(s.ID); s.Last > 1<<40 && !b.founded(id) {",
		pkg:  "./broker", test: "TestKept", want: "with entries alone",
	},
	{
		name: "a leader is believed for the shards that list it",
		file: "broker/contacts.go",
		old:  "|| !slices.Contains(s.Replicas, n.ID) {",
		new:  "|| slices.Contains(s.Replicas, -1) {",
		pkg:  "./broker", test: "TestHear", want: "from a node without a replica",
	},
	{
		name: "an earlier term does not take a leader's place (R19)",
		file: "broker/contacts.go",
		old:  "was.addedAt == l.addedAt && was.term >= l.term {",
		new:  "was.addedAt == l.addedAt && was.term == l.term {",
		pkg:  "./broker", test: "TestHear", want: "of an earlier term",
	},
	{
		name: "another shard of the same id is not the one that was led (R19)",
		file: "broker/contacts.go",
		old:  "if s == nil || s.CreatedAt != l.addedAt ||",
		new:  "if s == nil ||",
		pkg:  "./broker", test: "TestHear", want: "from the leader: 0 0 false",
	},
	{
		name: "another directory of a node is not heard",
		file: "broker/contacts.go",
		old:  "if n == nil || n.Incarnation != said.incarnation {",
		new:  "if n == nil {",
		pkg:  "./broker", test: "TestHear", want: "from another directory",
	},
	{
		name: "a topic is answered when the nodes that carry it have it",
		file: "broker/present.go",
		old:  "if b.askPresent(ctx, q) ||",
		new:  "if true ||",
		pkg:  "./broker", test: "TestTopicElsewhere", want: "nobody leads partition",
	},
	{
		name: "the first topic of a replication factor has its shards made once",
		file: "broker/addshards.go",
		old:  "	im := b.image()\n	if im.Loads(factor) != nil {\n		return nil\n	}\n",
		new:  "	im := b.image()\n",
		pkg:  "./broker", test: "TestShardsAreAddedOnce", want: "shards of one replica",
	},
	{
		name: "replicas of a shard stand on different racks",
		file: "broker/metadata/spread.go",
		old:  "		cmp.Compare(s.sharing(chosen, a), s.sharing(chosen, b)),\n",
		new:  "",
		pkg:  "./broker/metadata", test: "TestSpread", want: "across racks: differs",
	},
	{
		name: "shards are added all or none",
		file: "broker/metadata/state.go",
		old:  "			a.fail(errcode.DuplicateResource, \"shard %d exists already\", id)\n			return\n",
		new:  "			continue\n",
		pkg:  "./broker/metadata", test: "TestScenarios", want: "DUPLICATE_RESOURCE",
	},
}
