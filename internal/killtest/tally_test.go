package killtest

import (
	"fmt"
	"maps"
	"strings"
)

// tally counts kills.
type tally struct {
	kills        int
	aimed, hits  map[string]int
	acked, reads int
	kafka        int // of acked: through Kafka's protocol
}

func newTally() *tally { return &tally{aimed: make(map[string]int), hits: make(map[string]int)} }

func (t *tally) count(target string, in []string) {
	t.kills++
	t.aimed[target]++
	for _, name := range in {
		t.hits[name]++
	}
}

func (t *tally) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d kills; %d records acknowledged, %d of them by Kafka's protocol, %d read\n", t.kills, t.acked, t.kafka, t.reads)
	fmt.Fprintf(&b, "  %-16s %6s %6s\n", "phase", "aimed", "died in")
	names := maps.Clone(t.aimed)
	maps.Copy(names, t.hits)
	for _, name := range []string{idle, appending, ringGrowth, ringReuse, flush, segmentRoll, checkpoint, recovery, topicDeletion, drain, exited} {
		if _, ok := names[name]; ok {
			fmt.Fprintf(&b, "  %-16s %6d %6d\n", name, t.aimed[name], t.hits[name])
		}
	}
	return b.String()
}
