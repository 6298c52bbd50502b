package transport

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// cpu is the time that this process has had of the CPUs.
func cpu(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkAppendEntries sends entries through pipelines, 256 KiB in each
// AppendEntries, to replicas that answer at once: through a Hub, and over
// connections on the loopback interface. Both ends are in this process.
func BenchmarkAppendEntries(b *testing.B) {
	const requestBytes = 256 << 10
	ca := newAuthority(b)
	kinds := []struct {
		name string
		join func(b *testing.B) func(ShardID, ReplicaID) *Member
	}{
		{"hub", func(*testing.B) func(ShardID, ReplicaID) *Member {
			return NewHub(HubOptions{Timeout: time.Minute}).Join
		}},
		{"mesh", func(b *testing.B) func(ShardID, ReplicaID) *Member {
			nodes := overTCP(b, nil)
			return func(s ShardID, id ReplicaID) *Member { return nodes[id.Node].Join(s, id) }
		}},
		{"meshTLS", func(b *testing.B) func(ShardID, ReplicaID) *Member {
			nodes := overTCP(b, func(o *MeshOptions) { o.TLS = ca.config() })
			return func(s ShardID, id ReplicaID) *Member { return nodes[id.Node].Join(s, id) }
		}},
	}
	for _, kind := range kinds {
		for _, shards := range []int{1, 4} {
			for _, size := range []int{1 << 10, 64 << 10} {
				b.Run(fmt.Sprintf("%s/shards=%d/entry=%dB", kind.name, shards, size), func(b *testing.B) {
					join := kind.join(b)
					var pipes []raft.AppendPipeline
					for s := range shards {
						from, to := join(ShardID(s), one), join(ShardID(s), two)
						b.Cleanup(func() { _, _ = from.Close(), to.Close() })
						taking(to)
						pipe, err := from.AppendEntriesPipeline(name(two), "")
						if err != nil {
							b.Fatal(err)
						}
						pipes = append(pipes, pipe)
					}
					req := &raft.AppendEntriesRequest{Term: 7}
					for i := range requestBytes / size {
						req.Entries = append(req.Entries, &raft.Log{Index: uint64(i + 1), Term: 7, Data: bytes.Repeat([]byte{1}, size)})
					}
					b.SetBytes(requestBytes)
					b.ReportAllocs()
					began := cpu(b)
					const ahead = 16 // requests under way for each shard: 4 MiB
					n := 0
					for b.Loop() {
						p := pipes[n%shards]
						if n >= ahead*shards {
							if f := <-p.Consumer(); f.Error() != nil || !f.Response().Success {
								b.Fatal(f.Error())
							}
						}
						if _, err := p.AppendEntries(req, new(raft.AppendEntriesResponse)); err != nil {
							b.Fatal(err)
						}
						n++
					}
					for i := range min(n, ahead*shards) {
						<-pipes[(n+i)%shards].Consumer()
					}
					b.ReportMetric(float64((cpu(b)-began).Microseconds())/(float64(n)*requestBytes/1e6), "cpu-us/MB")
				})
			}
		}
	}
}

// BenchmarkHeartbeatBesideCalls measures a heartbeat while calls of 16 MiB go the
// same way, over the two connections that there are and over a single one.
func BenchmarkHeartbeatBesideCalls(b *testing.B) {
	for _, single := range []bool{false, true} {
		b.Run(fmt.Sprintf("single=%t", single), func(b *testing.B) {
			nodes := overTCP(b, nil)
			for _, m := range nodes {
				m.oneLane = single
			}
			nodes[2].Serve(func(context.Context, int32, Method, []byte) ([]byte, error) { return nil, nil })
			from, to := nodes[1].Join(1, one), nodes[2].Join(1, two)
			b.Cleanup(func() { _, _ = from.Close(), to.Close() })
			taking(to)
			if err := heartbeat(from); err != nil {
				b.Fatal(err)
			}
			ctx, cancel := context.WithCancel(context.Background())
			done := make(chan struct{})
			go func() {
				defer close(done)
				for payload := make([]byte, MaxCallBytes); ctx.Err() == nil; {
					_, _ = nodes[1].Call(ctx, 2, 1, payload)
				}
			}()
			var took []time.Duration
			for b.Loop() {
				at := time.Now()
				if err := heartbeat(from); err != nil {
					b.Fatal(err)
				}
				took = append(took, time.Since(at))
			}
			cancel()
			<-done
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-us")
			b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-us")
		})
	}
}

// BenchmarkSum is what the checksum of a frame costs.
func BenchmarkSum(b *testing.B) {
	data := [][]byte{make([]byte, maxFrameBytes)}
	b.SetBytes(maxFrameBytes)
	for b.Loop() {
		sum(data)
	}
}
