package main

// table lists the guards that the README's promises stand on.
var table = []mutant{
	{
		name: "journal fsync",
		file: "log/journal/writer.go",
		old:  "\tif err := f.f.SyncData(); err != nil {\n\t\treturn j.fail(\"sync\", f.path, err)\n\t}\n\tj.sealed = false\n",
		new:  "\tj.sealed = false\n",
		pkg:  "./log/journal", test: "TestCrashEveryOp", want: "were synced",
	},
	{
		name: "journal fsync, whole node",
		file: "log/journal/writer.go",
		old:  "\tif err := f.f.SyncData(); err != nil {\n\t\treturn j.fail(\"sync\", f.path, err)\n\t}\n\tj.sealed = false\n",
		new:  "\tj.sealed = false\n",
		pkg:  "./replication", test: "TestReplicaPowerCut", want: "acknowledged and lost or changed",
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
		name: "cut at restart (R14)",
		file: "log/segment/open.go",
		old:  "\t\tif err := h.Truncate(to.size); err != nil {",
		new:  "\t\tif err := h.Truncate(to.size + 1<<20); err != nil {",
		pkg:  "./log/segment", test: "TestOpenCuts", want: "bytes left in the file",
	},
}
