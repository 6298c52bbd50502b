package guard

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"testing"
)

// be returns the big-endian bytes of each number, as many as its type has.
func be(parts ...any) (out []byte) {
	for _, p := range parts {
		switch x := p.(type) {
		case int:
			out = append(out, byte(x))
		case int16:
			out = binary.BigEndian.AppendUint16(out, uint16(x))
		case int32:
			out = binary.BigEndian.AppendUint32(out, uint32(x))
		case uint32: // a varint
			out = binary.AppendUvarint(out, uint64(x))
		case string:
			out = append(out, x...)
		case []byte:
			out = append(out, x...)
		default:
			panic(fmt.Sprintf("%T", p))
		}
	}
	return out
}

// TestCheckRefuses shows each guard what it is there for, and, beside it, what
// is just not that.
func TestCheckRefuses(t *testing.T) {
	t.Parallel()
	limits := Limits{ArrayElements: 3, Tags: 2, TagBytes: 4, AllocBytes: 1 << 10}
	const (
		metadata    = 3  // v1: [topic name]?; v9: flexible; v12: topics with ids
		apiVersions = 18 // v3: two compact strings
		fetch       = 1
		cursors     = 75 // DescribeTopicPartitions: a nullable struct
	)
	// software is a whole ApiVersions v3 without tags.
	software := be(2, "a", 2, "b")
	// fetch12 is a whole Fetch v12 without tags.
	fetch12 := be(make([]byte, 4+4+4+4+1+4+4), 1, 1, 1)
	names := func(n int) []byte { // n topics of Metadata v1
		return be(int32(n), bytes.Repeat(be(int16(1), "x"), n))
	}
	tests := []struct {
		name         string
		key, version int16
		body         []byte
		want         error  // nil: accepted
		text         string // in the error
	}{
		{"no such key", 99, 0, nil, ErrUnknown, "key 99"},
		{"negative key", -1, 0, nil, ErrUnknown, "key -1"},
		{"removed key", 4, 0, nil, ErrUnknown, "key 4"},
		{"version above", metadata, 14, nil, ErrUnknown, "MetadataRequest version 14, defined are 0 to 13"},
		{"version below", fetch, 3, nil, ErrUnknown, "FetchRequest version 3, defined are 4 to 18"},
		{"negative version", metadata, -1, nil, ErrUnknown, "version -1"},

		{"empty", metadata, 1, nil, ErrMalformed, "MetadataRequest.Topics at byte 0: 4 bytes are needed, 0 are left"},
		{"array", metadata, 1, names(3), nil, ""},
		{"array beyond the bytes", metadata, 1, be(int32(3), int16(0), int16(0), 0), ErrMalformed, "3 elements, the bytes left hold at most 2"},
		{"array of 2^31-1", metadata, 1, be(int32(0x7fffffff), make([]byte, 100)), ErrMalformed, "2147483647 elements, the bytes left hold at most 50"},
		{"array beyond the limit", metadata, 1, names(4), ErrTooLarge, "4 elements, 3 are allowed: send several smaller requests"},
		{"array null", metadata, 1, be(int32(-1)), nil, ""},
		{"array null, as -2", metadata, 1, be(int32(-2)), nil, ""},
		{"array null where it may not be", metadata, 0, be(int32(-1)), ErrMalformed, "it may not be null"},
		{"compact array beyond the bytes", metadata, 9, be(6, 1, 0, 1, 0, 1, 0, 0), ErrMalformed, "5 elements, the bytes left hold at most 3"},
		{"compact array of 2^32-2", metadata, 9, be(uint32(0xffffffff), 0, 0, 0, 0), ErrMalformed, "a length of 4294967294, at most 2147483646 can be"},
		{"array of numbers beyond the bytes", 47, 0, be(int16(1), "g", int32(1), int16(1), "t", int32(2), int32(7), 0), ErrMalformed, "OffsetDeleteRequestTopic.Partitions"},

		{"string beyond the bytes", metadata, 1, be(int32(1), int16(2), "x"), ErrMalformed, "MetadataRequestTopic.Name at byte 6: 2 bytes are needed, 1 are left"},
		{"string null", metadata, 10, be(2, make([]byte, 16), 0, 0, 0, 0, 0, 0), nil, ""},
		{"string null where it may not be", metadata, 1, be(int32(1), int16(-1)), ErrMalformed, "MetadataRequestTopic.Name at byte 6: length -1"},
		{"compact string null where it may not be", apiVersions, 3, be(0, 2, "b", 0), ErrMalformed, "ApiVersionsRequest.ClientSoftwareName at byte 1: length -1"},
		{"string too long", apiVersions, 3, be(uint32(32769), make([]byte, 32768), 2, "b", 0), ErrMalformed, "a string of 32768 bytes, at most 32767"},
		{"bytes null where they may not be", 36, 0, be(int32(-1)), ErrMalformed, "SaslAuthenticateRequest.AuthBytes"},
		{"bytes beyond the end", 36, 0, be(int32(2), 1), ErrMalformed, "2 bytes are needed, 1 are left"},
		{"varint without end", apiVersions, 3, be(0x80, 0x80), ErrMalformed, "a varint of more than the 2 bytes that are left"},
		{"varint of 33 bits", apiVersions, 3, be(0x80, 0x80, 0x80, 0x80, 0x10, 0), ErrMalformed, "a varint of more than 32 bits"},
		{"varint longer than it need be", apiVersions, 3, be(0x82, 0, "a", 2, "b", 0), nil, ""},

		{"struct null", cursors, 0, be(1, int32(1), 0xff, 0), nil, ""},
		{"struct there", cursors, 0, be(1, int32(1), 1, 2, "t", int32(0), 0, 0), nil, ""},
		{"struct cut off", cursors, 0, be(1, int32(1), 1, 2, "t"), ErrMalformed, "Cursor.PartitionIndex"},
		{"struct neither null nor there", cursors, 0, be(1, int32(1), 0xfe, 0), ErrMalformed, "-2 is neither null (-1) nor a struct"},

		{"no tags", apiVersions, 3, be(software, 0), nil, ""},
		{"bytes after the end", apiVersions, 3, be(software, 0, "more"), nil, ""},
		{"unknown tags, in any order", apiVersions, 3, be(software, 2, 9, 1, 0, 8, 4, "1234"), nil, ""},
		{"tags beyond the bytes", apiVersions, 3, be(software, 2, 9, 0, 9), ErrMalformed, "ApiVersionsRequest.(tags) at byte 5: 2 tagged fields, the bytes left hold at most 1"},
		{"2^32-1 tags", apiVersions, 3, be(software, uint32(0xffffffff), "xyz"), ErrMalformed, "4294967295 tagged fields"},
		{"tags beyond the limit", apiVersions, 3, be(software, 3, 7, 0, 8, 0, 9, 0), ErrTooLarge, "3 tagged fields, 2 are allowed"},
		{"tag beyond the limit", apiVersions, 3, be(software, 1, 9, 5, "12345"), ErrTooLarge, "a tagged field of 5 bytes, 4 are allowed"},
		{"tag beyond the bytes", apiVersions, 3, be(software, 1, 9, 4, "123"), ErrMalformed, "4 bytes are needed, 3 are left"},
		{"tag's size cut off", apiVersions, 3, be(software, 1, 9, 0x80), ErrMalformed, "varint"},
		{"known tag", fetch, 12, be(fetch12, 1, 0, 2, 2, "c"), nil, ""},
		{"known tag shorter than its size", fetch, 12, be(fetch12, 1, 0, 3, 2, "c", 0), ErrMalformed, "FetchRequest.ClusterId at byte 33: 1 bytes are left of the tagged field's 3"},
		{"known tag longer than its size", fetch, 12, be(fetch12, 1, 0, 2, 3, "cc"), ErrMalformed, "FetchRequest.ClusterId at byte 32: 2 bytes are needed, 1 are left"},
		{"tag of a later version", fetch, 12, be(fetch12, 1, 1, 3, 2, "c", 0), ErrMalformed, "tag 1 is of a later version"},

		{"decoding beyond the limit", metadata, 1, be(int32(1), int16(1000), make([]byte, 1000)), ErrTooLarge, "1024 are allowed: send several smaller requests"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cost, err := Check(tt.key, tt.version, tt.body, limits)
			if !errors.Is(err, tt.want) {
				t.Fatalf("Check(%x) = %v, want %v", tt.body, err, tt.want)
			}
			if err == nil {
				if req, err := decode(tt.key, tt.version, tt.body); err != nil {
					t.Errorf("kmsg does not decode %x: %v: %v", tt.body, err, req)
				}
				if cost <= 0 {
					t.Errorf("costs %d bytes", cost)
				}
				return
			}
			if text := err.Error(); !strings.Contains(text, tt.text) || strings.Contains(text, "%!") {
				t.Errorf("error %q, want in it %q", text, tt.text)
			}
			if cost != 0 {
				t.Errorf("refused, and costs %d bytes", cost)
			}
		})
	}
}

