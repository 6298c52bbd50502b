package clienttest

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"reflect"
	"sync"

	"github.com/twmb/franz-go/pkg/kbin"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// content says how much a blanked answer holds.
type content int

const (
	// empty answers have the default value in every field: no topics, no error.
	empty content = iota
	// echoed answers hold an element for each that was asked about, with its
	// name, and default values beside it: to a careless client it all went well.
	echoed
)

func (c content) String() string { return [...]string{"empty", "echoed"}[c] }

// blank is a server that hands requests on to another one, but for the keys that
// it answers itself, without content. Correlation ids and encodings are right.
//
// Its own address stands in for that of every broker in the answers that it
// hands on, so that clients stay with it.
type blank struct {
	backend string // "": there is none, and every key but ApiVersions is blanked
	keys    map[int16]bool
	content content

	listener net.Listener
	group    sync.WaitGroup

	mu     sync.Mutex
	conns  map[net.Conn]bool // nil: closed
	asked  map[int16]int     // requests by key
	broken []error           // what no client should have sent
}

// startBlank starts a server on a port of its own. Close it.
func startBlank(backend string, content content, keys ...int16) (*blank, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	b := &blank{
		backend: backend, content: content, keys: make(map[int16]bool), listener: l,
		conns: make(map[net.Conn]bool), asked: make(map[int16]int),
	}
	for _, k := range keys {
		b.keys[k] = true
	}
	b.group.Go(b.accept)
	return b, nil
}

func (b *blank) addr() string { return b.listener.Addr().String() }

// close ends all connections, and returns what went wrong on them.
func (b *blank) close() []error {
	_ = b.listener.Close()
	b.mu.Lock()
	for c := range b.conns {
		_ = c.Close()
	}
	b.conns = nil
	b.mu.Unlock()
	b.group.Wait()
	return b.broken
}

// requests returns how often key was asked for.
func (b *blank) requests(key int16) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.asked[key]
}

// hold keeps a connection for close, and reports false if that has come already.
func (b *blank) hold(c net.Conn) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.conns == nil {
		_ = c.Close()
		return false
	}
	b.conns[c] = true
	return true
}

func (b *blank) accept() {
	for {
		c, err := b.listener.Accept()
		if err != nil {
			return
		}
		if !b.hold(c) {
			return
		}
		b.group.Go(func() {
			defer c.Close()
			if err := b.serve(c); err != nil {
				b.mu.Lock()
				b.broken = append(b.broken, err)
				b.mu.Unlock()
			}
		})
	}
}

// serve answers one connection's requests one after the other. An error is a
// request that cannot be read; a connection that ends is none.
func (b *blank) serve(c net.Conn) error {
	var backend net.Conn
	if b.backend != "" {
		var err error
		if backend, err = net.Dial("tcp", b.backend); err != nil || !b.hold(backend) {
			return err
		}
		defer backend.Close()
	}
	for {
		frame, err := readFrame(c)
		if err != nil {
			return nil
		}
		req, err := parseRequest(frame)
		if err != nil {
			return err
		}
		b.mu.Lock()
		b.asked[req.message.Key()]++
		b.mu.Unlock()
		answer, err := b.answer(backend, frame, req)
		if err != nil {
			return err
		}
		if answer == nil {
			if p, ok := req.message.(*kmsg.ProduceRequest); ok && p.Acks == 0 {
				continue
			}
			return nil // the backend closed the connection
		}
		if err := writeFrame(c, answer); err != nil {
			return nil
		}
	}
}

// answer returns the frame to send, or nil if there is none.
func (b *blank) answer(backend net.Conn, frame []byte, req *request) ([]byte, error) {
	key := req.message.Key()
	switch {
	case b.keys[key] || b.backend == "" && key != int16(kmsg.ApiVersions):
		return req.encode(blanked(req.message, b.content)), nil
	case b.backend == "":
		return req.encode(everyVersion(req.message)), nil
	}
	if err := writeFrame(backend, frame); err != nil {
		return nil, nil
	}
	if p, ok := req.message.(*kmsg.ProduceRequest); ok && p.Acks == 0 {
		return nil, nil
	}
	answer, err := readFrame(backend)
	if err != nil {
		return nil, nil
	}
	return b.redirect(answer, req)
}

// redirect puts the own address in the place of the brokers'.
func (b *blank) redirect(answer []byte, req *request) ([]byte, error) {
	host, port := b.listener.Addr().(*net.TCPAddr).IP.String(), int32(b.listener.Addr().(*net.TCPAddr).Port)
	resp := req.message.ResponseKind()
	switch resp.(type) {
	case *kmsg.MetadataResponse, *kmsg.DescribeClusterResponse, *kmsg.FindCoordinatorResponse:
	default:
		return answer, nil
	}
	body := answer[4:]
	if req.flexible() {
		body = body[1:] // no server sends tags in a header yet
	}
	if err := resp.ReadFrom(body); err != nil {
		return nil, fmt.Errorf("the backend's %T: %w", resp, err)
	}
	switch m := resp.(type) {
	case *kmsg.MetadataResponse:
		for i := range m.Brokers {
			m.Brokers[i].Host, m.Brokers[i].Port = host, port
		}
	case *kmsg.FindCoordinatorResponse:
		m.Host, m.Port = host, port
		for i := range m.Coordinators {
			m.Coordinators[i].Host, m.Coordinators[i].Port = host, port
		}
	case *kmsg.DescribeClusterResponse:
		for i := range m.Brokers {
			m.Brokers[i].Host, m.Brokers[i].Port = host, port
		}
	}
	return req.encode(resp), nil
}

