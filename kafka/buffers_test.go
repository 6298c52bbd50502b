package kafka

import (
	"bytes"
	"context"
	"fmt"
	"reflect"
	"sync"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"
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
