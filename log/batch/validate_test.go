package batch

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// handmade builds records field by field, wrongly where a test wants it.
type handmade struct {
	length              int64 // 0: what is right
	timestamp, offset   int64
	keyLength           int64
	key                 string
	valueLength         int64
	value               string
	headerCount         int64
	headers             []byte
	behind              string
	longVarint, zigzag5 bool
}

func (h handmade) appendTo(b []byte) []byte {
	body := []byte{0}
	body = appendVarint(body, h.timestamp)
	switch {
	case h.longVarint: // the offset, in more bytes than it needs
		u := byte(h.offset) << 1
		body = append(body, u|0x80, 0x80, 0x80, 0x80, 0)
	case h.zigzag5:
		body = append(body, 0x80, 0x80, 0x80, 0x80, 0x10)
	default:
		body = appendVarint(body, h.offset)
	}
	body = append(appendVarint(body, h.keyLength), h.key...)
	body = append(appendVarint(body, h.valueLength), h.value...)
	body = append(appendVarint(body, h.headerCount), h.headers...)
	body = append(body, h.behind...)
	n := int64(len(body))
	if h.length != 0 {
		n = h.length
	}
	return append(appendVarint(b, n), body...)
}

// batchOf makes a batch of count records whose payload is as given.
func batchOf(t testing.TB, count int32, payload []byte, codec Codec) []byte {
	t.Helper()
	b := build(t, 1, None)[:HeaderBytes]
	b, err := compress(b, payload, codec, DefaultLevel)
	if err != nil {
		t.Fatal(err)
	}
	return edit(b, func(b []byte) []byte {
		binary.BigEndian.PutUint16(b[attrsAt:], uint16(codec))
		binary.BigEndian.PutUint32(b[deltaAt:], uint32(count-1))
		binary.BigEndian.PutUint32(b[countAt:], uint32(count))
		return b
	})
}

