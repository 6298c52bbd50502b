package admin

import (
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/flotilla-log/flotilla/broker"
)

// start is the clock of the tests.
var start = time.Unix(1_700_000_000, 0)

// starting is a node that has opened nothing yet.
func starting() Source {
	return Source{
		Version: "v", Commit: "c", Now: func() time.Time { return start }, CommitMax: time.Second,
		Broker: func() *broker.Broker { return nil }, Failed: func() error { return nil }, Stopping: func() bool { return false },
		Waiting: func() string { return "" },
		Disk:    func() Disk { return Disk{FreeBytes: 5} }, Listeners: func() []broker.MeterStats { return nil }, ConnectionLimit: func() int { return 0 },
	}
}

func ask(s *Server, method, path string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	s.ServeHTTP(w, httptest.NewRequest(method, path, nil))
	return w
}

func newServer(src Source, pprof bool) *Server { return New(src, slog.New(slog.DiscardHandler), pprof) }

// TestWhileStarting: the process is alive, serves nobody yet, and says so; what
// there is to measure is there.
func TestWhileStarting(t *testing.T) {
	t.Parallel()
	s := newServer(starting(), false)
	if w := ask(s, "GET", "/healthz"); w.Code != 200 {
		t.Errorf("/healthz: %d %s", w.Code, w.Body)
	}
	w := ask(s, "GET", "/readyz")
	var v verdict
	if err := json.Unmarshal(w.Body.Bytes(), &v); err != nil {
		t.Fatal(err)
	}
	if w.Code != 503 || v.OK || !strings.Contains(w.Body.String(), "it reads its journal") {
		t.Errorf("/readyz: %d %s", w.Code, w.Body)
	}
	body := ask(s, "GET", "/metrics").Body.String()
	for _, want := range []string{"flotilla_ready 0\n", "flotilla_disk_free_bytes 5\n", `flotilla_build_info{commit="c",version="v"} 1`, "go_goroutines "} {
		if !strings.Contains(body, want) {
			t.Errorf("/metrics has no %q", want)
		}
	}
}

func TestVerdicts(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name    string
		change  func(*Source)
		path    string
		code    int
		details string
	}{
		{"failed", func(s *Source) { s.Failed = func() error { return errors.New("journal: sync x: EIO") } }, "/healthz", 503, "journal: sync x: EIO"},
		{"failed is not ready", func(s *Source) { s.Failed = func() error { return errors.New("EIO") } }, "/readyz", 503, "EIO"},
		{"stopping", func(s *Source) { s.Stopping = func() bool { return true } }, "/readyz", 503, "the node is stopping"},
		{"not founded", func(s *Source) { s.Waiting = func() string { return "waiting for node 2" } }, "/readyz", 503, "waiting for node 2"},
		{"not founded is healthy", func(s *Source) { s.Waiting = func() string { return "node 2 is away" } }, "/healthz", 200, ""},
		{"stopping is healthy", func(s *Source) { s.Stopping = func() bool { return true } }, "/healthz", 200, ""},
	}
	for _, tt := range tests {
		src := starting()
		tt.change(&src)
		w := ask(newServer(src, false), "GET", tt.path)
		if w.Code != tt.code || !strings.Contains(w.Body.String(), tt.details) {
			t.Errorf("%s: %s answers %d %s", tt.name, tt.path, w.Code, w.Body)
		}
	}
	src := starting()
	for began, stuck := range map[time.Time]bool{{}: false, start.Add(-time.Second): false, start.Add(-time.Second - 1): true} {
		if got := src.stuck(began); (got != "") != stuck {
			t.Errorf("a commit since %v: %q", began, got)
		}
	}
	src.Disk = func() Disk { return Disk{Refuses: "disk nearly full"} }
	if got := src.diskWrong(); got != "disk nearly full" {
		t.Error(got)
	}
	src.Disk = func() Disk { return Disk{Err: errors.New("gone")} }
	if got := src.diskWrong(); !strings.Contains(got, "gone") {
		t.Error(got)
	}
}

