package transport

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// reseal makes the checksum of a changed header right again.
func reseal(b []byte) []byte {
	binary.LittleEndian.PutUint32(b[28:], crc32.Checksum(b[:28], castagnoli))
	return b
}

func TestDecodeFrameHeader(t *testing.T) {
	t.Parallel()
	request := frameHeader{length: 100, kind: frameRequest, flags: frameFirst | frameLast, op: opAppendEntries, number: 7, shard: 3, total: 100, dataCRC: 9}
	tests := []struct {
		name string
		edit func(h *frameHeader)
		want string // of the error; empty: decodes to the same
	}{
		{name: "a request", edit: func(*frameHeader) {}},
		{name: "a piece", edit: func(h *frameHeader) { h.flags, h.length, h.total = 0, maxFrameBytes, maxMessageBytes }},
		{name: "an answer", edit: func(h *frameHeader) { h.kind, h.code = frameAnswer, answerOther }},
		{name: "an answer without data", edit: func(h *frameHeader) { h.kind, h.op, h.length, h.total = frameAnswer, opCall, 0, 0 }},
		{name: "a ping", edit: func(h *frameHeader) { *h = frameHeader{kind: framePing, number: 1} }},
		{name: "kind 0", edit: func(h *frameHeader) { h.kind = 0 }, want: "unknown kind"},
		{name: "newer kind", edit: func(h *frameHeader) { h.kind = lastFrameKind + 1 }, want: "unknown kind"},
		{name: "operation 0", edit: func(h *frameHeader) { h.op = 0 }, want: "unknown operation"},
		{name: "newer operation", edit: func(h *frameHeader) { h.op = lastOp + 1 }, want: "unknown operation"},
		{name: "newer flag", edit: func(h *frameHeader) { h.flags |= 4 }, want: "unknown flags"},
		{name: "newer code", edit: func(h *frameHeader) { h.kind, h.code = frameAnswer, lastAnswerCode+1 }, want: "unknown code"},
		{name: "a request with a code", edit: func(h *frameHeader) { h.code = answerError }, want: "unknown code"},
		{name: "a frame too large", edit: func(h *frameHeader) { h.flags, h.length, h.total = frameFirst, maxFrameBytes+1, maxMessageBytes }, want: "too large"},
		{name: "a message too large", edit: func(h *frameHeader) { h.flags, h.total = frameFirst, maxMessageBytes+1 }, want: "too large"},
		{name: "a vote too large", edit: func(h *frameHeader) { h.op, h.flags, h.total = opRequestVote, frameFirst, lightBytes+1 }, want: "too large"},
		{name: "a call too large", edit: func(h *frameHeader) { h.op, h.flags, h.total = opCall, frameFirst, MaxCallBytes+2 }, want: "too large"},
		{name: "a text too large", edit: func(h *frameHeader) { h.kind, h.code, h.length, h.total = frameAnswer, answerError, 5000, 5000 }, want: "too large"},
		{name: "more data than its message", edit: func(h *frameHeader) { h.total = 99 }, want: "too large"},
		{name: "no data", edit: func(h *frameHeader) { h.flags, h.length = frameFirst, 0 }, want: "without data"},
		{name: "first and last of more", edit: func(h *frameHeader) { h.total = 101 }, want: "first and last"},
		{name: "all of it and not last", edit: func(h *frameHeader) { h.flags = frameFirst }, want: "first and last"},
		{name: "a ping with data", edit: func(h *frameHeader) { *h = frameHeader{kind: framePing, length: 1} }, want: "nothing else"},
		{name: "a cancel of a shard", edit: func(h *frameHeader) { *h = frameHeader{kind: frameCancel, shard: 1} }, want: "nothing else"},
	}
	for _, tt := range tests {
		h := request
		tt.edit(&h)
		got, err := decodeFrameHeader(h.append(nil))
		switch {
		case tt.want == "" && (err != nil || got != h):
			t.Errorf("%s: %+v, %v", tt.name, got, err)
		case tt.want != "" && (!errors.Is(err, errFrame) || !strings.Contains(err.Error(), tt.want)):
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		}
	}
	b := request.append(nil)
	for i := range 8 * len(b) {
		hurt := bytes.Clone(b)
		hurt[i/8] ^= 1 << (i % 8)
		if _, err := decodeFrameHeader(hurt); !errors.Is(err, errFrame) {
			t.Errorf("bit %d flipped: %v", i, err)
		}
	}
	if _, err := decodeFrameHeader(b[:31]); !errors.Is(err, errFrame) {
		t.Errorf("cut off: %v", err)
	}
}

