package main

import (
	"encoding/json"
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/flotilla-log/flotilla/bench"
)

// benchReport runs a bench command and returns its report.
func (s *server) benchReport(t *testing.T, args ...string) (bench.Report, result) {
	t.Helper()
	r := s.ok(t, "", append([]string{"bench"}, append(args, "-o", "json")...)...)
	var rep bench.Report
	if err := json.Unmarshal([]byte(r.stdout), &rep); err != nil {
		t.Fatalf("%v in %s", err, r.stdout)
	}
	return rep, r
}

// TestBench runs small loads and looks at what was counted, not at times.
func TestBench(t *testing.T) {
	t.Parallel()
	s := shared.server(t)
	name := unique("bench.kept")
	args := []string{"produce", "--topic", name, "--keep", "--partitions", "3", "--records", "300", "--record-bytes", "100", "--warmup", "0s", "--producers", "2"}
	pids := fmt.Sprint(s.cmd.Process.Pid)
	if runtime.GOOS == "linux" {
		args = append(args, "--server-pids", pids)
	}
	rep, r := s.benchReport(t, args...)
	if rep.Kind != "produce" || rep.Records != 300 || rep.Bytes != 30_000 || rep.Failed != 0 || rep.Latency.Count != 300 || rep.LatencyFrom != "sending" {
		t.Errorf("%s", r.stdout)
	}
	if rep.Setup["topic"] != name || rep.Setup["partitions"] != 3.0 || rep.Version != version || rep.Machine.CPUs < 1 ||
		!strings.HasPrefix(rep.Command, "flotilla bench produce --topic") {
		t.Errorf("%s", r.stdout)
	}
	if !strings.Contains(r.stderr, "topic "+name+" is kept") {
		t.Errorf("stderr %s", r.stderr)
	}
	if runtime.GOOS == "linux" && (rep.Servers == nil || rep.Servers.RSSBytes == 0 || rep.Servers.Processes != 1 || rep.OtherCores == nil) {
		t.Errorf("no costs in %s", r.stdout)
	}

	rep, r = s.benchReport(t, "consume", "--topic", name, "--consumers", "2", "--passes", "2")
	if rep.Records != 600 || rep.Bytes != 60_000 {
		t.Errorf("%s", r.stdout)
	}

	// The topic exists and stays, whatever happens to it.
	rep, r = s.benchReport(t, "latency", "--topic", name, "--records", "20", "--warmup", "0s", "--end-to-end", "--rate", "1e6")
	if rep.EndToEnd == nil || rep.EndToEnd.Count != 20 || rep.MissingRecords != 0 || rep.LatencyFrom != "due time" || rep.Setup["partitions"] != 3.0 {
		t.Errorf("%s", r.stdout)
	}
	s.run(t, "", "bench", "produce", "--topic", name, "--partitions", "4", "--records", "1").want(t, exitFailed, "has 3 partitions, not 4")

	// One of its own is gone afterwards.
	dir := t.TempDir()
	rep, r = s.benchReport(t, "latency", "--records", "20", "--warmup", "0s", "--yardstick", dir,
		"--yardstick-duration", "1ms", "--yardstick-file", "64KiB", "--commit-bytes", "4KiB,16KiB")
	if rep.Records != 20 || len(rep.Yardstick) != 2 || rep.Yardstick[1].CommitBytes != 16<<10 || rep.Yardstick[1].Commits < 1 {
		t.Errorf("%s", r.stdout)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("the yardstick left %v, %v", left, err)
	}
	topics := s.ok(t, "", "topic", "list").stdout
	if !strings.Contains(topics, name) || strings.Contains(topics, rep.Setup["topic"].(string)) {
		t.Errorf("topics afterwards:\n%s", topics)
	}

	text := s.ok(t, "", "bench", "produce", "--records", "10", "--warmup", "0s", "--rate", "1000", "-q").stdout
	for _, want := range []string{"command  flotilla bench produce", "loop=open", "10 of 10240 bytes together, 0 failed", "acknowledged, from due time", "load behind schedule"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
}

// TestBenchFails takes records that the topic does not.
func TestBenchFails(t *testing.T) {
	t.Parallel()
	s := shared.server(t)
	name := s.topic(t, "--config", "max.message.bytes=2000")
	r := s.run(t, "", "bench", "produce", "--topic", name, "--records", "5", "--record-bytes", "5000", "--warmup", "0s", "-q")
	r.want(t, exitFailed, "5 records failed", "smaller records")
	if !strings.Contains(r.stdout, "5 failed") {
		t.Errorf("no report: %s", r.stdout)
	}
	s.run(t, "", "bench", "consume", "--topic", name).want(t, exitFailed, "is empty", "bench produce --topic "+name)
	s.run(t, "", "bench", "consume", "--topic", "no.such").want(t, exitFailed, `no topic "no.such"`)
}

// TestBenchKafka puts loads on somebody else's idea of Kafka.
func TestBenchKafka(t *testing.T) {
	t.Parallel()
	fake, err := kfake.NewCluster(kfake.NumBrokers(1))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(fake.Close)
	run := func(args ...string) result {
		args = append([]string{"bench"}, append(args, "--protocol", "kafka", "--bootstrap", fake.ListenAddrs()[0])...)
		return command{args: args}.run(t)
	}
	report := func(args ...string) (rep bench.Report, r result) {
		if r = run(append(args, "-o", "json")...); r.code != 0 {
			t.Fatalf("bench %q: exit %d: %s", args, r.code, r.stderr)
		}
		if err := json.Unmarshal([]byte(r.stdout), &rep); err != nil {
			t.Fatalf("%v in %s", err, r.stdout)
		}
		return rep, r
	}
	rep, r := report("produce", "--topic", "kept", "--keep", "--partitions", "3", "--records", "300", "--record-bytes", "100",
		"--warmup", "0s", "--producers", "2", "--key-distribution", "random")
	if rep.Records != 300 || rep.Bytes != 300*108 || rep.Failed != 0 || rep.Latency.Count != 300 || rep.Setup["partitions"] != 3.0 ||
		rep.Setup["protocol"] != "kafka" || !strings.HasPrefix(rep.Setup["client"].(string), "franz-go") {
		t.Errorf("%s", r.stdout)
	}
	if rep, r = report("consume", "--topic", "kept", "--consumers", "2", "--passes", "2", "--fetch-bytes", "1MiB"); rep.Records != 600 ||
		rep.Setup["fetch_bytes"] != 1048576.0 || rep.Setup["partition_bytes"] != nil {
		t.Errorf("%s", r.stdout)
	}
	rep, r = report("latency", "--topic", "kept", "--records", "20", "--warmup", "0s", "--end-to-end", "--rate", "1e6")
	if rep.EndToEnd == nil || rep.EndToEnd.Count != 20 || rep.MissingRecords != 0 || rep.Setup["partitions"] != 3.0 {
		t.Errorf("%s", r.stdout)
	}
	// One of its own is gone afterwards.
	rep, _ = report("produce", "--records", "20", "--warmup", "0s", "--acks", "leader", "-z", "lz4")
	run("consume", "--topic", rep.Setup["topic"].(string)).want(t, exitFailed, "there is no topic")
	run("consume", "--topic", "no.such").want(t, exitFailed, `no topic "no.such"`)
	run("produce", "--topic", "kept", "--partitions", "4", "--records", "1").want(t, exitFailed, "has 3 partitions, not 4")
	run("produce", "--records", "2", "--record-bytes", "2MiB", "--warmup", "0s", "-q").want(t, exitFailed, "2 records failed", "a larger --batch-bytes")
	command{args: []string{"bench", "produce", "--protocol", "kafka", "--bootstrap", "127.0.0.1:1"}}.run(t).want(t, exitFailed, "no server at 127.0.0.1:1")
}

func TestBenchUsage(t *testing.T) {
	t.Parallel()
	tests := []struct {
		args []string
		want string
	}{
		{[]string{"produce", "--records", "5", "--duration", "5s"}, "exclude each other"},
		{[]string{"produce", "--records", "0"}, "--records 0"},
		{[]string{"produce", "--warmup", "-1s"}, "--warmup -1s"},
		{[]string{"produce", "--rate", "5", "--in-flight", "5"}, "exclude each other"},
		{[]string{"produce", "--rate", "-5"}, "--rate -5"},
		{[]string{"produce", "--in-flight", "1", "--producers", "2"}, "a record in flight for each producer"},
		{[]string{"produce", "--key-distribution", "odd"}, "none, even, random and zipf"},
		{[]string{"produce", "--values", "odd"}, "random and zero"},
		{[]string{"produce", "--record-bytes", "1GiB"}, "are possible"},
		{[]string{"produce", "--partitions", "0"}, "--partitions 0"},
		{[]string{"produce", "--acks", "most"}, "--acks"},
		{[]string{"produce", "--compression", "rar"}, "--compression"},
		{[]string{"produce", "--server-pids", "999999999"}, "--server-pids 999999999"},
		{[]string{"produce", "--commit-bytes", "many"}, "--commit-bytes"},
		{[]string{"produce", "--commit-bytes", "1GiB"}, "--yardstick-file"},
		{[]string{"produce", "--yardstick", "no/such/directory"}, "is not a directory"},
		{[]string{"produce", "topic"}, "takes no argument"},
		{[]string{"produce", "--protocol", "http"}, `--protocol "http"`},
		{[]string{"latency", "--protocol", "http"}, `--protocol "http"`},
		{[]string{"consume", "--topic", "t", "--protocol", "http"}, `--protocol "http"`},
		{[]string{"consume", "--topic", "t", "--protocol", "kafka", "--prefetch-bytes", "1MiB"}, "--prefetch-bytes"},
		{[]string{"produce", "--server-disk", "no/such/directory"}, "--server-disk no/such/directory"},
		{[]string{"latency", "--end-to-end", "--record-bytes", "5"}, "they need 24"},
		{[]string{"latency", "--rate", "-1"}, "--rate -1"},
		{[]string{"consume"}, "--topic is needed"},
		{[]string{"consume", "--topic", "t", "--passes", "0"}, "--passes 0"},
		{[]string{"prodcue"}, `did you mean "flotilla bench produce"?`},
	}
	for _, tt := range tests {
		// Nothing listens there, and nothing is asked.
		r := command{args: append([]string{"bench"}, append(tt.args, "--bootstrap", "127.0.0.1:1")...)}.run(t)
		r.want(t, exitUsage, tt.want)
		if t.Failed() {
			t.Fatalf("bench %q", tt.args)
		}
	}
}
