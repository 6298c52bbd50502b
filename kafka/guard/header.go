package guard

import (
	"encoding/binary"
	"fmt"
)

// Header is what precedes a request's body.
//
//	0     2         4                8               10
//	+-----+---------+----------------+---------------+-----------+------ - -
//	| key | version | correlation id | client id len | client id | tags
//	+-----+---------+----------------+---------------+-----------+------ - -
//
// Numbers are big-endian. The client id's length is -1 if it is null. Tags are
// there from the request's first flexible version on.
type Header struct {
	Key           int16
	Version       int16
	CorrelationID int32
	ClientID      []byte // nil if null; aliases the frame
	BodyAt        int    // where the body begins in the frame
}

// fixedHeaderBytes is the part that every header has.
const fixedHeaderBytes = 8

// headerStructure is a flexible header's end. No tag of it is defined.
var headerStructure = structure{name: "RequestHeader", fields: []field{{name: "ClientId"}}}

// ParseHeader reads the header that a frame begins with, without the frame's
// length. It allocates nothing, unless for the error.
//
// A key that no definition is of gives ErrUnknown, with key, version and
// correlation id in the header, and BodyAt 0. A known key with an unknown version
// gives no error, since ApiVersions has to be answered then: whether its header
// is flexible follows from the version alone. The other errors are an *Error.
func ParseHeader(frame []byte, limits Limits) (Header, error) {
	w := walker{body: frame, end: len(frame), limits: limits}
	if !w.skip(fixedHeaderBytes) {
		w.in(&headerStructure, "RequestApiKey")
		return Header{}, w.error("RequestHeader", 0)
	}
	h := Header{
		Key:           int16(binary.BigEndian.Uint16(frame)),
		Version:       int16(binary.BigEndian.Uint16(frame[2:])),
		CorrelationID: int32(binary.BigEndian.Uint32(frame[4:])),
	}
	r := find(h.Key)
	if r == nil {
		return h, fmt.Errorf("%w: key %d", ErrUnknown, h.Key)
	}
	if !w.text(true, false) { // never a compact one
		w.in(&headerStructure, "ClientId")
		return h, w.error(r.name, h.Version)
	}
	if at := fixedHeaderBytes + 2; int16(binary.BigEndian.Uint16(frame[fixedHeaderBytes:])) >= 0 {
		h.ClientID = frame[at:w.at:w.at]
	}
	if w.flexible = r.flexible != never && h.Version >= r.flexible; w.flexible && !w.tags(&headerStructure) {
		return h, w.error(r.name, h.Version)
	}
	h.BodyAt = w.at
	return h, nil
}
