package frame

import (
	"errors"
	"fmt"

	"github.com/flotilla-log/flotilla/internal/errcode"
	"github.com/flotilla-log/flotilla/wire/pb"
)

// The protocol versions of this build, both included.
const (
	MinVersion = 1
	MaxVersion = 1
)

// Longest strings of a Hello, in bytes.
const (
	maxClientIDBytes  = 255
	maxSoftwareBytes  = 64
	maxClusterIDBytes = 255
)

// Range is the protocol versions [Min, Max] of one end, both included.
type Range struct{ Min, Max uint32 }

// VersionError reports two ends that have no version in common. It matches
// ErrVersion.
type VersionError struct{ Client, Server Range }

func (e *VersionError) Error() string {
	return fmt.Sprintf("%v: the client speaks %d to %d, the server %d to %d",
		ErrVersion, e.Client.Min, e.Client.Max, e.Server.Min, e.Server.Max)
}

// Is makes errors.Is(err, ErrVersion) true.
func (e *VersionError) Is(target error) bool { return target == ErrVersion }

// Connect opens a native connection from the client's side: it sends the magic
// and hello, whose versions it fills in, and returns the server's answer. It
// then holds r and w to the limits that the server announced.
//
// It returns a *VersionError, ErrForeign if the peer is no native server,
// ErrHandshake, wrapping the server's *errcode.Error if it sent one, or the
// stream's error. The connection is to be closed then. The time that it may
// take is the caller's to bound, by a deadline on the stream.
func Connect(r *Reader, w *Writer, hello *pb.ClientHello) (*pb.ServerHello, error) {
	hello.MinVersion, hello.MaxVersion = MinVersion, MaxVersion
	w.Magic()
	if err := w.Queue(KindHello, 0, 0, hello); err != nil {
		return nil, err
	}
	if err := w.Flush(); err != nil {
		return nil, fmt.Errorf("frame: sending the hello: %w", err)
	}

	p, read, err := ReadMagic(r.r)
	if err != nil {
		return nil, err
	}
	if p != Native {
		return nil, fmt.Errorf("%w: the server speaks %s (%q)", ErrForeign, p, read)
	}
	f, err := r.Read()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrHandshake, err)
	}
	if f.Kind == KindError {
		return nil, refusal(f.Header)
	}
	if f.Kind != KindHello || f.Flags != FlagResponse {
		return nil, fmt.Errorf("%w: answered by %s, flags %#x", ErrHandshake, f.Kind, f.Flags)
	}
	server := new(pb.ServerHello)
	if err := Unmarshal(f.Header, server); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrHandshake, err)
	}
	if server.Version < MinVersion || server.Version > MaxVersion {
		return nil, fmt.Errorf("%w: the server chose version %d of %d to %d",
			ErrHandshake, server.Version, MinVersion, MaxVersion)
	}
	return server, setLimits(r, w, server)
}

// refusal returns the error that the header of a KindError frame stands for.
func refusal(header []byte) error {
	e := new(pb.Error)
	if err := Unmarshal(header, e); err != nil {
		return fmt.Errorf("%w: %w", ErrHandshake, err)
	}
	if v := e.Versions; v != nil {
		return &VersionError{Client: Range{MinVersion, MaxVersion}, Server: Range{v.Min, v.Max}}
	}
	return fmt.Errorf("%w: %w", ErrHandshake, &errcode.Error{Code: errcode.Code(e.Code), Detail: e.Message})
}

// Accept opens a native connection from the server's side, after ReadMagic has
// read the client's magic. server is what the node says of itself; its version
// is filled in (in a copy), and its limits hold on r and w from then on.
//
// A client that cannot be served is told so in an Error frame, and Accept
// returns a *VersionError, ErrHandshake, or what reading its Hello returned.
// The connection is to be closed then. The time that it may take is the
// caller's to bound, by a deadline on the stream.
func Accept(r *Reader, w *Writer, server *pb.ServerHello) (*pb.ClientHello, error) {
	w.Magic()
	hello, err := readHello(r)
	var refused *errcode.Error
	if err == nil {
		refused, err = judge(hello, server)
	} else if errors.Is(err, ErrMalformed) || errors.Is(err, ErrTooLarge) {
		refused = &errcode.Error{Code: errcode.InvalidRequest, Detail: err.Error()}
	}
	if err != nil {
		if refused != nil {
			return nil, errors.Join(err, refuse(w, refused))
		}
		return nil, err
	}

	answer := &pb.ServerHello{
		Version:         min(hello.MaxVersion, MaxVersion),
		NodeId:          server.NodeId,
		ClusterId:       server.ClusterId,
		SoftwareName:    server.SoftwareName,
		SoftwareVersion: server.SoftwareVersion,
		MaxFrameBytes:   server.MaxFrameBytes,
		MaxHeaderBytes:  server.MaxHeaderBytes,
		MaxInFlight:     server.MaxInFlight,
		MaxBatchBytes:   server.MaxBatchBytes,
		IdleTimeoutMs:   server.IdleTimeoutMs,
		Features:        server.Features,
	}
	if err := w.Queue(KindHello, FlagResponse, 0, answer); err != nil {
		return nil, err
	}
	if err := w.Flush(); err != nil {
		return nil, fmt.Errorf("frame: sending the hello: %w", err)
	}
	return hello, setLimits(r, w, answer)
}