func TestValidateHeader(t *testing.T) {
	t.Parallel()
	ok := build(t, 3, None)
	be := binary.BigEndian
	u16 := func(at int, v uint16) func([]byte) []byte {
		return func(b []byte) []byte { be.PutUint16(b[at:], v); return b }
	}
	u32 := func(at int, v int32) func([]byte) []byte {
		return func(b []byte) []byte { be.PutUint32(b[at:], uint32(v)); return b }
	}
	u64 := func(at int, v int64) func([]byte) []byte {
		return func(b []byte) []byte { be.PutUint64(b[at:], uint64(v)); return b }
	}
	both := func(f, g func([]byte) []byte) func([]byte) []byte {
		return func(b []byte) []byte { return g(f(b)) }
	}
	producer := func(p Producer, transactional bool) func([]byte) []byte {
		return func(b []byte) []byte {
			putProducer(b, p)
			if transactional {
				be.PutUint16(b[attrsAt:], uint16(transactionalBit))
			}
			return b
		}
	}
	count := func(n, lastDelta int32) func([]byte) []byte {
		return func(b []byte) []byte { return u32(countAt, n)(u32(deltaAt, lastDelta)(b)) }
	}
	tests := []struct {
		name   string
		change func([]byte) []byte
		lim    Limits
		want   error
	}{
		{name: "intact", change: bytes.Clone},
		{name: "base offset is ignored", change: u64(0, -5)},
		{name: "leader epoch is ignored", change: u32(12, -5)},
		{name: "control", change: u16(attrsAt, 0x20), want: ErrControl},
		{name: "control, transactional", change: u16(attrsAt, 0x30), want: ErrControl},
		{name: "log append time", change: u16(attrsAt, 0x08)},
		{name: "log append time in a topic of it", change: u16(attrsAt, 0x08), lim: Limits{LogAppendTime: true}, want: ErrTimestamp},
		{name: "create time in a topic of log append time", change: bytes.Clone, lim: Limits{LogAppendTime: true}},
		{name: "log append time that is none", change: both(u16(attrsAt, 0x08), u64(maxTimeAt, -1)), want: ErrTimestamp},
		{name: "log append time above bound", change: both(u16(attrsAt, 0x08), u64(maxTimeAt, math.MaxInt64)),
			lim: Limits{MaxTimestamp: math.MaxInt64 - 1}, want: ErrTimestamp},
		{name: "log append time within bounds, a record not", change: both(u16(attrsAt, 0x08), u64(maxTimeAt, math.MaxInt64-1)),
			lim: Limits{MinTimestamp: math.MaxInt64 - 1}, want: ErrTimestamp},
		{name: "delete horizon", change: u16(attrsAt, 0x40), want: ErrInvalid},
		{name: "lowest reserved attribute", change: u16(attrsAt, 0x80), want: ErrInvalid},
		{name: "highest reserved attribute", change: u16(attrsAt, 0x8000), want: ErrInvalid},
		{name: "codec 5", change: u16(attrsAt, 5), want: ErrCodec},
		{name: "codec 7", change: u16(attrsAt, 7), want: ErrCodec},
		{name: "payload of another codec", change: u16(attrsAt, 1), want: ErrCorrupt},
		{name: "no records", change: count(0, -1), want: ErrInvalid},
		{name: "negative count", change: count(-3, -4), want: ErrInvalid},
		{name: "one record too few", change: count(2, 1), want: ErrInvalid},
		{name: "one record too many", change: count(4, 3), want: ErrInvalid},
		{name: "a count that lies", change: count(math.MaxInt32, math.MaxInt32-1), want: ErrInvalid},
		{name: "last delta beyond count", change: u32(deltaAt, 3), want: ErrInvalid},
		{name: "last delta below count", change: u32(deltaAt, 1), want: ErrInvalid},
		{name: "no producer, whatever epoch", change: producer(Producer{-1, 0, 0}, false)},
		{name: "producer", change: producer(Producer{0, 0, 0}, false)},
		{name: "producer, transactional", change: producer(Producer{1, 0, 0}, true)},
		{name: "producer id below -1", change: producer(Producer{-2, -1, -1}, false), want: ErrInvalid},
		{name: "producer without epoch", change: producer(Producer{1, -1, 0}, false), want: ErrInvalid},
		{name: "producer without sequence", change: producer(Producer{1, 0, -1}, false), want: ErrInvalid},
		{name: "transactional without producer", change: producer(NoProducer, true), want: ErrInvalid},
		{name: "wrong max timestamp passes", change: u64(maxTimeAt, 1)},
		{name: "size at limit", change: bytes.Clone, lim: Limits{MaxBatchBytes: len(ok)}},
		{name: "size above limit", change: bytes.Clone, lim: Limits{MaxBatchBytes: len(ok) - 1}, want: ErrTooLarge},
		{name: "count at limit", change: bytes.Clone, lim: Limits{MaxRecords: 3}},
		{name: "count above limit", change: bytes.Clone, lim: Limits{MaxRecords: 2}, want: ErrTooLarge},
		{name: "headers at limit", change: bytes.Clone, lim: Limits{MaxHeaders: 1}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s, err := Validate(edit(ok, tt.change), tt.lim)
			if !errors.Is(err, tt.want) {
				t.Fatalf("Validate = %v, want %v", err, tt.want)
			}
			if err == nil && s.LatestTimestamp != 1_700_000_000_002 {
				t.Errorf("LatestTimestamp = %d, want that of the records", s.LatestTimestamp)
			}
		})
	}
}

// TestValidateForeign covers what is no batch at all.
func TestValidateForeign(t *testing.T) {
	t.Parallel()
	ok := build(t, 3, None)
	flipped := bytes.Clone(ok)
	flipped[len(flipped)-1] ^= 1
	tests := []struct {
		name string
		in   []byte
		want error
	}{
		{"empty", nil, ErrShort},
		{"cut off", ok[:len(ok)-1], ErrShort},
		{"two batches", append(bytes.Clone(ok), ok...), ErrCorrupt},
		{"zeros", make([]byte, 200), ErrMagic},
		{"flipped", flipped, ErrCorrupt},
	}
	for _, tt := range tests {
		if _, err := Validate(tt.in, Limits{}); !errors.Is(err, tt.want) {
			t.Errorf("%s: Validate = %v, want %v", tt.name, err, tt.want)
		}
	}
}

