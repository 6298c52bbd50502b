package main

import (
	"fmt"
	"io"
	"math"
	"slices"
	"text/tabwriter"
	"time"
)

// The two protocols of groups.
const (
	classic  = "classic"
	consumer = "consumer" // KIP-848
)

var protocols = []string{classic, consumer}

// crowdRow is what idle groups cost.
type crowdRow struct {
	Protocol                string
	Groups, Members         int
	Heartbeats              float64 // a second
	Core                    float64 // of the server's CPU time a second
	RSSConnected, RSSJoined int64   // bytes: with all connections, and with all members
}

// commitRow is what commits took.
type commitRow struct {
	Rate                int // a second, due
	Done, Refused       int
	P50, P99, P999, Max time.Duration // from when one was due
	Core                float64       // of the servers' CPU time a second
}

// leaveRow is how long a member's partitions were consumed by nobody after it left.
type leaveRow struct {
	Server, Protocol string
	Waits            []time.Duration // of the partition that waited longest, leave by leave
}

type report struct {
	Crowds  []crowdRow
	Commits []commitRow
	Leaves  []leaveRow
}

// quantile returns the smallest of sorted that at least q of them do not exceed.
func quantile(sorted []time.Duration, q float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[max(0, int(math.Ceil(q*float64(len(sorted))))-1)]
}

func (r *report) table(w io.Writer) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	if len(r.Crowds) > 0 {
		fmt.Fprintln(tw, "IDLE GROUPS\tMEMBERS EACH\tPROTOCOL\tHEARTBEATS/S\tOF A CORE\tRSS, MB\tMORE THAN WITH CONNECTIONS ALONE, MB")
	}
	for _, c := range r.Crowds {
		fmt.Fprintf(tw, "%d\t%d\t%s\t%.0f\t%.1f %%\t%.0f\t%.0f\n", c.Groups, c.Members, c.Protocol, c.Heartbeats, 100*c.Core, mb(c.RSSJoined), mb(c.RSSJoined-c.RSSConnected))
	}
	if len(r.Commits) > 0 {
		fmt.Fprintln(tw, "COMMITS/S\tDONE\tREFUSED\tP50\tP99\tP99.9\tMAX\tOF A CORE")
	}
	for _, c := range r.Commits {
		fmt.Fprintf(tw, "%d\t%d\t%d\t%v\t%v\t%v\t%v\t%.0f %%\n", c.Rate, c.Done, c.Refused, round(c.P50), round(c.P99), round(c.P999), round(c.Max), 100*c.Core)
	}
	if len(r.Leaves) > 0 {
		fmt.Fprintln(tw, "A MEMBER LEAVES\tPROTOCOL\tTIMES\tMEDIAN\tWORST")
	}
	for _, l := range r.Leaves {
		sorted := slices.Sorted(slices.Values(l.Waits))
		fmt.Fprintf(tw, "%s\t%s\t%d\t%v\t%v\n", l.Server, l.Protocol, len(sorted), round(quantile(sorted, 0.5)), round(quantile(sorted, 1)))
	}
	return tw.Flush()
}

func mb(bytes int64) float64 { return float64(bytes) / 1e6 }

func round(d time.Duration) time.Duration { return d.Round(100 * time.Microsecond) }