// request is a request as it came.
type request struct {
	message     kmsg.Request
	correlation int32
}

// parseRequest reads a frame.
func parseRequest(frame []byte) (*request, error) {
	r := kbin.Reader{Src: frame}
	key, version, correlation := r.Int16(), r.Int16(), r.Int32()
	_ = r.NullableString() // the client id
	m := kmsg.RequestForKey(key)
	if m == nil {
		return nil, fmt.Errorf("a request with the unknown key %d", key)
	}
	m.SetVersion(version)
	if m.IsFlexible() {
		kmsg.SkipTags(&r)
	}
	if err := r.Complete(); err != nil {
		return nil, fmt.Errorf("the header of a %T: %w", m, err)
	}
	if err := m.ReadFrom(r.Src); err != nil {
		return nil, fmt.Errorf("a %T, version %d: %w", m, version, err)
	}
	return &request{m, correlation}, nil
}

// flexible reports whether the answer's header has tags.
func (r *request) flexible() bool {
	return r.message.IsFlexible() && r.message.Key() != int16(kmsg.ApiVersions)
}

// encode returns the frame of an answer.
func (r *request) encode(resp kmsg.Response) []byte {
	resp.SetVersion(r.message.GetVersion())
	frame := binary.BigEndian.AppendUint32(nil, uint32(r.correlation))
	if r.flexible() {
		frame = append(frame, 0)
	}
	return resp.AppendTo(frame)
}

// maxFrameBytes bounds what the examples send and get.
const maxFrameBytes = 16 << 20

func readFrame(r io.Reader) ([]byte, error) {
	var size [4]byte
	if _, err := io.ReadFull(r, size[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(size[:])
	if n > maxFrameBytes {
		return nil, fmt.Errorf("a frame of %d bytes", n)
	}
	frame := make([]byte, n)
	_, err := io.ReadFull(r, frame)
	return frame, err
}

func writeFrame(w io.Writer, frame []byte) error {
	_, err := w.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(frame))), frame...))
	return err
}

// everyVersion answers ApiVersions so that a client sends all that it can.
func everyVersion(req kmsg.Request) kmsg.Response {
	resp := kmsg.NewPtrApiVersionsResponse()
	for key := range int16(kmsg.MaxKey + 1) {
		m := kmsg.RequestForKey(key)
		if m == nil {
			continue
		}
		k := kmsg.NewApiVersionsResponseApiKey()
		k.ApiKey, k.MaxVersion = key, m.MaxVersion()
		resp.ApiKeys = append(resp.ApiKeys, k)
	}
	return resp
}

// blanked returns the answer to req without content.
func blanked(req kmsg.Request, content content) kmsg.Response {
	resp := req.ResponseKind()
	setDefaults(reflect.ValueOf(resp))
	if content == echoed {
		echo(reflect.ValueOf(resp).Elem(), reflect.ValueOf(req).Elem())
	}
	if r, ok := resp.(*kmsg.ConsumerGroupHeartbeatResponse); ok {
		r.HeartbeatIntervalMillis = 1000 // with 0 Java sends one after the other, and leaves nothing to the cases beside it
	}
	return resp
}

// setDefaults calls the message's own Default, where it has one.
func setDefaults(message reflect.Value) {
	if d, ok := message.Interface().(interface{ Default() }); ok {
		d.Default()
	}
}

// echo copies to answer what stands in asked under the same name: plain fields,
// and an element for each element. What an answer adds keeps its default.
func echo(answer, asked reflect.Value) {
	for i := range answer.NumField() {
		name := answer.Type().Field(i).Name
		to, from := answer.Field(i), asked.FieldByName(name)
		if name == "Topics" && from.IsValid() && from.Len() == 0 && asked.FieldByName("TopicNames").IsValid() {
			from = asked.FieldByName("TopicNames") // what old versions of DeleteTopics have
		}
		switch {
		case !from.IsValid() || name == "Version" || name == "UnknownTags":
		case to.Kind() == reflect.Slice && from.Kind() == reflect.Slice && to.Type().Elem().Kind() == reflect.Struct:
			for j := range from.Len() {
				element := reflect.New(to.Type().Elem())
				setDefaults(element)
				if from.Type().Elem().Kind() == reflect.Struct {
					echo(element.Elem(), from.Index(j))
				} else {
					set(element.Elem().FieldByName("Topic"), from.Index(j))
					set(element.Elem().FieldByName("Partition"), from.Index(j))
				}
				to.Set(reflect.Append(to, element.Elem()))
			}
		default:
			set(to, from)
		}
	}
}

// set copies a field if there is one and both are of one type, but for a pointer.
func set(to, from reflect.Value) {
	switch {
	case !to.IsValid():
	case to.Type() == from.Type():
		to.Set(from)
	case to.Kind() == reflect.Pointer && to.Type().Elem() == from.Type():
		to.Set(reflect.New(from.Type()))
		to.Elem().Set(from)
	}
}
