// Package sim runs whole nodes, with real clients, in virtual time, takes their
// power away, and checks what the clients saw. It holds tests only.
//
// A world is one node, mostly, in a testing/synctest bubble: internal/node as the binary
// starts it, over a file system in memory that knows what a power cut leaves
// (vfs.Mem) and a network in memory (netsim). Clients record what they do
// (history), and at the end everything is read back and checked: nothing
// acknowledged is lost, no offset holds two records, no record has two offsets.
//
// A fleet is three nodes in one bubble, each with a voter of every shard. They
// talk over the connections that real nodes have (replication/transport.Mesh), on
// the network that their clients use, or over a transport in memory (Hub), which
// loses, doubles and reorders messages by the seed.
//
// A storm (TestClusterHistories) is a fleet's history of a minute and more, with
// the native client and franz-go. The seed has one thing after the other go wrong,
// mostly with a leader: power cuts, of all nodes as well, kills, restarts, cuts in
// one direction, in both, between two of three or from the clients, pauses, disks
// that hang, are slow, full or fail, lost and late messages, and clocks that are
// set wrong. Then all is mended, and what was acknowledged has to be there, and
// records have to be taken again. Shorter histories (TestVoters) do less, oftener.
// TestSeededBugs has storms find what they are for. make soak-sim runs storms for
// an hour; make sim-bugs tells how many of a hundred seeds find each bug.
//
// Storms go over consumer groups too (TestGroupHistories): members die, leave, and are
// silent for longer than a session or shorter, while the nodes that coordinate them are
// in trouble. Each record is to be given to every group, no partition to two members at
// a time, and committed offsets never go back; TestGroupBugs has them find what they are
// for. When a coordinator fails, and its group's members stay, nothing moves
// (TestGroupFailover). TestGroupGoesOn measures that who keeps a partition through
// rebalances is given its records as before. With the build tag synctests there are
// members with franz-go, in both protocols, beside the native ones.
//
// Half of the random histories, and a third of those of three nodes, have a topic
// that loses records: clients delete some and change its configs, add a partition,
// and retention, as tight as can be, takes others. What is gone must have been
// below where the log may have started by then, and log starts move by what may
// move them, and never back (history.Options.Retention).
//
// Every run has a seed, which decides the clients' load, the delays of disk and
// network, when the power goes, and what is left of what was not synced. A run
// that fails prints the command that repeats it, and writes its history, the
// disk operations and the node's log to a file.
//
// The seed does not decide in which order goroutines run that are ready at the
// same virtual time: two runs of a seed follow one plan, and no two have had the
// same history to the byte. So a failure comes back often, not always, and
// SIM_RUNS=n repeats the seed that SIM_SEED names n times. What a single run
// shows is kept: TestEveryOperationCut takes the disk at each operation of one
// run and looks at all of them.
package sim
