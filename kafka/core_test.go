package kafka_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/flotilla-log/flotilla/internal/errcode"
	"github.com/flotilla-log/flotilla/internal/netsim"
	"github.com/flotilla-log/flotilla/internal/node"
	"github.com/flotilla-log/flotilla/internal/vfs"
)

// patience bounds what would otherwise hang a failing test. It is no assertion: under the
// race detector on a slow machine all tests of the package share one CPU.
const patience = 2 * time.Minute

// core is a node, and what it logs.
type core struct {
	*node.Node
	addr, other string // its listeners'
	log         *logBuffer
}

// startCore starts a node with two listeners, the second one called "outside" and
// advertised as broker.example.org:19092.
func startCore(t testing.TB, edit func(*node.Options)) core {
	t.Helper()
	var ls [2]net.Listener
	for i := range ls {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		ls[i] = l
	}
	return startOn(t, ls, edit)
}

// startOn starts a node with these two listeners.
func startOn(t testing.TB, ls [2]net.Listener, edit func(*node.Options)) core {
	t.Helper()
	log := new(logBuffer)
	opt := node.Options{
		FS: vfs.NewMem(1), Dir: "data", NodeID: 7, Version: "test", Listener: ls[0],
		MoreListeners: []node.Listener{{Listener: ls[1], Name: "outside", Advertise: "broker.example.org:19092"}},
		JournalBytes:  64 << 20, JournalFileBytes: 8 << 20, MemoryBytes: 64 << 20,
		Now: time.Now, Rand: rand.Reader, Log: slog.New(slog.NewTextHandler(log, nil)),
		Resolve: func(context.Context, string) error { return errors.New("no such host") },
	}
	if edit != nil {
		edit(&opt)
	}
	n, err := node.Start(t.Context(), opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(context.Background()); err != nil {
			t.Error("close:", err)
		}
	})
	return core{n, ls[0].Addr().String(), ls[1].Addr().String(), log}
}

// logBuffer is a log that a test reads.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// await waits until the log has text n times.
func (l *logBuffer) await(t *testing.T, text string, n int) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); strings.Count(l.String(), text) < n; <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("the log has not %q %d times: %s", text, n, l.String())
		}
	}
}

// rawClient sends requests of any kind and version.
type rawClient struct {
	t  testing.TB
	nc net.Conn
	id int32
}

func dialRaw(t testing.TB, addr string) *rawClient {
	t.Helper()
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = nc.Close() })
	return &rawClient{t: t, nc: netsim.Patient{Conn: nc, Patience: patience}}
}

// start sends a request.
func (c *rawClient) start(req kmsg.Request) {
	c.t.Helper()
	c.id++
	if _, err := c.nc.Write(kmsg.NewRequestFormatter(kmsg.FormatterClientID("test")).AppendRequest(nil, req, c.id)); err != nil {
		c.t.Fatal(err)
	}
}

// ask sends a request at a version and returns its answer, which has to be of
// that version to its last byte.
func (c *rawClient) ask(req kmsg.Request, version int16) kmsg.Response {
	c.t.Helper()
	req.SetVersion(version)
	c.start(req)
	resp := req.ResponseKind()
	c.answer(resp, req.IsFlexible() && req.Key() != int16(kmsg.ApiVersions))
	return resp
}

func (c *rawClient) answer(resp kmsg.Response, tagged bool) {
	c.t.Helper()
	var prefix [8]byte
	if _, err := io.ReadFull(c.nc, prefix[:]); err != nil {
		c.t.Fatal(err)
	}
	b := make([]byte, binary.BigEndian.Uint32(prefix[:])-4)
	if _, err := io.ReadFull(c.nc, b); err != nil {
		c.t.Fatal(err)
	}
	if id := int32(binary.BigEndian.Uint32(prefix[4:])); id != c.id {
		c.t.Fatalf("answer %d, want %d", id, c.id)
	}
	if tagged {
		b = b[1:]
	}
	if err := resp.ReadFrom(b); err != nil {
		c.t.Fatal(err)
	}
	if again := resp.AppendTo(nil); len(again) != len(b) {
		c.t.Fatalf("an answer of %d bytes, of which %d are read", len(b), len(again))
	}
}

