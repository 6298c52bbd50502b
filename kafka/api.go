package kafka

import (
	"context"
	"fmt"
	"slices"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// api is one kind of request that is served.
type api struct {
	key      int16
	min, max int16 // versions that are served, both included

	// advertised is the least version that ApiVersions lists; min, but for
	// Produce: see docs/kafka.md.
	advertised int16

	// handle answers a request that kmsg decodes; it may wait until ctx ends.
	// One of the two is set. Bytes of req, unlike its strings, alias a buffer that
	// is lent to others once the answer is encoded: what is kept of them is copied.
	handle func(s *Server, ctx context.Context, p *peer, req kmsg.Request) kmsg.Response

	// start starts a request from its bytes, on the connection's reader, or see inTurn: it may
	// wait for memory, and as Broker.Produce does, but for nothing else. It calls
	// q.send, then or later. Its
	// error closes the connection, and q.send is not called then.
	start func(c *conn, q *request) error

	// inTurn says of those that start that one is started when its turn has come, on
	// the connection's writer, if others that are not are unanswered before it: what
	// it holds once it was started it would hold for as long as they wait.
	inTurn bool

	// brief says of an ordinary api that its answer waits for nobody's request, only for
	// what was decided to be recorded, and is small as a rule: see conn.enqueue.
	brief bool

	// controlled says of an ordinary api whether the node that leads the metadata can
	// answer a request for any other: see Server.passOn. nil: it cannot.
	controlled func(kmsg.Request) bool

	name     string
	flexible int16 // the least version whose header and body are flexible
	place    int   // in the table, for the meter
}

// ordinary is an api whose requests are handled in their turn.
func ordinary[R kmsg.Request](key kmsg.Key, least, most int16, handle func(*Server, context.Context, *peer, R) kmsg.Response) api {
	return api{
		key: int16(key), min: least, max: most, advertised: least,
		handle: func(s *Server, ctx context.Context, p *peer, req kmsg.Request) kmsg.Response {
			return handle(s, ctx, p, req.(R))
		},
	}
}

// brief is an ordinary api whose answer is small as a rule, and waits for no other request.
func brief(a api) api {
	a.brief = true
	return a
}

// controlled is an ordinary api of what the node that leads the metadata does; elsewhere
// says of a request whether that may be another one than the client has asked.
func controlled[R kmsg.Request](a api, elsewhere func(R) bool) api {
	a.controlled = func(req kmsg.Request) bool { return elsewhere(req.(R)) }
	return a
}

// immediate is an api whose requests are started as they come, from their bytes.
func immediate(key kmsg.Key, least, most int16, start func(*conn, *request) error) api {
	return api{key: int16(key), min: least, max: most, advertised: least, start: start}
}

// coreAPIs are the requests about the cluster and the protocol itself.
var coreAPIs = []api{
	ordinary(kmsg.Metadata, 0, 13, (*Server).metadata),
	ordinary(kmsg.ApiVersions, 0, 4, (*Server).apiVersions),
	ordinary(kmsg.DescribeCluster, 0, 2, (*Server).describeCluster),
	ordinary(kmsg.DescribeTopicPartitions, 0, 0, (*Server).describeTopicPartitions),
}

// table is the requests that are served. It does not change.
type table struct {
	all   []api // by key
	byKey []*api
}

// newTable makes the table of some apis. It panics if an api is impossible or stands twice,
// which is a bug.
func newTable(apis ...[]api) *table {
	t := &table{all: slices.Concat(apis...), byKey: make([]*api, kmsg.MaxKey+1)}
	slices.SortFunc(t.all, func(x, y api) int { return int(x.key) - int(y.key) })
	for i := range t.all {
		a := &t.all[i]
		req := kmsg.RequestForKey(a.key)
		if req == nil || a.max > req.MaxVersion() || a.min < 0 || a.min > a.max || t.byKey[a.key] != nil {
			panic(fmt.Sprintf("kafka: api %d, versions %d to %d, is impossible or stands twice", a.key, a.min, a.max))
		}
		a.name, a.place = kmsg.NameForKey(a.key), i
		for req.SetVersion(a.flexible); a.flexible <= req.MaxVersion() && !req.IsFlexible(); req.SetVersion(a.flexible) {
			a.flexible++
		}
		t.byKey[a.key] = a
	}
	return t
}

// find returns an api, or nil.
func (t *table) find(key int16) *api {
	if key < 0 || int(key) >= len(t.byKey) {
		return nil
	}
	return t.byKey[key]
}

// names returns the names of the apis by their place.
func (t *table) names() []string {
	names := make([]string, len(t.all))
	for i := range t.all {
		names[i] = t.all[i].name
	}
	return names
}
