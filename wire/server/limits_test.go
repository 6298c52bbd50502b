package server_test

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"io"
	"log/slog"
	"net"
	"strings"
	"syscall"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/flotilla-log/flotilla/internal/netsim"
	"github.com/flotilla-log/flotilla/internal/node"
	"github.com/flotilla-log/flotilla/internal/vfs"
	"github.com/flotilla-log/flotilla/wire/frame"
	"github.com/flotilla-log/flotilla/wire/pb"
)

func fetchRequest(topic []byte, waitMS, minBytes uint32) *pb.FetchRequest {
	return &pb.FetchRequest{MaxWaitMs: waitMS, MinBytes: minBytes, Parts: []*pb.FetchPart{{TopicId: topic, LeaderEpoch: -1}}}
}

// island is a node over a disk and a network in memory, in a bubble: what its
// clients wait for takes no more than the waits that somebody asked for.
type island struct {
	t    *testing.T
	disk *vfs.Mem
	net  *netsim.Network
	node *node.Node
}

// onIsland runs a test in a bubble. The node has 16 MiB for requests, and as much
// for answers.
func onIsland(t *testing.T, test func(t *testing.T, i *island)) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(time.Until(time.UnixMilli(1_800_000_000_000))) // records are not of the future
		i := &island{t: t, disk: vfs.NewMem(1), net: netsim.New(1)}
		l, err := i.net.Listen("node:9092")
		if err != nil {
			t.Fatal(err)
		}
		i.node, err = node.Start(t.Context(), node.Options{
			FS: i.disk, Dir: "data", NodeID: 1, Version: "test", Listener: l,
			JournalBytes: 64 << 20, JournalFileBytes: 8 << 20, MemoryBytes: 64 << 20,
			Now: time.Now, Rand: rand.Reader, Log: slog.New(slog.DiscardHandler),
		})
		if err != nil {
			t.Fatal(err)
		}
		defer func() {
			_ = i.node.Close(t.Context())
			_ = i.net.Close()
			time.Sleep(time.Minute) // some of Raft's goroutines outlive it
		}()
		test(t, i)
	})
}

func (i *island) connect() *peer {
	i.t.Helper()
	nc, err := i.net.Dial(i.t.Context(), "client", "node:9092")
	if err != nil {
		i.t.Fatal(err)
	}
	return meet(i.t, bytewise{nc})
}

// bytewise gives a byte to each Read, so that a frame's reader takes none of what
// follows it, and silent sees that.
type bytewise struct{ net.Conn }

func (c bytewise) Read(b []byte) (int, error) { return iotest.OneByteReader(c.Conn).Read(b) }

// produce wants a batch to be appended.
func (i *island) produce(p *peer, topic, b []byte) {
	i.t.Helper()
	resp := new(pb.ProduceResponse)
	p.ask(frame.KindProduce, produceRequest(topic, b), resp, b)
	if e := resp.Results[0].Error; e != nil {
		i.t.Fatal(e)
	}
}

// fail makes the syncs of some files fail.
func (i *island) fail(of func(op vfs.Op) bool) {
	i.disk.SetInjector(func(op vfs.Op) vfs.Fault {
		if of(op) {
			return vfs.Fault{Err: syscall.EIO}
		}
		return vfs.Fault{}
	})
}

// mustClose wants the node to be closed soon after a grace, which it may need.
func (i *island) mustClose(grace time.Duration) {
	i.t.Helper()
	ctx, cancel := context.WithTimeout(i.t.Context(), grace)
	defer cancel()
	began := time.Now()
	_ = i.node.Close(ctx)
	if took := time.Since(began); took > grace+time.Second {
		i.t.Errorf("Close with %v of grace took %v", grace, took)
	}
}

// TestCloseWithFullConnection: a connection with as many parked fetches
// as it may have.
func TestCloseWithFullConnection(t *testing.T) {
	onIsland(t, func(t *testing.T, i *island) {
		p := i.connect()
		topic := p.create("t", 1)
		c := i.connect()
		for range 63 {
			c.start(frame.KindFetch, fetchRequest(topic, 60_000, 1))
		}
		c.start(frame.KindPing, &pb.Ping{}) // when it is answered, they are parked
		if f, _ := c.answer(&pb.Pong{}); f.Kind != frame.KindPing {
			t.Fatalf("answered by %v", f.Kind)
		}
		c.start(frame.KindFetch, fetchRequest(topic, 60_000, 1))
		i.mustClose(time.Second)
	})
}

// TestExitAfterDiskFails: what serve does when the disk fails.
func TestExitAfterDiskFails(t *testing.T) {
	onIsland(t, func(t *testing.T, i *island) {
		p := i.connect()
		topic := p.create("t", 1)
		b := build(t, []byte("v"))
		i.produce(p, topic, b)
		i.fail(func(op vfs.Op) bool { return op.Kind == vfs.OpSyncData && strings.Contains(op.Path, "journal") })
		m := produceRequest(topic, b)
		m.TimeoutMs = 500
		p.start(frame.KindProduce, m, b)
		t.Log(<-i.node.Failed())
		i.mustClose(5 * time.Second)
	})
}

// TestExitWithWaitingProduce: the same, and the client gave more time.
func TestExitWithWaitingProduce(t *testing.T) {
	onIsland(t, func(t *testing.T, i *island) {
		p := i.connect()
		topic := p.create("t", 1)
		b := build(t, []byte("v"))
		i.fail(func(op vfs.Op) bool { return op.Kind == vfs.OpSyncData && strings.Contains(op.Path, "journal") })
		m := produceRequest(topic, b)
		m.TimeoutMs = 25_000
		p.start(frame.KindProduce, m, b)
		t.Log(<-i.node.Failed())
		i.mustClose(time.Second)
	})
}

