package client

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/flotilla-log/flotilla/internal/errcode"
	"github.com/flotilla-log/flotilla/log/batch"
	"github.com/flotilla-log/flotilla/wire/pb"
)

// bubble runs a test in virtual time. It fails if a goroutine is left at its
// end, so that every test here also tests Close.
func bubble(t *testing.T, nodes int32, test func(t *testing.T, f *fakeCluster)) {
	t.Helper()
	t.Parallel()
	synctest.Test(t, func(t *testing.T) { test(t, newFake(t, nodes)) })
}

// TestFaults breaks everything at random and then holds what the producer said
// of each record against the logs: acknowledged ones are there once, at their
// offset if it is known; refused ones are not; unknown ones at most once; and each partition
// is in the order of Send.
func TestFaults(t *testing.T) {
	seeds := 60
	if testing.Short() {
		seeds = 10
	}
	for seed := range uint64(seeds) {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			bubble(t, 3, func(t *testing.T, f *fakeCluster) { testFaults(t, f, seed) })
		})
	}
}

func testFaults(t *testing.T, f *fakeCluster, seed uint64) {
	const partitions, records = 4, 400
	rnd := rand.New(rand.NewPCG(seed, 1))
	var rmu sync.Mutex
	intN := func(n int) int {
		rmu.Lock()
		defer rmu.Unlock()
		return rnd.IntN(n)
	}
	chance := func(percent int) bool { return intN(100) < percent }
	calm := false
	retriableCodes := []errcode.Code{errcode.NotEnoughReplicas, errcode.RequestTimedOut, errcode.LeaderNotAvailable}
	f.createTopic("a", partitions)
	f.onProduce = func(*pb.ProduceRequest) fault {
		switch {
		case calm:
		case chance(4):
			return loseRequest
		case chance(4):
			return loseResponse
		case seed%3 == 0 && chance(2):
			return hang
		}
		return noFault
	}
	f.onPart = func(*pb.ProducePart, batch.Header) errcode.Code {
		switch {
		case calm:
		case chance(5):
			return retriableCodes[intN(len(retriableCodes))]
		case seed%2 == 0 && chance(3):
			return errcode.InvalidRecord
		}
		return errcode.None
	}
	c := f.client(func(cfg *Config) {
		cfg.Rand = rand.NewPCG(seed, 2)
		cfg.RequestTimeout = 2 * time.Second
	})
	defer c.Close()
	timeout := 2 * time.Minute
	if seed%3 == 0 {
		timeout = 3 * time.Second
	}
	p := newProducer(t, c, ProducerConfig{Topic: "a", BatchBytes: 120, DeliveryTimeout: timeout})
	results := make([]*RecordResult, records)
	for i := range records {
		r := Record{Partition: int32(i % partitions), Value: []byte(strconv.Itoa(i))}
		err := p.Send(t.Context(), r, func(r RecordResult) { results[i] = &r })
		if err != nil {
			t.Fatalf("Send: %v", err)
		}
		if chance(5) {
			time.Sleep(3 * time.Millisecond)
		}
		if chance(2) {
			f.move("a", intN(partitions), int32(intN(3)))
		}
		if chance(1) {
			f.cut(f.nodes[int32(intN(3))])
		}
	}
	if err := p.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	f.mu.Lock()
	calm = true
	f.mu.Unlock()
	for part := range int32(partitions) { // whatever happened, it goes on
		if _, err := p.SendSync(t.Context(), Record{Partition: part, Value: []byte("1000000")}); err != nil {
			t.Errorf("afterwards: %v", err)
		}
	}
	if err := p.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	checkLogs(t, f, results, partitions)
}

func checkLogs(t *testing.T, f *fakeCluster, results []*RecordResult, partitions int) {
	t.Helper()
	failed := 0
	for part := range partitions {
		at := make(map[string]int)
		last := -1
		for off, v := range f.values("a", part) {
			if prev, dup := at[v]; dup {
				t.Errorf("partition %d: value %s at %d and %d", part, v, prev, off)
			}
			at[v] = off
			i, _ := strconv.Atoi(v)
			if i < last {
				t.Errorf("partition %d: value %d after %d", part, i, last)
			}
			last = i
		}
		for i := part; i < len(results); i += partitions {
			res := results[i]
			if res == nil {
				t.Fatalf("record %d without a result", i)
			}
			off, there := at[strconv.Itoa(i)]
			switch {
			case res.Err == nil && (!there || int64(off) != res.Offset && res.Offset != -1):
				t.Errorf("record %d acknowledged at %d: in the log %t, at %d", i, res.Offset, there, off)
			case res.Err != nil && !errors.Is(res.Err, ErrUnknownOutcome) && there:
				t.Errorf("record %d refused (%v), but in the log", i, res.Err)
			}
			if res.Err != nil {
				failed++
			}
		}
	}
	t.Logf("%d of %d records failed", failed, len(results))
}

