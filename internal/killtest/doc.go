// Package killtest kills the real server with SIGKILL, over and over, while
// clients write, read, create and delete, and checks afterwards that nothing
// that was promised is missing. Some of the clients are Kafka's: they write to,
// and read, the same topic as ours do.
//
// The server logs where each phase of interest begins and ends. A kill is aimed
// at a phase: the harness waits for the line that begins it, kills, and then
// reads the rest of the log to learn what was really open when the process
// died. That is what counts; a kill that came too late is repeated. A phase that is
// over in no time is passed over if its end is there to be read with its beginning.
//
// Page cache survives a SIGKILL, so a missing fsync is not found here but by the
// crashes of internal/vfs. What is found: acknowledgements ahead of the journal,
// retries taken for new records, recovery that reads less, or more, than was
// written, deleted topics and records that come back, and formats that an
// interrupted step leaves half done.
//
// A cluster of three processes is killed too. With the tag cluster, as root, each has
// a name space of the kernel's network of its own, and is cut off, slowed by losses,
// stopped and deprived of its disk besides: make test-cluster. Then consumer groups, whose
// members come and go, consume what it is sent.
//
// One seed decides all but what the scheduler does: KILL_SEED gives another one.
// KILL_BINARY names a server to test instead of one built from this module, and
// KILL_KEEP=1 keeps logs and histories of what went well too.
package killtest
