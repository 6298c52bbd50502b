package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/flotilla-log/flotilla/bench"
	"github.com/flotilla-log/flotilla/internal/peer"
)

// report is of a run at so many MB/s, at a cost that is 1 ms/MB of each 100.
func report(mb float64) bench.Report {
	others := 0.5
	return bench.Report{
		Records: 1, MBPerSec: mb, OtherCores: &others, Version: "1", Commit: "abc", Setup: map[string]any{"client": "franz-go v1"},
		Servers: &bench.Costs{CPUMSPerMB: mb / 100, RSSBytes: int64(mb) * 1e6}, Client: &bench.Costs{CPUMSPerMB: 2},
	}
}

// rates is a loader whose runs have these rates, by server and kind; the last
// one goes on.
type rates struct {
	left map[string][]float64
	ran  []string
}

func (r *rates) load(_ context.Context, server string, k kind) (bench.Report, error) {
	name := server + " " + k.Name
	r.ran = append(r.ran, name)
	left := r.left[name]
	if len(left) == 0 {
		return bench.Report{}, fmt.Errorf("no rate for %s", name)
	}
	if len(left) > 1 {
		r.left[name] = left[1:]
	}
	return report(left[0]), nil
}

func TestSession(t *testing.T) {
	t.Parallel()
	r := &rates{left: map[string][]float64{
		"a produce": {50, 90, 95, 300, 100, 200},
		"a replay":  {1000},
		"b produce": {100, 100},
		"b replay":  {500, 100, 105},
	}}
	s := &session{Servers: []string{"a", "b"}, Kinds: nodeKinds, Pairs: 3, Agree: 0.06, MaxWarmups: 5, load: r.load, said: io.Discard}
	runs, err := s.do(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"a produce", "a produce", "a produce", "a replay", "a replay", "b produce", "b produce", "b replay", "b replay", "b replay",
		"a produce", "a replay", "b produce", "b replay",
		"b produce", "b replay", "a produce", "a replay",
		"a produce", "a replay", "b produce", "b replay",
	}
	if !slices.Equal(r.ran, want) {
		t.Errorf("ran %q, want %q", r.ran, want)
	}
	all := summarise(runs, s.Kinds, s.Servers)
	if len(all) != 4 {
		t.Fatalf("%+v", all)
	}
	if got := all[0]; got != (medians{
		Server: "a", Kind: "produce", Runs: 3, Warmups: 3, MBPerSec: 200, LowestMB: 100, HighestMB: 300,
		ServerCPU: 2, ClientCPU: 2, OtherCores: 0.5, RSSBytes: 200e6, RateRatio: 2, CPURatio: 2,
	}) {
		t.Errorf("%+v", got)
	}
	if got := all[1]; got.Server != "b" || got.Kind != "produce" || got.RateRatio != 1 || got.CPURatio != 1 || got.Warmups != 2 {
		t.Errorf("%+v", got)
	}
	if got := all[2]; got.Kind != "replay" || got.MBPerSec != 1000 || got.RateRatio != 1000.0/105 {
		t.Errorf("%+v", got)
	}

	sum := newSummary(runs, s, "4.3.1\n")
	var text strings.Builder
	name := filepath.Join(t.TempDir(), "summary.json")
	if err := errors.Join(sum.table(&text), peer.SaveJSON(name, sum)); err != nil {
		t.Fatal(err)
	}
	object, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"medians of 3 pairs, nodes: 1; flotilla 1 (commit abc), Apache Kafka 4.3.1, through franz-go v1", " 200.0", " 9.52"} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("no %q in\n%s", want, text.String())
		}
	}
	var back summary
	if err := json.Unmarshal(object, &back); err != nil || len(back.Runs) != len(runs) || !slices.Equal(back.Medians, all) {
		t.Errorf("%v in %s", err, object)
	}
}

