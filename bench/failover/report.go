package main

import (
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
	"time"
)

// report is what was measured.
type report struct {
	Partitions int     `json:"partitions"`
	Rate       float64 `json:"records_per_second"` // of each client

	Rounds  []round        `json:"rounds"`
	Clients []counts       `json:"clients"`
	Crowd   *crowdResult   `json:"many_partitions,omitempty"`
	CatchUp *catchUpResult `json:"catch_up,omitempty"`
}

// round is one fault as one client met it.
type round struct {
	Fault    string  `json:"fault"`
	Client   string  `json:"client"`
	Node     int32   `json:"node"`
	Led      int     `json:"partitions_led"`
	WorstMS  float64 `json:"worst_ms"`        // of the partitions that the node led
	OthersMS float64 `json:"worst_others_ms"` // of the others
}

// newRound returns what a client waited for, by partition, when a node failed;
// leaders says who led each before.
func newRound(fault, client string, node int32, waits []time.Duration, leaders []int32) round {
	r := round{Fault: fault, Client: client, Node: node}
	for p, wait := range waits {
		ms := float64(wait) / float64(time.Millisecond)
		if leaders[p] == node {
			r.Led++
			r.WorstMS = max(r.WorstMS, ms)
		} else {
			r.OthersMS = max(r.OthersMS, ms)
		}
	}
	return r
}

// counts are the records of a client, over all rounds.
type counts struct {
	Client string `json:"client"`
	Acked  int64  `json:"acknowledged"`
	Failed int64  `json:"failed"`
	First  string `json:"first_error,omitempty"`
}

// note sets the counts of a client.
func (r *report) note(client string, acked, failed int64, first error) {
	c := counts{Client: client, Acked: acked, Failed: failed}
	if first != nil {
		c.First = first.Error()
	}
	r.Clients = append(slices.DeleteFunc(r.Clients, func(old counts) bool { return old.Client == client }), c)
}

// crowdResult is what many partitions take.
type crowdResult struct {
	Partitions    int     `json:"partitions"`
	CreateSeconds float64 `json:"create_seconds"`
	IdleSeconds   float64 `json:"idle_seconds"`
	IdleCores     float64 `json:"idle_cores"` // of all nodes together
}

// catchUpResult is a node that comes back, and the rates of a producer.
type catchUpResult struct {
	JournalBytes int64   `json:"journal_bytes"`
	MissedBytes  int64   `json:"missed_bytes"`
	BeforeMB     float64 `json:"before_mb_per_second"`
	WithoutMB    float64 `json:"without_mb_per_second"` // while the node was away
	DuringMB     float64 `json:"during_mb_per_second"`
	Seconds      float64 `json:"seconds"` // from its start until it has caught up
}

// table writes the report for people.
func (r *report) table(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "MILLISECONDS\tCLIENT\tROUNDS\tMEDIAN\tP90\tWORST\tWORST OF OTHER PARTITIONS\t")
	var seen []round
	for _, of := range r.Rounds {
		if slices.ContainsFunc(seen, func(s round) bool { return s.Fault == of.Fault && s.Client == of.Client }) {
			continue
		}
		seen = append(seen, of)
		var worst []float64
		others := 0.0
		for _, s := range r.Rounds {
			if s.Fault == of.Fault && s.Client == of.Client {
				worst = append(worst, s.WorstMS)
				others = max(others, s.OthersMS)
			}
		}
		slices.Sort(worst)
		n := len(worst)
		fmt.Fprintf(t, "%s\t%s\t%d\t%.0f\t%.0f\t%.0f\t%.0f\t\n", of.Fault, of.Client, n, worst[(n-1)/2], worst[(9*n+9)/10-1], worst[n-1], others)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, c := range r.Clients {
		fmt.Fprintf(w, "%s: %d records acknowledged, %d failed", c.Client, c.Acked, c.Failed)
		if c.First != "" {
			fmt.Fprintf(w, ", the first one with: %s", c.First)
		}
		fmt.Fprintln(w)
	}
	if c := r.Crowd; c != nil {
		fmt.Fprintf(w, "%d partitions: created in %.1f s, %.1f %% of a core for all nodes over %.0f s without load\n",
			c.Partitions, c.CreateSeconds, 100*c.IdleCores, c.IdleSeconds)
	}
	if c := r.CatchUp; c != nil {
		_, err := fmt.Fprintf(w, "catch-up of %.0f MB, journal.bytes %d: %.1f s; producer %.1f MB/s before, %.1f without the node, %.1f meanwhile (%.0f %%)\n",
			float64(c.MissedBytes)/1e6, c.JournalBytes, c.Seconds, c.BeforeMB, c.WithoutMB, c.DuringMB, 100*c.DuringMB/max(c.BeforeMB, 1e-9))
		return err
	}
	return nil
}
