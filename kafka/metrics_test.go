package kafka_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/flotilla-log/flotilla/internal/node"
	"github.com/flotilla-log/flotilla/log/batch"
)

// scraper reads a node's metrics.
type scraper struct {
	t    testing.TB
	addr string
}

// listenMetrics makes a node have metrics.
func listenMetrics(t testing.TB, edit func(*node.Options)) (scraper, func(*node.Options)) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return scraper{t, l.Addr().String()}, func(opt *node.Options) {
		opt.Admin = l
		if edit != nil {
			edit(opt)
		}
	}
}

// series returns the values of all series that match a regular expression, by
// what they are called, labels and all.
func (s scraper) series(match string) map[string]float64 {
	s.t.Helper()
	resp, err := http.Get("http://" + s.addr + "/metrics")
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	out := make(map[string]float64)
	for _, m := range regexp.MustCompile(`(?m)^([a-z_]+(?:\{.*\})?) (\S+)$`).FindAllStringSubmatch(string(text), -1) {
		if regexp.MustCompile(match).MatchString(m[1]) {
			if out[m[1]], err = strconv.ParseFloat(m[2], 64); err != nil {
				s.t.Fatal(err)
			}
		}
	}
	return out
}

// await waits until series have these values: what they count happens on other
// goroutines.
func (s scraper) await(when string, want map[string]float64) {
	s.t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); ; <-tick.C {
		all, wrong := s.series(""), ""
		for name, v := range want {
			if got, ok := all[name]; !ok || got != v {
				wrong += fmt.Sprintf("\n%s is %v (there: %t), want %v", name, got, ok, v)
			}
		}
		if wrong == "" {
			return
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("%s:%s", when, wrong)
		}
	}
}