func TestRefusedBatchDoesNotStopOthers(t *testing.T) {
	bubble(t, 1, func(t *testing.T, f *fakeCluster) {
		f.createTopic("a", 1)
		n := 0
		f.onPart = func(*pb.ProducePart, batch.Header) errcode.Code {
			if n++; n == 4 {
				return errcode.MessageTooLarge
			}
			return errcode.None
		}
		c := f.client()
		defer c.Close()
		p := newProducer(t, c, ProducerConfig{Topic: "a", BatchBytes: 1})
		var failed []RecordResult
		for i := range 10 {
			err := p.Send(t.Context(), Record{Value: []byte(strconv.Itoa(i))}, func(r RecordResult) {
				if r.Err != nil {
					failed = append(failed, r)
				}
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		if err := p.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		want := slices.Delete(numbered(10), 3, 4)
		if diff := cmp.Diff(want, f.values("a", 0)); diff != "" {
			t.Errorf("log (-want +got):\n%s", diff)
		}
		if len(failed) != 1 {
			t.Fatalf("%d failed, want 1", len(failed))
		}
		if code, ok := CodeOf(failed[0].Err); !ok || code != errcode.MessageTooLarge {
			t.Errorf("error %v, want MESSAGE_TOO_LARGE", failed[0].Err)
		}
		if errors.Is(failed[0].Err, ErrUnknownOutcome) {
			t.Errorf("error %v is of unknown outcome", failed[0].Err)
		}
	})
}

func TestDeliveryTimeout(t *testing.T) {
	tests := []struct {
		name        string
		hang        bool // the server takes the request and never answers
		dialing     bool // the connection is never made, nor refused
		wantUnknown bool
	}{
		{name: "refused"},
		{name: "never connected", dialing: true},
		{name: "never answered", hang: true, wantUnknown: true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, 1, func(t *testing.T, f *fakeCluster) {
				f.createTopic("a", 1)
				var stuck atomic.Bool
				c := f.client(func(cfg *Config) {
					cfg.DialTimeout = 12 * time.Second
					cfg.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
						if stuck.Load() {
							<-ctx.Done()
							return nil, ctx.Err()
						}
						return f.dial(ctx, network, addr)
					}
				})
				defer c.Close()
				p := newProducer(t, c, ProducerConfig{Topic: "a", DeliveryTimeout: 10 * time.Second})
				if _, err := p.SendSync(t.Context(), Record{Value: []byte("0")}); err != nil {
					t.Fatal(err)
				}
				if tt.hang {
					f.hook(func() { f.onProduce = func(*pb.ProduceRequest) fault { return hang } })
				}
				stuck.Store(tt.dialing)
				if !tt.hang {
					f.setDown("node0:9092", true)
				}
				start := time.Now()
				_, err := p.SendSync(t.Context(), Record{Value: []byte("1")})
				if took := time.Since(start); took != 10*time.Second {
					t.Errorf("gave up after %v, want 10s", took)
				}
				if !errors.Is(err, ErrDeliveryTimeout) || errors.Is(err, ErrUnknownOutcome) != tt.wantUnknown {
					t.Errorf("error %v, want a delivery timeout, unknown outcome %t", err, tt.wantUnknown)
				}
				f.hook(func() { f.onProduce = nil })
				stuck.Store(false)
				f.setDown("node0:9092", false)
				f.cut("node0:9092")
				if _, err := p.SendSync(t.Context(), Record{Value: []byte("2")}); err != nil {
					t.Errorf("afterwards: %v", err)
				}
				if err := p.Close(t.Context()); err != nil {
					t.Fatal(err)
				}
				want := []string{"0", "2"}
				if tt.hang {
					want = numbered(3)
				}
				if diff := cmp.Diff(want, f.values("a", 0)); diff != "" {
					t.Errorf("log (-want +got):\n%s", diff)
				}
			})
		})
	}
}
