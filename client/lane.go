package client

import (
	"fmt"
	"slices"
	"time"

	"github.com/flotilla-log/flotilla/internal/errcode"
)

// producerID is a producer's identity; the zero value stands for none.
type producerID struct {
	valid bool
	id    int64
	epoch int16
}

// sending is a batch from when it is full until its outcome is known. The lane
// that holds it owns every field but bytes and what, which are its producer's.
type sending struct {
	what     *delivery // whose records these are
	count    int32     // records
	deadline time.Time // when the records are given up
	bytes    []byte    // nil while it is being built

	numbered bool // pid and sequence are fixed: the batch was handed to a connection
	pid      producerID
	sequence int32
	ordinal  int64 // how many batches were numbered under pid before this one

	inFlight bool
	unsure   bool // an attempt, other than one in flight, may have been appended
	finished bool
	err      error // of the last attempt; at the end, the outcome
}

// health is whether a lane's sequences still have no gap.
type health int

const (
	whole    health = iota
	gap             // a numbered batch was given up, and was certainly not appended
	unknowns        // a numbered batch was given up, and may have been appended
)

// outcome is what an attempt told about its batch.
type outcome int

const (
	appended   outcome = iota
	refused            // not appended, and will not be
	postponed          // not appended, worth another attempt
	outOfOrder         // not appended: the server has not seen the sequence before it
	unclear            // may have been appended, worth another attempt
	abandoned          // may have been appended, not worth another attempt
)

// lane is one partition's batches on their way, in order. It decides which
// batch may be sent next, with which sequence, and what an answer means for the
// ones behind it. It does no I/O and knows no clock.
//
// For an idempotent producer it upholds:
//   - a batch's producer id, epoch and sequence never change once it was sent,
//     unless every attempt of it is known to have been refused;
//   - whatever was in flight when one batch failed is sent again only after all
//     of it was answered, in the original order;
//   - the first batch under an id and epoch travels alone. A server that has
//     no state for a producer accepts any first sequence, so two of them in
//     flight could be appended in the wrong order.
//   - a new batch is sent only while it is within window of the oldest that is
//     unanswered, however many after that one were: the server remembers only
//     so many, and would not know the oldest again.
//
// An acknowledged batch proves that those numbered before it were appended too.
//
// When a numbered batch is given up, the sequence has a gap that the server
// will not accept. The lane then waits until nothing is in flight, settles what
// it can under the old numbers, and goes on under a newer epoch or id, from
// sequence 0, with batches that were certainly not appended.
//
// Not safe for concurrent use: the Producer's mu guards it.
type lane struct {
	topic      string
	partition  int32
	idempotent bool
	window     int // most batches in flight

	queue    []*sending // oldest first, unfinished
	inFlight int        // attempts under way, also of finished batches
	rewind   bool       // an attempt failed: let the others end, then start over
	failures int        // attempts in a row
	retryAt  time.Time

	topicID TopicID    // for which the numbers hold
	pid     producerID // of the numbers
	lost    producerID // the last one whose sequence broke
	next    int32      // sequence of the next batch to be numbered
	ordinal int64      // of that batch
	acked   int64      // the batches below this ordinal were appended
	health  health

	done []*sending // finished, oldest first, until the Producer takes them
}

// add puts a batch at the end.
func (l *lane) add(b *sending) { l.queue = append(l.queue, b) }

// ready returns the batch to be sent now, nil if there is none. The lane takes
// its numbers from pid, which the caller keeps up to date, once it needs some.
func (l *lane) ready(now time.Time, pid producerID) *sending {
	if l.inFlight > 0 && l.rewind || now.Before(l.retryAt) {
		return nil
	}
	l.rewind = false
	if l.inFlight >= l.limit() {
		return nil
	}
	for _, b := range l.queue {
		switch {
		case b.inFlight:
			continue
		case l.health == gap && !b.unsure:
			continue // waits for new numbers; those behind it may be unsure
		case l.health == unknowns, b.bytes == nil:
			return nil
		case l.idempotent && !b.numbered && (l.ahead() || !l.adopt(pid)):
			return nil
		}
		return b
	}
	return nil
}

// limit is the most batches in flight for now.
func (l *lane) limit() int {
	if l.idempotent && l.acked == 0 {
		return 1
	}
	return l.window
}

// ahead reports whether the next number is too far from the oldest unanswered.
func (l *lane) ahead() bool {
	oldest := l.queue[0]
	return oldest.numbered && l.ordinal-oldest.ordinal >= int64(l.window)
}

// full reports whether one more batch would have to wait.
func (l *lane) full() bool {
	return l.inFlight >= l.limit() || len(l.queue) > 0 && l.ahead() || slices.ContainsFunc(l.queue, func(b *sending) bool { return !b.inFlight })
}

// wantsID reports whether the lane cannot go on with pid.
func (l *lane) wantsID(pid producerID) bool {
	return l.idempotent && l.health == whole && len(l.queue) > 0 && !l.adopt(pid)
}

// adopt makes sure that the lane has a producer id to number with.
func (l *lane) adopt(pid producerID) bool {
	if !l.pid.valid && pid.valid && pid != l.lost {
		l.pid, l.next, l.ordinal, l.acked = pid, 0, 0, 0
	}
	return l.pid.valid
}

