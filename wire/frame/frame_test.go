package frame

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/flotilla-log/flotilla/internal/errcode"
	"github.com/flotilla-log/flotilla/wire/pb"
)

// encode returns one frame as a Writer writes it.
func encode(t testing.TB, kind Kind, flags Flags, id uint32, header proto.Message, payload ...Part) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := NewWriter(&buf)
	w.SetLimits(DefaultLimits())
	if err := w.Queue(kind, flags, id, header, payload...); err != nil {
		t.Fatal(err)
	}
	if want := w.Queued(); want == 0 {
		t.Fatal("nothing queued")
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func produceFrame(t testing.TB, payload ...Part) []byte {
	return encode(t, KindProduce, 0, 7, &pb.ProduceRequest{TimeoutMs: 1000}, payload...)
}

func TestReadWhatWasWritten(t *testing.T) {
	t.Parallel()
	big := bytes.Repeat([]byte("flotilla"), 100_000)
	var stream bytes.Buffer
	w := NewWriter(&stream)
	w.SetLimits(DefaultLimits())
	want := []struct {
		prefix  Prefix
		payload []byte
	}{
		{Prefix{Kind: KindPing, CorrelationID: 1}, nil},
		{Prefix{Kind: KindProduce, CorrelationID: 2}, []byte("a")},
		{Prefix{Kind: KindFetch, Flags: FlagResponse, CorrelationID: 3}, big},
		{Prefix{Kind: KindFetch, Flags: FlagResponse | FlagError, CorrelationID: 1<<32 - 1}, nil},
	}
	header := &pb.ProduceRequest{TimeoutMs: 5, Parts: []*pb.ProducePart{{TopicId: make([]byte, 5000)}}}
	for i := range want {
		wt := &want[i]
		wt.prefix.HeaderBytes, wt.prefix.PayloadBytes = proto.Size(header), len(wt.payload)
		if err := w.Queue(wt.prefix.Kind, wt.prefix.Flags, wt.prefix.CorrelationID, header, Part{Bytes: wt.payload}); err != nil {
			t.Fatal(err)
		}
	}
	if got := w.Queued(); got != int64(len(big)+1+4*(PrefixBytes+proto.Size(header))) {
		t.Errorf("Queued = %d", got)
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	streams := map[string]io.Reader{
		"whole":      bytes.NewReader(stream.Bytes()),
		"by byte":    iotest.OneByteReader(bytes.NewReader(stream.Bytes())),
		"halves":     iotest.HalfReader(bytes.NewReader(stream.Bytes())),
		"data + EOF": iotest.DataErrReader(bytes.NewReader(stream.Bytes())),
	}
	for name, in := range streams {
		r := NewReader(in)
		r.SetLimits(DefaultLimits())
		for i, wt := range want {
			f, err := r.Read()
			if err != nil {
				t.Fatalf("%s: frame %d: %v", name, i, err)
			}
			if diff := cmp.Diff(wt.prefix, f.Prefix); diff != "" {
				t.Errorf("%s: frame %d (-want +got):\n%s", name, i, diff)
			}
			got := new(pb.ProduceRequest)
			if err := Unmarshal(f.Header, got); err != nil || !proto.Equal(got, header) {
				t.Errorf("%s: frame %d: header %v, %v", name, i, got, err)
			}
			if !bytes.Equal(f.Payload, wt.payload) {
				t.Errorf("%s: frame %d: payload of %d bytes, want %d", name, i, len(f.Payload), len(wt.payload))
			}
		}
		if _, err := r.Read(); err != io.EOF {
			t.Errorf("%s: at the end: %v, want io.EOF", name, err)
		}
	}
}

// TestSkip reads frames of which header or payload is not asked for.
func TestSkip(t *testing.T) {
	t.Parallel()
	one := produceFrame(t, Part{Bytes: bytes.Repeat([]byte{1}, 20_000)})
	r := NewReader(bytes.NewReader(bytes.Repeat(one, 4)))
	steps := []func() error{
		func() error { return nil },
		func() error { _, err := r.Header(); return err },
		func() error {
			p, err := r.Payload(make([]byte, 5, 30_000))
			if len(p) != 20_000 || cap(p) != 30_000 {
				t.Errorf("payload of %d bytes in a buffer of %d, want 20000 in the caller's", len(p), cap(p))
			}
			return err
		},
		func() error { return nil },
	}
	for i, step := range steps {
		p, err := r.Next()
		if err != nil || p.Kind != KindProduce || p.PayloadBytes != 20_000 {
			t.Fatalf("frame %d: %+v, %v", i, p, err)
		}
		if err := step(); err != nil {
			t.Fatalf("frame %d: %v", i, err)
		}
	}
	if _, err := r.Next(); err != io.EOF {
		t.Errorf("at the end: %v, want io.EOF", err)
	}
}

func TestReadBroken(t *testing.T) {
	t.Parallel()
	ok := produceFrame(t, Part{Bytes: []byte("payload")})
	set := func(at int, b ...byte) []byte {
		c := bytes.Clone(ok)
		copy(c[at:], b)
		return c
	}
	tests := []struct {
		name string
		in   []byte
		want error
	}{
		{name: "intact", in: ok},
		{name: "empty", want: io.EOF},
		{name: "one byte", in: ok[:1], want: ErrTruncated},
		{name: "prefix only", in: ok[:PrefixBytes], want: ErrTruncated},
		{name: "header cut off", in: ok[:PrefixBytes+1], want: ErrTruncated},
		{name: "payload cut off", in: ok[:len(ok)-1], want: ErrTruncated},
		{name: "length 0", in: set(0, 0, 0, 0, 0), want: ErrMalformed},
		{name: "length below the prefix", in: set(0, 0, 0, 0, 11), want: ErrMalformed},
		{name: "length above the limit", in: set(0, 0, 1, 0, 1), want: ErrTooLarge},
		{name: "length with the high bit", in: set(0, 0xff, 0xff, 0xff, 0xff), want: ErrTooLarge},
		{name: "header above the frame", in: set(4, 0, 0, 1, 0), want: ErrMalformed},
		{name: "header with the high bit", in: set(4, 0xff, 0xff, 0xff, 0xff), want: ErrMalformed},
		{name: "kind 0", in: set(8, 0), want: ErrMalformed},
		{name: "unknown kind", in: set(8, 250)},
		{name: "unknown flag", in: set(9, 4), want: ErrMalformed},
		{name: "error without response", in: set(9, 2), want: ErrMalformed},
		{name: "error with a payload", in: set(9, 3), want: ErrMalformed},
		{name: "reserved", in: set(11, 1), want: ErrMalformed},
		{name: "HTTP", in: []byte("GET / HTTP/1.1\r\nHost: x\r\n"), want: ErrTooLarge},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := NewReader(bytes.NewReader(tt.in))
			_, err := r.Read()
			if !errors.Is(err, tt.want) {
				t.Fatalf("Read = %v, want %v", err, tt.want)
			}
			if _, again := r.Read(); err != nil && again != err {
				t.Errorf("second Read = %v, want the first error again", again)
			}
		})
	}

	t.Run("every cut", func(t *testing.T) {
		for cut := 1; cut < len(ok); cut++ {
			if _, err := NewReader(bytes.NewReader(ok[:cut])).Read(); !errors.Is(err, ErrTruncated) {
				t.Errorf("cut at %d: %v, want ErrTruncated", cut, err)
			}
		}
	})
	t.Run("header above its limit", func(t *testing.T) {
		r := NewReader(bytes.NewReader(ok))
		r.SetLimits(Limits{MaxFrameBytes: 1 << 20, MaxHeaderBytes: 2})
		if _, err := r.Next(); !errors.Is(err, ErrTooLarge) {
			t.Errorf("Next = %v, want ErrTooLarge", err)
		}
	})
	t.Run("the stream's own error", func(t *testing.T) {
		mine := errors.New("deadline")
		r := NewReader(io.MultiReader(bytes.NewReader(ok[:20]), iotest.ErrReader(mine)))
		if _, err := r.Read(); !errors.Is(err, mine) {
			t.Errorf("Read = %v, want the stream's error", err)
		}
	})
}

