package main

// lastWordTable lists the guards of how a native connection ends whose client sent
// what is no request.
var lastWordTable = []mutant{
	{
		name: "what came before bytes that are no frame is answered",
		file: "wire/server/conn.go",
		old:  "\tcase gone(err):\n",
		new:  "\tcase true:\n",
		pkg:  "./wire/server", test: "TestLastAnswers", want: "before it is durable: ",
	},
	{
		name: "the end of waiting for a native connection's last answers",
		file: "wire/server/conn.go",
		old:  "time.AfterFunc(intake.LastAnswersTimeout, c.abort)",
		new:  "time.AfterFunc(2*intake.LastAnswersTimeout, c.abort)",
		pkg:  "./wire/server", test: "TestLastAnswersEnd", want: "want 30 s",
	},
	{
		name: "a native connection's last answers arrive",
		file: "wire/server/conn.go",
		old:  "\t\tintake.Linger(c.nc)\n\t}\n\tc.cancel()",
		new:  "\t}\n\tc.cancel()",
		pkg:  "./wire/server", test: "TestLastAnswersArrive", want: "of 250 is lost",
	},
	{
		name: "who is refused at its Hello can read why",
		file: "wire/server/conn.go",
		old:  "\t\t\tintake.Linger(c.nc)\n\t\t}\n\t\treturn",
		new:  "\t\t}\n\t\treturn",
		pkg:  "./wire/server", test: "TestLastWordAtHello", want: "the connection is closed at once",
	},
	{
		name: "who is refused for the number of connections can read why",
		file: "wire/server/accept.go",
		old:  "\t\t\t\tintake.Linger(nc)\n",
		new:  "\t\t\t\t_ = nc\n",
		pkg:  "./wire/server", test: "TestRefusedArrives", want: "the connection is closed at once",
	},
	{
		name: "a client is told why its connection is read no more",
		file: "wire/server/last.go",
		old:  "if word := lastWord(err); word != nil &&",
		new:  "if word := lastWord(err); word == nil &&",
		pkg:  "./wire/server", test: "TestLastAnswers", want: "want an Error with code 42",
	},
	{
		name: "an idle native connection is closed without more ado",
		file: "wire/server/last.go",
		old:  "return !gone(err) && !errors.Is(err, errIdle)",
		new:  "return !gone(err)",
		pkg:  "./wire/server", test: "TestLastWordOfSlow", want: "idle: the connection takes bytes after",
	},
	{
		name: "streams end with the reading of their connection",
		file: "wire/server/last.go",
		old:  "\tc.streams.end()\n",
		new:  "",
		pkg:  "./wire/server", test: "TestLastAnswers", want: "--- FAIL: TestLastAnswers/",
	},
	{
		name: "a failed Produce without acknowledgement is told",
		file: "wire/server/conn.go",
		old:  "\t\terr = e\n",
		new:  "\t\terr = net.ErrClosed\n",
		pkg:  "./wire/server", test: "TestLastAnswers", want: "before it is durable: ",
	},
	{
		name: "the answers before a request that cannot be decoded arrive",
		file: "kafka/writing.go",
		old:  "note(err, c.turnAway)",
		new:  "note(err, c.breakOff)",
		pkg:  "./kafka", test: "TestLastAnswers", want: "the connection is closed at once",
	},
}
