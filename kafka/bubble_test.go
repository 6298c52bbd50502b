package kafka_test

import (
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/flotilla-log/flotilla/internal/netsim"
	"github.com/flotilla-log/flotilla/internal/node"
	"github.com/flotilla-log/flotilla/internal/vfs"
)

// bubble is a node in virtual time, whose clients come over a network in memory:
// time stands still while anybody has something to do. So a test sees that there
// is no answer, and at which moment it comes.
type bubble struct {
	core
	t    *testing.T
	net  *netsim.Network
	disk *vfs.Mem
}

// bubbleBegins is the time of a bubble: a second after that of recordsOf.
var bubbleBegins = time.UnixMilli(1_700_000_001_000)

// inBubble runs a test against a node in a bubble.
func inBubble(t *testing.T, edit func(*node.Options), test func(t *testing.T, b *bubble)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(time.Until(bubbleBegins))
		b := &bubble{t: t, net: netsim.New(1), disk: vfs.NewMem(1)}
		t.Cleanup(func() { _ = b.net.Close() })
		var ls [2]net.Listener
		for i, addr := range []string{"node:9092", "node:9094"} {
			l, err := b.net.Listen(addr)
			if err != nil {
				t.Fatal(err)
			}
			ls[i] = l
		}
		b.core = startOn(t, ls, func(opt *node.Options) {
			opt.FS = b.disk
			if edit != nil {
				edit(opt)
			}
		})
		test(t, b)
	})
}

// dial returns a client, which connects from a host.
func (b *bubble) dial(host string) *rawClient {
	b.t.Helper()
	nc, err := b.net.Dial(b.t.Context(), host, b.addr)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { _ = nc.Close() })
	return &rawClient{t: b.t, nc: nc}
}

// pass lets time pass.
func (b *bubble) pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// holdSyncs makes every sync of the journal wait until let is called, so that
// nothing becomes durable meanwhile.
func (b *bubble) holdSyncs() (let func()) { return b.holdSyncsOf("journal") }

// holdSyncsOf is holdSyncs for the files with a part of their path.
func (b *bubble) holdSyncsOf(part string) (let func()) {
	held := make(chan struct{})
	b.disk.OnOp(func(op vfs.Op, phase vfs.Phase) {
		if phase == vfs.Before && (op.Kind == vfs.OpSyncData || op.Kind == vfs.OpSync) && strings.Contains(op.Path, part) {
			<-held
		}
	})
	let = sync.OnceFunc(func() {
		b.disk.OnOp(nil)
		close(held)
	})
	b.t.Cleanup(let) // or the node would never close
	return let
}

// silent wants that nothing has come by now, and that all wait for something
// else to happen.
func (c *rawClient) silent(when string) {
	c.t.Helper()
	synctest.Wait()
	if err := netsim.Silent(c.nc); err != nil {
		c.t.Fatalf("%s: %v", when, err)
	}
}

// next reads the answer to the request that has a place among those that were
// started: 1 is the first.
func (c *rawClient) next(id int32, req kmsg.Request) kmsg.Response {
	c.t.Helper()
	defer func(last int32) { c.id = last }(c.id)
	c.id = id
	if err := c.nc.SetReadDeadline(time.Now().Add(time.Hour)); err != nil { // virtual
		c.t.Fatal(err)
	}
	resp := req.ResponseKind()
	resp.SetVersion(req.GetVersion())
	c.answer(resp, req.IsFlexible() && req.Key() != int16(kmsg.ApiVersions))
	return resp
}