// TestLengthAloneCostsLittle claims 100 MiB and sends next to nothing.
func TestLengthAloneCostsLittle(t *testing.T) {
	in := make([]byte, PrefixBytes)
	binary.BigEndian.PutUint32(in, DefaultMaxFrameBytes)
	in[8] = byte(KindProduce)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range 10 {
		r := NewReader(bytes.NewReader(append(in, 1)))
		r.SetLimits(DefaultLimits())
		if _, err := r.Read(); !errors.Is(err, ErrTruncated) {
			t.Fatalf("Read = %v, want ErrTruncated", err)
		}
	}
	runtime.ReadMemStats(&after)
	if each := (after.TotalAlloc - before.TotalAlloc) / 10; each > 256<<10 {
		t.Errorf("%d bytes allocated for a frame that never came, want at most 256 KiB", each)
	}
}

// source is a Source that writes what it wants.
type source struct {
	claims int64
	data   string
	err    error
}

func (s source) Len() int64 { return s.claims }

func (s source) WriteTo(w io.Writer) (int64, error) {
	n, err := io.WriteString(w, s.data)
	if err == nil {
		err = s.err
	}
	return int64(n), err
}

func TestSources(t *testing.T) {
	t.Parallel()
	got := produceFrame(t, Part{Bytes: []byte("ab")}, Part{Source: source{claims: 3, data: "cde"}}, Part{}, Part{Bytes: []byte("f")}, Part{Source: source{claims: 1, data: "g"}})
	want := produceFrame(t, Part{Bytes: []byte("abcdefg")})
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-in memory +from sources):\n%s", diff)
	}

	mine := errors.New("disk")
	for _, tt := range []struct {
		name string
		src  source
		want error
	}{
		{"short", source{claims: 3, data: "ab"}, ErrShortPart},
		{"long", source{claims: 1, data: "ab"}, ErrShortPart},
		{"failing", source{claims: 2, data: "ab", err: mine}, mine},
	} {
		w := NewWriter(io.Discard)
		if err := w.Queue(KindFetch, FlagResponse, 1, &pb.FetchResponse{}, Part{Source: tt.src}); err != nil {
			t.Fatal(err)
		}
		if err := w.Flush(); !errors.Is(err, tt.want) {
			t.Errorf("%s: Flush = %v, want %v", tt.name, err, tt.want)
		}
		if err := w.Queue(KindPing, 0, 1, &pb.Ping{}); err != nil {
			t.Fatal(err)
		}
		if err := w.Flush(); !errors.Is(err, tt.want) {
			t.Errorf("%s: second Flush = %v, want the first error again", tt.name, err)
		}
	}
}

