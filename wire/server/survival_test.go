package server_test

import (
	"bytes"
	"crypto/rand"
	"io"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/flotilla-log/flotilla/internal/node"
	"github.com/flotilla-log/flotilla/internal/vfs"
	"github.com/flotilla-log/flotilla/log/batch"
	"github.com/flotilla-log/flotilla/wire/frame"
	"github.com/flotilla-log/flotilla/wire/pb"
)

// again starts the node of an island again, over the same disk: what was
// appended lies in files then.
func (i *island) again() {
	i.t.Helper()
	if err := i.node.Close(i.t.Context()); err != nil {
		i.t.Fatal(err)
	}
	l, err := i.net.Listen("node:9092")
	if err != nil {
		i.t.Fatal(err)
	}
	i.node, err = node.Start(i.t.Context(), node.Options{
		FS: i.disk, Dir: "data", NodeID: 1, Version: "test", Listener: l,
		JournalBytes: 64 << 20, JournalFileBytes: 8 << 20, MemoryBytes: 64 << 20,
		Now: time.Now, Rand: rand.Reader, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		i.t.Fatal(err)
	}
}

// TestSurvival has a disk panic in every place of a connection that reads it:
// that connection is closed, nothing of the node's memory stays taken, and it
// goes on serving others the same records.
func TestSurvival(t *testing.T) {
	onIsland(t, func(t *testing.T, i *island) {
		p := i.connect()
		topic := p.create("t", 1)
		small, large := build(t, []byte("small")), build(t, bytes.Repeat([]byte("large"), 20_000))
		i.produce(p, topic, small)
		i.produce(p, topic, large)
		i.again()
		var m vfs.Mine
		i.disk.SetInjector(m.Inject)
		fetch := func(offset int64, minBytes uint32) *pb.FetchRequest {
			req := fetchRequest(topic, 60_000, minBytes)
			req.Parts[0].Offset, req.MaxBytes = offset, uint32(len(small))
			return req
		}
		subscribe := &pb.SubscribeRequest{Stream: 1, CreditBytes: 1 << 20, Parts: []*pb.StreamPart{streamPart(topic, 0, 0, 1)}}
		byTime := &pb.ListOffsetsRequest{Parts: []*pb.ListOffsetsPart{{TopicId: topic, LeaderEpoch: -1, At: pb.OffsetAt_OFFSET_AT_TIMESTAMP, TimestampMs: 1}}}
		for _, tt := range []struct {
			under string
			start func(bad *peer)
		}{
			{"server.(*request).fetch", func(bad *peer) { bad.start(frame.KindFetch, fetch(0, 1)) }},
			{"delivery.(*Delivery).Prepare", func(bad *peer) { bad.start(frame.KindFetch, fetch(0, 1)) }},
			{"delivery.fileRange.WriteTo", func(bad *peer) { bad.start(frame.KindFetch, fetch(1, 1)) }},
			{"broker.(*Fetch).wakeLocked.", func(bad *peer) {
				wait := fetch(0, 1<<20) // for more than comes
				wait.MaxBytes, wait.Parts[0].MaxBytes = 1<<20, wait.MaxBytes
				bad.start(frame.KindFetch, wait)
				synctest.Wait()
				i.produce(i.connect(), topic, small) // which wakes it up
			}},
			{"broker.(*Stream).Next", func(bad *peer) { bad.start(frame.KindSubscribe, subscribe) }},
			{"server.(*conn).writeDelivery", func(bad *peer) { bad.start(frame.KindSubscribe, subscribe) }},
			{"server.(*request).listOffsets", func(bad *peer) { bad.start(frame.KindListOffsets, byTime) }},
		} {
			good, bad := i.connect(), i.connect()
			m.Lay(tt.under)
			tt.start(bad)
			if _, err := io.Copy(io.Discard, bad.nc); err != nil {
				t.Errorf("under %s: %v", tt.under, err)
			}
			if m.Lay("") == 0 {
				t.Errorf("under %s: nothing was read", tt.under)
			}
			for offset, want := range [][]byte{small, large} {
				f := good.ask(frame.KindFetch, fetch(int64(offset), 1), new(pb.FetchResponse))
				if !bytes.Contains(f.Payload, want[batch.PrefixBytes:]) {
					t.Errorf("under %s, another at offset %d: %d bytes", tt.under, offset, len(f.Payload))
				}
			}
			synctest.Wait()
			if n, st := i.node.RequestBytes(), i.node.Streams(); n != 0 || st.Streams != 0 || st.Partitions != 0 || st.HeldBytes != 0 {
				t.Errorf("under %s: %d bytes of requests, and of streams %+v, stay counted", tt.under, n, st)
			}
		}
		i.mustClose(time.Second)
	})
}