// metadata asks for topics; nil: all.
func (c *rawClient) metadata(version int16, create bool, names ...string) *kmsg.MetadataResponse {
	c.t.Helper()
	req := kmsg.NewPtrMetadataRequest()
	req.AllowAutoTopicCreation = create
	for _, name := range names {
		req.Topics = append(req.Topics, kmsg.MetadataRequestTopic{Topic: &name})
	}
	return c.ask(req, version).(*kmsg.MetadataResponse)
}

func TestAPIVersions(t *testing.T) {
	t.Parallel()
	c := dialRaw(t, startCore(t, nil).addr)
	for v := range int16(5) {
		req := kmsg.NewPtrApiVersionsRequest()
		req.ClientSoftwareName, req.ClientSoftwareVersion = "apache-kafka-java", "4.4.0"
		r := c.ask(req, v).(*kmsg.ApiVersionsResponse)
		if r.ErrorCode != 0 || len(r.ApiKeys) < 4 {
			t.Errorf("version %d: %+v", v, r)
		}
		if v >= 3 && r.FinalizedFeaturesEpoch <= 0 {
			t.Errorf("version %d: epoch %d of the features", v, r.FinalizedFeaturesEpoch)
		}
		for _, want := range []kmsg.ApiVersionsResponseApiKey{{ApiKey: 18, MaxVersion: 4}, {ApiKey: 3, MaxVersion: 13}, {ApiKey: 60, MaxVersion: 2}, {ApiKey: 75}} {
			if !slices.ContainsFunc(r.ApiKeys, func(k kmsg.ApiVersionsResponseApiKey) bool {
				return k.ApiKey == want.ApiKey && k.MinVersion == want.MinVersion && k.MaxVersion == want.MaxVersion
			}) {
				t.Errorf("version %d: no %+v in %+v", v, want, r.ApiKeys)
			}
		}
	}
}

// TestAPIVersionsTooNew: the answer is of version 0, and the connection goes on.
func TestAPIVersionsTooNew(t *testing.T) {
	t.Parallel()
	c := dialRaw(t, startCore(t, nil).addr)
	for _, v := range []uint16{5, 99, 0x7fff, 0xffff} {
		c.id++
		b := []byte{0, 0, 0, 14, 0, 18, byte(v >> 8), byte(v), 0, 0, 0, byte(c.id), 0, 1, 'c', 1, 0xff, 0xff}
		if _, err := c.nc.Write(b); err != nil {
			t.Fatal(err)
		}
		r := kmsg.NewPtrApiVersionsResponse()
		c.answer(r, false)
		if r.ErrorCode != int16(errcode.UnsupportedVersion) || len(r.ApiKeys) != 1 || r.ApiKeys[0].ApiKey != 18 || r.ApiKeys[0].MaxVersion != 4 {
			t.Errorf("version %d: %+v", v, r)
		}
	}
	if r := c.metadata(13, false); r.ErrorCode != 0 {
		t.Errorf("after them: %+v", r)
	}
}

func TestAPIVersionsSoftware(t *testing.T) {
	t.Parallel()
	c := dialRaw(t, startCore(t, nil).addr)
	tests := []struct {
		name, version string
		ok            bool
	}{
		{"apache-kafka-java", "4.4.0-SNAPSHOT", true}, {"a", "1", true}, {"kgo", "unknown", true},
		{"", "1", false}, {"a", "", false}, {"-a", "1", false}, {"a", "1.", false}, {"a b", "1", false}, {"a\n", "1", false}, {"ä", "1", false},
		{strings.Repeat("a", 255), "1", true}, {strings.Repeat("a", 256), "1", false},
	}
	for _, tt := range tests {
		req := kmsg.NewPtrApiVersionsRequest()
		req.ClientSoftwareName, req.ClientSoftwareVersion = tt.name, tt.version
		r := c.ask(req, 4).(*kmsg.ApiVersionsResponse)
		if want := errcode.InvalidRequest; tt.ok != (r.ErrorCode == 0) || !tt.ok && r.ErrorCode != int16(want) || !tt.ok && len(r.ApiKeys) > 0 {
			t.Errorf("%q %q: %+v", tt.name, tt.version, r)
		}
	}
}

