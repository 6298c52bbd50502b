package bench

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func someReport() *Report {
	h := newHistogram()
	for i := range 100 {
		record(h, time.Duration(i+1)*time.Millisecond)
	}
	rep := &Report{
		Kind: "produce", Command: "flotilla bench produce", Version: "1", Commit: "abc",
		Started: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
		Machine: Machine{OS: "linux", Arch: "amd64", CPUs: 2, CPUModel: "Some CPU", Kernel: "6.1", MemoryBytes: 1 << 30, LoadAverage: "0 0 0"},
		Setup:   map[string]any{"partitions": 16, "acks": "all"}, WarmupSeconds: 3, LatencyFrom: "due time",
	}
	res := Result{
		Window: 2 * time.Second, Records: 1000, Bytes: 4_000_000, Failed: 3, Latency: summary(h), Lateness: summary(h),
		Begin: Sample{
			Servers: Usage{CPU: time.Second, WrittenBytes: 1000, ReadBytes: 5, Files: 3},
			Self:    Usage{CPU: time.Second, WrittenBytes: Unknown, ReadBytes: Unknown, Files: Unknown},
			Busy:    10 * time.Second,
			Device:  DeviceUsage{ReadBytes: 1, Writes: 2, WrittenBytes: 3, Flushes: 4},
		},
		End: Sample{
			Servers: Usage{CPU: 1008 * time.Millisecond, RSSBytes: 7_000_000, PeakRSSBytes: 9_000_000, WrittenBytes: 8_001_000, ReadBytes: 5, Files: 4},
			Self:    Usage{CPU: 1492 * time.Millisecond, RSSBytes: 1_000_000, PeakRSSBytes: 1_000_000, WrittenBytes: Unknown, ReadBytes: Unknown, Files: Unknown},
			Busy:    11500 * time.Millisecond,
			Device:  DeviceUsage{ReadBytes: 1_000_001, Writes: 102, WrittenBytes: 6_000_003, Flushes: 54},
		},
	}
	rep.SetResult(res, 1, true)
	rep.SetDevice("vda", res)
	y := newHistogram()
	record(y, 25*time.Millisecond)
	rep.SetYardstick([]YardstickResult{{CommitBytes: 1_000_000, Commits: 8, Elapsed: 2 * time.Second, Latency: summary(y)}})
	rep.SetEndToEnd(Delivered{EndToEnd: summary(h), Missing: 1, Twice: 2})
	return rep
}

func TestReportNumbers(t *testing.T) {
	t.Parallel()
	rep := someReport()
	s := rep.Servers
	if rep.RecordsPerSec != 500 || rep.MBPerSec != 2 || s.CPUMSPerMB != 2 || s.CPUUSPerRecord != 8 || *s.WrittenBytes != 8_000_000 ||
		*s.WrittenPerByte != 2 || *s.ReadBytes != 0 || *s.OpenDescriptors != 4 || s.RSSBytes != 7_000_000 {
		t.Errorf("%+v, %+v", rep, s)
	}
	if c := rep.Client; c.WrittenBytes != nil || c.WrittenPerByte != nil || c.OpenDescriptors != nil || c.CPUMSPerMB != 123 {
		t.Errorf("%+v", c)
	}
	if *rep.OtherCores != 0.5 {
		t.Errorf("others %v, want 1.5 s less 8 ms and 492 ms in 2 s", *rep.OtherCores)
	}
	if y := rep.Yardstick[0]; y.MBPerSec != 4 || y.RateRatio != 0.5 || y.P50Ratio < 1.9 || y.P50Ratio > 2.1 {
		t.Errorf("%+v", y)
	}
	if d := rep.Device; d.WrittenBytes != 6_000_000 || d.WrittenPerByte != 1.5 || d.Writes != 100 || *d.Flushes != 50 || d.ReadBytes != 1_000_000 {
		t.Errorf("%+v", d)
	}
	var nothing Report
	nothing.SetResult(Result{}, 0, false)
	nothing.SetDevice("", Result{})
	nothing.SetYardstick([]YardstickResult{{}})
	if nothing.Latency != nil || nothing.Servers != nil || nothing.Device != nil || nothing.Yardstick[0].RateRatio != 0 {
		t.Errorf("%+v", nothing)
	}
}

func TestReportJSON(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	rep := someReport()
	if err := rep.JSON(&b); err != nil {
		t.Fatal(err)
	}
	if strings.Count(b.String(), "\n") != 1 {
		t.Errorf("not one line: %s", b.String())
	}
	var back Report
	if err := json.Unmarshal(b.Bytes(), &back); err != nil {
		t.Fatal(err)
	}
	rep.Setup["partitions"] = float64(16) // as JSON has it
	if diff := cmp.Diff(*rep, back); diff != "" {
		t.Error(diff)
	}
}

const someText = `command  flotilla bench produce
build    flotilla 1 (commit abc), 2026-01-02T03:04:05Z
machine  2 CPUs Some CPU, 1.0 GiB, linux/amd64 6.1, load 0 0 0
setup    acks=all partitions=16
rate      2.0 MB/s, 500 records/s over 2.0 s after 3.0 s of warm-up
records   1000 of 4000000 bytes together, 3 failed
servers   2.00 ms/MB of CPU (8.00 us/record, 0.01 s), RSS 7 MB, peak 9 MB, 8.0 MB of pages made dirty (2.00 per byte of payload), 0.0 MB read, 4 descriptors
client    123.00 ms/MB of CPU (492.00 us/record, 0.49 s), RSS 1 MB, peak 1 MB
device    vda wrote 6.0 MB (1.50 per byte of payload) in 100 requests with 50 flushes, and read 1.0 MB, for everything on it
others    0.50 cores of 2 busy with other work; more than a few hundredths spoil the figures
delivery  1 acknowledged records missing, 2 came twice

MILLISECONDS                 P50     P90     P99     P99.9    MAX      MEAN    COUNT
acknowledged, from due time  50.004  90.046  99.025  100.008  100.008  50.499  100
consumed, from due time      50.004  90.046  99.025  100.008  100.008  50.499  100
load behind schedule         50.004  90.046  99.025  100.008  100.008  50.499  100
write+fdatasync of 1000000   25.002  25.002  25.002  25.002   25.002   24.994  1      4.0 MB/s; the run: 0.50 of the rate, 2.00 of the p50
`

func TestReportText(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	if err := someReport().Text(&b); err != nil {
		t.Fatal(err)
	}
	var got strings.Builder
	for line := range strings.Lines(b.String()) {
		got.WriteString(strings.TrimRight(line, " \n") + "\n")
	}
	if diff := cmp.Diff(someText, got.String()); diff != "" {
		t.Error(diff)
	}
	var empty Report
	if err := empty.Text(&b); err != nil {
		t.Error(err)
	}
}

func TestProgressLine(t *testing.T) {
	t.Parallel()
	p := Progress{Elapsed: 12 * time.Second, Phase: PhaseMeasured, Interval: 2 * time.Second, Records: 2000, Bytes: 4_000_000}
	if got, want := p.Line(), "  12s measured      2.0 MB/s      1000 records/s"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	p.Latency, p.InFlight, p.Failed = Latency{Count: 1, P50: time.Millisecond, P99: time.Second, Max: time.Second}, 5, 6
	if got, want := p.Line(), "  12s measured      2.0 MB/s      1000 records/s  p50 1.00 ms  p99 1000.00 ms  max 1000.0 ms  in flight 5  failed 6"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}