// TestValidateRecords puts one bad record behind a good one, in each codec.
func TestValidateRecords(t *testing.T) {
	t.Parallel()
	good := handmade{keyLength: 1, key: "k", valueLength: -1}
	second := func(change func(h *handmade)) handmade {
		h := handmade{offset: 1, keyLength: 1, key: "k", valueLength: 2, value: "vv"}
		change(&h)
		return h
	}
	header := func(count int64, b ...byte) func(h *handmade) {
		return func(h *handmade) { h.headerCount, h.headers = count, b }
	}
	tests := []struct {
		name   string
		change func(h *handmade)
		lim    Limits
		want   error // cause
	}{
		{name: "intact", change: func(*handmade) {}},
		{name: "varint longer than needed", change: func(h *handmade) { h.longVarint = true }},
		{name: "varint above 32 bits", change: func(h *handmade) { h.zigzag5 = true }, want: errOffsetDelta},
		{name: "length beyond batch", change: func(h *handmade) { h.length = 20 }, want: errRecordLength},
		{name: "length negative", change: func(h *handmade) { h.length = -1 }, want: errRecordLength},
		{name: "length too small", change: func(h *handmade) { h.length = 5 }, want: errRecordLength},
		{name: "length one below contents", change: func(h *handmade) { h.length = 8 }, want: errHeaderCount},
		{name: "bytes behind headers", change: func(h *handmade) { h.behind = "x" }, want: errRecordBytes},
		{name: "offset repeated", change: func(h *handmade) { h.offset = 0 }, want: errOffset},
		{name: "offset skipped", change: func(h *handmade) { h.offset = 2 }, want: errOffset},
		{name: "offset negative", change: func(h *handmade) { h.offset = -1 }, want: errOffset},
		{name: "key beyond record", change: func(h *handmade) { h.keyLength = 9 }, want: errKeyLength},
		{name: "key length -2", change: func(h *handmade) { h.keyLength = -2 }, want: errKeyLength},
		{name: "value beyond record", change: func(h *handmade) { h.valueLength = 9 }, want: errValueLength},
		{name: "value length -2", change: func(h *handmade) { h.valueLength = -2 }, want: errValueLength},
		{name: "header count negative", change: header(-1), want: errHeaderCount},
		{name: "header count beyond record", change: header(2, 0, 0, 0), want: errHeaderCount},
		{name: "header count at limit", change: header(2, 0, 0, 0, 1), lim: Limits{MaxHeaders: 2}},
		{name: "header count above limit", change: header(2, 0, 0, 0, 1), lim: Limits{MaxHeaders: 1}, want: errHeaderCount},
		{name: "header key null", change: header(1, 1, 0), want: errHeaderKey},
		{name: "header key beyond record", change: header(1, 4, 0), want: errHeaderKey},
		{name: "header value beyond record", change: header(1, 2, 'k', 2), want: errHeaderValue},
		{name: "header value length -2", change: header(1, 2, 'k', 3), want: errHeaderValue},
		{name: "timestamp overflows", change: func(h *handmade) { h.timestamp = math.MaxInt64 }, want: errOverflow},
		{name: "timestamp -1", change: func(h *handmade) { h.timestamp = -1_700_000_000_001 }},
		{name: "timestamp -2", change: func(h *handmade) { h.timestamp = -1_700_000_000_002 }, want: ErrTimestamp},
		{name: "timestamp -2 within bounds", change: func(h *handmade) { h.timestamp = -1_700_000_000_002 },
			lim: Limits{MinTimestamp: -10}, want: ErrTimestamp},
		{name: "timestamp below bound", change: func(h *handmade) { h.timestamp = -1 },
			lim: Limits{MinTimestamp: 1_700_000_000_000}, want: ErrTimestamp},
		{name: "timestamp above bound", change: func(h *handmade) { h.timestamp = 1 },
			lim: Limits{MaxTimestamp: 1_700_000_000_000}, want: ErrTimestamp},
		{name: "none under bounds", change: func(h *handmade) { h.timestamp = -1_700_000_000_001 },
			lim: Limits{MinTimestamp: 1, MaxTimestamp: 1_800_000_000_000}},
		{name: "null key refused", change: func(h *handmade) { h.keyLength, h.key = -1, "" },
			lim: Limits{RequireKeys: true}, want: ErrNoKey},
		{name: "empty key is a key", change: func(h *handmade) { h.keyLength, h.key = 0, "" },
			lim: Limits{RequireKeys: true}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			payload := second(tt.change).appendTo(good.appendTo(nil))
			for codec := range Codec(len(codecNames)) {
				_, err := Validate(batchOf(t, 2, payload, codec), tt.lim)
				if !errors.Is(err, tt.want) {
					t.Fatalf("%s: Validate = %v, want %v", codec, err, tt.want)
				}
				if tt.want == nil {
					continue
				}
				var res RecordErrors
				if !errors.As(err, &res) || len(res) != 1 || res[0].Index != 1 {
					t.Errorf("%s: Validate = %v, want RecordErrors that name record 1 alone", codec, err)
				}
				if policy := errors.Is(err, ErrTimestamp) || errors.Is(err, ErrNoKey); policy == errors.Is(err, ErrInvalid) {
					t.Errorf("%s: Validate = %v, want either malformed or refused", codec, err)
				}
			}
		})
	}
}

