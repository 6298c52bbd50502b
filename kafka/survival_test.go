package kafka_test

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/flotilla-log/flotilla/internal/node"
	"github.com/flotilla-log/flotilla/internal/vfs"
	"github.com/flotilla-log/flotilla/log/batch"
)

// TestSurvival has a disk panic in every place of a connection that reads it:
// that connection is closed, with a line in the log, nothing of the node's memory
// stays taken, and it goes on serving others the same records.
func TestSurvival(t *testing.T) {
	t.Parallel()
	fs := vfs.NewMem(1)
	first := startCore(t, func(opt *node.Options) { opt.FS = fs })
	c := dialRaw(t, first.addr)
	ids := map[string][16]byte{"a": c.create("a", 1)}
	small, large := recordsOf(t, batch.None, "small"), recordsOf(t, batch.None, strings.Repeat("large", 20_000))
	c.produce(9, ids, topicPart{"a", 0, small})
	c.produce(9, ids, topicPart{"a", 0, large})
	if err := first.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	metrics, edit := listenMetrics(t, func(opt *node.Options) { opt.FS = fs })
	n := startCore(t, edit) // all records are in files now
	var m vfs.Mine
	fs.SetInjector(m.Inject)
	memory := func() (held []string) {
		t.Helper()
		lines := 0
		for name, bytes := range metrics.series(`^flotilla_memory_used_bytes\{`) {
			if strings.Contains(name, `"tails"`) {
				continue
			}
			if lines++; bytes != 0 {
				held = append(held, fmt.Sprint(name, " ", bytes))
			}
		}
		if lines == 0 {
			t.Fatal("no metrics of memory")
		}
		return held
	}
	read := func(offset int64, minBytes int32) *kmsg.FetchRequest {
		req := fetchReq(12, ids, from{"a", 0, offset, nil})
		req.MinBytes, req.MaxWaitMillis = minBytes, 60_000
		if offset == 0 {
			req.Topics[0].Partitions[0].PartitionMaxBytes = int32(len(small))
		}
		return req
	}
	tests := []struct {
		under string
		req   *kmsg.FetchRequest
	}{
		{"kafka.(*conn).fetch", read(0, 1)},
		{"delivery.(*Delivery).Prepare", read(0, 1)},
		{"delivery.fileRange.WriteTo", read(1, 1)},
		{"broker.(*Fetch).wakeLocked.", read(0, 1<<20)}, // it waits for more
	}
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for _, tt := range tests {
		good, bad := dialRaw(t, n.addr), dialRaw(t, n.addr)
		m.Lay(tt.under)
		bad.start(tt.req)
		if tt.req.MinBytes > 1 {
			bad.start(produceReq(9, -1, ids, topicPart{"a", 0, small})) // which wakes it up
		}
		if _, err := io.Copy(io.Discard, bad.nc); err != nil {
			t.Errorf("under %s: %v", tt.under, err)
		}
		if m.Lay("") == 0 {
			t.Errorf("under %s: nothing was read", tt.under)
		}
		n.log.await(t, "planted under "+tt.under, 1)
		for offset, want := range [][]byte{small, large} {
			r := good.fetched(read(int64(offset), 1))
			if b := r[0].RecordBatches; !bytes.Contains(b, want[batch.PrefixBytes:]) {
				t.Errorf("under %s, another at offset %d: %d bytes, %v", tt.under, offset, len(b), r[0].ErrorCode)
			}
		}
		held := memory()
		for deadline := time.Now().Add(patience); len(held) > 0 && time.Now().Before(deadline); held = memory() {
			<-tick.C // the peer may see the end before all is given back
		}
		if len(held) > 0 {
			t.Errorf("under %s: %v", tt.under, held)
		}
	}
}