// TestMetrics: what Kafka's clients do moves the series that docs/metrics.md names
// for it, by as much as they did.
func TestMetrics(t *testing.T) {
	t.Parallel()
	m, edit := listenMetrics(t, func(opt *node.Options) { opt.Clients.Connections = 3 })
	n := startCore(t, edit)
	c := dialRaw(t, n.addr)
	ids := map[string][16]byte{"a": c.create("a", 1)}
	one, two := recordsOf(t, batch.None, "one"), recordsOf(t, batch.None, "two", "three")
	before := m.series("bytes_total")
	id := c.newProducer()
	idempotent := batchOf(t, batch.Producer{ID: id}, 1_700_000_000_000)

	request := produceReq(9, -1, ids, topicPart{"a", 0, one})
	requestBytes := len(kmsg.NewRequestFormatter(kmsg.FormatterClientID("test")).AppendRequest(nil, request, 1))
	c.produce(9, ids, topicPart{"a", 0, one})
	c.produce(9, ids, topicPart{"a", 0, two})
	c.produce(9, ids, topicPart{"a", 0, idempotent})
	c.produce(9, ids, topicPart{"a", 0, idempotent})  // again
	c.produce(9, ids, topicPart{"missing", 0, one})   // refused
	c.produce(9, ids, topicPart{"a", 0, []byte("x")}) // refused
	read := len(c.fetched(fetchReq(12, ids, from{"a", 0, 0, nil}))[0].RecordBatches)
	c.fetched(fetchReq(12, ids, from{"a", 0, 99, nil})) // out of range
	session := fetchReq(12, ids)
	session.SessionID, session.SessionEpoch = 5, 5
	c.fetch(session) // not found
	c.metadata(12, false, "a", "missing")
	c.listOffsets(7, 0, "a", offsetAsk{3, -1, -1})

	written := float64(len(one) + len(two) + len(idempotent))
	if float64(read) != written {
		t.Fatalf("read %d bytes of %v", read, written)
	}
	kafka := func(name, kind string) string {
		return fmt.Sprintf("flotilla_%s{kind=%q,protocol=\"kafka\"}", name, kind)
	}
	failed := func(kind, code string) string {
		return fmt.Sprintf("flotilla_errors_total{code=%q,kind=%q,protocol=\"kafka\"}", code, kind)
	}
	m.await("after requests", map[string]float64{
		kafka("request_seconds_count", "Produce"):                                6,
		kafka("request_seconds_count", "Fetch"):                                  3,
		kafka("request_seconds_count", "Metadata"):                               1,
		kafka("request_seconds_count", "ListOffsets"):                            1,
		kafka("request_seconds_count", "CreateTopics"):                           1,
		kafka("request_seconds_count", "InitProducerID"):                         1,
		failed("Produce", "UNKNOWN_TOPIC_OR_PARTITION"):                          1,
		failed("Produce", "INVALID_RECORD"):                                      1,
		failed("Fetch", "OFFSET_OUT_OF_RANGE"):                                   1,
		failed("Fetch", "FETCH_SESSION_ID_NOT_FOUND"):                            1,
		failed("Metadata", "UNKNOWN_TOPIC_OR_PARTITION"):                         1,
		failed("ListOffsets", "UNKNOWN_TOPIC_OR_PARTITION"):                      1,
		`flotilla_topic_batches_in_total{topic="a"}`:                             3,
		`flotilla_topic_records_in_total{topic="a"}`:                             4,
		`flotilla_topic_bytes_in_total{topic="a"}`:                               written,
		`flotilla_topic_bytes_out_total{topic="a"}`:                              written,
		`flotilla_connections{protocol="kafka"}`:                                 1,
		`flotilla_connections{protocol="native"}`:                                0,
		`flotilla_connections_accepted_total{protocol="kafka"}`:                  1,
		`flotilla_connections_limit`:                                             3,
		`flotilla_requests_in_flight{protocol="kafka"}`:                          0,
		`flotilla_memory_used_bytes{for="requests"}`:                             0,
		`flotilla_memory_used_bytes{for="answers"}`:                              0,
		`flotilla_fetch_sessions`:                                                0,
		`flotilla_connections_closed_total{protocol="kafka",reason="peer"}`:      0,
		`flotilla_connections_closed_total{protocol="kafka",reason="malformed"}`: 0,
	})
	after := m.series("bytes_total")
	for name, least := range map[string]float64{"received": 6 * float64(requestBytes-len(one)), "sent": written} {
		name = fmt.Sprintf("flotilla_%s_bytes_total{protocol=\"kafka\"}", name)
		if moved := after[name] - before[name]; moved < least || moved > least+5000 {
			t.Errorf("%s moved by %v, want %v and a little", name, moved, least)
		}
	}

	// A Fetch that waits is in flight, and its session is one.
	waiting := fetchReq(12, ids, from{"a", 0, 4, nil})
	waiting.SessionEpoch = 0
	waiting.SessionID = c.fetch(waiting).SessionID
	waiting.SessionEpoch, waiting.Topics, waiting.MaxWaitMillis = 1, nil, 60_000
	c.start(waiting)
	m.await("while a Fetch waits", map[string]float64{
		`flotilla_requests_in_flight{protocol="kafka"}`: 1, `flotilla_fetch_sessions`: 1, `flotilla_fetch_session_partitions`: 1,
	})
	if err := c.nc.Close(); err != nil {
		t.Fatal(err)
	}
	m.await("when its client has gone", map[string]float64{
		`flotilla_requests_in_flight{protocol="kafka"}`: 0, `flotilla_connections{protocol="kafka"}`: 0,
		`flotilla_connections_closed_total{protocol="kafka",reason="peer"}`: 1,
	})

	// Connections that end otherwise, and one that is refused.
	for reason, in := range map[string]string{
		"malformed": "\x00\x00\x00\x09\x00\x03\x00\x0c\x00\x00\x00\x01\x00", "too_large": "\x10\x00\x00\x00\x00\x12\x00\x04\x00\x00\x00\x01",
	} {
		bad := dialRaw(t, n.addr)
		_, _ = io.WriteString(bad.nc, in)
		_, _ = io.ReadAll(bad.nc)
		m.await(reason, map[string]float64{fmt.Sprintf("flotilla_connections_closed_total{protocol=\"kafka\",reason=%q}", reason): 1})
	}
	m.await("when they are gone", map[string]float64{`flotilla_connections{protocol="kafka"}`: 0})
	for range 3 {
		dialRaw(t, n.addr).metadata(12, false)
	}
	_, _ = io.ReadAll(dialRaw(t, n.addr).nc)
	m.await("when there are as many as may be", map[string]float64{
		`flotilla_connections{protocol="kafka"}`: 3, `flotilla_connections_refused_total{protocol="unknown",reason="max"}`: 1,
	})
	for name := range m.series(`protocol="kafka"`) {
		if strings.Contains(name, "127.0.0.1") || strings.Contains(name, "test") {
			t.Errorf("%s names a client", name)
		}
	}
}
