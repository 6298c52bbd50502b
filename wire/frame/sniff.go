package frame

import (
	"fmt"
	"io"
	"slices"
)

// MagicBytes is the size of the magic, and what Sniff needs to tell protocols
// apart.
const MagicBytes = 4

// Magic opens each direction of a native connection. Its first byte is above
// 0x7f, which a Kafka request, opening with the high byte of a positive length,
// cannot start with; nor do TLS and HTTP.
const Magic = "\xf1FLO"

// Protocol is what the first bytes of a connection say about the peer.
type Protocol uint8

const (
	Unknown Protocol = iota
	Native
	Kafka
	HTTP
	TLS
)

// String returns the protocol's name as a log line wants it.
func (p Protocol) String() string {
	switch p {
	case Native:
		return "native"
	case Kafka:
		return "Kafka"
	case HTTP:
		return "HTTP"
	case TLS:
		return "TLS"
	}
	return "unknown"
}

// httpStarts are the first bytes of HTTP requests and of an HTTP response.
var httpStarts = []string{
	"GET ", "HEAD", "POST", "PUT ", "DELE", "OPTI", "PATC", "TRAC", "CONN", "PRI ", "HTTP",
}

// Sniff names the protocol whose stream starts with b, of which it looks at the
// first MagicBytes; fewer are Unknown. A Kafka request is any length from 8
// bytes to below 0x14000000 (320 MiB), far above what any server accepts and
// below the first bytes of TLS records and of text.
func Sniff(b []byte) Protocol {
	if len(b) < MagicBytes {
		return Unknown
	}
	b = b[:MagicBytes]
	switch {
	case string(b) == Magic:
		return Native
	case b[0] >= 0x14 && b[0] <= 0x17 && b[1] == 3 && b[2] <= 4:
		return TLS // record type, then version 3.0 to 3.4
	case slices.Contains(httpStarts, string(b)):
		return HTTP
	case b[0] < 0x14 && (b[0] > 0 || b[1] > 0 || b[2] > 0 || b[3] >= 8):
		return Kafka
	}
	return Unknown
}

// ReadMagic reads the first MagicBytes of r and names their protocol. A
// listener that shares its port reads them so, and hands a native connection to
// Accept, which expects them gone. read holds what was read, for the protocol
// that needs it back; it is shorter if r ended or failed, which is the error.
func ReadMagic(r io.Reader) (p Protocol, read []byte, err error) {
	read = make([]byte, MagicBytes)
	n, err := io.ReadFull(r, read)
	if err != nil {
		return Unknown, read[:n], fmt.Errorf("frame: reading the magic: %w", err)
	}
	return Sniff(read), read, nil
}
