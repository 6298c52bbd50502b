// Package frame carries the native protocol over a byte stream: the magic that
// opens a connection, the handshake, and frames in both directions. Clients and
// servers use the same code. docs/protocol.md specifies all of it.
//
// Each end of a connection first writes the magic
//
//	0      1     2     3     4
//	+------+-----+-----+-----+
//	| 0xF1 | 'F' | 'L' | 'O' |
//	+------+-----+-----+-----+
//
// and then frames (integers big-endian, as in a record batch; offsets in bytes):
//
//	0        4               8      9       10         12               16
//	+--------+---------------+------+-------+----------+----------------+--------+---------+
//	| length | header length | kind | flags | reserved | correlation id | header | payload |
//	+--------+---------------+------+-------+----------+----------------+--------+---------+
//
// length counts what follows it: 12 bytes, the header and the payload. The
// header is a protobuf message (package pb), which one is said by kind and
// flags. The payload is raw bytes and may be empty. reserved is zero. There is
// no checksum: TCP has one, and so has every record batch.
package frame

import (
	"encoding/binary"
	"errors"
	"fmt"
)

const (
	// PrefixBytes is the size of a frame before its header.
	PrefixBytes = 16

	// lengthBytes is the size of the length field, which does not count itself.
	lengthBytes = 4
)

// Kind says which request a frame is, or answers. The zero Kind is never sent.
type Kind uint8

// The kinds of protocol version 1. 64 to 79 are those of streams that the server
// pushes, which it offers as FeatureStream; 80 to 95 those of consumer groups,
// which it offers as FeatureGroups.
const (
	KindHello            Kind = 1
	KindPing             Kind = 2
	KindError            Kind = 3 // from the server, about the connection; then it closes
	KindMetadata         Kind = 16
	KindCreateTopic      Kind = 17
	KindDeleteTopic      Kind = 18
	KindDescribeTopic    Kind = 19
	KindAlterTopic       Kind = 20
	KindAddPartitions    Kind = 21
	KindDescribeFeatures Kind = 22
	KindUpgradeFeatures  Kind = 23
	KindDescribeCluster  Kind = 24
	KindTransferShard    Kind = 25
	KindInitProducer     Kind = 32
	KindProduce          Kind = 33
	KindFetch            Kind = 48
	KindListOffsets      Kind = 49
	KindDeleteRecords    Kind = 50
	KindSubscribe        Kind = 64
	KindDeliver          Kind = 65 // from the server: flags 0, correlation id 0
	KindCredit           Kind = 66 // has no response
	KindUnsubscribe      Kind = 67
	KindChangeStream     Kind = 68
	KindFindCoordinator  Kind = 80
	KindGroupHeartbeat   Kind = 81
	KindCommitOffsets    Kind = 82
	KindFetchOffsets     Kind = 83
	KindDeleteOffsets    Kind = 84
	KindListGroups       Kind = 85
	KindDescribeGroup    Kind = 86
	KindDeleteGroup      Kind = 87
)

// FeatureStream is the name in ServerHello.features of a server that takes
// Subscribe.
const FeatureStream = "stream"

// FeatureGroups is the name in ServerHello.features of a server that takes the
// requests of consumer groups.
const FeatureGroups = "groups"

// String returns the kind's name in docs/protocol.md, or "kind(<n>)".
func (k Kind) String() string {
	switch k {
	case KindHello:
		return "Hello"
	case KindPing:
		return "Ping"
	case KindError:
		return "Error"
	case KindMetadata:
		return "Metadata"
	case KindCreateTopic:
		return "CreateTopic"
	case KindDeleteTopic:
		return "DeleteTopic"
	case KindDescribeTopic:
		return "DescribeTopic"
	case KindAlterTopic:
		return "AlterTopic"
	case KindAddPartitions:
		return "AddPartitions"
	case KindDescribeFeatures:
		return "DescribeFeatures"
	case KindUpgradeFeatures:
		return "UpgradeFeatures"
	case KindDescribeCluster:
		return "DescribeCluster"
	case KindTransferShard:
		return "TransferShard"
	case KindInitProducer:
		return "InitProducer"
	case KindProduce:
		return "Produce"
	case KindFetch:
		return "Fetch"
	case KindListOffsets:
		return "ListOffsets"
	case KindDeleteRecords:
		return "DeleteRecords"
	case KindSubscribe:
		return "Subscribe"
	case KindDeliver:
		return "Deliver"
	case KindCredit:
		return "Credit"
	case KindUnsubscribe:
		return "Unsubscribe"
	case KindChangeStream:
		return "ChangeStream"
	case KindFindCoordinator:
		return "FindCoordinator"
	case KindGroupHeartbeat:
		return "GroupHeartbeat"
	case KindCommitOffsets:
		return "CommitOffsets"
	case KindFetchOffsets:
		return "FetchOffsets"
	case KindDeleteOffsets:
		return "DeleteOffsets"
	case KindListGroups:
		return "ListGroups"
	case KindDescribeGroup:
		return "DescribeGroup"
	case KindDeleteGroup:
		return "DeleteGroup"
	}
	return fmt.Sprintf("kind(%d)", uint8(k))
}

// Flags are the bits of a frame's flags field. Bits not named here are zero.
type Flags uint8

