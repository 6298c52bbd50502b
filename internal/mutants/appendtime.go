package main

// appendTimeTable lists the guards of a client's batch that claims the leader's time.
var appendTimeTable = []mutant{
	{
		name: "a client's log append time bit is cleared",
		file: "broker/produce.go",
		old:  "case sum.LatestTimestamp != sum.MaxTimestamp || sum.Attributes.LogAppendTime():",
		new:  "case sum.LatestTimestamp != sum.MaxTimestamp && !sum.Attributes.LogAppendTime():",
		pkg:  "./kafka", test: "TestLogAppendTimeOfClient", want: "want both taken, with no time of the leader's",
	},
	{
		name: "a client may not claim log append time where the topic keeps it",
		file: "broker/produce.go",
		old:  "\tlim.LogAppendTime = at.config.LogAppendTime\n\tif !lim.LogAppendTime {\n",
		new:  "\tif !at.config.LogAppendTime {\n",
		pkg:  "./kafka", test: "TestLogAppendTimeOfClient", want: "want INVALID_TIMESTAMP of two records",
	},
	{
		name: "a client's log append time is within the limits",
		file: "log/batch/validate.go",
		old:  "case appended && l.outside(h.MaxTimestamp):",
		new:  "case false:",
		pkg:  "./log/batch", test: "TestValidateHeader", want: "Validate = <nil>, want batch: invalid timestamp",
	},
	{
		name: "a client's log append time is a time",
		file: "log/batch/validate.go",
		old:  "(l.LogAppendTime || h.MaxTimestamp == -1)",
		new:  "l.LogAppendTime",
		pkg:  "./log/batch", test: "TestValidateHeader", want: "Validate = <nil>, want batch: invalid timestamp",
	},
}