func TestMetadata(t *testing.T) {
	t.Parallel()
	n := startCore(t, nil)
	c := dialRaw(t, n.addr)
	made := c.metadata(13, true, "a", "b", "a")
	if len(made.Topics) != 2 || made.Topics[0].ErrorCode != 0 || made.Topics[0].TopicID == [16]byte{} {
		t.Fatalf("made %+v", made)
	}
	for v := range int16(14) {
		names := func(req *kmsg.MetadataRequest) (out []string) {
			r := c.ask(req, v).(*kmsg.MetadataResponse)
			for i := range r.Topics {
				tp := &r.Topics[i]
				if tp.ErrorCode != 0 || len(tp.Partitions) != 1 || tp.IsInternal {
					t.Errorf("version %d: %+v", v, tp)
					continue
				}
				p := tp.Partitions[0]
				if p.ErrorCode != 0 || p.Leader != 7 || !slices.Equal(p.Replicas, []int32{7}) || !slices.Equal(p.ISR, []int32{7}) || len(p.OfflineReplicas) > 0 {
					t.Errorf("version %d: %+v", v, p)
				}
				if (v >= 7) != (p.LeaderEpoch > 0) || (v >= 10) != (tp.TopicID != [16]byte{}) {
					t.Errorf("version %d: epoch %d, topic id %x", v, p.LeaderEpoch, tp.TopicID)
				}
				if tp.AuthorizedOperations != math.MinInt32 {
					t.Errorf("version %d: operations %d", v, tp.AuthorizedOperations)
				}
				out = append(out, *tp.Topic)
			}
			host, port, _ := net.SplitHostPort(n.addr)
			if len(r.Brokers) != 1 || r.Brokers[0].NodeID != 7 || r.Brokers[0].Host != host || r.Brokers[0].Rack != nil || port == "" {
				t.Errorf("version %d: brokers %+v", v, r.Brokers)
			}
			if v >= 1 && r.ControllerID != 7 || (v >= 2) != (r.ClusterID != nil) {
				t.Errorf("version %d: %+v", v, r)
			}
			return out
		}
		null, empty := kmsg.NewPtrMetadataRequest(), kmsg.NewPtrMetadataRequest()
		empty.Topics = []kmsg.MetadataRequestTopic{}
		want := []string{"a", "b"}
		if got := names(null); !slices.Equal(got, want) {
			t.Errorf("version %d: all are %v", v, got)
		}
		if v > 0 {
			want = nil
		}
		if got := names(empty); !slices.Equal(got, want) {
			t.Errorf("version %d: none are %v", v, got)
		}
	}
}

func TestMetadataByID(t *testing.T) {
	t.Parallel()
	c := dialRaw(t, startCore(t, nil).addr)
	id := c.metadata(13, true, "a").Topics[0].TopicID
	byID := func(version int16, id [16]byte, name *string) kmsg.MetadataResponseTopic {
		req := kmsg.NewPtrMetadataRequest()
		req.Topics = []kmsg.MetadataRequestTopic{{TopicID: id, Topic: name}}
		return c.ask(req, version).(*kmsg.MetadataResponse).Topics[0]
	}
	for v := int16(12); v <= 13; v++ {
		if r := byID(v, id, nil); r.ErrorCode != 0 || r.Topic == nil || *r.Topic != "a" || len(r.Partitions) != 1 {
			t.Errorf("version %d: %+v", v, r)
		}
		if r := byID(v, [16]byte{1}, nil); r.ErrorCode != int16(errcode.UnknownTopicID) || r.Topic != nil || r.TopicID != [16]byte{1} {
			t.Errorf("version %d, unknown: %+v", v, r)
		}
	}
	name := "a"
	for v := int16(10); v <= 11; v++ {
		if r := byID(v, id, &name); r.ErrorCode != int16(errcode.InvalidRequest) {
			t.Errorf("version %d: %+v", v, r)
		}
	}
}

