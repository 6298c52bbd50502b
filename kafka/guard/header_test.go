package guard

import (
	"bytes"
	"errors"
	"math"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// header encodes a request's header with the tags, each {tag, size, bytes},
// that a flexible one has.
func header(req kmsg.Request, version int16, clientID, tags []byte) []byte {
	req.SetVersion(version)
	b := be(req.Key(), version, int32(77))
	if clientID == nil {
		b = append(b, be(int16(-1))...)
	} else {
		b = append(b, be(int16(len(clientID)), clientID)...)
	}
	if !req.IsFlexible() {
		return b
	}
	if tags == nil {
		tags = []byte{0}
	}
	return append(b, tags...)
}

// TestParseHeader reads the header of every request in every version, cut at
// every byte, too; kmsg says whether it is a flexible one.
func TestParseHeader(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, key, version int16) {
		for _, clientID := range [][]byte{nil, {}, []byte("client")} {
			for _, tags := range [][]byte{nil, be(2, 0, 3, "abc", 1, 0)} {
				frame := header(kmsg.RequestForKey(key), version, clientID, tags)
				end := len(frame)
				frame = append(frame, "body"...)
				h, err := ParseHeader(frame, LimitsFor(len(frame)))
				if err != nil || h.Key != key || h.Version != version || h.CorrelationID != 77 || h.BodyAt != end ||
					!bytes.Equal(h.ClientID, clientID) || (h.ClientID == nil) != (clientID == nil) {
					t.Fatalf("ParseHeader(%x) = %+v, %v; want a body at %d", frame, h, err, end)
				}
				for n := range end {
					if _, err := ParseHeader(frame[:n], LimitsFor(n)); !errors.Is(err, ErrMalformed) {
						t.Fatalf("%d of %d bytes: %v, want %v", n, end, err, ErrMalformed)
					}
				}
			}
		}
	})
}

func TestParseHeaderRefuses(t *testing.T) {
	t.Parallel()
	limits := Limits{Tags: 1, TagBytes: 2, AllocBytes: math.MaxInt64}
	tests := []struct {
		name  string
		frame []byte
		want  error
		text  string
	}{
		{"nothing", nil, ErrMalformed, "RequestHeader.RequestApiKey at byte 0: 8 bytes are needed, 0 are left"},
		{"unknown key", be(int16(99), int16(0), int32(77)), ErrUnknown, "key 99"},
		{"ApiVersions of a version to come", be(int16(18), int16(99), int32(77), int16(-1), 0), nil, ""},
		{"old encoding", be(int16(18), int16(2), int32(77), int16(-1)), nil, ""},
		{"client id beyond the end", be(int16(18), int16(2), int32(77), int16(5), "abcd"), ErrMalformed, "ApiVersionsRequest version 2: RequestHeader.ClientId at byte 10: 5 bytes are needed, 4 are left"},
		{"tags beyond the bytes", be(int16(18), int16(3), int32(77), int16(-1), uint32(0xffffffff)), ErrMalformed, "4294967295 tagged fields"},
		{"tags beyond the limit", be(int16(18), int16(3), int32(77), int16(-1), 2, 0, 0, 1, 0), ErrTooLarge, "2 tagged fields, 1 are allowed"},
		{"tag beyond the limit", be(int16(18), int16(3), int32(77), int16(-1), 1, 0, 3, "abc"), ErrTooLarge, "a tagged field of 3 bytes"},
	}
	for _, tt := range tests {
		h, err := ParseHeader(tt.frame, limits)
		if !errors.Is(err, tt.want) || err != nil && !strings.Contains(err.Error(), tt.text) {
			t.Errorf("%s: ParseHeader = %+v, %v; want %v with %q", tt.name, h, err, tt.want, tt.text)
		}
		if len(tt.frame) >= fixedHeaderBytes && h.CorrelationID != 77 {
			t.Errorf("%s: correlation id %d, want 77", tt.name, h.CorrelationID)
		}
		if err == nil && h.BodyAt != len(tt.frame) || err != nil && h.BodyAt != 0 {
			t.Errorf("%s: body at %d of %d", tt.name, h.BodyAt, len(tt.frame))
		}
	}
}
