package frame

import (
	"bytes"
	"errors"
	"io"
	"net"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/flotilla-log/flotilla/internal/errcode"
	"github.com/flotilla-log/flotilla/wire/pb"
)

var testServer = &pb.ServerHello{
	NodeId: 3, ClusterId: "c1", SoftwareName: "flotilla", SoftwareVersion: "0.1",
	MaxFrameBytes: 1 << 20, MaxHeaderBytes: 128 << 10, MaxInFlight: 10, MaxBatchBytes: 1 << 19, Features: []string{"x"},
}

// accept runs the server's side and returns what it saw.
func accept(nc net.Conn, server *pb.ServerHello) <-chan error {
	done := make(chan error, 1)
	go func() {
		defer nc.Close()
		if p, _, err := ReadMagic(nc); err != nil || p != Native {
			done <- errors.Join(errors.New("no magic"), err)
			return
		}
		_, err := Accept(NewReader(nc), NewWriter(nc), server)
		done <- err
	}()
	return done
}

func TestHandshake(t *testing.T) {
	t.Parallel()
	client, server := net.Pipe()
	defer client.Close()
	done := accept(server, testServer)
	r, w := NewReader(client), NewWriter(client)
	got, err := Connect(r, w, &pb.ClientHello{ClientId: "me", ClusterId: "c1"})
	if err != nil {
		t.Fatal(err)
	}
	want := proto.CloneOf(testServer)
	want.Version = MaxVersion
	if !proto.Equal(got, want) {
		t.Errorf("Connect = %v, want %v", got, want)
	}
	if err := <-done; err != nil {
		t.Errorf("Accept = %v", err)
	}
	if lim := (Limits{1 << 20, 128 << 10}); r.lim != lim || w.lim != lim {
		t.Errorf("limits %v and %v, want %v", r.lim, w.lim, lim)
	}
}

func TestHandshakeRefused(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name  string
		hello *pb.ClientHello
		code  errcode.Code
	}{
		{"another cluster", &pb.ClientHello{ClusterId: "c2"}, errcode.InconsistentClusterID},
		{"long cluster id", &pb.ClientHello{ClusterId: strings.Repeat("x", 256)}, errcode.InvalidRequest},
		{"long client id", &pb.ClientHello{ClientId: strings.Repeat("x", 256)}, errcode.InvalidRequest},
		{"software name", &pb.ClientHello{SoftwareName: "a b"}, errcode.InvalidRequest},
		{"software version", &pb.ClientHello{SoftwareVersion: strings.Repeat("1", 65)}, errcode.InvalidRequest},
	}
	for _, tt := range tests {
		client, server := net.Pipe()
		done := accept(server, testServer)
		_, err := Connect(NewReader(client), NewWriter(client), tt.hello)
		if !errors.Is(err, ErrHandshake) || errcode.Of(err) != tt.code {
			t.Errorf("%s: Connect = %v, want ErrHandshake with %v", tt.name, err, tt.code)
		}
		if err := <-done; !errors.Is(err, ErrHandshake) || errcode.Of(err) != tt.code {
			t.Errorf("%s: Accept = %v, want ErrHandshake with %v", tt.name, err, tt.code)
		}
		client.Close()
	}
}

// TestVersions shakes hands with clients of other versions.
func TestVersions(t *testing.T) {
	t.Parallel()
	tests := []struct {
		min, max uint32
		ok       bool
	}{
		{1, 1, true}, {1, 9, true}, {0, 5, true}, {2, 3, false}, {0, 0, false}, {3, 2, false}, {1 << 31, 1<<32 - 1, false},
	}
	for _, tt := range tests {
		client, server := net.Pipe()
		done := accept(server, testServer)
		w, r := NewWriter(client), NewReader(client)
		w.Magic()
		if err := w.Queue(KindHello, 0, 0, &pb.ClientHello{MinVersion: tt.min, MaxVersion: tt.max}); err != nil {
			t.Fatal(err)
		}
		go w.Flush()
		if p, _, err := ReadMagic(r.r); p != Native || err != nil {
			t.Fatalf("server's magic: %v, %v", p, err)
		}
		f, err := r.Read()
		if err != nil {
			t.Fatal(err)
		}
		err = <-done
		client.Close()
		if tt.ok {
			if f.Kind != KindHello || err != nil {
				t.Errorf("%d to %d: answered by %v, %v", tt.min, tt.max, f.Kind, err)
			}
			continue
		}
		var ve *VersionError
		if !errors.As(err, &ve) || ve.Client != (Range{tt.min, tt.max}) || ve.Server != (Range{MinVersion, MaxVersion}) {
			t.Errorf("%d to %d: Accept = %v, want a VersionError with both ranges", tt.min, tt.max, err)
		}
		if f.Kind != KindError {
			t.Errorf("%d to %d: answered by %v, want Error", tt.min, tt.max, f.Kind)
			continue
		}
		err = refusal(f.Header)
		if !errors.As(err, &ve) || !errors.Is(err, ErrVersion) || ve.Server != (Range{MinVersion, MaxVersion}) {
			t.Errorf("%d to %d: the client reads %v, want a VersionError", tt.min, tt.max, err)
		}
	}
}

