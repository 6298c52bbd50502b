package main

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/flotilla-log/flotilla/bench"
)

// summary is what a session came to.
type summary struct {
	Machine bench.Machine `json:"machine"`
	Version string        `json:"version"` // of the load
	Commit  string        `json:"commit"`
	Kafka   string        `json:"kafka"`
	Client  string        `json:"client"`
	Nodes   int           `json:"nodes"` // of each server
	Pairs   int           `json:"pairs"`
	Medians []medians     `json:"medians"`
	Runs    []run         `json:"runs"` // all, in their order
}

// medians are those of the runs of one kind on one server, warm-ups left out.
type medians struct {
	Server     string  `json:"server"`
	Kind       string  `json:"kind"`
	Runs       int     `json:"runs"`
	Warmups    int     `json:"warmups"`
	MBPerSec   float64 `json:"mb_per_second"`
	LowestMB   float64 `json:"lowest_mb_per_second"`
	HighestMB  float64 `json:"highest_mb_per_second"`
	ServerCPU  float64 `json:"server_cpu_ms_per_mb"`
	ClientCPU  float64 `json:"client_cpu_ms_per_mb"`
	OtherCores float64 `json:"other_cores"`
	RSSBytes   float64 `json:"rss_bytes"`

	// Of this to the last server's; 1 for that itself.
	RateRatio float64 `json:"rate_ratio"`
	CPURatio  float64 `json:"server_cpu_ratio"`

	// Of a kind whose latencies count.
	P50 *spread `json:"p50_ms,omitempty"`
	P99 *spread `json:"p99_ms,omitempty"`
}

// spread is a median, between what it is the median of.
type spread struct {
	Median  float64 `json:"median"`
	Lowest  float64 `json:"lowest"`
	Highest float64 `json:"highest"`
	Ratio   float64 `json:"ratio"` // to the last server's median
}

// newSummary returns the summary of runs, of which there is at least one.
func newSummary(runs []run, s *session, kafka string) *summary {
	first := runs[0].Report
	client, _ := first.Setup["client"].(string)
	return &summary{
		Machine: first.Machine, Version: first.Version, Commit: first.Commit, Kafka: strings.TrimSpace(kafka), Client: client,
		Nodes: 1, Pairs: s.Pairs, Medians: summarise(runs, s.Kinds, s.Servers), Runs: runs,
	}
}

// summarise returns the medians by kind and server; what the others are
// compared with is the last of servers.
func summarise(runs []run, kinds []kind, servers []string) (all []medians) {
	for _, k := range kinds {
		var mine []medians
		for _, server := range servers {
			m := medians{Server: server, Kind: k.Name}
			of := func(figure func(bench.Report) float64) []float64 {
				var values []float64
				for _, r := range runs {
					if r.Server == server && r.Kind == k.Name && r.Pair > 0 {
						values = append(values, figure(r.Report))
					}
				}
				return values
			}
			for _, r := range runs {
				if r.Server == server && r.Kind == k.Name && r.Pair == 0 {
					m.Warmups++
				}
			}
			rates := of(func(r bench.Report) float64 { return r.MBPerSec })
			if m.Runs = len(rates); m.Runs == 0 {
				continue
			}
			m.MBPerSec, m.LowestMB, m.HighestMB = median(rates), slices.Min(rates), slices.Max(rates)
			m.ServerCPU = median(of(func(r bench.Report) float64 { return r.Servers.CPUMSPerMB }))
			m.ClientCPU = median(of(func(r bench.Report) float64 { return r.Client.CPUMSPerMB }))
			m.RSSBytes = median(of(func(r bench.Report) float64 { return float64(r.Servers.RSSBytes) }))
			m.OtherCores = median(of(func(r bench.Report) float64 { return *cmp.Or(r.OtherCores, new(float64)) }))
			if k.Latency {
				m.P50 = newSpread(of(func(r bench.Report) float64 { return latencyOf(r).P50MS }))
				m.P99 = newSpread(of(func(r bench.Report) float64 { return latencyOf(r).P99MS }))
			}
			mine = append(mine, m)
		}
		for i := range mine {
			last := mine[len(mine)-1]
			mine[i].RateRatio, mine[i].CPURatio = ratio(mine[i].MBPerSec, last.MBPerSec), ratio(mine[i].ServerCPU, last.ServerCPU)
			if k.Latency {
				mine[i].P50.Ratio, mine[i].P99.Ratio = ratio(mine[i].P50.Median, last.P50.Median), ratio(mine[i].P99.Median, last.P99.Median)
			}
		}
		all = append(all, mine...)
	}
	return all
}

// newSpread returns the spread of values, which are not empty.
func newSpread(values []float64) *spread {
	return &spread{Median: median(values), Lowest: slices.Min(values), Highest: slices.Max(values)}
}

// median returns the middle of values, which are not empty, or the mean of the
// two in the middle.
func median(values []float64) float64 {
	v := slices.Sorted(slices.Values(values))
	return (v[(len(v)-1)/2] + v[len(v)/2]) / 2
}

// ratio returns a / b, 0 where there is none.
func ratio(a, b float64) float64 {
	if b == 0 {
		return 0
	}
	return a / b
}

// table writes the summary for people.
func (s *summary) table(w io.Writer) error {
	m := s.Machine
	fmt.Fprintf(w, "medians of %d pairs, nodes: %d; flotilla %s (commit %s), Apache Kafka %s, through %s\n", s.Pairs, s.Nodes, s.Version, s.Commit, s.Kafka, s.Client)
	fmt.Fprintf(w, "machine: %d CPUs %s, %.1f GiB, %s/%s %s\n\n", m.CPUs, cmp.Or(m.CPUModel, "of unknown model"),
		float64(m.MemoryBytes)/(1<<30), m.OS, m.Arch, m.Kernel)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "LOAD\tSERVER\tMB/s\tLOWEST\tHIGHEST\tRATIO\tSERVER ms/MB\tRATIO\tCLIENT ms/MB\tOTHER CORES\tRSS MB\tWARM-UPS\t")
	for _, m := range s.Medians {
		fmt.Fprintf(t, "%s\t%s\t%.1f\t%.1f\t%.1f\t%.2f\t%.2f\t%.2f\t%.2f\t%.2f\t%.0f\t%d\t\n", m.Kind, m.Server, m.MBPerSec, m.LowestMB, m.HighestMB,
			m.RateRatio, m.ServerCPU, m.CPURatio, m.ClientCPU, m.OtherCores, m.RSSBytes/1e6, m.Warmups)
	}
	if err := t.Flush(); err != nil || !slices.ContainsFunc(s.Medians, func(m medians) bool { return m.P50 != nil }) {
		return err
	}
	fmt.Fprintln(t, "\nMILLISECONDS\tSERVER\tP50\tLOWEST\tHIGHEST\tRATIO\tP99\tLOWEST\tHIGHEST\tRATIO\t")
	for _, m := range s.Medians {
		if m.P50 != nil {
			fmt.Fprintf(t, "%s\t%s\t%.2f\t%.2f\t%.2f\t%.2f\t%.2f\t%.2f\t%.2f\t%.2f\t\n", m.Kind, m.Server,
				m.P50.Median, m.P50.Lowest, m.P50.Highest, m.P50.Ratio, m.P99.Median, m.P99.Lowest, m.P99.Highest, m.P99.Ratio)
		}
	}
	return t.Flush()
}
