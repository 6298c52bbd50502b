// Package client is the native Go client of a Flotilla cluster: an Admin, a Producer,
// a Consumer, a Group (a member of a consumer group) and Groups (who looks after
// them) over one set of connections.
//
// A Client keeps one connection to each node that it needs, pipelines requests
// on it, and reconnects with back-off. It learns nodes and leaders from any
// node, and learns again when an answer says that they have changed, or when one
// is overdue (Config.OverdueAfter): a node that stands still, or is cut off, keeps
// its connections, while the others have elected leaders in its place. Everything
// that can wait takes a context. All types are safe for concurrent use unless
// they say otherwise.
package client

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// Defaults of Config.
const (
	DefaultRequestTimeout = 30 * time.Second
	DefaultDialTimeout    = 10 * time.Second
	DefaultKeepAlive      = 30 * time.Second
	DefaultOverdueAfter   = 500 * time.Millisecond
	DefaultBackoffMin     = 50 * time.Millisecond
	DefaultBackoffMax     = 2 * time.Second
	DefaultMetadataMaxAge = 5 * time.Minute
)

// Config is how a Client reaches its cluster. Only Bootstrap is required.
type Config struct {
	// Bootstrap is the host:port of some nodes. One that answers is enough: the
	// others are learnt from it.
	Bootstrap []string

	// ClientID names this client in the servers' logs and quotas; at most 255
	// bytes.
	ClientID string

	// ClusterID, if set, refuses any other cluster.
	ClusterID string

	// Dial opens a connection; a net.Dialer's DialContext if nil.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)

	// Now is the clock of record timestamps and deadlines; time.Now if nil.
	Now func() time.Time

	// Rand is the source of jitter and of the partitions of records without a
	// key; randomly seeded if nil. It is used by one goroutine at a time.
	Rand rand.Source

	// Logger gets what an operator should see; discarded if nil.
	Logger *slog.Logger

	// Hooks are told what the Client does, for metrics and traces.
	Hooks Hooks

	RequestTimeout time.Duration // of one request, from its start; then its connection is closed
	DialTimeout    time.Duration // to connect, handshake included
	KeepAlive      time.Duration // silence after which a connection is probed

	// OverdueAfter is how long an answer may take before other nodes are asked
	// whether somebody else leads by now, and the one that owes it is probed. If
	// they name a newer leader, what is under way is sent to that one, and if not,
	// it is waited for, until RequestTimeout. A value from there on asks nobody.
	OverdueAfter time.Duration

	BackoffMin     time.Duration // before the second attempt; doubled for each one after it
	BackoffMax     time.Duration // limit of the doubling; each pause is cut by up to a half, at random
	MetadataMaxAge time.Duration // after which leaders are asked for again
}

// withDefaults returns cfg with every zero field filled in.
func (cfg Config) withDefaults() Config {
	if cfg.Dial == nil {
		cfg.Dial = new(net.Dialer).DialContext
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Rand == nil {
		cfg.Rand = rand.NewPCG(rand.Uint64(), rand.Uint64())
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	setDefault(&cfg.RequestTimeout, DefaultRequestTimeout)
	setDefault(&cfg.DialTimeout, DefaultDialTimeout)
	setDefault(&cfg.KeepAlive, DefaultKeepAlive)
	setDefault(&cfg.OverdueAfter, DefaultOverdueAfter)
	setDefault(&cfg.BackoffMin, DefaultBackoffMin)
	setDefault(&cfg.BackoffMax, DefaultBackoffMax)
	setDefault(&cfg.MetadataMaxAge, DefaultMetadataMaxAge)
	cfg.BackoffMax = max(cfg.BackoffMax, cfg.BackoffMin)
	return cfg
}

// setDefault replaces a zero.
func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// Client is a connection to a cluster, shared by what is made from it. Close it
// after the producers and consumers that use it.
type Client struct {
	cfg    Config
	ctx    context.Context // ends with Close: the lifetime of links and refreshes
	cancel context.CancelFunc
	wg     sync.WaitGroup
	chance chance
	meta   metadata
	links  links
	groups coordinators

	// frameBytes is the smallest limit on a frame that any server has announced;
	// 0 before the first.
	frameBytes atomic.Int64
}

// New returns a Client. It connects when the first request is made, so that an
// error here is one of the Config.
func New(cfg Config) (*Client, error) {
	if len(cfg.Bootstrap) == 0 {
		return nil, errors.New("client: no bootstrap address")
	}
	for _, addr := range cfg.Bootstrap {
		if _, _, err := net.SplitHostPort(addr); err != nil {
			return nil, fmt.Errorf("client: bootstrap: %w", err)
		}
	}
	for name, d := range map[string]time.Duration{
		"RequestTimeout": cfg.RequestTimeout, "DialTimeout": cfg.DialTimeout, "KeepAlive": cfg.KeepAlive,
		"OverdueAfter": cfg.OverdueAfter,
		"BackoffMin":   cfg.BackoffMin, "BackoffMax": cfg.BackoffMax, "MetadataMaxAge": cfg.MetadataMaxAge,
	} {
		if d < 0 {
			return nil, fmt.Errorf("client: negative %s", name)
		}
	}
	c := &Client{cfg: cfg.withDefaults()}
	c.chance.r = rand.New(c.cfg.Rand)
	c.ctx, c.cancel = context.WithCancel(context.Background())
	c.meta.init()
	c.links.byAddr = make(map[string]*link)
	c.wg.Go(c.refreshLoop)
	return c, nil
}

// Close ends all connections and waits until no goroutine of the Client is
// left. Requests still under way fail with ErrClosed.
func (c *Client) Close() error {
	c.links.close()
	c.cancel()
	c.wg.Wait()
	return nil
}

// chance is the one source of randomness, shared under a lock.
type chance struct {
	mu sync.Mutex
	r  *rand.Rand
}

// intN returns a number in [0, n).
func (ch *chance) intN(n int) int {
	ch.mu.Lock()
	defer ch.mu.Unlock()
	return ch.r.IntN(n)
}

// backoff returns how long to wait after so many failures in a row, at least 1.
func (c *Client) backoff(failures int) time.Duration {
	d := c.cfg.BackoffMin
	for range failures - 1 {
		if d *= 2; d >= c.cfg.BackoffMax {
			d = c.cfg.BackoffMax
			break
		}
	}
	return d - time.Duration(c.chance.intN(int(d/2)+1))
}

// pause waits for d, and reports whether it did so before ctx ended.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
