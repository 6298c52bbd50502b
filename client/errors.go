package client

import (
	"errors"
	"fmt"

	"github.com/flotilla-log/flotilla/internal/errcode"
	"github.com/flotilla-log/flotilla/wire/pb"
)

var (
	// ErrClosed reports the use of a closed Client, Producer or Consumer.
	ErrClosed = errors.New("client: closed")

	// ErrUnknownOutcome reports a request that was sent and whose effect is not
	// known: it may have happened, or may yet happen. Every other error of a
	// request that changes something means that it did not.
	ErrUnknownOutcome = errors.New("client: outcome unknown")

	// ErrDeliveryTimeout reports a record that could not be delivered within
	// ProducerConfig.DeliveryTimeout.
	ErrDeliveryTimeout = errors.New("client: delivery timeout")

	// ErrTimeout reports a server that did not answer within RequestTimeout.
	ErrTimeout = errors.New("client: request timed out")

	// ErrConnection reports a connection that could not be made, or broke.
	ErrConnection = errors.New("client: connection failed")

	// ErrProtocol reports an answer that docs/protocol.md does not allow.
	ErrProtocol = errors.New("client: unexpected answer")

	// ErrTooLarge reports a record above ProducerConfig.MaxBufferedBytes.
	ErrTooLarge = errors.New("client: record too large")

	// ErrNoPartition reports a partition that the topic does not have.
	ErrNoPartition = errors.New("client: no such partition")

	// ErrRecreated reports a topic that was deleted and created again while it
	// was read: the offsets mean nothing any more. Seek starts over.
	ErrRecreated = errors.New("client: topic was deleted and created again")

	// ErrNoGroups reports a node that does not serve consumer groups.
	ErrNoGroups = errors.New("client: the node does not serve consumer groups: use a newer version of it")

	// ErrLost reports a commit of a member that its group has lost: it was silent for
	// longer than a session, or did not poll for MaxPollInterval. Others may have its
	// partitions. The member joins again by itself.
	ErrLost = errors.New("client: the group has lost this member: others may have its partitions")

	// ErrCorrupt reports records that are not as they were written.
	ErrCorrupt = errors.New("client: corrupt records")
)

// Code is an error code as Apache Kafka numbers them; its Name is Kafka's.
type Code = errcode.Code

// CodeOf returns the code of the server's answer in err's chain, if err stems
// from one.
func CodeOf(err error) (Code, bool) {
	var e *errcode.Error
	if errors.As(err, &e) {
		return e.Code, true
	}
	return errcode.None, false
}

// PartitionError is an error about one partition. Unwrap leads to the cause:
// the server's code, or one of this package's sentinels.
type PartitionError struct {
	Topic     string
	Partition int32
	Offset    int64 // -1: about no offset in particular
	Err       error
}

func (e *PartitionError) Error() string {
	if e.Offset < 0 {
		return fmt.Sprintf("client: %s[%d]: %v", e.Topic, e.Partition, e.Err)
	}
	return fmt.Sprintf("client: %s[%d] at offset %d: %v", e.Topic, e.Partition, e.Offset, e.Err)
}

func (e *PartitionError) Unwrap() error { return e.Err }

// serverError is an error that a server answered.
type serverError struct {
	cause     errcode.Error
	retriable bool
	leader    *pb.LeaderHint // nil: no hint
}

func (e *serverError) Error() string { return e.cause.Error() }
func (e *serverError) Unwrap() error { return &e.cause }

// fromServer returns the Go error for e, nil for nil.
func fromServer(e *pb.Error) error {
	if e == nil {
		return nil
	}
	return &serverError{
		cause:     errcode.Error{Code: errcode.Code(e.Code), Detail: e.Message},
		retriable: e.Retriable,
		leader:    e.Leader,
	}
}

// retriable reports whether the request that failed with err may succeed later
// or elsewhere: the server says so, or there was no answer.
func retriable(err error) bool {
	var se *serverError
	if errors.As(err, &se) {
		return se.retriable
	}
	return errors.Is(err, ErrConnection) || errors.Is(err, ErrTimeout) || errors.Is(err, ErrProtocol)
}

// unknown returns an error that matches ErrUnknownOutcome and cause, which may
// be nil.
func unknown(cause error) error {
	if cause == nil || errors.Is(cause, ErrUnknownOutcome) {
		return errors.Join(ErrUnknownOutcome, cause)
	}
	return fmt.Errorf("%w: %w", ErrUnknownOutcome, cause)
}
