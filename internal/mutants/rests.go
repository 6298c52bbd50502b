package main

// restsTable lists the guards of when the store flushes what is old.
var restsTable = []mutant{
	{
		name: "what is old alone is flushed with rests between",
		file: "partition/store/aging.go",
		old:  "min(restFactor*took, st.opt.TailMaxAge/restShare)",
		new:  "0",
		pkg:  "./partition/store", test: "TestRest", want: "flush 1@0",
	},
	{
		name: "a rest has a limit",
		file: "partition/store/aging.go",
		old:  "min(restFactor*took, st.opt.TailMaxAge/restShare)",
		new:  "restFactor * took",
		pkg:  "./partition/store", test: "TestRest/50ms", want: "flush 1@0",
	},
	{
		name: "what is old alone is flushed one after the other",
		file: "partition/store/aging.go",
		old:  "st.rest = now.Add(long)",
		new:  "_ = long",
		pkg:  "./partition/store", test: "TestRest", want: "flush 1@0",
	},
	{
		name: "who waits for memory ends a rest",
		file: "partition/store/aging.go",
		old:  "if old = len(st.admitting) == 0 && st.memory.Load() <= st.flushMark(); old {",
		new:  "if old = len(st.admitting) == 0; old {",
		pkg:  "./partition/store", test: "TestRest", want: "want \"flush 2@0\"",
	},
}
