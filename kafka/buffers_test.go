package kafka

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"reflect"
	"slices"
	"sync"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/flotilla-log/flotilla/broker"
	"github.com/flotilla-log/flotilla/internal/errcode"
)

// shelf is a lender that keeps all it is given, overwrites it, and lends it
// again before anything else.
type shelf struct {
	mu    sync.Mutex
	bufs  [][]byte
	given int
	again int // that were lent more than once
}

func (s *shelf) Take(n int) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, b := range s.bufs {
		if cap(b) >= n {
			s.bufs = append(s.bufs[:i], s.bufs[i+1:]...)
			s.again++
			return b[:0]
		}
	}
	return nil
}

func (s *shelf) Give(buf []byte) {
	buf = buf[:cap(buf)]
	for i := range buf {
		buf[i] = 0xdb
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.bufs = append(s.bufs, buf)
	s.given++
}

// lentRequests are requests whose answers repeat what they hold, each of more
// than a connection's read buffer and with a text of its own, and how to tell
// that an answer is theirs.
var lentRequests = []struct {
	name string
	api  api
	make func(text string) kmsg.Request
	ok   func(resp kmsg.Response, text string) bool
}{
	{
		"decoded by kmsg, bytes", ordinary(kmsg.SASLAuthenticate, 0, 2, func(_ *Server, _ context.Context, _ *peer, req *kmsg.SASLAuthenticateRequest) kmsg.Response {
			resp := kmsg.NewPtrSASLAuthenticateResponse()
			resp.SASLAuthBytes = req.SASLAuthBytes // which alias the request
			return resp
		}),
		func(text string) kmsg.Request {
			req := kmsg.NewPtrSASLAuthenticateRequest()
			req.Version, req.SASLAuthBytes = 2, bytes.Repeat([]byte(text), 1000)
			return req
		},
		func(resp kmsg.Response, text string) bool {
			return bytes.Equal(resp.(*kmsg.SASLAuthenticateResponse).SASLAuthBytes, bytes.Repeat([]byte(text), 1000))
		},
	},
	{
		"decoded by kmsg, strings", ordinary(kmsg.DescribeTopicPartitions, 0, 0, func(_ *Server, _ context.Context, _ *peer, req *kmsg.DescribeTopicPartitionsRequest) kmsg.Response {
			resp := kmsg.NewPtrDescribeTopicPartitionsResponse()
			for _, t := range req.Topics {
				resp.Topics = append(resp.Topics, kmsg.DescribeTopicPartitionsResponseTopic{Topic: &t.Topic})
			}
			return resp
		}),
		func(text string) kmsg.Request {
			req := kmsg.NewPtrDescribeTopicPartitionsRequest()
			for range 1000 {
				req.Topics = append(req.Topics, kmsg.DescribeTopicPartitionsRequestTopic{Topic: text})
			}
			return req
		},
		func(resp kmsg.Response, text string) bool {
			r := resp.(*kmsg.DescribeTopicPartitionsResponse)
			return len(r.Topics) == 1000 && *r.Topics[0].Topic == text && *r.Topics[999].Topic == text
		},
	},
	{
		"Fetch", dataAPIs[1], // of a replica, which is refused without a broker
		func(text string) kmsg.Request {
			req := kmsg.NewPtrFetchRequest()
			req.Version, req.ReplicaID = 12, 5
			for i := range 1000 {
				rt := kmsg.NewFetchRequestTopic()
				rt.Topic, rt.Partitions = fmt.Sprint(text, i), []kmsg.FetchRequestTopicPartition{kmsg.NewFetchRequestTopicPartition()}
				req.Topics = append(req.Topics, rt)
			}
			return req
		},
		func(resp kmsg.Response, text string) bool {
			r := resp.(*kmsg.FetchResponse)
			return len(r.Topics) == 1000 && r.Topics[0].Topic == text+"0" && r.Topics[999].Topic == text+"999"
		},
	},
	{
		"Produce", dataAPIs[0], // with impossible acks, which are refused without a broker
		func(text string) kmsg.Request {
			req := kmsg.NewPtrProduceRequest()
			req.Version, req.Acks = 9, 7
			for i := range 1000 {
				rt := kmsg.NewProduceRequestTopic()
				rt.Topic, rt.Partitions = fmt.Sprint(text, i), []kmsg.ProduceRequestTopicPartition{kmsg.NewProduceRequestTopicPartition()}
				req.Topics = append(req.Topics, rt)
			}
			return req
		},
		func(resp kmsg.Response, text string) bool {
			r := resp.(*kmsg.ProduceResponse)
			return len(r.Topics) == 1000 && r.Topics[0].Topic == text+"0" && r.Topics[999].Topic == text+"999"
		},
	},
}

// TestBuffersAreLent: the buffer of a request is lent to the next one when it is
// answered, and by then no answer points into it: it is overwritten, and all
// answers are right, though others come before they are written.
func TestBuffersAreLent(t *testing.T) {
	t.Parallel()
	for _, tt := range lentRequests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := newTestServer(t, Options{}, tt.api)
			lent := new(shelf)
			s.buffers = lent
			nc := dial(t, s)
			const rounds = 8
			var all []byte
			for i := range int32(rounds) {
				all = append(all, frameOf(tt.make(fmt.Sprintf("text-%d", i)), i)...)
			}
			go send(nc, all)
			for i := range int32(rounds) {
				text := fmt.Sprintf("text-%d", i)
				if id, resp := readAnswer(t, nc, tt.make(text)); id != i || !tt.ok(resp, text) {
					t.Errorf("answer %d is %d, or not to what was asked", i, id)
				}
			}
			before := lent.again
			for i := range int32(rounds) {
				go send(nc, frameOf(tt.make("text"), i))
				readAnswer(t, nc, tt.make("text"))
			}
			if lent.again != before+rounds {
				t.Errorf("of %d requests one after the other, %d had a buffer again; %d were given", rounds, lent.again-before, lent.given)
			}
		})
	}
}

