package main

// repairTable lists the guards of what finds damage in segments and repairs it from
// other replicas.
var repairTable = []mutant{
	{
		name: "the first read checks the batches' checksums",
		file: "log/segment/verify.go",
		old:  "\terr := s.checkBatches(f, from, to)\n\tvar damage",
		new:  "\tvar err error\n\tvar damage",
		pkg:  "./log/segment", test: "TestScrub", want: "damaged are []",
	},
	{
		name: "damage is one batch only where all first bytes are right",
		file: "log/segment/verify.go",
		old:  "cur.sum != to.sum || len(bad) == 0",
		new:  "len(bad) == 0 && cur.sum == 0",
		pkg:  "./log/segment", test: "TestScrub", want: "a leader epoch: damaged are",
	},
	{
		name: "a scrub reads what the name stands for",
		file: "log/segment/scrub.go",
		old:  "f, err := s.files.opened(s.files.fs.Open, s.Name())",
		new:  "f, err := s.files.acquire(s.Name())",
		pkg:  "./log/segment", test: "TestScrubLooksAtNames", want: "a lost file: []",
	},
	{
		name: "a scrub looks at the index",
		file: "log/segment/scrub.go",
		old:  "if indexErr != nil && len(w.bad) == 0 {",
		new:  "if false && indexErr != nil {",
		pkg:  "./log/segment", test: "TestScrub", want: "want damage of the index alone",
	},
	{
		name: "a repair puts in place what is synced",
		file: "partition/store/prefetch.go",
		old:  "\tif err := seg.Sync(); err != nil {\n\t\treturn p.sh.st.syncFailed(err)\n\t}\n",
		new:  "",
		pkg:  "./partition/store", test: "TestCrashInRepair", want: "after a restart:",
	},
	{
		name: "a repair of what has changed changes nothing",
		file: "partition/store/repair.go",
		old:  "\tif !r.stands(bases) {\n\t\treturn ErrMoot\n\t}\n",
		new:  "",
		pkg:  "./partition/store", test: "TestRepairMoot", want: "want ErrMoot",
	},
	{
		name: "what is damaged below the log start is nobody's",
		file: "partition/store/repair.go",
		old:  "if r.from < logStart && (",
		new:  "if r.from < 0 && (",
		pkg:  "./partition/store", test: "TestRepair", want: "out of range",
	},
	{
		name: "a read of what is known to be damaged fails",
		file: "log/segment/scrub.go",
		old:  "\ts.prefixes.bad = w.bad",
		new:  "\ts.prefixes.bad = w.bad[:0]",
		pkg:  "./log/segment", test: "TestScrub", want: "damaged true",
	},
	{
		name: "a write goes on where a file is gone",
		file: "partition/store/flush.go",
		old:  "if !errors.Is(err, fs.ErrNotExist) {\n\t\treturn false",
		new:  "if true || !errors.Is(err, fs.ErrNotExist) {\n\t\treturn false",
		pkg:  "./partition/store", test: "TestWriteAfterLoss", want: "the active segment: store: failed",
	},
	{
		name: "a damaged replica hands the leadership over",
		file: "broker/repair.go",
		old:  "\t\tr.handOver(ctx, s)\n",
		new:  "",
		pkg:  "./broker", test: "TestRepairByOthers", want: "the damaged replica still leads",
	},
	{
		name: "a damaged replica takes no leadership",
		file: "broker/relief.go",
		old:  "\tif b.hurt(shard) {\n\t\treturn",
		new:  "\tif false {\n\t\treturn",
		pkg:  "./broker", test: "TestNobodyCanRepair", want: "would lead: <nil>",
	},
	{
		name: "what cannot be repaired is tried less often",
		file: "broker/repair.go",
		old:  "if r.b.opt.Now().Before(r.failed[nameOf(d)].until) {",
		new:  "if false {",
		pkg:  "./broker", test: "TestNobodyCanRepair", want: "tries in four minutes",
	},
	{
		name: "damage of a stored batch is retriable",
		file: "broker/errors.go",
		old:  "\t{store.ErrCorrupt, errcode.KafkaStorageError},\n",
		new:  "",
		pkg:  "./broker", test: "TestNobodyCanRepair", want: "CORRUPT_MESSAGE",
	},
}