func TestMetadataMissing(t *testing.T) {
	t.Parallel()
	for _, auto := range []bool{true, false} {
		c := dialRaw(t, startCore(t, func(opt *node.Options) { opt.NoAutoCreateTopics = !auto }).addr)
		for v := range int16(14) {
			want := errcode.UnknownTopicOrPartition
			if auto && v < 4 { // which cannot say that they do not want it
				want = errcode.None
			}
			r := c.metadata(v, false, "missing-"+string('a'+rune(v)), "not a name", "__consumer_offsets")
			for i, want := range []errcode.Code{want, errcode.InvalidTopic, errcode.UnknownTopicOrPartition} {
				if got := r.Topics[i]; got.ErrorCode != int16(want) || got.IsInternal != (i == 2 && v >= 1) {
					t.Errorf("auto %t, version %d, topic %d: %+v, want %v", auto, v, i, got, want)
				}
			}
		}
		r := c.metadata(12, true, "x")
		if want := map[bool]errcode.Code{true: errcode.None, false: errcode.UnknownTopicOrPartition}[auto]; r.Topics[0].ErrorCode != int16(want) {
			t.Errorf("auto %t: %+v", auto, r.Topics[0])
		}
	}
}

func TestMetadataOperations(t *testing.T) {
	t.Parallel()
	c := dialRaw(t, startCore(t, nil).addr)
	for v := int16(8); v <= 13; v++ {
		name := "a"
		req := kmsg.NewPtrMetadataRequest()
		req.Topics = []kmsg.MetadataRequestTopic{{Topic: &name}}
		req.AllowAutoTopicCreation, req.IncludeClusterAuthorizedOperations, req.IncludeTopicAuthorizedOperations = true, true, true
		r := c.ask(req, v).(*kmsg.MetadataResponse)
		if r.Topics[0].AuthorizedOperations != 3576 || v <= 10 && r.AuthorizedOperations != 8096 {
			t.Errorf("version %d: %d, %d", v, r.AuthorizedOperations, r.Topics[0].AuthorizedOperations)
		}
	}
}

func TestDescribeCluster(t *testing.T) {
	t.Parallel()
	n := startCore(t, nil)
	c := dialRaw(t, n.addr)
	for v := range int16(3) {
		req := kmsg.NewPtrDescribeClusterRequest()
		req.IncludeClusterAuthorizedOperations = v == 1
		r := c.ask(req, v).(*kmsg.DescribeClusterResponse)
		if r.ErrorCode != 0 || r.ClusterID != n.ClusterID() || r.ControllerID != 7 || len(r.Brokers) != 1 || r.Brokers[0].NodeID != 7 {
			t.Errorf("version %d: %+v", v, r)
		}
		if want := map[bool]int32{true: 8096, false: math.MinInt32}[v == 1]; r.ClusterAuthorizedOperations != want {
			t.Errorf("version %d: operations %d", v, r.ClusterAuthorizedOperations)
		}
	}
	for typ, want := range map[int8]errcode.Code{2: errcode.MismatchedEndpointType, 0: errcode.UnsupportedEndpointType, 9: errcode.UnsupportedEndpointType} {
		req := kmsg.NewPtrDescribeClusterRequest()
		req.EndpointType = typ
		if r := c.ask(req, 2).(*kmsg.DescribeClusterResponse); r.ErrorCode != int16(want) || r.ErrorMessage == nil || len(r.Brokers) > 0 {
			t.Errorf("type %d: %+v", typ, r)
		}
	}
}

