package main

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// Limits of a connection. An answer that is late or larger ends the recording.
const (
	clientID       = "kafkadiff"
	answerTimeout  = 30 * time.Second
	maxAnswerBytes = 16 << 20
)

// errClosed reports that the server closed the connection instead of answering.
var errClosed = errors.New("kafkadiff: connection closed without an answer")

// wire is one connection that speaks Kafka's framing, one request at a time.
type wire struct {
	conn          net.Conn
	r             *bufio.Reader
	correlationID int32
	patience      time.Duration
}

func dial(addr string) (*wire, error) {
	c, err := net.DialTimeout("tcp", addr, answerTimeout)
	if err != nil {
		return nil, fmt.Errorf("kafkadiff: %w", err)
	}
	return &wire{conn: c, r: bufio.NewReader(c), patience: answerTimeout}, nil
}

// header returns a frame's beginning, length left open, up to the body.
func header(key, version int16, correlationID int32, flexible bool) []byte {
	b := make([]byte, 4, 64)
	b = binary.BigEndian.AppendUint16(b, uint16(key))
	b = binary.BigEndian.AppendUint16(b, uint16(version))
	b = binary.BigEndian.AppendUint32(b, uint32(correlationID))
	b = binary.BigEndian.AppendUint16(b, uint16(len(clientID)))
	b = append(b, clientID...)
	if flexible {
		b = append(b, 0) // no tags
	}
	return b
}

// send writes the request of key and version with the given body and returns
// its correlation id.
func (w *wire) send(key, version int16, flexible bool, body []byte) (int32, error) {
	w.correlationID++
	b := append(header(key, version, w.correlationID, flexible), body...)
	binary.BigEndian.PutUint32(b, uint32(len(b)-4))
	if err := w.conn.SetDeadline(time.Now().Add(w.patience)); err != nil {
		return 0, err
	}
	_, err := w.conn.Write(b)
	return w.correlationID, err
}

// receive returns the next answer's correlation id and what follows it. It
// returns errClosed if the server closed the connection.
func (w *wire) receive() (int32, []byte, error) {
	var head [8]byte
	if _, err := io.ReadFull(w.r, head[:]); err != nil {
		var timeout net.Error
		if errors.As(err, &timeout) && timeout.Timeout() {
			return 0, nil, fmt.Errorf("kafkadiff: no answer within %v", w.patience)
		}
		return 0, nil, fmt.Errorf("%w: %w", errClosed, err)
	}
	n := int64(binary.BigEndian.Uint32(head[:4])) - 4
	if n < 0 || n > maxAnswerBytes {
		return 0, nil, fmt.Errorf("kafkadiff: answer of %d bytes", n)
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(w.r, b); err != nil {
		return 0, nil, fmt.Errorf("kafkadiff: answer cut off: %w", err)
	}
	return int32(binary.BigEndian.Uint32(head[4:])), b, nil
}

// roundTrip sends req and returns its answer, and whether the answer's bytes
// are those that its fields encode to.
func (w *wire) roundTrip(req kmsg.Request) (resp kmsg.Response, exact bool, err error) {
	return w.roundTripRaw(req, req.AppendTo(nil))
}

// roundTripRaw is roundTrip with a body that req does not encode to.
func (w *wire) roundTripRaw(req kmsg.Request, body []byte) (kmsg.Response, bool, error) {
	id, err := w.send(req.Key(), req.GetVersion(), req.IsFlexible(), body)
	if err != nil {
		return nil, false, fmt.Errorf("%w: %w", errClosed, err)
	}
	return w.answer(req, id)
}

// answer returns the answer to req, which was sent with the correlation id.
func (w *wire) answer(req kmsg.Request, id int32) (kmsg.Response, bool, error) {
	got, payload, err := w.receive()
	if err != nil {
		return nil, false, err
	}
	if got != id {
		return nil, false, fmt.Errorf("kafkadiff: correlation id %d answers %d", got, id)
	}
	return decode(req, payload)
}

// decode reads the answer to req.
func decode(req kmsg.Request, payload []byte) (kmsg.Response, bool, error) {
	resp := req.ResponseKind()
	// ApiVersions is answered before the versions are agreed on, so its answer's
	// header never has tags.
	if resp.IsFlexible() && resp.Key() != int16(kmsg.ApiVersions) {
		if len(payload) == 0 || payload[0] != 0 {
			return nil, false, fmt.Errorf("kafkadiff: %s v%d: header with tags", kmsg.NameForKey(resp.Key()), resp.GetVersion())
		}
		payload = payload[1:]
	}
	// Whoever does not know the version of an ApiVersions request answers in version 0.
	if resp.Key() == int16(kmsg.ApiVersions) && len(payload) >= 2 && int16(binary.BigEndian.Uint16(payload)) == unsupportedVersion {
		resp.SetVersion(0)
	}
	if err := resp.ReadFrom(payload); err != nil {
		return nil, false, fmt.Errorf("kafkadiff: %s v%d: answer of %d bytes: %w", kmsg.NameForKey(resp.Key()), resp.GetVersion(), len(payload), err)
	}
	return resp, string(resp.AppendTo(nil)) == string(payload), nil
}

const unsupportedVersion = 35
