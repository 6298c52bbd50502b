// Package coordinator runs the coordinators of consumer groups: it puts a
// [consumergroup.Coordinator], which decides and knows neither clock nor log, between
// those who ask and the log of its partition of __consumer_offsets.
//
// A [Runner] is one coordinator in one term of the partition's shard:
//
//	JoinGroup, Heartbeat, ... --> queue --> Coordinator --> records --> Log.Propose
//	        ^                                    |                          |
//	        |                                    v                          v
//	        '--------------------------------- replies, parked <-------- applied
//
// # When a reply goes out
//
//   - Once all records are applied that were decided up to it: its own, and those that
//     others have decided before, as it may tell what they say.
//   - If it tells the state without a record that shows who leads
//     ([consumergroup.Decision].Reads), also not before a majority has said, asked after
//     the request was decided, that this node leads the term (R19). One question is for
//     all who wait for one.
//
// # One proposal at a time
//
// While a proposal is under way, what comes is decided on top of it. As long as the
// proposal itself waits for its turn in the log it is added to it ([Log].Extend), and else
// gathered into the next one. Proposals are numbered from 1 in each term, and Apply takes only the last
// number + 1 (R3). That alone would let a proposal of a Runner that was dropped take the
// number of its successor's, in the same term: so a number is proposed only after all
// before it have an outcome, and a successor in the same term begins only if all outcomes
// are known: see [Outcome].
//
// # Whose turn it is
//
// The Coordinator is for who has the turn, a lock. Most requests are queued for the Runner's
// goroutine. Those that take little, as most heartbeats do, are decided in the goroutine
// that asks, if it is nobody's turn and nothing is queued: with thousands of idle members,
// waking up another goroutine and being woken by it would be most of what a heartbeat takes. So what is done there is
// kept shallow: each connection has its stack, and one that has once needed more than 4 KiB
// keeps 8. Taking memory needs some 700 bytes of it, when a span is swept for it.
//
// # Bounds
//
// Who asks waits: for its place in the queue, which has room for Options.Queue requests,
// while as many replies are parked as Options.MaxParked, or more bytes of records are
// decided and not applied than Options.MaxBehindBytes. Time stands still for the
// Coordinator meanwhile: the heartbeats that wait are taken before any session ends.
// The bytes of requests are for those to count who have read them.
package coordinator
