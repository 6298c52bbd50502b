package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/flotilla-log/flotilla/bench"
)

// errUnsettled reports a server whose rate did not stop changing.
var errUnsettled = errors.New("peers: it did not settle")

// loader puts one load of a kind on a server, by its name.
type loader func(ctx context.Context, server string, k kind) (bench.Report, error)

// session is runs of the same loads on several servers, alternating, so that
// what changes on the machine in the meantime changes it for all.
type session struct {
	Servers []string
	Kinds   []kind // in the order in which a round runs them
	Pairs   int

	// Agree is how far the rates of two runs, one after the other, may be apart,
	// as a part of the faster one, for a server to count as warm. MaxWarmups is
	// how many runs of a kind it has for that. If Agree is 0, the loads of a
	// kind have a rate of their own, or none that settles: then it counts as
	// warm after MaxWarmups of each.
	Agree      float64
	MaxWarmups int

	load loader
	said io.Writer // progress
}

// run is one load.
type run struct {
	Server string       `json:"server"`
	Kind   string       `json:"kind"`
	Pair   int          `json:"pair"` // from 1; 0: warm-up
	Report bench.Report `json:"report"`
}

// do warms the servers up and runs the pairs. The runs that succeeded are
// returned beside an error, too.
func (s *session) do(ctx context.Context) (runs []run, err error) {
	for _, server := range s.Servers {
		for _, k := range s.Kinds {
			warm, err := s.warmUp(ctx, server, k)
			if runs = append(runs, warm...); err != nil {
				return runs, err
			}
		}
	}
	for pair := 1; pair <= s.Pairs; pair++ {
		for i := range s.Servers {
			// Each in turn is the first.
			server := s.Servers[(i+pair-1)%len(s.Servers)]
			for _, k := range s.Kinds {
				r, err := s.once(ctx, server, k, pair)
				if err != nil {
					return runs, err
				}
				runs = append(runs, r)
			}
		}
	}
	return runs, nil
}

// warmUp runs the load until two rates agree, or so often as is wanted.
func (s *session) warmUp(ctx context.Context, server string, k kind) (runs []run, err error) {
	for len(runs) < s.MaxWarmups {
		r, err := s.once(ctx, server, k, 0)
		if err != nil {
			return runs, err
		}
		if runs = append(runs, r); len(runs) < 2 || s.Agree == 0 {
			continue
		}
		a, b := runs[len(runs)-2].Report.MBPerSec, runs[len(runs)-1].Report.MBPerSec
		if max(a, b)-min(a, b) <= s.Agree*max(a, b) {
			return runs, nil
		}
	}
	if s.Agree == 0 {
		return runs, nil
	}
	return runs, fmt.Errorf("%w: %s, %s: no two runs of %d, one after the other, came within %g%%; the machine is not quiet, or --duration is too short",
		errUnsettled, server, k.Name, s.MaxWarmups, 100*s.Agree)
}

// once runs one load, and says what came of it.
func (s *session) once(ctx context.Context, server string, k kind, pair int) (run, error) {
	rep, err := s.load(ctx, server, k)
	if err != nil {
		return run{}, fmt.Errorf("peers: %s, %s: %w", server, k.Name, err)
	}
	// A cold server may acknowledge nothing before the end of a short warm-up.
	settled := pair > 0 || s.Agree > 0
	if rep.Servers == nil || rep.Records == 0 && settled {
		return run{}, fmt.Errorf("peers: %s, %s: a report without records, or without the server's CPU time", server, k.Name)
	}
	if k.Latency && latencyOf(rep) == nil && settled {
		return run{}, fmt.Errorf("peers: %s, %s: a report without latencies", server, k.Name)
	}
	what := fmt.Sprintf("pair %d of %d", pair, s.Pairs)
	if pair == 0 {
		what = "warm-up"
	}
	fmt.Fprintf(s.said, "%s: %s %s: %.1f MB/s, server %.2f ms/MB, client %.2f ms/MB",
		what, server, k.Name, rep.MBPerSec, rep.Servers.CPUMSPerMB, rep.Client.CPUMSPerMB)
	if t := latencyOf(rep); k.Latency && t != nil {
		fmt.Fprintf(s.said, ", p50 %.2f ms, p99 %.2f ms", t.P50MS, t.P99MS)
	}
	fmt.Fprintln(s.said)
	return run{Server: server, Kind: k.Name, Pair: pair, Report: rep}, nil
}

// latencyOf returns the latencies that count: until consumed, if that was
// measured, else until acknowledged. nil: none.
func latencyOf(rep bench.Report) *bench.Times {
	if rep.EndToEnd != nil {
		return rep.EndToEnd
	}
	return rep.Latency
}
