package main

// table lists the guards that the README's promises stand on.
var table = []mutant{
	{
		name: "journal fsync",
		file: "log/journal/writer.go",
		old:  "\tif err := f.f.SyncData(); err != nil {\n\t\treturn j.fail(\"sync\", f.path, err)\n\t}\n\tj.syncTimes",
		new:  "\tj.syncTimes",
		pkg:  "./log/journal", test: "TestCrashEveryOp", want: "holds [], want",
	},
	{
		name: "journal fsync, whole node",
		file: "log/journal/writer.go",
		old:  "\tif err := f.f.SyncData(); err != nil {\n\t\treturn j.fail(\"sync\", f.path, err)\n\t}\n\tj.syncTimes",
		new:  "\tj.syncTimes",
		pkg:  "./replication", test: "TestReplicaPowerCut", want: "and its log in journal holds [0, 0]",
	},
	{
		name: "journal CRC check",
		file: "log/journal/scan.go",
		old:  "\t\tif payloadCRCPadded(b) != h.payloadCRC {\n\t\t\tbreak\n\t\t}\n",
		new:  "",
		pkg:  "./log/journal", test: "TestFlipEveryByte", want: "went unnoticed",
	},
	{
		name: "journal rewrite at recovery (R8)",
		file: "log/journal/mend.go",
		old:  "\t\tif err := rewrite(f, unproven[0].offset, f.end); err != nil {\n\t\t\treturn err\n\t\t}\n",
		new:  "",
		pkg:  "./log/journal", test: "TestFailedSyncThenRestart", want: "were synced",
	},
	{
		name: "what a voter found at its start is durable before it answers (R8)",
		file: "log/journal/mend.go",
		old:  "\treturn s.mendTail()\n",
		new:  "\treturn nil\n",
		pkg:  "./replication", test: "TestRestartedVoterHasWhatItFound", want: "an acknowledged entry is lost",
	},
	{
		name: "producer dedup",
		file: "partition/produce.go",
		old:  "if was, ok := pr.window.find(b.first, b.last); ok {",
		new:  "if was, ok := pr.window.find(b.first, b.last); ok && b.first < 0 {",
		pkg:  "./broker", test: "TestProduceTwice", want: "OUT_OF_ORDER_SEQUENCE_NUMBER",
	},
	{
		name: "batch CRC check",
		file: "log/batch/batch.go",
		old:  "if got := crc32.Checksum(b[bodyAt:], castagnoli); got != h.CRC {",
		new:  "if got := crc32.Checksum(b[bodyAt:], castagnoli); got != h.CRC && len(b) == 0 {",
		pkg:  "./log/batch", test: "TestCheckCRCFlips", want: "CheckCRC = <nil>",
	},
	{
		name: "decompressing takes its memory from the room",
		file: "log/batch/unfold.go",
		old:  "if room != nil && held > 0 {",
		new:  "if room != nil && held < 0 {",
		pkg:  "./log/batch", test: "TestRoomRefuses", want: "Validate = ",
	},
	{
		name: "what decompressing took is given back",
		file: "log/batch/unfold.go",
		old:  "\t\tu.room.Give(u.held)\n",
		new:  "",
		pkg:  "./log/batch", test: "TestRoomRefuses", want: "bytes stay taken",
	},
	{
		name: "a zstd payload is decoded in its window",
		file: "log/batch/zstd.go",
		old:  "case s.most > wholeBytes && s.window < s.most:",
		new:  "case s.most < 0 && s.window < s.most:",
		pkg:  "./log/batch", test: "TestMemoryOfABatch", want: "want no more than taken",
	},
	{
		name: "a zstd window",
		file: "log/batch/zstd.go",
		old:  "case min(s.window, s.most) > MaxWindowBytes:",
		new:  "case min(s.window, s.most) > MaxWindowBytes<<20:",
		pkg:  "./log/batch", test: "TestTooMuchAtOnce", want: "a large zstd window: ",
	},
	{
		name: "a bare snappy block",
		file: "log/batch/snappy.go",
		old:  "case n > MaxWindowBytes:",
		new:  "case n > MaxWindowBytes<<20:",
		pkg:  "./log/batch", test: "TestTooMuchAtOnce", want: "a bare snappy block: ",
	},
	{
		name: "what a batch unfolds to",
		file: "log/batch/unfold.go",
		old:  "if err == nil && u.total > u.maxBytes {",
		new:  "if err == nil && u.total > u.maxBytes+1 {",
		pkg:  "./log/batch", test: "TestUnfoldsTooFar", want: "want ErrTooLarge",
	},
	{
		name: "what a batch is recompressed to",
		file: "log/batch/pack.go",
		old:  "if len(w.b)+n > w.most {",
		new:  "if len(w.b)+n > w.most<<20 {",
		pkg:  "./log/batch", test: "TestRecompressMemory", want: "none: ",
	},
	{
		name: "a node's memory to decompress in",
		file: "broker/produce.go",
		old:  "MaxDecompressedBytes: maxDecompressedBytes, Room: &p.room}",
		new:  "MaxDecompressedBytes: maxDecompressedBytes}",
		pkg:  "./broker", test: "TestUnfoldingWaits", want: "without memory: ",
	},
	{
		name: "what recompression made is counted",
		file: "broker/produce.go",
		old:  "\tif refused == nil {\n\t\trefused = b.takeGrown(p, i, bytes)\n\t}\n",
		new:  "\t_ = bytes\n",
		pkg:  "./broker", test: "TestRecompressedIsCounted", want: "without room: ",
	},
	{
		name: "a delivery's cost is linear",
		file: "internal/delivery/delivery.go",
		old:  " && len(vectors) < runVectors;",
		new:  ";",
		pkg:  "./internal/delivery", test: "TestCostIsLinear", want: "bytes allocated for 10,000 parts",
	},
	{
		name: "control CRC check",
		file: "log/control/frame.go",
		old:  "if got, want := crc32.Checksum(b[4:], castagnoli), binary.LittleEndian.Uint32(b); got != want {",
		new:  "if got, want := crc32.Checksum(b[4:], castagnoli), binary.LittleEndian.Uint32(b); got != want && len(b) == 0 {",
		pkg:  "./log/control", test: "TestDecodeFrame", want: "want damaged record",
	},
	{
		name: "vote sync",
		file: "log/control/single.go",
		old:  "func (s *single) sync() error { return s.file.SyncData() }",
		new:  "func (s *single) sync() error { return nil }",
		pkg:  "./log/control", test: "TestVotesOutlastPowerCut", want: "votes lost",
	},
	{
		name: "calls for another incarnation (R11)",
		file: "replication/transport/roster.go",
		old:  "if m.id != want {",
		new:  "if m.id != want && want.Node < 0 {",
		pkg:  "./replication/transport", test: "TestHubConformance", want: "meant for another incarnation",
	},
	{
		name: "absence deletes nothing (R17)",
		file: "broker/reconcile.go",
		old:  "\tfor tomb := range im.TombstonesSince(since) {\n",
		new: "\tb.dir.mu.RLock()\n" +
			"\tfor _, p := range b.dir.byKey {\n" +
			"\t\tif p.shard == s && im.TopicByID(metadata.TopicID(p.key.topic)) == nil {\n" +
			"\t\t\tcommands = append(commands, partition.DeletePartition{TopicID: p.key.topic, Index: p.key.index, MetadataIndex: p.stamp + 1})\n" +
			"\t\t}\n" +
			"\t}\n" +
			"\tb.dir.mu.RUnlock()\n" +
			"\tfor tomb := range im.TombstonesSince(since) {\n",
		pkg: "./internal/sim", test: "TestBehindDeletesNothing", want: "acknowledged, not read by the end",
	},
	{
		name: "probe before a read (R19)",
		file: "replication/confirm.go",
		old:  "\tneed := (len(others)+1)/2 + 1\n",
		new:  "\tneed := 1\n",
		pkg:  "./replication", test: "TestConfirm", want: "Confirm of a deposed leader",
	},
	{
		name: "probe before records are said not to be there (R19)",
		file: "broker/alter.go",
		old:  "\tif step.needsCurrent() {",
		new:  "\tif step.needsCurrent() && confirm == nil {",
		pkg:  "./internal/sim", test: "TestVotersDirected", want: "a deposed leader refuses to delete",
	},
	{
		name: "vote durable before it is given",
		file: "replication/stable.go",
		old:  "v.VoteTerm, v.Candidate = s.voteTerm, bytes.Clone(val)\n\ts.store(v)\n",
		new:  "v.VoteTerm, v.Candidate = s.voteTerm, bytes.Clone(val)\n\ts.vote = v\n",
		pkg:  "./replication", test: "TestForgottenVote", want: "voted for two candidates",
	},
	{
		name: "no proposals during a transfer",
		file: "replication/lead.go",
		old:  "\tcase r.turn <- struct{}{}:\n\t\tr.send(e)\n\t\t<-r.turn\n",
		new:  "\tdefault:\n\t\tr.send(e)\n",
		pkg:  "./replication", test: "TestTransfer", want: "was never handed to Raft",
	},
	{
		name: "logs kept for voters that lag",
		file: "replication/peers.go",
		old:  "\tif keep > upTo {\n",
		new:  "\tif keep >= 0 {\n",
		pkg:  "./replication", test: "TestLaggingVoter", want: "or other ones",
	},
	{
		name: "vote sync, tidwall/wal",
		file: "log/control/segmented.go",
		old:  "\tif err := s.wal.Sync(); err != nil {\n\t\treturn err\n\t}\n\tif !s.cycled",
		new:  "\tif !s.cycled",
		pkg:  "./log/control", test: "TestSyncs", want: "sync did not reach tidwall/wal",
	},
	{
		name: "segment sync before a checkpoint",
		file: "partition/store/checkpoint.go",
		old:  "\t\tif err := seg.Sync(); err != nil {\n\t\t\treturn err\n\t\t}\n",
		new:  "\t\t_ = seg\n",
		pkg:  "./partition/store", test: "TestCrashAtEveryOperation", want: "Restore = ",
	},
	{
		name: "an unlink at a start is synced before a checkpoint",
		file: "partition/store/restore.go",
		old:  "if bases, p.dropped, unlinked, err = ",
		new:  "if bases, p.dropped, _, err = ",
		pkg:  "./partition/store", test: "TestUnlinkedSegmentStaysAway", want: "Restore = ",
	},
	{
		name: "cut at restart (R14)",
		file: "log/segment/open.go",
		old:  "\t\tif err := h.Truncate(to.size); err != nil {",
		new:  "\t\tif err := h.Truncate(to.size + 1<<20); err != nil {",
		pkg:  "./log/segment", test: "TestOpenCuts", want: "bytes left in the file",
	},
	{
		name: "credit of a stream",
		file: "wire/server/stream.go",
		old:  "st.from.Next(int(min(credit, uint64(st.maxBytes))), st.maxPartitionBytes)",
		new:  "st.from.Next(st.maxBytes+0*int(credit), st.maxPartitionBytes)",
		pkg:  "./wire/server", test: "TestStreamCredit", want: "credit of three batches and a byte",
	},
	{
		name: "deliveries of before a seek",
		file: "client/stream.go",
		old:  "cur == nil || cur.generation != p.Generation || st.ended",
		new:  "cur == nil || st.ended",
		pkg:  "./client", test: "TestStaleDelivery", want: "of before the Seek",
	},
	{
		name: "deliveries of before a partition was assigned again",
		file: "client/stream.go",
		old:  "\tcur.generation = co.generations\n",
		new:  "\tcur.generation++\n",
		pkg:  "./client", test: "TestStaleDeliveryAssignedAgain", want: "that was under way to the partition",
	},
	{
		name: "leader changes are told to idle streams (R19)",
		file: "broker/shards.go",
		old:  "\ts.store.WakeAll()\n",
		new:  "",
		pkg:  "./broker", test: "TestStreamSeesLeaderChange", want: "not told that the leader is gone",
	},
	{
		name: "count of the ring's files",
		file: "log/journal/manifest.go",
		old:  "if n := len(j.files); n < int(s.ring.slots) {",
		new:  "if n := len(j.files); n < 0 {",
		pkg:  "./log/journal", test: "TestRingFile", want: "want a CorruptError",
	},
	{
		name: "generation of the parts",
		file: "internal/node/generation.go",
		old:  "case g.Generation != id.Generation && ",
		new:  "case len(part) == 0 && ",
		pkg:  "./internal/node", test: "TestOlderParts", want: "want ErrMismatched",
	},
	{
		name: "a generation that was cut short goes on",
		file: "internal/node/generation.go",
		old:  "if id.Next == 0 { // else some parts may be of Next already",
		new:  "id.Next++\n\tif id.Next == 1 {",
		pkg:  "./internal/node", test: "TestTurnCut", want: "one of the two is an older copy",
	},
	{
		name: "a vote older than the log",
		file: "replication/open.go",
		old:  "vote.Term < term {",
		new:  "vote.Term < term && term == 0 {",
		pkg:  "./internal/node", test: "TestOlderVotes", want: "vote record is older than the log",
	},
	{
		name: "all replicas are opened before one runs",
		file: "broker/broker.go",
		old: "\tfor _, id := range append(shards, added...) {\n" +
			"\t\ts, err := b.openData(id)\n" +
			"\t\tif err != nil {\n" +
			"\t\t\treturn err\n" +
			"\t\t}\n" +
			"\t\tb.enter(s)\n" +
			"\t}\n" +
			"\t// What had been compacted is back after a crash. All let go of it before the\n" +
			"\t// first one writes: on a full disk it would leave no room.\n" +
			"\tfor _, s := range b.carried() {\n" +
			"\t\ts.replica.Compact()\n" +
			"\t}\n" +
			"\tif err := b.meta.Run(); err != nil {\n" +
			"\t\treturn err\n" +
			"\t}\n",
		new: "\tif err := b.meta.Run(); err != nil {\n" +
			"\t\treturn err\n" +
			"\t}\n" +
			"\tb.meta.WaitLeading(b.stopping.Done())\n" +
			"\tfor _, id := range append(shards, added...) {\n" +
			"\t\ts, err := b.openData(id)\n" +
			"\t\tif err != nil {\n" +
			"\t\t\treturn err\n" +
			"\t\t}\n" +
			"\t\tb.enter(s)\n" +
			"\t}\n" +
			"\t// What had been compacted is back after a crash. All let go of it before the\n" +
			"\t// first one writes: on a full disk it would leave no room.\n" +
			"\tfor _, s := range b.carried() {\n" +
			"\t\ts.replica.Compact()\n" +
			"\t}\n",
		pkg: "./internal/node", test: "TestDamagedCheckpoint", want: "a refused start changed",
	},
	{
		name: "quarantine files are read before a replica runs",
		file: "broker/shards.go",
		old:  "\tif err := b.quarantines.check(shard); err != nil {",
		new:  "\tif err := b.quarantines.check(shard); err != nil && id.Node < 0 {",
		pkg:  "./internal/sim", test: "TestCheckQuarantine", want: "before it was refused",
	},
	{
		name: "prefixes of batches are checked at their first read",
		file: "log/segment/lookup.go",
		old:  "err = s.verified(h.File, &r)",
		new:  "_ = s.verified",
		pkg:  "./log/segment", test: "TestPrefixFlips", want: "want ErrCorrupt",
	},
	{
		name: "a disk below its reserve is low",
		file: "broker/disk.go",
		old:  "case u.FreeBytes < s.ReserveBytes:",
		new:  "case u.FreeBytes < 0:",
		pkg:  "./broker", test: "TestDiskLow", want: "DiskState = ",
	},
	{
		name: "no records onto a disk that is low",
		file: "broker/disk.go",
		old:  "\td.opt.Journal.Hold(now.Low)\n",
		new:  "",
		pkg:  "./broker", test: "TestDiskLow", want: "want its whole 5 s",
	},
	{
		name: "no topics onto a disk that is low",
		file: "broker/topics.go",
		old:  "if full := b.disk.refusal(); full != nil {",
		new:  "if full := b.disk.refusal(); full != nil && full.Detail == \"\" {",
		pkg:  "./broker", test: "TestDiskLow", want: "want KAFKA_STORAGE_ERROR",
	},
	{
		name: "a full disk does not latch the control logs",
		file: "log/control/sequence.go",
		old:  "\tif !noRoom(err) {\n\t\treturn s.fail(op, err)",
		new:  "\tif !noRoom(err) || s.failed == nil {\n\t\treturn s.fail(op, err)",
		pkg:  "./log/control", test: "TestNoRoom", want: "want ErrNoRoom",
	},
	{
		name: "a failed sync latches the control logs",
		file: "log/control/sequence.go",
		old:  "\tif !noRoom(err) {\n\t\treturn s.fail(op, err)",
		new:  "\tif false {\n\t\treturn s.fail(op, err)",
		pkg:  "./log/control", test: "TestNoRoom", want: "want ErrFailed: a sync that failed",
	},
	{
		name: "votes and metadata take the spare file's space",
		file: "internal/node/node.go",
		old:  "control.Options{MakeRoom: n.spare.release}",
		new:  "control.Options{}",
		pkg:  "./internal/node", test: "TestSpareIsTaken", want: "the spare file is still there",
	},
	{
		name: "the spare file waits for room",
		file: "internal/node/spare.go",
		old:  "if !d.Low && d.FreeBytes-d.ReserveBytes >= spareBytes {",
		new:  "if d.FreeBytes > 0 {",
		pkg:  "./internal/node", test: "TestSpare", want: "made again without room",
	},
	{
		name: "what is unlinked early is marked durably first",
		file: "partition/store/early.go",
		old:  "\tif err := st.fs.SyncDir(dir); err != nil {\n\t\treturn st.syncFailed(fmt.Errorf(\"store: sync %s: %w\", dir, err))\n\t}\n",
		new:  "",
		pkg:  "./partition/store", test: "TestFreeEarly", want: "is unlinked before the mark is durable",
	},
	{
		name: "a panic quarantines its partition (R5)",
		file: "partition/quarantine.go",
		old:  "\ts.setQuarantined(p.number, s.lastIndex)\n\tif n :=",
		new:  "\tif n :=",
		pkg:  "./partition", test: "TestQuarantine", want: "codes (-want +got)",
	},
	{
		name: "a panic takes back what its command had changed",
		file: "partition/quarantine.go",
		old:  "\ts.takeBack(p, before)\n",
		new:  "",
		pkg:  "./partition", test: "TestQuarantine", want: "partition {",
	},
	{
		name: "a newer format is refused before anything is touched",
		file: "internal/node/identity.go",
		old:  "err = checkVersions(fsys, dir)",
		new:  "_ = checkVersions",
		pkg:  "./internal/node", test: "TestNewerRefused", want: "changed before it was refused",
	},
	{
		name: "an entry of a newer apply version stops the replica (R4)",
		file: "partition/decode.go",
		old:  "d.Header.ApplyVersion; v > MaxApplyVersion {",
		new:  "d.Header.ApplyVersion; v > MaxApplyVersion+1 {",
		pkg:  "./partition", test: "TestDecodeErrors", want: "want partition: unsupported",
	},
	{
		name: "a command above the shard's apply version is refused (R4)",
		file: "partition/state.go",
		old:  "if version > a.s.version {",
		new:  "if version > a.s.version+1 {",
		pkg:  "./partition", test: "TestScenarios", want: "UNSUPPORTED_VERSION",
	},
	{
		name: "an apply version that all replicas know (R4)",
		file: "broker/evolve.go",
		old:  "min(v, slices.Min(known))",
		new:  "min(v, slices.Max(known))",
		pkg:  "./broker", test: "TestApplyVersionRaised", want: "versions (-want +got)",
	},
	{
		name: "the feature level is recorded first (R4)",
		file: "broker/reconcile.go",
		old:  "if err := r.b.recordLevel(r.b.image().FeatureLevel()); err != nil {",
		new:  "if err := r.b.recordLevel(r.b.image().FeatureLevel()); err != nil && r == nil {",
		pkg:  "./broker", test: "TestLevelRecordedFirst", want: "versions (-want +got)",
	},
	{
		name: "a producer that came back does not expire (R2)",
		file: "partition/state.go",
		old:  "pr != nil && pr.idle() == idle && pr.lastMS <= c.UntilMS",
		new:  "pr != nil && pr.lastMS <= c.UntilMS",
		pkg:  "./partition", test: "TestScenarios", want: "expire",
	},
	{
		name: "a later life of a producer does not expire (R2)",
		file: "partition/state.go",
		old:  "pr.idle() == idle && pr.lastMS <= c.UntilMS",
		new:  "pr.idle() == idle",
		pkg:  "./partition", test: "TestScenarios", want: "expire",
	},
	{
		name: "records expire by their time",
		file: "partition/store/retain.go",
		old:  "expired := timed && nowMS-e.maxTS > r.MS",
		new:  "expired := timed && nowMS-e.maxTS >= r.MS",
		pkg:  "./partition/store", test: "TestRetain", want: "exactly as old",
	},
	{
		name: "size keeps as much as it says",
		file: "partition/store/retain.go",
		old:  "tooMuch := r.Bytes >= 0 && total-e.bytes >= r.Bytes",
		new:  "tooMuch := r.Bytes >= 0 && total >= r.Bytes",
		pkg:  "./partition/store", test: "TestRetain", want: "one byte less is kept",
	},
	{
		name: "what becomes due is looked at again",
		file: "broker/retention.go",
		old:  "if next, sized := r.judge(key, now); !next.IsZero() {",
		new:  "if next, sized := r.judge(key, now); !next.IsZero() && sized {",
		pkg:  "./broker", test: "TestRetentionByTime", want: "the first segment has expired",
	},
	{
		name: "the log start stays within the log",
		file: "partition/state.go",
		old:  "case offset < 0 || offset > p.end:",
		new:  "case offset < 0:",
		pkg:  "./partition", test: "TestScenarios", want: "OFFSET_OUT_OF_RANGE",
	},
	{
		name: "the log start never falls",
		file: "partition/state.go",
		old:  "case offset <= p.logStart:",
		new:  "case offset == p.logStart:",
		pkg:  "./partition", test: "TestScenarios", want: "duplicate",
	},
	{
		name: "look-ups by time end at the log start",
		file: "partition/store/time.go",
		old:  "found = offset >= v.logStart && timestampMS >= ts; found {",
		new:  "found = timestampMS >= ts; found {",
		pkg:  "./partition/store", test: "TestOffsetForTimeModel", want: "OffsetForTime",
	},
	{
		name: "look-ups by time tell of damage before what they found",
		file: "partition/store/time.go",
		old:  "if d.From < offset && d.To > v.logStart {",
		new:  "if d.From < v.logStart {",
		pkg:  "./partition/store", test: "TestOffsetForTimeDamaged", want: "which damage may hide: <nil>",
	},
	{
		name: "a stalled stream gives its memory back",
		file: "internal/delivery/delivery.go",
		old:  "\thold := time.Now().Add(d.peer.Hold)\n",
		new:  "\thold := d.end\n",
		pkg:  "./wire/server", test: "TestSlowStreams", want: "i/o timeout", // of the healthy one
	},
	{
		name: "a produce request fits the server's frames",
		file: "client/sender.go",
		old:  "full = min(full, n-fixedBytes)",
		new:  "full = min(full, 2*n)",
		pkg:  "./client", test: "TestProduceFitsFrame", want: "of 100 records failed",
	},
	{
		name: "a cluster of a newer feature level is refused (R4)",
		file: "broker/metadata/reader.go",
		old:  "if level > MaxFeatureLevel && r.err == nil {",
		new:  "if level > MaxFeatureLevel+1 && r.err == nil {",
		pkg:  "./broker/metadata", test: "TestRestoreNewerFeatureLevel", want: "want ErrUnsupported",
	},
	{
		name: "guard: an array fits what is left",
		file: "kafka/guard/walk.go",
		old:  "case n > w.left()/least:",
		new:  "case n > w.left():",
		pkg:  "./kafka/guard", test: "TestCheckRefuses", want: "want kafka/guard: malformed request",
	},
	{
		name: "guard: an array has a limit",
		file: "kafka/guard/walk.go",
		old:  "case int64(n) > w.limits.ArrayElements:",
		new:  "case int64(n) > w.limits.ArrayElements+1:",
		pkg:  "./kafka/guard", test: "TestCheckRefuses", want: "want kafka/guard: request beyond a limit",
	},
	{
		name: "guard: decoding has a limit",
		file: "kafka/guard/walk.go",
		old:  "if w.alloc > w.limits.AllocBytes {",
		new:  "if w.alloc < 0 {",
		pkg:  "./kafka/guard", test: "TestCheckRefuses", want: "want kafka/guard: request beyond a limit",
	},
	{
		name: "guard: structs count what they take",
		file: "kafka/guard/walk.go",
		old:  "least, memory = int(structures[f.elem].min), int64(structures[f.elem].memory)",
		new:  "least, memory = int(structures[f.elem].min), int64(structures[f.elem].min)",
		pkg:  "./kafka/guard", test: "TestAllocBytes", want: "Check says that decoding allocates",
	},
	{
		name: "guard: tags count what they take",
		file: "kafka/guard/tags.go",
		old:  "return w.allocate(tagBytes(*unknown))",
		new:  "return true",
		pkg:  "./kafka/guard", test: "TestAllocTags", want: "Check says that decoding allocates",
	},
	{
		name: "guard: tags fit what is left",
		file: "kafka/guard/tags.go",
		old:  "case int64(n) > int64(w.left()/2): // a tag and a size",
		new:  "case n > 1<<31: // a tag and a size",
		pkg:  "./kafka/guard", test: "TestCheckRefuses", want: "want in it",
	},
	{
		name: "guard: tags have a limit",
		file: "kafka/guard/tags.go",
		old:  "case int64(n) > w.limits.Tags:",
		new:  "case int64(n) > w.limits.Tags+1:",
		pkg:  "./kafka/guard", test: "TestCheckRefuses", want: "want kafka/guard: request beyond a limit",
	},
	{
		name: "guard: a tag has a limit",
		file: "kafka/guard/tags.go",
		old:  "case int64(size) > w.limits.TagBytes:",
		new:  "case int64(size) > w.limits.TagBytes+1:",
		pkg:  "./kafka/guard", test: "TestCheckRefuses", want: "want kafka/guard: request beyond a limit",
	},
	{
		name: "guard: a tag is as long as it says",
		file: "kafka/guard/tags.go",
		old:  "if w.at != w.end {",
		new:  "if w.at > w.end {",
		pkg:  "./kafka/guard", test: "TestCheckRefuses", want: "want kafka/guard: malformed request",
	},
	{
		name: "guard: tags of later versions are refused",
		file: "kafka/guard/tags.go",
		old:  "if !t.valid {",
		new:  "if !t.valid && size == 0 {",
		pkg:  "./kafka/guard", test: "TestCheckRefuses", want: "want in it",
	},
	{
		name: "guard: null only where it may be",
		file: "kafka/guard/walk.go",
		old:  "return nullable || w.refuse(",
		new:  "return true || w.refuse(",
		pkg:  "./kafka/guard", test: "TestCheckRefuses", want: "want kafka/guard: malformed request",
	},
	{
		name: "guard: a struct is there or null",
		file: "kafka/guard/walk.go",
		old:  "case present < 0: // null to Kafka, and not null to kmsg",
		new:  "case present < -128: // null to Kafka, and not null to kmsg",
		pkg:  "./kafka/guard", test: "TestCheckRefuses", want: "want in it",
	},
	{
		name: "guard: a summary is Kafka's own",
		file: "kafka/guard/gen/summary.go",
		old:  "if want := fmt.Sprintf(preamble, kafkaVersion, sha256.Sum256(body)); string(head)+\"\\n\" != want {",
		new:  "if want := fmt.Sprintf(preamble, kafkaVersion, sha256.Sum256(body)); len(head) > len(want) {",
		pkg:  "./kafka/guard/gen", test: "TestSummaryRefuses", want: "changed: no error",
	},
}
