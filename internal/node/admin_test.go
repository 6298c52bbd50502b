package node

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/flotilla-log/flotilla/broker"
	"github.com/flotilla-log/flotilla/broker/metadata"
	"github.com/flotilla-log/flotilla/internal/admin"
	"github.com/flotilla-log/flotilla/internal/config"
	"github.com/flotilla-log/flotilla/internal/vfs"
	"github.com/flotilla-log/flotilla/log/batch"
	"github.com/flotilla-log/flotilla/partition"
)

// startWithAdmin starts a node on a disk, with an admin listener at the address
// returned.
func startWithAdmin(t *testing.T, fsys vfs.FS) (*Node, string) {
	t.Helper()
	listen := func() net.Listener {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	a := listen()
	n, err := Start(t.Context(), Options{
		FS: fsys, Dir: "data", NodeID: 1, Version: "test", Commit: "c", Listener: listen(), Admin: a,
		JournalBytes: 4 << 20, JournalFileBytes: 1 << 20,
		Now: time.Now, Rand: rand.Reader, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	return n, "http://" + a.Addr().String()
}

func get(t *testing.T, url string) (code int, body string) {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

func appendOne(t *testing.T, n *Node, topic broker.TopicID) error {
	t.Helper()
	var b batch.Builder
	b.Reset()
	if err := b.Append(1, nil, []byte("v"), nil); err != nil {
		t.Fatal(err)
	}
	one, err := b.Build(nil, batch.None, batch.DefaultLevel)
	if err != nil {
		t.Fatal(err)
	}
	got := make(chan broker.ProduceResult, 1)
	n.broker.Produce([]broker.ProducePart{{Topic: topic, Batch: one}}, time.Minute, func(r []broker.ProduceResult) { got <- r[0] })
	if r := <-got; r.Err != nil {
		return r.Err
	}
	return nil
}

// TestMetricsAreComplete: a node that serves gives every family of the table,
// with its type and labels, and no other.
func TestMetricsAreComplete(t *testing.T) {
	t.Parallel()
	n, url := startWithAdmin(t, vfs.NewMem(1))
	defer n.Close(context.Background())
	topic, err := n.broker.CreateTopic(t.Context(), broker.TopicSpec{Name: "orders", Partitions: 1})
	if err != nil {
		t.Fatal(err)
	}
	if err := appendOne(t, n, topic.ID); err != nil {
		t.Fatal(err)
	}
	code, body := get(t, url+"/metrics")
	if code != 200 {
		t.Fatal(code, body)
	}
	types := make(map[string]string)
	for _, m := range regexp.MustCompile(`(?m)^# TYPE (flotilla_\S+) (\S+)$`).FindAllStringSubmatch(body, -1) {
		types[m[1]] = m[2]
	}
	for _, m := range admin.Metrics {
		switch m.Name {
		case "flotilla_errors_total", "flotilla_group_lag", "flotilla_group_lag_max":
			continue // there are none
		}
		if types[m.Name] != m.Type.String() {
			t.Errorf("%s is a %q, want %s", m.Name, types[m.Name], m.Type)
		}
		delete(types, m.Name)
		series := regexp.MustCompile(`(?m)^` + m.Name + `(_count)?(\{[^}]*\})? `).FindString(body)
		for _, l := range m.Labels {
			if !strings.Contains(series, l+`="`) {
				t.Errorf("%s has no label %s", series, l)
			}
		}
	}
	if len(types) > 0 {
		t.Errorf("families that are in no table: %v", types)
	}
	for _, want := range []string{
		`flotilla_topic_records_in_total{topic="orders"} 1`, `flotilla_topic_records_in_total{topic="(other)"} 0`, "flotilla_ready 1",
		"flotilla_partitions 1", fmt.Sprintf("flotilla_feature_level %d\n", metadata.MaxFeatureLevel),
		fmt.Sprintf("flotilla_shard_apply_version{shard=\"1\"} %d\n", partition.MaxApplyVersion), `flotilla_quarantined_partitions{shard="1"} 0`,
		`flotilla_shard_leading{shard="0"} 1`, "process_open_fds ",
	} {
		if !strings.Contains(body, want) {
			t.Errorf("no %q in\n%s", want, body)
		}
	}
	for _, name := range []string{"tails", "requests", "small requests", "answers", "decoding", "small fetches", "fetches", "decompression", "large decompression", "recompressed"} {
		for _, want := range []string{`limit_bytes{for=%q} [1-9]`, `used_bytes{for=%q} \d`, `waiting{for=%q} 0`} {
			want = fmt.Sprintf("flotilla_memory_"+want, name)
			if !regexp.MustCompile(want).MatchString(body) {
				t.Errorf("no %s in\n%s", want, body)
			}
		}
	}
	// Values that could be anything are the same at the second look.
	if _, again := get(t, url+"/metrics"); strings.Count(again, "\nflotilla_") != strings.Count(body, "\nflotilla_") {
		t.Error("the second scrape has other series")
	}
}

// TestReadiness follows a node through its life: ready, failed, and gone.
func TestReadiness(t *testing.T) {
	t.Parallel()
	fsys := vfs.NewMem(1)
	n, url := startWithAdmin(t, fsys)
	topic, err := n.broker.CreateTopic(t.Context(), broker.TopicSpec{Name: "t", Partitions: 1})
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"/healthz", "/readyz"} {
		if code, body := get(t, url+path); code != 200 {
			t.Errorf("%s of a node that serves: %d %s", path, code, body)
		}
	}
	fsys.SetInjector(func(op vfs.Op) vfs.Fault {
		if op.Kind == vfs.OpSyncData && strings.Contains(op.Path, "journal") {
			return vfs.Fault{Err: syscall.EIO}
		}
		return vfs.Fault{}
	})
	if err := appendOne(t, n, topic.ID); err == nil {
		t.Error("a record is acknowledged by a disk that failed")
	}
	failed := <-n.Failed()
	for _, path := range []string{"/healthz", "/readyz"} {
		if code, body := get(t, url+path); code != 503 || !strings.Contains(body, ".journal") {
			t.Errorf("%s after %v: %d %s", path, failed, code, body)
		}
	}
	_ = n.Close(context.Background())
	if _, err := http.Get(url + "/healthz"); err == nil {
		t.Error("the admin listener outlives the node")
	}
}

// TestStuckDisk: a commit that hangs makes the node unready, and one that comes
// to its end makes it ready again.
func TestStuckDisk(t *testing.T) {
	t.Parallel()
	fsys := vfs.NewMem(1)
	n, _ := startWithAdmin(t, fsys)
	defer n.Close(context.Background())
	topic, err := n.broker.CreateTopic(t.Context(), broker.TopicSpec{Name: "t", Partitions: 1})
	if err != nil {
		t.Fatal(err)
	}
	hangs, release := make(chan struct{}), make(chan struct{})
	var once atomic.Bool
	fsys.SetInjector(func(op vfs.Op) vfs.Fault {
		if op.Kind == vfs.OpSyncData && strings.Contains(op.Path, "journal") && once.CompareAndSwap(false, true) {
			close(hangs)
			<-release
		}
		return vfs.Fault{}
	})
	answered := make(chan error)
	go func() { answered <- appendOne(t, n, topic.ID) }()
	<-hangs
	source := n.adminSource()
	source.Now = func() time.Time { return time.Now().Add(time.Minute) }
	source.CommitMax = 10 * time.Second
	stuck := admin.New(source, slog.New(slog.DiscardHandler), false)
	ready := func() (int, string) {
		w := httptest.NewRecorder()
		stuck.ServeHTTP(w, httptest.NewRequest("GET", "/readyz", nil))
		return w.Code, w.Body.String()
	}
	if code, body := ready(); code != 503 || !strings.Contains(body, "the disk does not answer") {
		t.Errorf("/readyz while a commit hangs: %d %s", code, body)
	}
	close(release)
	if err := <-answered; err != nil {
		t.Error(err)
	}
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !n.jour.Usage().CommitStarted.IsZero() { // the record is answered a moment before
		<-tick.C
	}
	if code, body := ready(); code != 200 {
		t.Errorf("/readyz afterwards: %d %s", code, body)
	}
}

// TestSettingsNameMetrics: the metrics that settings refer to exist, with the
// labels that they are given.
func TestSettingsNameMetrics(t *testing.T) {
	t.Parallel()
	named := regexp.MustCompile(`(flotilla_[a-z_]*[a-z])(\{([a-z]+)=)?`)
	n := 0
	for i := range config.Settings {
		s := &config.Settings[i]
		for _, m := range named.FindAllStringSubmatch(s.Metric, -1) {
			n++
			if !slices.ContainsFunc(admin.Metrics, func(a admin.Metric) bool {
				return (a.Name == m[1] || strings.HasSuffix(m[1], "_topic") && strings.HasPrefix(a.Name, m[1])) &&
					(m[3] == "" || slices.Contains(a.Labels, m[3]))
			}) {
				t.Errorf("%s refers to the metric %s", s.Key, m[0])
			}
		}
	}
	if n < 15 {
		t.Errorf("settings refer to %d metrics", n)
	}
}

// TestMetricNames holds the table of metrics to the conventions of Prometheus.
func TestMetricNames(t *testing.T) {
	t.Parallel()
	var names []string
	for _, m := range admin.Metrics {
		names = append(names, m.Name)
		if total := strings.HasSuffix(m.Name, "_total"); total != (m.Type == admin.Counter) {
			t.Errorf("%s is a %s", m.Name, m.Type)
		}
		if m.Help == "" || !strings.HasSuffix(m.Help, ".") || !strings.HasPrefix(m.Name, "flotilla_") {
			t.Errorf("%s: help %q", m.Name, m.Help)
		}
	}
	slices.Sort(names)
	if len(slices.Compact(slices.Clone(names))) != len(names) {
		t.Error("a name stands twice")
	}
}
