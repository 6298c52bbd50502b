package main

// groupRecordsTable lists the guards of what is read from records of groups.
var groupRecordsTable = []mutant{
	{
		name: "a record's count is held against what is left before anything is made for it",
		file: "consumergroup/record/coder.go",
		old:  "case n > len(c.b)/least:",
		new:  "case n > 64<<20:",
		pkg:  "./consumergroup/record", test: "TestDecodeIsBounded", want: "bytes for a value of",
	},
	{
		name: "bytes after a record's last field are damage",
		file: "consumergroup/record/coder.go",
		old:  "if c.err == nil && len(c.b) > 0 {",
		new:  "if false {",
		pkg:  "./consumergroup/record", test: "TestDecodeRefuses", want: "a key with more: <nil>",
	},
	{
		name: "a newer version of a record is not read as an old one",
		file: "consumergroup/record/record.go",
		old:  "if version < 0 || version > newest {",
		new:  "if version < 0 {",
		pkg:  "./consumergroup/record", test: "TestDecodeRefuses", want: "version 5: ",
	},
	{
		name: "an entry keeps nothing of the record's bytes",
		file: "consumergroup/record/coder.go",
		old:  "\t*v = append([]byte{}, b...)\n}\n\n// nullableBytes",
		new:  "\t*v = b\n}\n\n// nullableBytes",
		pkg:  "./consumergroup/record", test: "TestDecodeKeepsNothing", want: "changed with its bytes",
	},
	{
		name: "each epoch of a current assignment has its partition",
		file: "consumergroup/record/assignment.go",
		old:  "if len(t.Epochs) != len(t.Partitions) {",
		new:  "if false {",
		pkg:  "./consumergroup/record", test: "TestDecodeRefuses", want: "epochs for other partitions: <nil>",
	},
	{
		name: "a plain offset has no other tag",
		file: "consumergroup/record/offset.go",
		old:  "if v.uvarint(\"tag\") != topicIDTag || ",
		new:  "if v.uvarint(\"tag\"); ",
		pkg:  "./consumergroup/record", test: "TestPlainOffset", want: "(-Decode +Read)",
	},
	{
		name: "a plain offset is all of its record",
		file: "consumergroup/record/offset.go",
		old:  "return k.end() == nil && v.end() == nil",
		new:  "return k.err == nil && v.err == nil",
		pkg:  "./consumergroup/record", test: "TestPlainOffset", want: "is read, and does not decode",
	},
}
