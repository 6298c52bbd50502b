package main

// producersTable lists the guards of producer ids: which ones are taken, and by whom.
var producersTable = []mutant{
	{
		name: "invented producer ids",
		file: "broker/producers.go",
		old:  "\tif id < b.image().NextProducerID() { // batch",
		new:  "\tif id < 1<<62 { // batch",
		pkg:  "./broker", test: "TestInventedProducer", want: "before any id was given, 0: ",
	},
	{
		name: "invented producer ids, for certain",
		file: "broker/producers.go",
		old:  "\tcase p.unsure != nil:",
		new:  "\tcase p.unsure != nil && id < 0:",
		pkg:  "./broker", test: "TestInventedProducerElsewhere", want: "part 0, cut off:",
	},
	{
		name: "a producer id that was given this moment",
		file: "broker/producers.go",
		old:  "p.asked, p.unsure = true, b.awaitCurrent(b.stopping)",
		new:  "p.asked, p.unsure = true, b.ConfirmController(b.stopping)",
		pkg:  "./broker", test: "TestInventedProducerElsewhere", want: "the id that was given this moment",
	},
}