func TestQueueRefuses(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	w := NewWriter(&out)
	w.SetLimits(Limits{MaxFrameBytes: 100, MaxHeaderBytes: 20})
	tests := []struct {
		name   string
		header proto.Message
		part   Part
		want   error
	}{
		{name: "header", header: &pb.ClientHello{ClientId: strings.Repeat("x", 20)}, want: ErrTooLarge},
		{name: "frame", header: &pb.Ping{}, part: Part{Bytes: make([]byte, 90)}, want: ErrTooLarge},
		{name: "beyond 32 bits", header: &pb.Ping{}, part: Part{Source: source{claims: 1 << 40}}, want: ErrTooLarge},
		{name: "not UTF-8", header: &pb.ClientHello{ClientId: "\xff"}, want: ErrMalformed},
	}
	for _, tt := range tests {
		if err := w.Queue(KindPing, 0, 1, tt.header, tt.part); !errors.Is(err, tt.want) {
			t.Errorf("%s: Queue = %v, want %v", tt.name, err, tt.want)
		}
	}
	if err := w.Queue(KindPing, 0, 1, &pb.Ping{}, Part{Bytes: make([]byte, 88)}); err != nil {
		t.Errorf("a frame at the limit: %v", err)
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	r := NewReader(&out)
	if _, err := r.Read(); err != nil {
		t.Error(err)
	}
	if _, err := r.Read(); err != io.EOF {
		t.Errorf("after the one good frame: %v, want io.EOF", err)
	}
}

// TestFlushIsVectored checks that a payload is handed over where it lies.
func TestFlushIsVectored(t *testing.T) {
	t.Parallel()
	payload := make([]byte, 1<<20)
	var writes [][]byte
	w := NewWriter(writerFunc(func(b []byte) (int, error) {
		writes = append(writes, b)
		return len(b), nil
	}))
	w.SetLimits(DefaultLimits())
	if err := w.Queue(KindProduce, 0, 1, &pb.ProduceRequest{}, Part{Bytes: payload}); err != nil {
		t.Fatal(err)
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	if len(writes) != 2 || &writes[1][0] != &payload[0] {
		t.Errorf("%d writes, the payload copied", len(writes))
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }

func TestUnmarshalBounds(t *testing.T) {
	t.Parallel()
	part := protowire.AppendBytes(protowire.AppendTag(nil, 3, protowire.BytesType), nil)
	many := bytes.Repeat(part, MaxHeaderFields)
	if err := Unmarshal(many, new(pb.ProduceRequest)); err != nil {
		t.Errorf("%d fields: %v", MaxHeaderFields, err)
	}
	if err := Unmarshal(append(many, part...), new(pb.ProduceRequest)); !errors.Is(err, ErrTooLarge) {
		t.Errorf("%d fields: %v, want ErrTooLarge", MaxHeaderFields+1, err)
	}
	for _, bad := range []string{"\x00", "\x0a\x05a", "\x1a\x02\x0a\x05", "\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"} {
		if err := Unmarshal([]byte(bad), new(pb.ProduceRequest)); !errors.Is(err, ErrMalformed) {
			t.Errorf("Unmarshal(%x) = %v, want ErrMalformed", bad, err)
		}
	}
	m := new(pb.ProduceRequest)
	unknown := protowire.AppendBytes(protowire.AppendTag(nil, 1000, protowire.BytesType), make([]byte, 100))
	if err := Unmarshal(unknown, m); err != nil || len(m.ProtoReflect().GetUnknown()) > 0 {
		t.Errorf("unknown field: %v, %d bytes kept", err, len(m.ProtoReflect().GetUnknown()))
	}
}

func TestNewError(t *testing.T) {
	t.Parallel()
	got := NewError(errcode.NotLeaderOrFollower, "")
	want := &pb.Error{Code: 6, Message: errcode.NotLeaderOrFollower.Text(), Retriable: true}
	if !proto.Equal(got, want) {
		t.Errorf("NewError = %v, want %v", got, want)
	}
}

func TestSniff(t *testing.T) {
	t.Parallel()
	tests := []struct {
		in   string
		want Protocol
	}{
		{"", Unknown}, {"\xf1FL", Unknown},
		{Magic, Native}, {Magic + "more", Native}, {"\xf1FLA", Unknown},
		{"\x00\x00\x00\x2a\x00\x12", Kafka}, {"\x06\x40\x00\x00", Kafka}, {"\x00\x00\x00\x08", Kafka},
		{"\x00\x00\x00\x07", Unknown}, {"\x00\x00\x00\x00", Unknown},
		{"GET / HTTP/1.1\r\n", HTTP}, {"POST /", HTTP}, {"PRI * HTTP/2.0", HTTP}, {"HTTP/1.1 400", HTTP}, {"HEAD", HTTP},
		{"\x16\x03\x01\x02\x00\x01\x00", TLS}, {"\x16\x03\x03\x00\x7a", TLS}, {"\x15\x03\x01\x00\x02", TLS},
		{"\x16\x04\x01\x00", Unknown}, {"SSH-2.0", Unknown}, {"\xff\xff\xff\xff", Unknown},
	}
	for _, tt := range tests {
		if got := Sniff([]byte(tt.in)); got != tt.want {
			t.Errorf("Sniff(%q) = %v, want %v", tt.in, got, tt.want)
		}
	}
	if Magic[0] < 0x80 {
		t.Error("the magic can start a Kafka frame")
	}
	p, read, err := ReadMagic(strings.NewReader("GET /"))
	if p != HTTP || string(read) != "GET " || err != nil {
		t.Errorf("ReadMagic = %v %q %v", p, read, err)
	}
	if p, read, err = ReadMagic(strings.NewReader("GE")); p != Unknown || string(read) != "GE" || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("ReadMagic of too little = %v %q %v", p, read, err)
	}
}

func TestKindNames(t *testing.T) {
	t.Parallel()
	seen := make(map[string]Kind)
	for k := range 256 {
		name := Kind(k).String()
		if prev, dup := seen[name]; dup {
			t.Errorf("kinds %d and %d are both %s", prev, k, name)
		}
		seen[name] = Kind(k)
	}
}

// FuzzReader checks, for any stream at all, that reading does not panic, that
// memory is bounded by what came, and that what was read re-encodes to the
// same bytes.
func FuzzReader(f *testing.F) {
	f.Add([]byte(nil))
	f.Add([]byte("GET / HTTP/1.1\r\n\r\n"))
	f.Add([]byte("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"))
	f.Add(produceFrame(f, Part{Bytes: []byte("payload")}))
	f.Add(append(encode(f, KindPing, 0, 1, &pb.Ping{}), encode(f, KindPing, FlagResponse|FlagError, 1, NewError(errcode.InvalidRequest, "x"))...))
	f.Add([]byte("\x7f\xff\xff\xff\x00\x00\x00\x01\x21\x00\x00\x00\x00\x00\x00\x01"))

	f.Fuzz(func(t *testing.T, in []byte) {
		r := NewReader(bytes.NewReader(in))
		r.SetLimits(DefaultLimits())
		var out []byte
		for {
			fr, err := r.Read()
			if err != nil {
				break
			}
			if len(fr.Header) != fr.HeaderBytes || len(fr.Payload) != fr.PayloadBytes {
				t.Fatalf("%d and %d bytes, want %d and %d", len(fr.Header), len(fr.Payload), fr.HeaderBytes, fr.PayloadBytes)
			}
			if cap(fr.Payload) > 4*len(in)+firstReadBytes {
				t.Fatalf("a buffer of %d bytes for a stream of %d", cap(fr.Payload), len(in))
			}
			out = append(fr.Prefix.append(out), fr.Header...)
			out = append(out, fr.Payload...)
		}
		if !bytes.HasPrefix(in, out) {
			t.Fatalf("re-encoded %x, want a beginning of %x", out, in)
		}
	})
}

// FuzzHeaders checks that no header makes decoding panic.
func FuzzHeaders(f *testing.F) {
	messages := []proto.Message{
		&pb.ClientHello{}, &pb.ServerHello{}, &pb.Error{}, &pb.MetadataRequest{}, &pb.MetadataResponse{},
		&pb.CreateTopicRequest{}, &pb.DescribeTopicResponse{}, &pb.ProduceRequest{}, &pb.ProduceResponse{},
		&pb.FetchRequest{}, &pb.FetchResponse{}, &pb.ListOffsetsRequest{}, &pb.InitProducerRequest{},
	}
	for i, m := range messages {
		f.Add(uint8(i), []byte("\x0a\x03abc\x10\x01"))
		b, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(uint8(i), b)
	}
	f.Fuzz(func(t *testing.T, which uint8, in []byte) {
		m := messages[int(which)%len(messages)].ProtoReflect().New().Interface()
		if err := Unmarshal(in, m); err != nil && !errors.Is(err, ErrMalformed) && !errors.Is(err, ErrTooLarge) {
			t.Fatalf("Unmarshal = %v, want ErrMalformed or ErrTooLarge", err)
		}
	})
}

func BenchmarkRoundTrip(b *testing.B) {
	for _, size := range []int{1 << 10, 64 << 10, 1 << 20} {
		b.Run(fmt.Sprintf("payload=%dB", size), func(b *testing.B) {
			client, server := tcpPair(b)
			w, r := NewWriter(client), NewReader(server)
			w.SetLimits(DefaultLimits())
			r.SetLimits(DefaultLimits())
			header := &pb.ProduceRequest{TimeoutMs: 1000, Parts: []*pb.ProducePart{{TopicId: make([]byte, 16), Partition: 3, Length: uint32(size)}}}
			payload, buf := make([]byte, size), make([]byte, 0, size)
			done := make(chan error, 1)
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				go func() {
					err := w.Queue(KindProduce, 0, 1, header, Part{Bytes: payload})
					if err == nil {
						err = w.Flush()
					}
					done <- err
				}()
				if _, err := r.Next(); err != nil {
					b.Fatal(err)
				}
				if _, err := r.Header(); err != nil {
					b.Fatal(err)
				}
				if _, err := r.Payload(buf); err != nil {
					b.Fatal(err)
				}
				if err := <-done; err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func tcpPair(b *testing.B) (client, server net.Conn) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	client, err = net.Dial("tcp", l.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	server, err = l.Accept()
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { client.Close(); server.Close() })
	return client, server
}
