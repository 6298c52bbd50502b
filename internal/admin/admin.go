// Package admin serves what an operator and their tools ask a node over HTTP:
//
//	GET /metrics       Prometheus' text format, or OpenMetrics
//	GET /healthz       200 while the process can keep its promises, else 503
//	GET /readyz        200 when clients can be served, else 503, with the reasons
//	GET /debug/pprof/  Go profiles, while they are allowed
//
// It has no authentication, changes nothing, and is bounded: so many
// connections, so long for each. It answers from before the node's recovery to
// the end of its stop.
//
// The numbers come from plain counters of the packages that own them, read when
// somebody scrapes; nothing here is on a hot path. docs/metrics.md lists them,
// and a test compares.
package admin

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/flotilla-log/flotilla/broker"
)

// Bounds on what one client, or all together, can hold.
const (
	maxConnections = 128
	headerTimeout  = 5 * time.Second
	readTimeout    = 10 * time.Second
	writeTimeout   = 2 * time.Minute // above that of a profile's default of 30 s
	idleTimeout    = time.Minute
	maxHeaderBytes = 16 << 10
)

// Memory is one of the node's budgets of bytes.
type Memory struct {
	For         string // "tails", "requests" or "answers"
	Used, Limit int64  // bytes
	Waiting     int    // who waits for room
}

// Streams are those of native clients.
type Streams struct {
	Open, Partitions int
	PartitionLimit   int
	HeldBytes        int64 // of records in memory, on their way out
}

// FetchSessions are those of Kafka clients.
type FetchSessions struct {
	Open, Limit int
	Partitions  int    // in all of them
	Evicted     uint64 // to make room for others
}

// Disk is the state of the file system that holds the data.
type Disk struct {
	FreeBytes    int64
	ReserveBytes int64  // below so many free bytes nothing is taken; 0: there is no such bound
	Refuses      string // why writes are held, "" if they are not
	Entered      int64  // how often it came to that
	Refused      int64  // batches and requests that were answered so
	Err          error  // that the state could not be found out for
}

// Recovery is what the start did.
type Recovery struct {
	Took           time.Duration
	RewrittenBytes int64 // of the journal, written again because nothing proved them synced
	TornTail       bool
	SetAside       int // sets of damaged data that lie in the data directory
}

// Source is the node, as this package sees it. The functions are safe for
// concurrent use, and answer at any time between New and the end of Close.
type Source struct {
	Version, Commit string
	NodeID          int32
	Now             func() time.Time

	Broker   func() *broker.Broker // nil until it has started
	Failed   func() error          // why the node stops, nil while it does not
	Stopping func() bool           // it was told to stop
	Waiting  func() string         // what the node waits for before it serves: other nodes; "": nothing
	Recovery func() Recovery       // once Broker is not nil
	Memory   func() []Memory       // likewise
	Streams  func() Streams        // likewise
	Sessions func() FetchSessions  // likewise
	Disk     func() Disk

	Listeners       func() []broker.MeterStats // once clients are served; else nil
	ConnectionLimit func() int

	// CommitMax is how long one commit of the journal may take before the node
	// is not ready.
	CommitMax time.Duration
}

// Server is the admin listener.
type Server struct {
	src      Source
	log      *slog.Logger
	http     *http.Server
	always   bool         // profiles
	profiles atomic.Int64 // open until, in ns since 1970
}

// New returns a Server that has to Serve a listener. pprof allows profiles for
// good.
func New(src Source, log *slog.Logger, pprof bool) *Server {
	s := &Server{src: src, log: log, always: pprof}
	s.http = &http.Server{
		Handler:           s.routes(),
		ReadHeaderTimeout: headerTimeout, ReadTimeout: readTimeout, WriteTimeout: writeTimeout, IdleTimeout: idleTimeout,
		MaxHeaderBytes: maxHeaderBytes,
		ErrorLog:       slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	return s
}

func (s *Server) routes() http.Handler {
	registry := prometheus.NewRegistry()
	registry.MustRegister(
		newCollector(&s.src),
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{MaxRequestsInFlight: 4, EnableOpenMetrics: true}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { answer(w, s.src.health()) })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) { answer(w, s.src.readiness()) })
	mux.HandleFunc("GET /debug/pprof/", s.gated(pprof.Index))
	mux.HandleFunc("GET /debug/pprof/cmdline", s.gated(pprof.Cmdline))
	mux.HandleFunc("GET /debug/pprof/profile", s.gated(pprof.Profile))
	mux.HandleFunc("GET /debug/pprof/symbol", s.gated(pprof.Symbol))
	mux.HandleFunc("GET /debug/pprof/trace", s.gated(pprof.Trace))
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "flotilla "+s.src.Version+"\n\n/metrics\n/healthz\n/readyz\n/debug/pprof/\n")
	})
	return mux
}

// ServeHTTP implements http.Handler: what Serve answers, without a listener.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.http.Handler.ServeHTTP(w, r) }

// gated answers only while profiles are allowed.
func (s *Server) gated(h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if !s.always && s.src.Now().UnixNano() >= s.profiles.Load() {
			http.Error(w, "profiles are off: start the node with --admin.pprof, or send its process SIGUSR1, which allows them for ten minutes",
				http.StatusForbidden)
			return
		}
		h(w, r)
	}
}

// ProfilesFor is how long AllowProfiles lasts.
const ProfilesFor = 10 * time.Minute

// AllowProfiles allows profiles for ProfilesFor from now.
func (s *Server) AllowProfiles() { s.profiles.Store(s.src.Now().Add(ProfilesFor).UnixNano()) }

// answer writes a verdict as JSON, with the status that goes with it.
func answer(w http.ResponseWriter, v verdict) {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		panic("admin: verdict: " + err.Error())
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	if !v.OK {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	_, _ = w.Write(append(b, '\n'))
}

// Serve answers on l until Close, and then returns nil, or returns the
// listener's error. It closes l.
func (s *Server) Serve(l net.Listener) error {
	if err := s.http.Serve(newLimitListener(l, maxConnections)); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// Close lets requests under way come to their end until ctx ends, and closes
// the listener and all connections.
func (s *Server) Close(ctx context.Context) {
	if s.http.Shutdown(ctx) != nil {
		_ = s.http.Close()
	}
}

// limitListener has at most so many connections open; the others wait in the
// kernel's queue.
type limitListener struct {
	net.Listener
	places chan struct{}
	done   chan struct{}
	once   sync.Once
}

func newLimitListener(l net.Listener, n int) *limitListener {
	return &limitListener{Listener: l, places: make(chan struct{}, n), done: make(chan struct{})}
}

func (l *limitListener) Accept() (net.Conn, error) {
	select {
	case l.places <- struct{}{}:
	case <-l.done:
		return nil, net.ErrClosed
	}
	c, err := l.Listener.Accept()
	if err != nil {
		<-l.places
		return nil, err
	}
	return &limitedConn{Conn: c, places: l.places}, nil
}

func (l *limitListener) Close() error {
	l.once.Do(func() { close(l.done) })
	return l.Listener.Close()
}

type limitedConn struct {
	net.Conn
	once   sync.Once
	places chan struct{}
}

func (c *limitedConn) Close() error {
	err := c.Conn.Close()
	c.once.Do(func() { <-c.places })
	return err
}