// TestAnnouncedPayload: a client that announces more than a request may have, and
// sends nothing, must not hold up others, not even a large request.
func TestAnnouncedPayload(t *testing.T) {
	onIsland(t, func(t *testing.T, i *island) {
		p := i.connect()
		topic := p.create("t", 1)
		b := build(t, make([]byte, 900_000))
		hostile := i.connect()
		pr, pw := io.Pipe()
		w := frame.NewWriter(pw)
		w.SetLimits(frame.DefaultLimits())
		go func() {
			_ = w.Queue(frame.KindProduce, 0, 9, produceRequest(topic, b), frame.Part{Bytes: make([]byte, 90<<20)})
			_ = w.Flush()
		}()
		head := make([]byte, 100)
		_, _ = io.ReadFull(pr, head) // prefix, header, and a few bytes of the payload
		_, _ = hostile.nc.Write(head)
		_ = pr.Close()
		synctest.Wait()
		began := time.Now()
		i.produce(p, topic, b)
		if took := time.Since(began); took > 0 {
			t.Errorf("one silent connection holds up everybody's produce for %v", took)
		}
		_ = hostile.nc.Close()
		i.mustClose(time.Second)
	})
}

// TestSlowRequests: clients that announce the largest requests there are, until
// no memory for requests is left, and send next to nothing of them. Small
// requests do not wait for them at all; a large one waits until those that are
// too slow are cut off, which would take minutes if nobody waited.
func TestSlowRequests(t *testing.T) {
	onIsland(t, func(t *testing.T, i *island) {
		n := i.node
		p := i.connect()
		topic := p.create("t", 1)
		small, large := build(t, []byte("v")), build(t, make([]byte, 900_000))
		slow := make([]*peer, 12) // room for four at a time
		for k := range slow {
			slow[k] = i.connect()
			var prefix [frame.PrefixBytes]byte
			binary.BigEndian.PutUint32(prefix[:], 4<<20)
			prefix[8] = byte(frame.KindProduce)
			prefix[15] = 1
			if _, err := slow[k].nc.Write(append(prefix[:], make([]byte, 1000)...)); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		if n.RequestBytes() < 15<<20 {
			t.Fatalf("requests hold %d bytes, want nearly all of 16 MiB", n.RequestBytes())
		}
		began := time.Now()
		i.produce(p, topic, small)
		if took := time.Since(began); took > 0 {
			t.Errorf("the small request waited for %v", took)
		}
		i.produce(p, topic, large)
		if took := time.Since(began); took > 6*time.Second { // three times four are cut off
			t.Errorf("the large request waited for %v", took)
		}
		i.mustClose(time.Second)
	})
}

// TestStalledConsumer: consumers that read nothing must not hold up the others'
// fetches: neither one, by all that it has asked for, nor many, by what each is
// being sent. What they fetch has not been flushed, and is too large to be
// copied: it needs the node's memory for answers.
func TestStalledConsumer(t *testing.T) {
	onIsland(t, func(t *testing.T, i *island) {
		p := i.connect()
		topic := p.create("t", 1)
		b := build(t, make([]byte, 900_000))
		i.produce(p, topic, b)
		stall := func(fetches int) {
			c := i.connect()
			for range fetches {
				c.start(frame.KindFetch, fetchRequest(topic, 0, 1))
			}
			synctest.Wait()
		}
		served := func(by string) {
			t.Helper()
			began := time.Now()
			f := p.ask(frame.KindFetch, fetchRequest(topic, 0, 1), new(pb.FetchResponse))
			if len(f.Payload) != len(b) {
				t.Fatalf("%d bytes fetched, want %d", len(f.Payload), len(b))
			}
			if took := time.Since(began); took > time.Second {
				t.Errorf("a fetch is held up by %s for %v", by, took)
			}
		}
		stall(40)
		served("a consumer that reads nothing")
		for range 20 {
			stall(1)
		}
		served("twenty consumers that read nothing")
		i.mustClose(time.Second)
	})
}

// TestManyErrors: the errors of a large fetch have to fit in the answer.
func TestManyErrors(t *testing.T) {
	onIsland(t, func(t *testing.T, i *island) {
		p := i.connect()
		m := new(pb.FetchRequest)
		for k := range 10_000 {
			m.Parts = append(m.Parts, &pb.FetchPart{TopicId: make([]byte, 16), Partition: int32(k), LeaderEpoch: -1})
		}
		p.start(frame.KindFetch, m)
		resp := new(pb.FetchResponse)
		if _, refused := p.answer(resp); refused != nil {
			t.Errorf("%v", refused)
		}
		i.mustClose(time.Second)
	})
}

// TestExitAfterMetadataDiskFails: the same for the metadata's log, which
// has no OnFailed of its own.
func TestExitAfterMetadataDiskFails(t *testing.T) {
	onIsland(t, func(t *testing.T, i *island) {
		p := i.connect()
		p.create("t", 1)
		i.fail(func(op vfs.Op) bool {
			return (op.Kind == vfs.OpSyncData || op.Kind == vfs.OpSync) && strings.Contains(op.Path, "metadata")
		})
		p.start(frame.KindCreateTopic, &pb.CreateTopicRequest{Name: "u", TimeoutMs: 500})
		t.Log(<-i.node.Failed())
		i.mustClose(5 * time.Second)
	})
}