func TestValidateNamesEachRecord(t *testing.T) {
	t.Parallel()
	var w Builder
	w.Reset()
	for i := range 3 * MaxRecordErrors {
		var key []byte
		if i%2 == 0 {
			key = []byte("k")
		}
		if err := w.Append(int64(1000+i), key, nil, nil); err != nil {
			t.Fatal(err)
		}
	}
	b, err := w.Build(nil, Gzip, DefaultLevel)
	if err != nil {
		t.Fatal(err)
	}
	_, err = Validate(b, Limits{RequireKeys: true, MinTimestamp: 1003})
	var res RecordErrors
	if !errors.As(err, &res) {
		t.Fatalf("Validate = %v, want RecordErrors", err)
	}
	want := []int32{0, 1, 2, 3, 5, 7, 9}
	var got []int32
	for _, re := range res[:len(want)] {
		got = append(got, re.Index)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("indexes (-want +got):\n%s", diff)
	}
	if len(res) != MaxRecordErrors {
		t.Errorf("%d records named, want %d", len(res), MaxRecordErrors)
	}
	if !errors.Is(err, ErrTimestamp) || !errors.Is(err, ErrNoKey) {
		t.Errorf("%v hides a cause", err)
	}
	const text = "batch: refused; record 0: batch: invalid timestamp: 1000 outside"
	if got := err.Error(); !bytes.HasPrefix([]byte(got), []byte(text)) || len(got) > 400 {
		t.Errorf("Error = %q", got)
	}
}

// TestValidateTruncated cuts every byte off every payload: what is left is
// never a batch, though its length and checksum are right.
func TestValidateTruncated(t *testing.T) {
	t.Parallel()
	for codec := range Codec(len(codecNames)) {
		ok := build(t, 20, codec)
		for cut := HeaderBytes; cut < len(ok); cut++ {
			b := edit(ok, func(b []byte) []byte { return b[:cut] })
			if _, err := Validate(b, Limits{}); !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrInvalid) {
				t.Errorf("%s, %d of %d bytes: Validate = %v, want ErrCorrupt or ErrInvalid", codec, cut, len(ok), err)
			}
		}
		more := edit(ok, func(b []byte) []byte { return append(b, 7, 7, 7, 7, 7, 7, 7, 7) })
		if _, err := Validate(more, Limits{}); !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrInvalid) {
			t.Errorf("%s, bytes behind: Validate = %v, want ErrCorrupt or ErrInvalid", codec, err)
		}
	}
}