// Refuse is Accept for a client that is not taken, for a reason of the server's
// own: it reads the Hello, so that the connection does not end with a reset that
// would overtake the answer, and sends e.
func Refuse(r *Reader, w *Writer, e *errcode.Error) error {
	w.Magic()
	if _, err := readHello(r); err != nil {
		return err
	}
	return refuse(w, e)
}

// readHello reads the client's Hello.
func readHello(r *Reader) (*pb.ClientHello, error) {
	f, err := r.Read()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrHandshake, err)
	}
	if f.Kind != KindHello || f.Flags != 0 || len(f.Payload) > 0 {
		return nil, fmt.Errorf("%w: %w: opened by %s, flags %#x", ErrHandshake, ErrMalformed, f.Kind, f.Flags)
	}
	hello := new(pb.ClientHello)
	if err := Unmarshal(f.Header, hello); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrHandshake, err)
	}
	return hello, nil
}

// judge returns why the client cannot be served, for the client and for the
// caller of Accept, or two nils.
func judge(hello *pb.ClientHello, server *pb.ServerHello) (*errcode.Error, error) {
	c, s := Range{hello.MinVersion, hello.MaxVersion}, Range{MinVersion, MaxVersion}
	if c.Min > s.Max || c.Max < s.Min || c.Min > c.Max {
		err := &VersionError{Client: c, Server: s}
		return &errcode.Error{Code: errcode.UnsupportedVersion, Detail: err.Error()}, err
	}
	var refused *errcode.Error
	switch {
	case len(hello.ClientId) > maxClientIDBytes:
		refused = errcode.Errorf(errcode.InvalidRequest, "client id of %d bytes, limit %d", len(hello.ClientId), maxClientIDBytes)
	case len(hello.ClusterId) > maxClusterIDBytes:
		refused = errcode.Errorf(errcode.InvalidRequest, "cluster id of %d bytes, limit %d", len(hello.ClusterId), maxClusterIDBytes)
	case !validSoftware(hello.SoftwareName) || !validSoftware(hello.SoftwareVersion):
		refused = errcode.Errorf(errcode.InvalidRequest, "software %q version %q", hello.SoftwareName, hello.SoftwareVersion)
	case hello.ClusterId != "" && hello.ClusterId != server.ClusterId:
		refused = errcode.Errorf(errcode.InconsistentClusterID, "this is cluster %q", server.ClusterId)
	default:
		return nil, nil
	}
	return refused, fmt.Errorf("%w: %w", ErrHandshake, refused)
}

// validSoftware reports whether s can stand in a log line or a metric's label.
func validSoftware(s string) bool {
	for i := range len(s) {
		c := s[i]
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '.' || c == '-') {
			return false
		}
	}
	return len(s) <= maxSoftwareBytes
}

// refuse sends an Error frame.
func refuse(w *Writer, e *errcode.Error) error {
	msg := NewError(e.Code, e.Detail)
	if e.Code == errcode.UnsupportedVersion {
		msg.Versions = &pb.VersionRange{Min: MinVersion, Max: MaxVersion}
	}
	if err := w.Queue(KindError, 0, 0, msg); err != nil {
		return err
	}
	return w.Flush()
}

// setLimits holds r and w to what s announces. Zero stands for the default.
func setLimits(r *Reader, w *Writer, s *pb.ServerHello) error {
	lim := DefaultLimits()
	if s.MaxFrameBytes != 0 {
		lim.MaxFrameBytes = int(s.MaxFrameBytes)
	}
	if s.MaxHeaderBytes != 0 {
		lim.MaxHeaderBytes = int(s.MaxHeaderBytes)
	}
	if lim.MaxFrameBytes < HandshakeMaxBytes || lim.MaxHeaderBytes < HandshakeMaxBytes {
		return fmt.Errorf("%w: limits of %d and %d bytes, want at least %d",
			ErrHandshake, lim.MaxFrameBytes, lim.MaxHeaderBytes, HandshakeMaxBytes)
	}
	r.SetLimits(lim)
	w.SetLimits(lim)
	return nil
}
