package frame

import (
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/flotilla-log/flotilla/internal/errcode"
	"github.com/flotilla-log/flotilla/wire/pb"
)

// MaxHeaderFields is the number of fields of one message, repeated ones counted
// each time, above which Unmarshal refuses a header. It bounds what two bytes
// on the wire (an empty element) can make a decoder allocate.
const MaxHeaderFields = 100_000

// Unmarshal decodes a header into m, which it resets first. Fields that this
// build does not know are dropped.
//
// It returns ErrMalformed, or ErrTooLarge for more than MaxHeaderFields fields,
// in which case the connection can be used on: the frame itself was whole.
func Unmarshal(header []byte, m proto.Message) error {
	fields := 0
	for rest := header; len(rest) > 0; fields++ {
		if fields == MaxHeaderFields {
			return fmt.Errorf("%w: header with more than %d fields", ErrTooLarge, MaxHeaderFields)
		}
		_, _, n := protowire.ConsumeField(rest)
		if n < 0 {
			return fmt.Errorf("%w: header: %w", ErrMalformed, protowire.ParseError(n))
		}
		rest = rest[n:]
	}
	if err := (proto.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(header, m); err != nil {
		return fmt.Errorf("%w: header: %w", ErrMalformed, err)
	}
	return nil
}

// NewError returns the message for a code, with its retriability. An empty text
// stands for the code's own sentence. It panics if code is None.
func NewError(code errcode.Code, text string) *pb.Error {
	if code == errcode.None {
		panic("frame: NewError of None")
	}
	if text == "" {
		text = code.Text()
	}
	return &pb.Error{Code: int32(code), Message: text, Retriable: code.Retriable()}
}