// TestConnectToOthers connects to what is no native server.
func TestConnectToOthers(t *testing.T) {
	t.Parallel()
	hello := func(m *pb.ServerHello) string {
		return Magic + string(encode(t, KindHello, FlagResponse, 0, m))
	}
	tests := []struct {
		name   string
		answer string
		want   error
		text   string
	}{
		{"HTTP", "HTTP/1.1 400 Bad Request\r\n", ErrForeign, "HTTP"},
		{"TLS alert", "\x15\x03\x01\x00\x02\x02\x46", ErrForeign, "TLS"},
		{"closed at once", "", io.EOF, ""},
		{"magic only", Magic, ErrHandshake, ""},
		{"garbage", Magic + strings.Repeat("\xee", 50), ErrTooLarge, ""},
		{"another frame", Magic + string(encode(t, KindPing, FlagResponse, 0, &pb.Pong{})), ErrHandshake, "Ping"},
		{"request", Magic + string(encode(t, KindHello, 0, 0, &pb.ServerHello{Version: 1})), ErrHandshake, ""},
		{"version 0", hello(&pb.ServerHello{}), ErrHandshake, "version 0"},
		{"version 2", hello(&pb.ServerHello{Version: 2}), ErrHandshake, "version 2"},
		{"tiny limits", hello(&pb.ServerHello{Version: 1, MaxFrameBytes: 10}), ErrHandshake, "limits"},
	}
	for _, tt := range tests {
		client, server := net.Pipe()
		go func() {
			defer server.Close()
			if _, err := NewReader(server).r.Discard(MagicBytes + PrefixBytes); err != nil {
				return
			}
			io.WriteString(server, tt.answer)
		}()
		_, err := Connect(NewReader(client), NewWriter(client), &pb.ClientHello{})
		client.Close()
		if !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.text) {
			t.Errorf("%s: Connect = %v, want %v and %q", tt.name, err, tt.want, tt.text)
		}
	}
}

// TestAcceptFromOthers accepts clients that send something else than a Hello.
func TestAcceptFromOthers(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		in   []byte
		told bool // by an Error frame
	}{
		{"nothing", nil, false},
		{"half a frame", encode(t, KindHello, 0, 0, &pb.ClientHello{ClientId: "x"})[:18], false},
		{"a ping", encode(t, KindPing, 0, 0, &pb.Ping{}), true},
		{"a payload", encode(t, KindHello, 0, 0, &pb.ClientHello{MaxVersion: 1}, Part{Bytes: []byte("x")}), true},
		{"not protobuf", append(Prefix{Kind: KindHello, HeaderBytes: 2}.append(nil), 0x0a, 0x09), true},
		{"too large", Prefix{Kind: KindHello, HeaderBytes: HandshakeMaxBytes}.append(nil), true},
	}
	for _, tt := range tests {
		client, server := net.Pipe()
		done := make(chan error, 1)
		go func() {
			defer server.Close()
			_, err := Accept(NewReader(server), NewWriter(server), testServer)
			done <- err
		}()
		go func() {
			client.Write(tt.in)
			if !tt.told {
				client.Close()
			}
		}()
		if tt.told {
			r := NewReader(client)
			if p, _, err := ReadMagic(r.r); p != Native || err != nil {
				t.Errorf("%s: magic %v, %v", tt.name, p, err)
			}
			if f, err := r.Read(); err != nil || f.Kind != KindError {
				t.Errorf("%s: told by %v, %v, want an Error frame", tt.name, f.Kind, err)
			}
		}
		if err := <-done; !errors.Is(err, ErrHandshake) {
			t.Errorf("%s: Accept = %v, want ErrHandshake", tt.name, err)
		}
		client.Close()
	}
}

// FuzzReadMagic checks that what is read is the beginning of the stream, no more
// than the magic, and named as Sniff names it.
func FuzzReadMagic(f *testing.F) {
	f.Add([]byte(Magic + "x"))
	f.Add([]byte("GET / HTTP/1.1"))
	f.Add([]byte{0, 0, 0, 40, 0, 18})
	f.Add([]byte{0x16, 3, 1, 0})
	f.Add([]byte{1})
	f.Fuzz(func(t *testing.T, b []byte) {
		r := bytes.NewReader(b)
		p, read, err := ReadMagic(r)
		if !bytes.HasPrefix(b, read) || len(read) > MagicBytes || r.Len() != len(b)-len(read) {
			t.Fatalf("ReadMagic(%x) read %x and left %d bytes", b, read, r.Len())
		}
		if short := len(b) < MagicBytes; short != (err != nil) || !short && p != Sniff(b) {
			t.Fatalf("ReadMagic(%x) = %v, %v; Sniff says %v", b, p, err, Sniff(b))
		}
	})
}