// TestProfiles: they are off unless asked for, and off again afterwards.
func TestProfiles(t *testing.T) {
	t.Parallel()
	now := start
	src := starting()
	src.Now = func() time.Time { return now }
	s := newServer(src, false)
	check := func(want int) {
		t.Helper()
		for _, path := range []string{"/debug/pprof/", "/debug/pprof/cmdline", "/debug/pprof/goroutine?debug=1"} {
			if w := ask(s, "GET", path); w.Code != want {
				t.Errorf("%s: %d %s", path, w.Code, w.Body)
			}
		}
	}
	check(403)
	s.AllowProfiles()
	check(200)
	now = now.Add(ProfilesFor)
	check(403)
	s = newServer(src, true)
	check(200)
}

// TestNothingIsChanged: no method but GET, no path but those.
func TestNothingIsChanged(t *testing.T) {
	t.Parallel()
	s := newServer(starting(), true)
	for _, path := range []string{"/metrics", "/healthz", "/readyz", "/debug/pprof/"} {
		for _, method := range []string{"POST", "PUT", "DELETE"} {
			if w := ask(s, method, path); w.Code != http.StatusMethodNotAllowed {
				t.Errorf("%s %s: %d", method, path, w.Code)
			}
		}
	}
	if w := ask(s, "GET", "/nothing"); w.Code != 404 {
		t.Errorf("GET /nothing: %d", w.Code)
	}
	if w := ask(s, "GET", "/"); w.Code != 200 || !strings.Contains(w.Body.String(), "/metrics") {
		t.Errorf("GET /: %d", w.Code)
	}
}

// pipes is a listener of connections in memory.
type pipes struct {
	conns chan net.Conn
	once  sync.Once
}

func (p *pipes) Accept() (net.Conn, error) {
	c, ok := <-p.conns
	if !ok {
		return nil, net.ErrClosed
	}
	return c, nil
}
func (p *pipes) Close() error   { p.once.Do(func() { close(p.conns) }); return nil }
func (p *pipes) Addr() net.Addr { return &net.TCPAddr{} }

// TestSlowClient: a client that sends its header byte by byte is cut off, and so
// is one that only connects.
func TestSlowClient(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newServer(starting(), false)
		l := &pipes{conns: make(chan net.Conn)}
		done := make(chan error)
		go func() { done <- s.Serve(l) }()
		mine, theirs := net.Pipe()
		l.conns <- theirs
		began := time.Now()
		written := make(chan struct{})
		go func() {
			defer close(written)
			for _, b := range []byte("GET /metrics HTTP/1.1\r\nX-Slow: " + strings.Repeat("a", 1000)) {
				if _, err := mine.Write([]byte{b}); err != nil {
					return
				}
				time.Sleep(time.Second)
			}
		}()
		_, _ = io.ReadAll(mine) // ends when it is cut off
		if took := time.Since(began); took > 2*readTimeout {
			t.Errorf("cut off after %v", took)
		}
		mine.Close()
		<-written
		s.Close(t.Context())
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// TestConnectionLimit: no more connections than there are places, and a place
// comes back.
func TestConnectionLimit(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := &pipes{conns: make(chan net.Conn, 4)}
		limited := newLimitListener(l, 2)
		for range 4 {
			c, _ := net.Pipe()
			l.conns <- c
		}
		accepted := make(chan net.Conn, 4)
		go func() {
			for {
				c, err := limited.Accept()
				if err != nil {
					close(accepted)
					return
				}
				accepted <- c
			}
		}()
		synctest.Wait()
		if len(accepted) != 2 {
			t.Fatalf("%d accepted", len(accepted))
		}
		c := <-accepted
		c.Close()
		c.Close() // gives back one place only
		synctest.Wait()
		if len(accepted) != 2 || len(limited.places) != 2 {
			t.Fatalf("%d accepted after one was closed", len(accepted))
		}
		limited.Close()
	})
}