// TestListeners: each listener's clients are told its own address.
func TestListeners(t *testing.T) {
	t.Parallel()
	n := startCore(t, nil)
	host, _, _ := net.SplitHostPort(n.addr)
	for addr, want := range map[string]string{n.addr: host, n.other: "broker.example.org"} {
		c := dialRaw(t, addr)
		if r := c.metadata(12, false); len(r.Brokers) != 1 || r.Brokers[0].Host != want {
			t.Errorf("brokers %+v, want %s", r.Brokers, want)
		}
		if r := c.ask(kmsg.NewPtrDescribeClusterRequest(), 1).(*kmsg.DescribeClusterResponse); len(r.Brokers) != 1 || r.Brokers[0].Host != want {
			t.Errorf("brokers %+v, want %s", r.Brokers, want)
		}
	}
	if r := dialRaw(t, n.other).metadata(12, false); r.Brokers[0].Port != 19092 {
		t.Errorf("port %d", r.Brokers[0].Port)
	}
	n.log.await(t, "advertise=broker.example.org:19092 because=", 1)
	if out := n.log.String(); strings.Count(out, "can hardly reach") != 1 || !strings.Contains(out, "set advertise to") {
		t.Errorf("log: %s", out)
	}
}

// TestAdvertisedNowhere: the log says which setting to change.
func TestAdvertisedNowhere(t *testing.T) {
	t.Parallel()
	for _, addr := range []string{"0.0.0.0:9092", "[::]:9092"} {
		n := startCore(t, func(opt *node.Options) { opt.Advertise = addr })
		c := dialRaw(t, n.addr)
		for range 3 {
			c.metadata(12, false)
		}
		if out := n.log.String(); strings.Count(out, "can hardly reach; set advertise to the HOST:PORT") != 1 || !strings.Contains(out, "advertise="+addr) {
			t.Errorf("%s: log: %s", addr, out)
		}
	}
}

// TestForeign speaks other protocols to the port.
func TestForeign(t *testing.T) {
	t.Parallel()
	n := startCore(t, nil)
	good := dialRaw(t, n.addr)
	tests := []struct{ name, in, log string }{
		{"HTTP", "GET / HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP spoken to the port of clients"},
		{"TLS", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "TLS spoken to the port of clients"},
		{"4 GiB", "\xff\xff\xff\xff\x00\x12\x00\x04\x00\x00\x00\x01", "unknown spoken to the port of clients"},
		{"above the limit", "\x10\x00\x00\x00\x00\x12\x00\x04\x00\x00\x00\x01", "(request.bytes.max)"},
	}
	for _, tt := range tests {
		n := startCore(t, nil) // each has a log of its own
		c := dialRaw(t, n.addr)
		if _, err := io.WriteString(c.nc, tt.in); err != nil {
			t.Fatal(err)
		}
		if b, _ := io.ReadAll(c.nc); len(b) > 0 {
			t.Errorf("%s is answered by %q", tt.name, b)
		}
		n.log.await(t, tt.log, 1)
	}
	for range 50 {
		c := dialRaw(t, n.addr)
		_, _ = io.WriteString(c.nc, "POST / HTTP/1.1\r\n\r\n")
		_, _ = io.ReadAll(c.nc)
	}
	if got := strings.Count(n.log.String(), "HTTP spoken"); got != 1 {
		t.Errorf("%d lines about it", got)
	}
	if r := good.metadata(12, false); r.ErrorCode != 0 {
		t.Errorf("the others: %+v", r)
	}
}

