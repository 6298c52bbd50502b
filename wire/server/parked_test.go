package server_test

import (
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/flotilla-log/flotilla/wire/frame"
	"github.com/flotilla-log/flotilla/wire/pb"
)

// TestParkedGiveWay: fetches that wait for records do not keep others from being
// read: the oldest of them are answered with what there is when others wait for
// the memory of requests.
func TestParkedGiveWay(t *testing.T) {
	onIsland(t, func(t *testing.T, i *island) {
		p := i.connect()
		topic := p.create("t", 1)
		const size = 30_000
		parked := fetchRequest(topic, 300_000, 1)
		parked.ProtoReflect().SetUnknown(protowire.AppendBytes(protowire.AppendTag(nil, 1000, protowire.BytesType), make([]byte, size))) // of a newer client
		b, other := build(t, make([]byte, 50_000)), p.create("u", 1)
		var all []*peer
		var began time.Time
		for range 3 { // 5 MB, of 4 MiB that there are
			time.Sleep(time.Second)
			began = time.Now()
			c := i.connect()
			for range 55 {
				c.start(frame.KindFetch, parked)
			}
			all = append(all, c)
		}
		synctest.Wait()
		i.produce(p, other, b)
		if took := time.Since(began); took > 100*time.Millisecond {
			t.Errorf("a request waited for %v for the memory of fetches that wait", took)
		}
		if _, refused := all[0].answer(new(pb.FetchResponse)); refused != nil {
			t.Errorf("answered early: %v", refused)
		}
		all[2].quiet("its fetches are not the oldest")
		i.mustClose(time.Second)
	})
}
