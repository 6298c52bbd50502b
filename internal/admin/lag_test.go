package admin

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/flotilla-log/flotilla/broker"
)

// lagOf is a Collector of one LagStats.
type lagOf struct {
	*collector
	lag broker.LagStats
}

func (l lagOf) Collect(out chan<- prometheus.Metric) { scrape{l.collector, out}.lags(&l.lag) }

// TestLagLabels: whatever groups are called, a scrape of their lags succeeds.
func TestLagLabels(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_000_000, 0)
	reg := prometheus.NewPedanticRegistry()
	reg.MustRegister(lagOf{newCollector(&Source{Now: func() time.Time { return now }}), broker.LagStats{
		At: now.Add(-3 * time.Second), Unknown: 2,
		Groups: []broker.GroupLag{
			{Group: "billing", Records: 9, Largest: 5}, {Group: "\xff", Records: 7, Largest: 7}, {Group: "\xfe", Records: 4, Largest: 1},
			{Group: otherGroups, Records: 2, Largest: 2}, {Records: 3, Largest: 1},
		},
	}})
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := make(map[string]float64)
	for _, f := range families {
		for _, m := range f.Metric {
			name := f.GetName()
			for _, l := range m.Label {
				name += " " + l.GetName() + "=" + l.GetValue()
			}
			got[name] = m.GetGauge().GetValue()
		}
	}
	want := map[string]float64{
		"flotilla_group_lag group=billing": 9, "flotilla_group_lag_max group=billing": 5,
		"flotilla_group_lag group=\uFFFD": 11, "flotilla_group_lag_max group=\uFFFD": 7,
		"flotilla_group_lag group=(other)": 5, "flotilla_group_lag_max group=(other)": 2,
		"flotilla_group_lag_partitions_unknown": 2, "flotilla_group_lag_age_seconds": 3,
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("series (-want +got):\n%s", d)
	}
}