// send marks b, which ready returned, as in flight to the topic of that id, and
// numbers it if it is not. The caller writes the numbers into the batch.
func (l *lane) send(b *sending, id TopicID) {
	if l.idempotent && !b.numbered {
		b.numbered, b.pid, b.sequence, b.ordinal = true, l.pid, l.next, l.ordinal
		l.ordinal++
		l.next = int32((int64(l.next) + int64(b.count)) & 0x7fffffff)
	}
	l.topicID = id
	b.inFlight = true
	l.inFlight++
}

// settle takes the outcome of an attempt, at the end of which the connection
// uses b's bytes no more.
func (l *lane) settle(b *sending, o outcome, err error, retryAt func(failures int) time.Time) {
	l.inFlight--
	b.inFlight = false
	if !b.finished {
		if o == outOfOrder {
			o = l.judgeOrder(b)
		}
		switch o {
		case appended:
			l.failures = 0
			l.acked = max(l.acked, b.ordinal+1)
			l.finish(b, nil)
		case refused:
			l.refuse(b, err)
		case abandoned:
			b.unsure = true
			l.refuse(b, err)
		case unclear:
			b.unsure = true
			fallthrough
		default:
			b.err = err
			if !l.rewind {
				l.rewind = true
				l.failures++
				l.retryAt = retryAt(l.failures)
			}
		}
	}
	l.mend()
}

// judgeOrder says what an out of order sequence means for b: another try if a
// batch before it is still to come, refusal if not.
func (l *lane) judgeOrder(b *sending) outcome {
	if l.health == gap && b.ordinal >= l.acked {
		// The batch missing before b never comes, so no attempt of b can have
		// been appended, nor will one be.
		b.unsure = false
		return postponed
	}
	if l.health == whole && l.queue[0] == b {
		return refused
	}
	return postponed
}

// verdict is what becomes of b if it is given up because of err.
func (l *lane) verdict(b *sending, err error) error {
	switch {
	case b.numbered && b.ordinal < l.acked:
		return nil // one after it was appended
	case b.unsure || b.inFlight:
		return unknown(err)
	}
	return err
}

// refuse finishes a batch that its server, or its deadline, has turned down.
func (l *lane) refuse(b *sending, err error) {
	err = l.verdict(b, err)
	switch {
	case err == nil:
	case b.unsure || b.inFlight:
		l.damage(b, unknowns)
	case b.numbered && b.ordinal == l.ordinal-1 && l.health == whole:
		l.next, l.ordinal = b.sequence, b.ordinal // nobody has seen the number: the next batch takes it
	default:
		l.damage(b, gap)
	}
	l.finish(b, err)
}

// damage notes that a batch is given up.
func (l *lane) damage(b *sending, h health) {
	if b.numbered {
		l.health = max(l.health, h)
	}
}

// expire gives up batches whose deadline has come. Each is definitely not
// appended, or unknown.
func (l *lane) expire(now time.Time) {
	for len(l.queue) > 0 && !now.Before(l.queue[0].deadline) {
		b := l.queue[0]
		err := ErrDeliveryTimeout
		if b.err != nil {
			err = fmt.Errorf("%w: %w", err, b.err)
		}
		l.refuse(b, err)
	}
	l.mend()
}

// moveTo tells the lane the topic's id. If the topic was deleted and made again
// what was sent to the first is settled as far as it can be known.
func (l *lane) moveTo(id TopicID) {
	if l.topicID == id || l.topicID == (TopicID{}) {
		return
	}
	if l.idempotent && l.pid.valid {
		l.health = unknowns
	}
	l.topicID = id
	l.mend()
}

// mend goes on under new numbers once nothing is left under the old ones.
func (l *lane) mend() {
	if l.health == whole || l.inFlight > 0 {
		return
	}
	if l.health == gap && slices.ContainsFunc(l.queue, func(b *sending) bool { return b.unsure }) {
		return // these are sent again, as they were
	}
	for _, b := range slices.Clone(l.queue) {
		if b.unsure {
			l.finish(b, l.verdict(b, b.err))
		}
		b.numbered = false
	}
	l.health, l.lost, l.pid = whole, l.pid, producerID{}
	l.acked, l.rewind, l.retryAt = 0, false, time.Time{}
}

// failAll gives up everything, for good.
func (l *lane) failAll(err error) {
	for _, b := range slices.Clone(l.queue) {
		l.finish(b, l.verdict(b, err))
	}
}

// finish removes b from the queue with its outcome.
func (l *lane) finish(b *sending, err error) {
	i := slices.Index(l.queue, b)
	if i < 0 || b.finished {
		panic("client: a batch finished twice")
	}
	l.queue = slices.Delete(l.queue, i, i+1)
	b.finished, b.err = true, err
	l.done = append(l.done, b)
}

// mayHaveHappened reports whether the request that a server answered with err
// may have taken effect all the same. docs/protocol.md lists the codes.
func mayHaveHappened(err error) bool {
	code, answered := CodeOf(err)
	if !answered {
		return true
	}
	switch code {
	case errcode.UnknownServer, errcode.RequestTimedOut, errcode.NetworkException,
		errcode.NotEnoughReplicasAfterAppend, errcode.KafkaStorageError, errcode.NotLeaderOrFollower:
		return true
	}
	return false
}