const (
	// FlagResponse marks the answer to the request with the same kind and
	// correlation id.
	FlagResponse Flags = 1 << 0

	// FlagError marks a response whose header is a pb.Error, whatever the kind,
	// and which has no payload.
	FlagError Flags = 1 << 1

	knownFlags = FlagResponse | FlagError
)

// The default limits, and those that hold before the handshake is done.
const (
	DefaultMaxFrameBytes  = 100 << 20
	DefaultMaxHeaderBytes = 1 << 20
	HandshakeMaxBytes     = 64 << 10
)

// Limits bound one frame. Both ends of a connection hold the same ones, which
// the server announces in its Hello.
type Limits struct {
	MaxFrameBytes  int // largest length field: the frame without its first 4 bytes
	MaxHeaderBytes int // largest header
}

// DefaultLimits returns the limits of a server that sets none.
func DefaultLimits() Limits {
	return Limits{MaxFrameBytes: DefaultMaxFrameBytes, MaxHeaderBytes: DefaultMaxHeaderBytes}
}

var (
	// ErrMalformed reports bytes that are no frame of this protocol. Nothing
	// after them can be trusted: close the connection.
	ErrMalformed = errors.New("frame: malformed")

	// ErrTooLarge reports a frame, a header or a count above its limit. A
	// Reader that returned it is of no more use; a Writer wrote nothing.
	ErrTooLarge = errors.New("frame: too large")

	// ErrTruncated reports a stream that ended within a frame.
	ErrTruncated = errors.New("frame: truncated")

	// ErrForeign reports a peer that speaks another protocol than this one.
	ErrForeign = errors.New("frame: not the native protocol")

	// ErrVersion matches every *VersionError.
	ErrVersion = errors.New("frame: no common protocol version")

	// ErrHandshake reports a handshake that was refused, or was not one.
	ErrHandshake = errors.New("frame: handshake failed")
)

// Prefix is a frame without its header and payload.
type Prefix struct {
	Kind          Kind
	Flags         Flags
	CorrelationID uint32
	HeaderBytes   int
	PayloadBytes  int
}

// append appends the 16 bytes of p to dst.
func (p Prefix) append(dst []byte) []byte {
	dst = binary.BigEndian.AppendUint32(dst, uint32(PrefixBytes-lengthBytes+p.HeaderBytes+p.PayloadBytes))
	dst = binary.BigEndian.AppendUint32(dst, uint32(p.HeaderBytes))
	dst = append(dst, byte(p.Kind), byte(p.Flags), 0, 0)
	return binary.BigEndian.AppendUint32(dst, p.CorrelationID)
}

// check returns ErrTooLarge if p is above the limits, comparing in int64 so
// that no sum overflows.
func (p Prefix) check(lim Limits) error {
	length := int64(PrefixBytes-lengthBytes) + int64(p.HeaderBytes) + int64(p.PayloadBytes)
	if length > int64(lim.MaxFrameBytes) {
		return fmt.Errorf("%w: %s frame of %d bytes, limit %d", ErrTooLarge, p.Kind, length, lim.MaxFrameBytes)
	}
	if p.HeaderBytes > lim.MaxHeaderBytes {
		return fmt.Errorf("%w: %s header of %d bytes, limit %d", ErrTooLarge, p.Kind, p.HeaderBytes, lim.MaxHeaderBytes)
	}
	return nil
}

// decodePrefix reads a prefix from b and holds it against the limits.
func decodePrefix(b *[PrefixBytes]byte, lim Limits) (Prefix, error) {
	length, header := binary.BigEndian.Uint32(b[0:]), binary.BigEndian.Uint32(b[4:])
	p := Prefix{Kind: Kind(b[8]), Flags: Flags(b[9]), CorrelationID: binary.BigEndian.Uint32(b[12:])}
	switch {
	case length < PrefixBytes-lengthBytes:
		return Prefix{}, fmt.Errorf("%w: length %d, want at least %d", ErrMalformed, length, PrefixBytes-lengthBytes)
	case int64(length) > int64(lim.MaxFrameBytes):
		return Prefix{}, fmt.Errorf("%w: %s frame of %d bytes, limit %d", ErrTooLarge, p.Kind, length, lim.MaxFrameBytes)
	case header > length-(PrefixBytes-lengthBytes):
		return Prefix{}, fmt.Errorf("%w: header of %d bytes in a frame of %d", ErrMalformed, header, length)
	case p.Kind == 0:
		return Prefix{}, fmt.Errorf("%w: kind 0", ErrMalformed)
	case p.Flags&^knownFlags != 0, p.Flags == FlagError:
		return Prefix{}, fmt.Errorf("%w: flags %#x", ErrMalformed, uint8(p.Flags))
	case b[10] != 0 || b[11] != 0:
		return Prefix{}, fmt.Errorf("%w: reserved %x", ErrMalformed, b[10:12])
	}
	p.HeaderBytes = int(header)
	p.PayloadBytes = int(length-header) - (PrefixBytes - lengthBytes)
	if p.Flags&FlagError != 0 && p.PayloadBytes != 0 {
		return Prefix{}, fmt.Errorf("%w: an error with a payload of %d bytes", ErrMalformed, p.PayloadBytes)
	}
	return p, p.check(lim)
}