// TestSessionOfLatencies: a kind whose latencies count has them in the summary,
// and what has no rate of its own is warmed up so often as was asked for.
func TestSessionOfLatencies(t *testing.T) {
	t.Parallel()
	p50 := map[string][]float64{"a": {90, 80, 2, 1, 6}, "b": {70, 60, 10, 4, 8}}
	load := func(_ context.Context, server string, k kind) (bench.Report, error) {
		rep := report(10)
		rep.Latency = &bench.Times{P50MS: 1000, P99MS: 1000}
		if k.Latency {
			rep.EndToEnd = &bench.Times{P50MS: p50[server][0], P99MS: 10 * p50[server][0]}
			p50[server] = p50[server][1:]
		}
		return rep, nil
	}
	kinds := []kind{{Name: "rate"}, {Name: "latency", Latency: true}}
	s := &session{Servers: []string{"a", "b"}, Kinds: kinds, Pairs: 3, MaxWarmups: 2, load: load, said: io.Discard}
	runs, err := s.do(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	all := summarise(runs, s.Kinds, s.Servers)
	if len(all) != 4 || all[0].P50 != nil || all[2].Warmups != 2 {
		t.Fatalf("%+v", all)
	}
	if got := *all[2].P50; got != (spread{Median: 2, Lowest: 1, Highest: 6, Ratio: 0.25}) {
		t.Errorf("p50 %+v", got)
	}
	if got := *all[2].P99; got != (spread{Median: 20, Lowest: 10, Highest: 60, Ratio: 0.25}) {
		t.Errorf("p99 %+v", got)
	}
	var text strings.Builder
	if err := newSummary(runs, s, "4.3.1").table(&text); err != nil || !strings.Contains(text.String(), "P99") {
		t.Errorf("%v, no percentiles in\n%s", err, text.String())
	}
	s.load = func(context.Context, string, kind) (bench.Report, error) { return report(1), nil }
	if runs, err := s.do(t.Context()); len(runs) != 9 || err == nil || !strings.Contains(err.Error(), "a report without latencies") {
		t.Errorf("without latencies: %v", err)
	}
}

func TestSessionEnds(t *testing.T) {
	t.Parallel()
	unsettled := map[string][]float64{"a produce": {10, 20, 30, 40, 50}}
	tests := []struct {
		name string
		load loader
		want string
		runs int
	}{
		{"a rate that grows", (&rates{left: unsettled}).load, "no two runs of 4, one after the other, came within 5%", 4},
		{"a load that fails", (&rates{left: map[string][]float64{"a produce": {1}}}).load, "no rate for a replay", 2},
		{"no CPU time", func(context.Context, string, kind) (bench.Report, error) { return bench.Report{Records: 1}, nil }, "without the server's CPU time", 0},
		{"no records", func(context.Context, string, kind) (bench.Report, error) {
			return bench.Report{Servers: &bench.Costs{}, Client: &bench.Costs{}}, nil
		}, "without records", 0},
	}
	for _, tt := range tests {
		s := &session{Servers: []string{"a"}, Kinds: nodeKinds, Pairs: 1, Agree: 0.05, MaxWarmups: 4, load: tt.load, said: io.Discard}
		runs, err := s.do(t.Context())
		if err == nil || !strings.Contains(err.Error(), tt.want) || len(runs) != tt.runs {
			t.Errorf("%s: %d runs, %v", tt.name, len(runs), err)
		}
		if (tt.runs == 4) != errors.Is(err, errUnsettled) {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}

func TestMedian(t *testing.T) {
	t.Parallel()
	for want, values := range map[float64][]float64{3: {3}, 4: {5, 3}, 5: {9, 1, 5}, 6: {100, 1, 5, 7}} {
		if got := median(values); got != want {
			t.Errorf("median(%v) = %v, want %v", values, got, want)
		}
	}
}

func TestParse(t *testing.T) {
	t.Parallel()
	if o, err := parse([]string{"-kafka", "jars"}, io.Discard); err != nil || o.pairs != 5 || o.agree != 5 {
		t.Errorf("%+v, %v", o, err)
	}
	if o, err := parse([]string{"-kafka", "jars", "-nodes", "3"}, io.Discard); err != nil || o.maxWarmups != 1 {
		t.Errorf("three nodes: %+v, %v", o, err)
	}
	for _, args := range [][]string{
		{}, {"-kafka", "jars", "more"}, {"-kafka", "jars", "-pairs", "0"}, {"-kafka", "jars", "-max-warmups", "1"},
		{"-kafka", "jars", "-agree", "0"}, {"-kafka", "jars", "-duration", "0s"}, {"-kafka", "jars", "-replay-records", "0"}, {"-nonsense"},
		{"-kafka", "jars", "-nodes", "2"}, {"-kafka", "jars", "-nodes", "3", "-agree", "3"}, {"-kafka", "jars", "-nodes", "3", "-max-warmups", "0"},
	} {
		if o, err := parse(args, io.Discard); err == nil {
			t.Errorf("%q: %+v", args, o)
		}
	}
}
