// Package consumergroup decides what happens in consumer groups: who is a member,
// when members meet again to share the partitions anew, and which offsets they
// have committed. It is Kafka's group coordinator for classic groups and for those of
// KIP-848, as a pure machine: no clock, no goroutine, no file; time and randomness are
// arguments.
//
// # What is stored, and what is decided
//
// [Groups] is what the records of one partition of __consumer_offsets say: each
// group after its last rebalance, and each committed offset. Every replica folds
// the records as they are applied, so that all have the same Groups.
//
// A [Coordinator] is what the leader of that partition adds. It begins with a copy
// of the applied Groups, its decided state, and with the members' sessions running
// anew. Each call decides: it appends records, and replies to this request or to
// some that were held, to a [Decision]. The records are folded into the decided
// state at once, by the same Fold, so that the next call builds on them.
//
//	request ---> Coordinator ---> Decision: records, replies
//	                 |                 |
//	    decided <- Fold                v
//	                          the log, replicated (R3)
//	                                   |
//	                     applied <- Fold, on every replica
//	                                   |
//	                                   v
//	                    the replies of the Decision go out
//
// Invariant: when the records of all decisions are applied, the applied and the
// decided Groups have the same Hash.
//
// A reply is due once the records of its Decision, and those of all before, are
// applied. If any of them is refused, the Coordinator is worth nothing any more:
// its caller drops it, answers what is parked and what is Held with
// NOT_COORDINATOR, and makes a new one from the applied state if it still leads.
//
// # What the caller does
//
//   - It folds each record of the partition into the applied Groups, on every replica,
//     in the order of the log, and stops the replica if Fold fails (R4, R5).
//   - While it leads: it makes a Coordinator once all that was applied before its term
//     is folded, gives each request a Token, proposes a Decision's records under
//     (term, decision number), and parks the replies.
//   - A Decision without records waits for those before it; with Reads also for a
//     majority's word, asked for after the request came, that this node leads (R19).
//   - It calls Tick when Next says so, and Gone when the connection of a request that
//     it still has ends; then it sends no reply to that.
//   - It checks before who may do what, that topics and partitions exist, and the
//     topics' ids; with the ids of those, commits and fetches keep apart the lives of a
//     topic. It tells of topics that were deleted, also of those before it led: Topics.
//   - Requests for groups of other partitions never reach a Coordinator.
//
// # Classic groups
//
//	         first member                 all members joined,
//	         joins                        or time is up
//	Empty ----------> PreparingRebalance ----------> CompletingRebalance
//	  ^                  |   ^     ^                     |         |
//	  |   no member left |   |     '---------------------'         |
//	  '------------------'   |        a member joins, leaves,      | the leader has sent
//	                         |        or is lost                   | who gets what: recorded
//	                         |                                     v
//	                         '---------------------------------- Stable
//	                           a member joins, leaves, is lost
//
// Only Stable and Empty are recorded. A new leader thus takes over each group as
// it was after its last rebalance; what was going on is begun again by the members,
// who learn that their generation is not known.
//
// # Groups of KIP-848
//
// Here the coordinator assigns. A member says in its heartbeats what it subscribes to
// and what it owns, and is told what it has. What is recorded is the group's epoch,
// which begins anew whenever members or topics change; the target assignment of that
// epoch, which package assign makes; and for each member what it has, on its way to
// its target, which a reconciliation takes in steps. The records are the state: beside
// them a [Coordinator] has only who owns each partition, and timers. A group is of
// this kind while any such record is there, and else a classic one.
//
// A classic group becomes one of KIP-848 with the first member of that, and back when
// only members are left that speak the classic protocol: meanwhile they are assigned
// to like the others, through JoinGroup, SyncGroup and Heartbeat.
//
// Invariant: a partition is in the current assignment of one member at most, be it as
// one that it has or as one that it has yet to give away. A member is told of it only
// after that is recorded, and has it until it says that it owns it no longer, or is
// fenced. So no two members consume it.
//
// # What is deleted
//
// A group without members and without offsets is deleted by the next check of the
// retention (see Options.RetentionCheck), as with Kafka.
package consumergroup