// TestLimitsFor keeps what the documentation says.
func TestLimitsFor(t *testing.T) {
	t.Parallel()
	want := Limits{ArrayElements: 1_000_000, Tags: 10_000, TagBytes: 128 << 10, AllocBytes: 7 << 20}
	if got := LimitsFor(100); got != want {
		t.Errorf("LimitsFor(100) = %+v, want %+v", got, want)
	}
	if got := LimitsFor(3 << 20).AllocBytes; got != 21<<20 {
		t.Errorf("3 MiB may allocate %d bytes, want 21 MiB", got)
	}
}

// TestCut cuts a request of every version at every byte: it is whole, or it is
// malformed.
func TestCut(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, key, version int16) {
		c := newChance(uint64(key)<<16|uint64(version), 3)
		for range 3 {
			body := c.body(key, version)
			for n := range len(body) {
				if _, err := Check(key, version, body[:n], LimitsFor(n)); !errors.Is(err, ErrMalformed) {
					t.Fatalf("%d of %d bytes: %v, want %v\n%x", n, len(body), err, ErrMalformed, body)
				}
			}
		}
	})
}

// TestFlip changes each bit of a request of every version, and writes the
// largest and smallest lengths over each byte: what Check then accepts, kmsg
// decodes.
func TestFlip(t *testing.T) {
	t.Parallel()
	huge := [][]byte{be(int32(0x7fffffff)), be(int32(-0x80000000)), be(int32(1_000_000)), be(uint32(0xffffffff)), be(uint32(0x80000000)), be(0xff, 0xff, 0xff, 0xff, 0xff)}
	each(t, func(t *testing.T, key, version int16) {
		c := newChance(uint64(key)<<16|uint64(version), 2)
		body := c.body(key, version)
		try := func(hurt []byte) {
			if _, err := Check(key, version, hurt, LimitsFor(len(hurt))); err != nil {
				if !errors.Is(err, ErrMalformed) && !errors.Is(err, ErrTooLarge) {
					t.Fatalf("%x: %v", hurt, err)
				}
				return
			}
			if _, err := decode(key, version, hurt); err != nil {
				t.Fatalf("accepted, and kmsg does not decode %x: %v", hurt, err)
			}
		}
		for i := range len(body) {
			for bit := range 8 {
				hurt := bytes.Clone(body)
				hurt[i] ^= 1 << bit
				try(hurt)
			}
			for _, h := range huge {
				hurt := bytes.Clone(body)
				copy(hurt[i:], h)
				try(hurt)
			}
		}
	})
}