// FuzzDecodeFrameHeader: what decodes is within the limits, and encodes to the
// same bytes.
func FuzzDecodeFrameHeader(f *testing.F) {
	f.Add(frameHeader{length: 1, kind: frameRequest, flags: 3, op: opCall, number: 1, total: 1}.append(nil))
	f.Add(frameHeader{kind: frameReceived, number: 1 << 40}.append(nil))
	f.Add(make([]byte, frameHeaderBytes))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) == frameHeaderBytes {
			reseal(b)
		}
		h, err := decodeFrameHeader(b)
		if err != nil {
			return
		}
		if h.length > maxFrameBytes || h.total > maxMessageBytes || h.kind == frameAnswer && h.op != opCall && h.total > maxAnswerBytes {
			t.Fatalf("too large: %+v", h)
		}
		if got := h.append(nil); !bytes.Equal(got, b) {
			t.Fatalf("%+v encodes to %x, from %x", h, got, b)
		}
	})
}

func header(id string) raft.RPCHeader {
	return raft.RPCHeader{ProtocolVersion: 3, ID: []byte(id), Addr: []byte(id)}
}

// commands is one of each, with every field that it has.
func commands() map[op]any {
	all := map[op]any{
		opAppendEntries: &raft.AppendEntriesRequest{
			RPCHeader: header("1-00000000000000a1"), Term: 2, PrevLogEntry: 3, PrevLogTerm: 4, LeaderCommitIndex: 5,
			Entries: []*raft.Log{
				{Index: 4, Term: 2, Type: raft.LogCommand, Data: bytes.Repeat([]byte{7}, 5000), Extensions: []byte("x"), AppendedAt: time.Unix(0, 12345)},
				{Index: 5, Term: 2, Type: raft.LogNoop, Data: []byte{}},
				{Index: 6, Term: 2, Type: raft.LogConfiguration, Data: []byte("data"), AppendedAt: time.Unix(-1, 0)},
			},
		},
		opRequestVote: &raft.RequestVoteRequest{
			RPCHeader: header("2"), Term: 6, LastLogIndex: 7, LastLogTerm: 8, LeadershipTransfer: true,
		},
		opRequestPreVote: &raft.RequestPreVoteRequest{RPCHeader: header("3"), Term: 9, LastLogIndex: 10, LastLogTerm: 11},
		opTimeoutNow:     &raft.TimeoutNowRequest{RPCHeader: header("4")},
		opInstallSnapshot: &raft.InstallSnapshotRequest{
			RPCHeader: header("5"), SnapshotVersion: 1, Term: 12, Leader: []byte("l"), LastLogIndex: 13, LastLogTerm: 14, Peers: []byte("p"),
			Configuration: []byte("c"), ConfigurationIndex: 15, Size: 16,
		},
		opProbe: probe{},
	}
	*leaderOf(all[opAppendEntries].(*raft.AppendEntriesRequest)) = []byte("leader")
	*candidateOf(all[opRequestVote].(*raft.RequestVoteRequest)) = []byte("candidate")
	return all
}

func answers() map[op]any {
	return map[op]any{
		opAppendEntries:   &raft.AppendEntriesResponse{RPCHeader: header("1"), Term: 2, LastLog: 3, Success: true, NoRetryBackoff: true},
		opRequestVote:     &raft.RequestVoteResponse{RPCHeader: header("2"), Term: 4, Peers: []byte("p"), Granted: true},
		opRequestPreVote:  &raft.RequestPreVoteResponse{RPCHeader: header("3"), Term: 5, Granted: true},
		opTimeoutNow:      &raft.TimeoutNowResponse{RPCHeader: header("4")},
		opInstallSnapshot: &raft.InstallSnapshotResponse{RPCHeader: header("5"), Term: 6, Success: true},
		opProbe:           uint64(41),
	}
}

// fields fails for a field that is zero: one that Raft has gained is not lost on
// the way without a red test.
func fields(t *testing.T, v reflect.Value) {
	t.Helper()
	if v = reflect.Indirect(v); v.Kind() != reflect.Struct {
		return
	}
	for i := range v.NumField() {
		if v.Field(i).IsZero() {
			t.Errorf("%s.%s is zero here: give it a value, and a place on the wire", v.Type(), v.Type().Field(i).Name)
		}
	}
}

func TestCodec(t *testing.T) {
	t.Parallel()
	for o, command := range commands() {
		if got, err := opOf(command); err != nil || got != o {
			t.Errorf("opOf(%T) = %d, %v", command, got, err)
		}
		if o != opProbe {
			fields(t, reflect.ValueOf(command))
		}
		parts, size := encodeRequest(0xa1, command, []byte("snapshot"))
		body := bytes.Join(parts, nil)
		if len(body) != size {
			t.Errorf("%T: %d bytes, said to be %d", command, len(body), size)
		}
		incarnation, got, snapshot, err := decodeRequest(o, body)
		if err != nil || incarnation != 0xa1 || !reflect.DeepEqual(got, command) || o == opInstallSnapshot && string(snapshot) != "snapshot" {
			t.Errorf("%T: %+v, %q, %v; want %+v", command, got, snapshot, err, command)
		}
		for n := range body[:min(len(body), 300)] {
			if _, _, _, err := decodeRequest(o, body[:n]); !errors.Is(err, errBody) && o != opInstallSnapshot {
				t.Errorf("%T cut off after %d: %v", command, n, err)
			}
		}
		if _, _, _, err := decodeRequest(o, append(body, 0)); !errors.Is(err, errBody) && o != opInstallSnapshot {
			t.Errorf("%T with a byte too many: %v", command, err)
		}
	}
	for o, answer := range answers() {
		if o != opProbe {
			fields(t, reflect.ValueOf(answer))
		}
		body, err := encodeAnswer(answer)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := decodeAnswer(o, body); err != nil || !reflect.DeepEqual(got, answer) {
			t.Errorf("%T: %+v, %v", answer, got, err)
		}
		if _, err := decodeAnswer(o, body[:len(body)-1]); !errors.Is(err, errBody) {
			t.Errorf("%T cut off: %v", answer, err)
		}
	}
	if _, err := opOf("nothing"); err == nil {
		t.Error("an operation for a string")
	}
	if _, err := encodeAnswer("nothing"); err == nil {
		t.Error("an answer that is a string")
	}
}

