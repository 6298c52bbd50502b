//go:build linux

package main

import (
	"bytes"
	"strings"
	"testing"
	"time"
)

func TestVerdict(t *testing.T) {
	rising := func(rss func(i int) int64) (samples []sample) {
		for i := range 100 {
			samples = append(samples, sample{at: time.Duration(i) * time.Second, steady: i >= 60, usage: usage{rssBytes: rss(i)}})
		}
		return samples
	}
	tests := []struct {
		name string
		rss  func(i int) int64
		want string
	}{
		{"level", func(int) int64 { return 200 << 20 }, ""},
		{"warming up", func(i int) int64 { return 100<<20 + int64(min(i, 65))<<20 }, ""},
		{"creeping", func(i int) int64 { return 100<<20 + int64(i)*5<<20 }, "memory creeps"},
		{"beyond the bound", func(i int) int64 { return int64(i/50)<<30 + 1 }, "more than"},
	}
	for _, tt := range tests {
		err := verdict(rising(tt.rss), 600<<20)
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		}
	}
	if err := verdict(rising(func(int) int64 { return 1 })[:65], 1<<30); err == nil {
		t.Error("five steady samples were enough")
	}
}

func TestLatencies(t *testing.T) {
	var s stats
	for i := range 10 * maxTook {
		s.acknowledged(time.Duration(i) * time.Microsecond)
	}
	p50, p99, longest := s.latencies()
	whole := 10 * maxTook * time.Microsecond
	if p50 < whole*4/10 || p50 > whole*6/10 || p99 < whole*95/100 || longest != whole-time.Microsecond {
		t.Errorf("p50 %v, p99 %v, longest %v of 0 to %v", p50, p99, longest, whole)
	}
	if p50, _, longest := s.latencies(); p50 != 0 || longest != 0 {
		t.Error("a sample counts what the one before counted")
	}
}

func TestTables(t *testing.T) {
	var samples []sample
	for i := range 95 {
		samples = append(samples, sample{at: time.Duration(i+1) * time.Second, action: "kill", acked: int64(i+1) * 10})
	}
	var table, csv bytes.Buffer
	writeTable(&table, samples)
	if err := writeCSV(&csv, samples); err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(table.String(), "\n"); n > tableRows+1 || !strings.Contains(table.String(), "       10") {
		t.Errorf("table of %d lines:\n%s", n, table.String())
	}
	if n := strings.Count(csv.String(), "\n"); n != 96 {
		t.Errorf("%d lines of CSV, want 96", n)
	}
}

func TestPayload(t *testing.T) {
	for n := range uint64(2000) {
		v := value{7, n}
		b := payload(v)
		if len(b) > maxPayloadBytes+8 {
			t.Fatalf("%d bytes", len(b))
		}
		if r, ok := parse(n0, b); !ok || r.value != v {
			t.Fatalf("%+v does not come back", v)
		}
		b[len(b)-1] ^= 1
		if _, ok := parse(n0, b); ok {
			t.Fatalf("%+v with its last byte changed passes", v)
		}
	}
}

const n0 = 0
