package broker

import (
	"errors"

	"github.com/flotilla-log/flotilla/internal/errcode"
	"github.com/flotilla-log/flotilla/log/batch"
	"github.com/flotilla-log/flotilla/partition/store"
	"github.com/flotilla-log/flotilla/replication"
)

// codes maps what storage, replication and validation return to what clients
// are answered, in the order of preference. It is the only such table.
var codes = []struct {
	err  error
	code errcode.Code
}{
	{replication.ErrNotLeader, errcode.NotLeaderOrFollower},
	{replication.ErrNotConfirmed, errcode.NotLeaderOrFollower},
	{replication.ErrOutcomeUnknown, errcode.RequestTimedOut},
	{replication.ErrStopped, errcode.NotLeaderOrFollower},
	{replication.ErrTooLarge, errcode.MessageTooLarge},

	// What is wrong with a stored batch is not the client's doing: it asks again.
	{store.ErrCorrupt, errcode.KafkaStorageError},

	{batch.ErrTooLarge, errcode.MessageTooLarge},
	{batch.ErrMagic, errcode.UnsupportedForMessageFormat},
	{batch.ErrCodec, errcode.UnsupportedCompressionType},
	{batch.ErrTimestamp, errcode.InvalidTimestamp},
	{batch.ErrControl, errcode.InvalidRecord},
	{batch.ErrNoKey, errcode.InvalidRecord},
	{batch.ErrInvalid, errcode.InvalidRecord},
	{batch.ErrCorrupt, errcode.CorruptMessage},
	{batch.ErrShort, errcode.CorruptMessage},

	{store.ErrOutOfRange, errcode.OffsetOutOfRange},
	{store.ErrUnknownPartition, errcode.UnknownTopicOrPartition},
	{store.ErrFailed, errcode.KafkaStorageError},
	{store.ErrClosed, errcode.NotLeaderOrFollower},
}

// CodeOf returns err as clients see it. An error that is in no table is a bug,
// and is answered as UNKNOWN_SERVER_ERROR.
func CodeOf(err error) *errcode.Error {
	var coded *errcode.Error
	if errors.As(err, &coded) {
		return coded
	}
	for _, c := range codes {
		if errors.Is(err, c.err) {
			return &errcode.Error{Code: c.code, Detail: err.Error()}
		}
	}
	return &errcode.Error{Code: errcode.UnknownServer, Detail: err.Error()}
}
