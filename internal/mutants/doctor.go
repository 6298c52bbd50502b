package main

// doctorTable lists the guards of flotilla check and flotilla repair.
var doctorTable = []mutant{
	{
		name: "repair: one of several nodes is left to the others",
		file: "internal/doctor/plan.go",
		old:  "x.idErr == nil && (x.id.Joins",
		new:  "x.idErr != nil && (x.id.Joins",
		pkg:  "./internal/sim", test: "TestRepairOfOneOfSeveral", want: "refused for metadata",
	},
	{
		name: "repair: the metadata too says that there are others",
		file: "internal/doctor/plan.go",
		old:  "if nodes > 1 {",
		new:  "if nodes > 99 {",
		pkg:  "./internal/sim", test: "TestRepairOfOneOfSeveral", want: "a repair changed the directory",
	},
	{
		name: "repair: one of several nodes keeps a damaged range, to fetch it",
		file: "internal/doctor/plan.go",
		old:  "others != \"\" && len(a.Loss) > 0",
		new:  "others == \"\" && len(a.Loss) < 0",
		pkg:  "./internal/sim", test: "TestRepairOfOneOfSeveral", want: "a repair changed the directory",
	},
	{
		name: "check knows what was unlinked early",
		file: "internal/doctor/segments.go",
		old:  "dropped = max(dropped, offset)",
		new:  "_ = offset",
		pkg:  "./internal/sim", test: "TestCheckFreedEarly", want: "a segment is missing",
	},
	{
		name: "terms rise when loss is accepted",
		file: "internal/doctor/rebuild.go",
		old:  "v.Term = max(v.Term, s.maxTerm) + TermStep",
		new:  "v.Term = max(v.Term, s.maxTerm)",
		pkg:  "./internal/sim", test: "TestLossRaisesEpochs", want: "is in epoch",
	},
	{
		name: "a repair is carried out only once its plan is durable",
		file: "internal/doctor/execute.go",
		old:  "\tif err := vfs.WriteFile(x.fs, path.Join(dir, node.PlanName), node.Seal(b)); err != nil {\n",
		new: "\tf, err := x.fs.Create(path.Join(dir, node.PlanName))\n\tif err == nil {\n" +
			"\t\t_, err = f.WriteAt(node.Seal(b), 0)\n\t}\n\tif err != nil {\n",
		pkg: "./internal/sim", test: "TestRepairPlanFirst", want: "PLAN: checksum does not match",
	},
	{
		name: "a plan that a killed repair left is made durable first",
		file: "internal/doctor/execute.go",
		old:  "\tfor _, d := range []string{dir, repair} {\n",
		new:  "\tfor _, d := range []string{dir} {\n",
		pkg:  "./internal/sim", test: "TestRepairPlanFirst", want: "has changed, and there is no plan",
	},
	{
		name: "a repair that goes on leaves what is in its place",
		file: "internal/doctor/execute.go",
		old:  "\tif m.Had && there(live) && !there(old) {",
		new:  "\tif m.Had && there(live) {",
		pkg:  "./internal/sim", test: "TestRepairPlanFirst", want: "repair: leaves another",
	},
}
