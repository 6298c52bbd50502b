package main

// catchUpTable lists the guards of a catch-up (R18): what is taken for what was
// pulled, when a checkpoint is put in place, and what the log is then.
var catchUpTable = []mutant{
	{
		name: "pulled batches are checked by CRC",
		file: "partition/store/prefetch.go",
		old:  "\tif err := batch.CheckCRC(b); err != nil {\n\t\treturn h, err\n\t}\n",
		new:  "",
		pkg:  "./partition/store", test: "TestPrefetchRefuses", want: "a flipped bit in a record: <nil>, want ErrPulled",
	},
	{
		name: "pulled batches have the leader epochs on record",
		file: "partition/store/prefetch.go",
		old:  "if p.check != nil && h.BaseOffset < p.want.End {",
		new:  "if p.check == nil && h.BaseOffset < p.want.End {",
		pkg:  "./partition/store", test: "TestPrefetchRefuses", want: "a flipped bit in the leader epoch: <nil>, want ErrPulled",
	},
	{
		name: "a prefetch goes on behind files only",
		file: "partition/store/prefetch.go",
		old:  "case p.flushed < p.end || len(p.tail) > 0:",
		new:  "case p.flushed > p.end:",
		pkg:  "./partition/store", test: "TestPrefetchWantsFiles", want: "want ErrTail",
	},
	{
		name: "pulled segments are synced before they have their place",
		file: "partition/store/prefetch.go",
		old:  "\tif err := seg.Sync(); err != nil {\n\t\treturn p.sh.st.syncFailed(err)\n\t}\n",
		new:  "",
		pkg:  "./partition/store", test: "TestCrashInPrefetch", want: "segment: corrupt at offset",
	},
	{
		name: "a restart puts in place what was pulled",
		file: "partition/store/restore.go",
		old:  "if pulled[dirName(r.TopicID, r.Index)] {",
		new:  "if false && pulled[dirName(r.TopicID, r.Index)] {",
		pkg:  "./partition/store", test: "TestCrashInPrefetch", want: "segment: corrupt at offset",
	},
	{
		name: "no install beside a checkpoint",
		file: "replication/catchup.go",
		old:  "\tdefault:\n\t\treturn pending(req), true\n\t}\n\tsettling := false",
		new:  "\tdefault:\n\t\t<-r.checkpointing\n\t\tr.checkpointing <- struct{}{}\n\t}\n\tsettling := false",
		pkg:  "./replication", test: "TestCatchUpBesideACheckpoint", want: "a checkpoint was installed beside another",
	},
	{
		name: "what is answered counts as applied",
		file: "replication/raftfsm.go",
		old:  "\t\tr.setApplied(l.Index, l.Term) // before",
		new:  "\t\tdefer r.setApplied(l.Index, l.Term) // before",
		pkg:  "./replication", test: "TestAppliedWhenAnswered", want: "entries applied, want",
	},
	{
		name: "a failed install stops the replica",
		file: "replication/raftfsm.go",
		old:  "\t\tr.halt(fmt.Errorf(\"replication: install",
		new:  "\t\treturn (fmt.Errorf(\"replication: install",
		pkg:  "./replication", test: "TestCatchUpFailsForGood", want: "list: a checkpoint that it refuses",
	},
	{
		name: "a pull waits for the Settle of the catch-up before",
		file: "replication/catchup.go",
		old:  "\tif err := r.Checkpoint(); err != nil {\n\t\treturn 0, err\n",
		new:  "\tif err := error(nil); err != nil {\n\t\treturn 0, err\n",
		pkg:  "./replication", test: "TestPullWaitsForSettle", want: "1 pulls began beside a Settle",
	},
	{
		name: "a mark that the switch has moved counts at the next start",
		file: "partition/store/adopt.go",
		old:  "\t\t\tp.dropped = max(p.dropped, below)\n",
		new:  "\t\t\t_ = below\n",
		pkg:  "./partition/store", test: "TestCrashInDroppedSwitch", want: "no segment holds it",
	},
	{
		name: "a start ends an install that a crash cut short",
		file: "replication/rebase.go",
		old:  "if index, term := r.checkpoints.Newest(); index >= r.checkpoints.installing {",
		new:  "if index, term := r.checkpoints.Newest(); index > r.checkpoints.installing {",
		pkg:  "./replication", test: "TestStartEndsTheInstall", want: "and the entry at the checkpoint",
	},
}
