package kafka_test

import (
	"bytes"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// taking is how long others wait for the memory of Fetches whose answers are not
// taken: their pace, of a second and more, and the next look.
const taking = 1500 * time.Millisecond

// TestDeafFetches: a client that does not take the answers to its Fetches has a
// minute for each while nobody waits for the memory that they hold, and is cut off
// when somebody does: whether that are answers of many partitions, or many of few,
// and whatever comes before them.
func TestDeafFetches(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		clients int
		asked   int   // Fetches of each
		parts   int32 // of each of them
		wants   int32 // partitions of who waits
	}{
		{"of many partitions", 1, 1, 13_000, 3000}, // 4 MiB are for them, of which it has all
		{"of many partitions, with another behind it", 1, 2, 13_000, 3000},
		{"of few partitions", 11, 60, 56, 70}, // 1 MiB, of which each has an eighth at most
	} {
		inBubble(t, nil, func(t *testing.T, b *bubble) {
			ids := b.dial("healthy").makeTopics("a")
			req := crowded(12, ids, "a", 0, tt.parts)
			var deaf []*rawClient
			for range tt.clients {
				c := b.dial("deaf")
				all := bytes.Repeat(kmsg.NewRequestFormatter().AppendRequest(nil, req, 1), tt.asked)
				go func() { _, _ = c.nc.Write(all) }() // some of it is never read
				deaf = append(deaf, c)
			}
			b.pass(25 * time.Second) // of half a minute, for those that wait for memory
			if n := strings.Count(b.log.String(), "connection closed"); n > 0 {
				t.Errorf("%s: %d were cut off while nobody else waited", tt.name, n)
			}
			c := b.dial("other")
			began := time.Now()
			wants := crowded(12, ids, "a", 0, tt.wants)
			if r := c.fetch(wants); r.ErrorCode != 0 || len(r.Topics[0].Partitions) != int(tt.wants) {
				t.Errorf("%s: another Fetch: error %d", tt.name, r.ErrorCode)
			}
			if took := time.Since(began); took > taking {
				t.Errorf("%s: another Fetch waited for %v for the memory of answers that are not taken, want at most %v", tt.name, took, taking)
			}
			if out := b.log.String(); !strings.Contains(out, "an answer was taken too slowly") {
				t.Errorf("%s: log: %s", tt.name, out)
			}
			for _, c := range deaf {
				_ = c.nc.Close()
			}
			synctest.Wait()
		})
	}
}

// TestFetchBehindFetch: answers whose turn has not come, since a Fetch before them
// waits for records, keep others from the memory that they hold for no longer than
// a moment: that Fetch is answered with what there is.
func TestFetchBehindFetch(t *testing.T) {
	t.Parallel()
	inBubble(t, nil, func(t *testing.T, b *bubble) {
		const clients, behind = 58, 3 // which have most of 4 MiB, and of their 128 KiB
		ids := b.dial("other").makeTopics("a")
		waits, ready := fetchReq(12, ids, from{"a", 0, 0, nil}), crowded(12, ids, "a", 0, 74)
		waits.MaxWaitMillis, waits.MinBytes = 300_000, 1
		var all []*rawClient
		for range clients {
			c := b.dial("client")
			c.start(waits)
			for range behind {
				synctest.Wait()
				c.start(ready)
			}
			all = append(all, c)
		}
		time.Sleep(time.Minute)
		for _, c := range all {
			c.silent("while nobody else wants memory")
		}
		began := time.Now()
		b.dial("other").fetch(crowded(12, ids, "a", 0, 100))
		if took := time.Since(began); took > time.Second {
			t.Errorf("another Fetch waited for %v for the memory of answers behind a Fetch that waits", took)
		}
		for _, c := range all {
			c.nc.Close()
		}
		synctest.Wait()
	})
}
