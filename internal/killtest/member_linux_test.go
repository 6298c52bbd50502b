//go:build cluster && clients

package killtest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/flotilla-log/flotilla/client"
	"github.com/flotilla-log/flotilla/internal/grouplife"
)

// What members of groups have.
const (
	groupSession   = 10 * time.Second
	groupHeartbeat = 2 * time.Second
)

// fetchWait is long, as most partitions have nothing new when they are asked for.
const fetchWait = 2 * time.Second

// member is one life of a member of a consumer group, with its way to the nodes.
type member struct {
	*grouplife.Life
	line line
	c    *client.Client // of a native member, else nil
}

// memberKind has a member join, with one client and protocol.
type memberKind struct {
	name string
	join func(m *member, addr string) error
}

// The clients of members: ours, and franz-go's cooperative members of classic groups and
// members of groups of KIP-848.
var (
	native       = memberKind{"native", joinNative}
	kafkaClassic = memberKind{"franz-go, classic", func(m *member, addr string) error { return joinKafka(m, addr, grouplife.Classic()) }}
	kafka848     = memberKind{"franz-go, KIP-848", func(m *member, addr string) error { return joinKafka(m, addr, grouplife.Server()) }}
)

// join begins the life of a member.
func (m *member) join(kind memberKind, addr string) error {
	m.Begin()
	return kind.join(m, addr)
}

func joinNative(m *member, addr string) (err error) {
	m.c, err = client.New(client.Config{
		Bootstrap: []string{addr}, ClientID: fmt.Sprint("member-", m.Process), Dial: m.line.dial, Rand: rand.New(rand.NewPCG(uint64(m.Process), 2)),
		RequestTimeout: clientTimeout, BackoffMax: 500 * time.Millisecond,
	})
	if err != nil {
		return err
	}
	return grouplife.JoinNative(m.Life, m.c, client.GroupConfig{
		Topics: []string{stable}, MaxPollInterval: time.Minute, Consumer: client.ConsumerConfig{MaxWait: fetchWait},
	})
}

func joinKafka(m *member, addr string, protocol []kgo.Opt) error {
	return grouplife.JoinKafka(m.Life, grouplife.KafkaConfig{
		Open: kgo.NewClient,
		Options: append([]kgo.Opt{
			kgo.SeedBrokers(addr), kgo.ClientID(fmt.Sprint("member-", m.Process)), kgo.Dialer(m.line.dial),
			kgo.MetadataMinAge(500 * time.Millisecond), kgo.AlwaysRetryEOF(), kgo.ConsumeTopics(stable),
			kgo.SessionTimeout(groupSession), kgo.HeartbeatInterval(groupHeartbeat), kgo.RebalanceTimeout(2 * groupSession), kgo.FetchMaxWait(fetchWait),
		}, protocol...),
		Abandon: func(cl *kgo.Client) {
			ended, cancel := context.WithCancel(context.Background())
			cancel()
			cl.AllowRebalance()
			_ = cl.LeaveGroupContext(ended) // without a word
			cl.Close()
		},
	})
}

// leave ends the life in good order.
func (m *member) leave() {
	m.Leave(groupSession)
	m.end()
}

// die ends the life: whatever the client says from here on, nobody hears it.
func (m *member) die() {
	m.Die(func() { m.line.cut(true) })
	m.end()
}

// end closes what is the member's own.
func (m *member) end() {
	if m.c != nil {
		_ = m.c.Close()
	}
}

// line is a member's way to the nodes.
type line struct {
	mu    sync.Mutex
	isCut bool
	conns map[net.Conn]bool
}

// errCut is what a member hears whose line is cut.
var errCut = errors.New("the line is cut")

// dial opens a connection, of which cut knows.
func (l *line) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	l.mu.Lock()
	isCut := l.isCut
	l.mu.Unlock()
	if isCut {
		return nil, errCut
	}
	conn, err := (&net.Dialer{Timeout: 2 * time.Second}).DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.isCut {
		_ = conn.Close()
		return nil, errCut
	}
	if l.conns == nil {
		l.conns = make(map[net.Conn]bool)
	}
	l.conns[conn] = true
	return &lineConn{conn, l}, nil
}

// cut ends all connections, and lets no new one be opened until it is told otherwise.
func (l *line) cut(isCut bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.isCut = isCut
	if !isCut {
		return
	}
	for conn := range l.conns {
		_ = conn.Close()
	}
	clear(l.conns)
}

// lineConn is a connection that its line forgets when it is closed.
type lineConn struct {
	net.Conn
	l *line
}

func (c *lineConn) Close() error {
	c.l.mu.Lock()
	delete(c.l.conns, c.Conn)
	c.l.mu.Unlock()
	return c.Conn.Close()
}