func TestDescribeTopicPartitions(t *testing.T) {
	t.Parallel()
	c := dialRaw(t, startCore(t, nil).addr)
	for _, name := range []string{"a", "b", "c"} {
		if r := c.metadata(12, true, name); r.Topics[0].ErrorCode != 0 {
			t.Fatalf("%+v", r.Topics[0])
		}
	}
	ask := func(limit int32, cursor *kmsg.DescribeTopicPartitionsRequestCursor, names ...string) *kmsg.DescribeTopicPartitionsResponse {
		req := kmsg.NewPtrDescribeTopicPartitionsRequest()
		req.ResponsePartitionLimit, req.Cursor = limit, cursor
		for _, name := range names {
			req.Topics = append(req.Topics, kmsg.DescribeTopicPartitionsRequestTopic{Topic: name})
		}
		return c.ask(req, 0).(*kmsg.DescribeTopicPartitionsResponse)
	}
	at := func(topic string, partition int32) *kmsg.DescribeTopicPartitionsRequestCursor {
		return &kmsg.DescribeTopicPartitionsRequestCursor{Topic: topic, Partition: partition}
	}
	list := func(r *kmsg.DescribeTopicPartitionsResponse) string {
		var out []string
		for i := range r.Topics {
			tp := &r.Topics[i]
			s := *tp.Topic
			if tp.ErrorCode != 0 {
				s += "!" + errcode.Code(tp.ErrorCode).Name()
			}
			for _, p := range tp.Partitions {
				s += "/" + string('0'+rune(p.Partition))
				if p.LeaderID != 7 || p.LeaderEpoch <= 0 || !slices.Equal(p.Replicas, []int32{7}) || p.EligibleLeaderReplicas == nil || p.LastKnownELR == nil {
					t.Errorf("%+v", p)
				}
			}
			out = append(out, s)
		}
		if c := r.NextCursor; c != nil {
			out = append(out, "next "+c.Topic+"/"+string('0'+rune(c.Partition)))
		}
		return strings.Join(out, " ")
	}
	tests := []struct {
		limit  int32
		cursor *kmsg.DescribeTopicPartitionsRequestCursor
		names  []string
		want   string
	}{
		{2000, nil, nil, "a/0 b/0 c/0"},
		{2, nil, nil, "a/0 b/0 next c/0"},
		{0, nil, nil, "a/0 next b/0"},
		{2000, at("b", 0), nil, "b/0 c/0"},
		{2000, at("b", 1), nil, "b c/0"},
		{2000, at("bb", 0), nil, "c/0"},
		{2000, nil, []string{"c", "a", "c"}, "a/0 c/0"},
		{1, nil, []string{"c", "a", "c"}, "a/0 next c/0"},
		{2000, at("c", 0), []string{"c", "a"}, "c/0"},
		{2000, nil, []string{"no", "not a name"}, "no!UNKNOWN_TOPIC_OR_PARTITION not a name!INVALID_TOPIC_EXCEPTION"},
		{2000, at("b", 0), []string{"a"}, "a!INVALID_REQUEST"},
		{2000, at("a", -1), []string{"a"}, "a!INVALID_REQUEST"},
	}
	for _, tt := range tests {
		if got := list(ask(tt.limit, tt.cursor, tt.names...)); got != tt.want {
			t.Errorf("limit %d, cursor %+v, names %q: %q, want %q", tt.limit, tt.cursor, tt.names, got, tt.want)
		}
	}
}

// BenchmarkMetadata asks for topics of one partition each: by name, and all. The
// client's own work is in it.
func BenchmarkMetadata(b *testing.B) {
	const topics = 1000
	c := dialRaw(b, startCore(b, nil).addr)
	names := make([]string, topics)
	for i := range names {
		names[i] = fmt.Sprintf("topic-%04d", i)
	}
	if r := c.metadata(12, true, names...); r.Topics[topics-1].ErrorCode != 0 {
		b.Fatalf("%+v", r.Topics[topics-1])
	}
	for _, n := range []int{1, topics} {
		b.Run(fmt.Sprintf("topics=%d", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				c.metadata(12, false, names[:n]...)
			}
		})
	}
}

// TestSharedLimits: connections of all listeners count together.
func TestSharedLimits(t *testing.T) {
	t.Parallel()
	n := startCore(t, func(opt *node.Options) { opt.Clients.Connections = 2 })
	for _, addr := range []string{n.addr, n.other} {
		dialRaw(t, addr).metadata(12, false)
	}
	for i, addr := range []string{n.addr, n.other} {
		c := dialRaw(t, addr)
		if b, _ := io.ReadAll(c.nc); len(b) > 0 {
			t.Errorf("one too many is answered by %x", b)
		}
		n.log.await(t, "(connections.max)", i+1)
	}
}