// TestCodecAliases: entries are not copied, on either side, but for small ones on
// the way out.
func TestCodecAliases(t *testing.T) {
	t.Parallel()
	data := bytes.Repeat([]byte{1}, copyBytes)
	parts, _ := encodeRequest(1, &raft.AppendEntriesRequest{Entries: []*raft.Log{{Data: data}, {Data: []byte("small")}}}, nil)
	if len(parts) != 3 || &parts[1][0] != &data[0] {
		t.Errorf("%d parts, want head, data as it is, the rest", len(parts))
	}
	body := bytes.Join(parts, nil)
	_, command, _, err := decodeRequest(opAppendEntries, body)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range command.(*raft.AppendEntriesRequest).Entries {
		if cap(e.Data) != len(e.Data) {
			t.Error("who appends to an entry writes over the next one")
		}
	}
	command.(*raft.AppendEntriesRequest).Entries[0].Data[0] = 9
	if !bytes.Contains(body, []byte{9}) {
		t.Error("the data was copied")
	}
}

// FuzzDecodeRequest: what decodes encodes to the same bytes.
func FuzzDecodeRequest(f *testing.F) {
	for o, command := range commands() {
		parts, _ := encodeRequest(1, command, []byte("s"))
		f.Add(uint8(o), bytes.Join(parts, nil))
	}
	f.Fuzz(func(t *testing.T, o uint8, b []byte) {
		incarnation, command, snapshot, err := decodeRequest(op(o), b)
		if err != nil {
			return
		}
		parts, _ := encodeRequest(incarnation, command, snapshot)
		if got := bytes.Join(parts, nil); !bytes.Equal(got, b) {
			t.Fatalf("%+v encodes to %x, from %x", command, got, b)
		}
	})
}

// FuzzDecodeAnswer: what decodes encodes to the same bytes.
func FuzzDecodeAnswer(f *testing.F) {
	for o, answer := range answers() {
		b, err := encodeAnswer(answer)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(uint8(o), b)
	}
	f.Fuzz(func(t *testing.T, o uint8, b []byte) {
		answer, err := decodeAnswer(op(o), b)
		if err != nil {
			return
		}
		if got, err := encodeAnswer(answer); err != nil || !bytes.Equal(got, b) {
			t.Fatalf("%+v encodes to %x, %v, from %x", answer, got, err, b)
		}
	})
}

// counting counts what is read.
type counting struct {
	io.Reader
	n int
}

func (c *counting) Read(b []byte) (int, error) {
	n, err := c.Reader.Read(b)
	c.n += n
	return n, err
}

// FuzzHandshake reads any bytes as both ends do: they read no more than a
// handshake has, and what they read is what it encodes to.
func FuzzHandshake(f *testing.F) {
	f.Add(hello{min: 1, max: 2, lane: bulk, from: 1, to: 2, session: 3, cluster: "c"}.append(nil))
	f.Add(welcome{min: 1, max: 1, version: 1, node: 2, window: 3, calls: 4, cluster: "c", refused: true, reason: "why"}.append(nil))
	f.Add([]byte("GET / HTTP/1.1\r\n\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		r := &counting{Reader: bytes.NewReader(b)}
		if h, err := readHello(r); err == nil {
			if got := h.append(nil); len(got) != r.n || len(b) < len(got) {
				t.Errorf("%+v has %d bytes, read %d", h, len(got), r.n)
			}
		}
		if r.n > helloBytes+maxClusterBytes {
			t.Errorf("read %d bytes of a hello", r.n)
		}
		r = &counting{Reader: bytes.NewReader(b)}
		if w, err := readWelcome(r); err == nil {
			if got := w.append(nil); len(got) != r.n || len(b) < len(got) {
				t.Errorf("%+v has %d bytes, read %d", w, len(got), r.n)
			}
		}
		if r.n > welcomeBytes+maxClusterBytes+maxReasonBytes {
			t.Errorf("read %d bytes of a welcome", r.n)
		}
	})
}
