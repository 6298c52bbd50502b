package main

// inspectTable lists the guards of what an operator is told of a cluster, of
// leaderships that are handed over by name, and of flotilla dev.
var inspectTable = []mutant{
	{
		name: "a leadership goes to a voter that answers",
		file: "replication/transfer.go",
		old:  "\t\tif _, err := r.opt.Transport.Probe(probing, id); err != nil {\n",
		new:  "\t\tif _, err := r.opt.Transport.Probe(probing, id); err != nil && probing.Err() != nil {\n",
		pkg:  "./replication", test: "TestTransferToRefused", want: "want replication: the voter is not ready to lead",
	},
	{
		name: "a leadership goes to a voter that lacks little",
		file: "replication/transfer.go",
		old:  "\t\tcase match+lagEntries < last:\n",
		new:  "\t\tcase match+lagEntries < last && match > last:\n",
		pkg:  "./replication", test: "TestTransferToRefused", want: "want replication: the voter is not ready to lead",
	},
	{
		name: "a voter's last entries are not waited for without end",
		file: "replication/transfer.go",
		old:  "\twaiting, cancel := context.WithTimeout(ctx, transferPatience)\n",
		new:  "\twaiting, cancel := context.WithTimeout(ctx, 20*transferPatience)\n",
		pkg:  "./replication", test: "TestTransferToWaits", want: "want ",
	},
	{
		name: "how far others are is of this term",
		file: "replication/progress.go",
		old:  "\tif p.Leading {\n",
		new:  "\tif p.HasLeader {\n",
		pkg:  "./replication", test: "TestProgress", want: "a follower says",
	},
	{
		name: "inspect: the leader of the highest term is believed",
		file: "broker/inspect.go",
		old:  "(leads == nil || one.Term > leads.Term)",
		new:  "(leads == nil || one.Term < leads.Term)",
		pkg:  "./broker", test: "TestMerge", want: "want 2 3 90",
	},
	{
		name: "inspect: a replica of another incarnation is none",
		file: "broker/inspect.go",
		old:  "own != nil && own.Incarnation == m.Incarnation",
		new:  "own != nil",
		pkg:  "./broker", test: "TestMerge", want: "3=lost 40 60 -1",
	},
	{
		name: "inspect: a node that does not answer is waited for so long",
		file: "broker/inspect.go",
		old:  "\tctx, cancel := context.WithTimeout(ctx, wait)\n",
		new:  "\tctx, cancel := context.WithTimeout(ctx, 9*wait)\n",
		pkg:  "./internal/sim", test: "TestClusterState", want: "says after 9s",
	},
	{
		name: "inspect: a report is of the node that was asked",
		file: "broker/report.go",
		old:  "\tcase r.Node != node:\n",
		new:  "\tcase r.Node != node && r.Node < 0:\n",
		pkg:  "./broker", test: "TestReportBounds", want: "another node's: <nil>",
	},
	{
		name: "a shard is handed over once",
		file: "client/cluster.go",
		old:  "\tcase sent && (!answered || code == errcode.RequestTimedOut || code == errcode.UnknownServer):\n",
		new:  "\tcase sent && code == errcode.UnknownServer:\n",
		pkg:  "./client", test: "TestTransferShard", want: "want REQUEST_TIMED_OUT",
	},
	{
		name: "dev: a node that has ended stays so until somebody asks",
		file: "cmd/flotilla/devfleet.go",
		old:  "\t\t\t\tf.say(\"the others go on; start it again with: kill -USR1 %d\", os.Getpid())\n",
		new:  "\t\t\t\tf.say(\"the others go on; start it again with: kill -USR1 %d\", os.Getpid())\n\t\t\t\t_ = f.start(polling, &polls, e.node)\n",
		pkg:  "./cmd/flotilla", test: "TestDevFleetEnds", want: "the fleet does not end",
	},
	{
		name: "dev: a node that does not stop is killed",
		file: "cmd/flotilla/devfleet.go",
		old:  "\t\t\tsignal(syscall.SIGKILL)\n",
		new:  "\t\t\tsignal(syscall.SIGTERM)\n\t\t\treturn errors.Join(errs...)\n",
		pkg:  "./cmd/flotilla", test: "TestDevFleetStubborn", want: "run = ",
	},
	{
		name: "flotilla dev has a rack for each node",
		file: "cmd/flotilla/dev.go",
		old:  "n != 0 && n != opt.nodes",
		new:  "false",
		pkg:  "./cmd/flotilla", test: "TestDevArgs", want: "three nodes take two racks",
	},
	{
		name: "dev: a directory is of one number of nodes",
		file: "cmd/flotilla/dev.go",
		old:  "\t\tif d.Nodes != nodes {\n",
		new:  "\t\tif d.Nodes < 0 {\n",
		pkg:  "./cmd/flotilla", test: "TestDevCluster", want: "for one node: <nil>",
	},
}
