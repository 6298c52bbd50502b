package boundtest

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/flotilla-log/flotilla/client"
)

// slow is the group that does less than its producers.
const slow = "slow"

// slowGroup has producers that send as much as they can, and a group of two that takes
// each record on its own, and its time. Nobody is held up for the group: what it has not
// read lies in the log.
func slowGroup(t *testing.T, a *attack) {
	fastProducers(t, a)
	for range 2 {
		g, err := connect(t, a.s).JoinGroup(client.GroupConfig{Group: slow, Topics: []string{"fast"}, CommitInterval: 50 * time.Millisecond})
		if err != nil {
			t.Fatal(err)
		}
		a.run(func() {
			defer func() {
				if err := g.Close(context.WithoutCancel(a.ctx)); err != nil {
					t.Errorf("a member leaves: %v", err)
				}
			}()
			for _, err := range g.Records(a.ctx) {
				if a.ctx.Err() != nil {
					return
				}
				if err != nil {
					t.Errorf("a member: %v", err)
					return
				}
				select {
				case <-time.After(20 * time.Millisecond): // what the work takes
				case <-a.ctx.Done():
					return
				}
			}
		})
	}
}

// lagIsTold: when all have gone, the group is behind by what was acknowledged and not
// committed, and says so to who asks and to who watches.
func lagIsTold(t *testing.T, a *attack) {
	gs := connect(t, a.s).Groups()
	d, err := gs.Describe(t.Context(), slow)
	if err != nil {
		t.Fatal(err)
	}
	lags, err := gs.Lag(t.Context(), d)
	if err != nil {
		t.Fatal(err)
	}
	var behind, consumed, largest int64
	for _, l := range lags {
		if l.Offset >= 0 {
			behind += l.Lag
			consumed += l.Offset
			largest = max(largest, l.Lag)
		}
	}
	t.Logf("%d records acknowledged, %d worked off by the group, which is behind by %d", a.done.Load(), consumed, behind)
	if behind == 0 || consumed == 0 {
		t.Errorf("the group is behind by %d and has worked off %d: that is no slow group", behind, consumed)
	}
	want := fmt.Sprintf("flotilla_group_lag{group=%q} %d\n", slow, behind)
	wantMax := fmt.Sprintf("flotilla_group_lag_max{group=%q} %d\n", slow, largest)
	for { // the coordinator looks from time to time
		got := metrics(t, a.s)
		if strings.Contains(got, want) && strings.Contains(got, wantMax) {
			return
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-t.Context().Done():
			t.Fatalf("no %q and %q in\n%s", want, wantMax, got)
		}
	}
}

func metrics(t *testing.T, s *server) string {
	t.Helper()
	resp, err := http.Get("http://" + s.admin + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