// TestRequestsHoldNoBytes: of the requests that are decoded by kmsg, those that
// are served hold nothing that aliases their bytes but unknown tags, which no
// handler looks at. One that does has to copy what it keeps: see api.handle.
func TestRequestsHoldNoBytes(t *testing.T) {
	t.Parallel()
	var look func(path string, typ reflect.Type)
	look = func(path string, typ reflect.Type) {
		switch typ.Kind() {
		case reflect.Pointer:
			look(path, typ.Elem())
		case reflect.Slice:
			if typ.Elem().Kind() == reflect.Uint8 {
				t.Errorf("%s is bytes", path)
				return
			}
			look(path, typ.Elem())
		case reflect.Struct:
			for i := range typ.NumField() {
				if f := typ.Field(i); f.Type != reflect.TypeFor[kmsg.Tags]() {
					look(path+"."+f.Name, f.Type)
				}
			}
		}
	}
	for _, apis := range [][]api{coreAPIs, adminAPIs} {
		for _, a := range apis {
			look(kmsg.NameForKey(a.key), reflect.TypeOf(kmsg.RequestForKey(a.key)))
		}
	}
}

// TestGrownBuffersAreLent: the buffers that a large request has outgrown while it
// came in are lent again, and not only the last.
func TestGrownBuffersAreLent(t *testing.T) {
	t.Parallel()
	s := newTestServer(t, Options{}, pinger(echo))
	lent := new(shelf)
	s.buffers = lent
	nc := dial(t, s)
	b := append(frameOf(ping(1), 1), make([]byte, 1<<20)...) // bytes after a request are nobody's
	binary.BigEndian.PutUint32(b, uint32(len(b)-lengthBytes))
	go send(nc, b)
	readAnswer(t, nc, ping(1))
	var sizes []int
	for _, buf := range lent.bufs {
		sizes = append(sizes, cap(buf)>>10)
	}
	if want := []int{0, 64, 256, 1024, 1152}; !slices.Equal(sizes, want) {
		t.Errorf("buffers of %d KiB are lent again, want %d", sizes, want)
	}
}

// TestProducedBufferIsLent: the buffer of a Produce is lent again when the log has
// its own copy of all batches, and not while one of them may be on its way to it.
func TestProducedBufferIsLent(t *testing.T) {
	t.Parallel()
	s := newTestServer(t, Options{}, dataAPIs...)
	for _, failed := range []bool{false, true} {
		lent := new(shelf)
		s.buffers = lent
		q := &request{conn: &conn{s: s, log: s.log, inflight: make(chan struct{}, 1)}, api: s.apis.find(int16(kmsg.Produce)), version: 9, ready: make(chan struct{})}
		q.peer.conn, q.peer.req = q.conn, q
		p := &producing{
			request: q, m: &produceRequest{acks: -1, topics: make([]produceTopic, 1), parts: make([]producePart, 2)},
			raw: make([]byte, 100), results: make([]produced, 2), sent: []int{0, 1},
		}
		results := make([]broker.ProduceResult, 2)
		want := 1
		if failed {
			results[1].Err = errcode.Errorf(errcode.RequestTimedOut, "late")
			want = 0
		}
		p.done(results)
		if err := q.answer.err; err != nil || lent.given != want {
			t.Errorf("one of two batches failed: %t; %d buffers are lent again, want %d (%v)", failed, lent.given, want, err)
		}
	}
}
