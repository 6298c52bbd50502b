package sim

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"

	"github.com/flotilla-log/flotilla/internal/netsim"
	"github.com/flotilla-log/flotilla/internal/node"
	"github.com/flotilla-log/flotilla/replication/transport"
)

// meetings are how a node reaches the others.
type meetings interface {
	transport.Peers
	Close() error
}

// meet has a node that is about to start meet the others: over the connections
// that real nodes have, through the network of the clients, or by messages that a
// hub may lose, double and reorder.
func (fl *fleet) meet(m *member) (*node.Cluster, error) {
	c := &node.Cluster{Nodes: fl.ids()}
	join := func(shard transport.ShardID, id transport.ReplicaID) transport.Transport {
		return fl.hub.Join(shard, id)
	}
	if fl.meshed {
		l, err := fl.net.Listen(m.peerAddr())
		if err != nil {
			return nil, err
		}
		opt := &node.Options{
			NodeID: m.id, ClusterID: "sim", Rand: newChance(fl.seed, uint64(m.starts)<<16|uint64(m.id)),
			Log: slog.New(logHandler{fl.trace, fmt.Sprintf("node %d ", m.id)}),
		}
		var peers []node.Peer
		for _, o := range fl.members {
			peers = append(peers, node.Peer{ID: o.id, Address: o.peerAddr()})
		}
		var end func() error
		if c, end, err = node.Meet(opt, node.Meeting{Peers: peers, Listener: l, Dial: fl.dialFrom(m)}); err != nil {
			return nil, err
		}
		m.peers, join = meshPeers{c.Peers, end}, c.Connect
	} else {
		m.peers = fl.hub.Node(m.id)
	}
	c.Peers, c.Connect = m.peers, join
	if fl.lie != nil {
		c.Connect = func(shard transport.ShardID, id transport.ReplicaID) transport.Transport {
			return fl.lie(shard, id, join(shard, id))
		}
	}
	return c, nil
}

// meshPeers are a node's connections to the others.
type meshPeers struct {
	transport.Peers
	end func() error
}

func (p meshPeers) Close() error { return p.end() }

// dialFrom returns how a node reaches other nodes.
func (fl *fleet) dialFrom(m *member) func(context.Context, string) (net.Conn, error) {
	return func(ctx context.Context, addr string) (net.Conn, error) { return fl.net.Dial(ctx, m.host(), addr) }
}

func (m *member) peerAddr() string { return m.host() + ":9093" }

// cutWay cuts what one node says to another, or mends it.
func (fl *fleet) cutWay(from, to *member, cut bool) {
	switch {
	case !fl.meshed:
		fl.hub.Cut(from.id, to.id, cut)
	case cut:
		fl.net.Cut(from.host(), to.host())
	default:
		fl.net.Mend(from.host(), to.host())
	}
}

// faults are what happens to messages between all nodes. Connections know delays
// alone.
func (fl *fleet) faults(f transport.Faults) {
	fl.trace.add(fmt.Sprintf("NETWORK %+v", f))
	for _, a := range fl.members {
		for _, b := range fl.members {
			switch {
			case a == b:
			case fl.meshed:
				fl.net.SetLatency(a.host(), b.host(), f.MinDelay, f.MaxDelay)
			default:
				fl.hub.SetFaults(a.id, b.id, f)
			}
		}
	}
}

// wallClock is a clock that has been set wrong. Time passes in it as everywhere.
type wallClock struct{ seconds atomic.Int64 }

func (c *wallClock) now() time.Time {
	return steppedTime(time.Now().Add(time.Duration(c.seconds.Load())*time.Second), time.Since(epoch))
}

// timeWords is how package time keeps a time that has a reading of the monotonic
// clock as well, by which such times are compared: those of a bubble have none.
type timeWords struct {
	wall      uint64 // a bit that says so, 33 of seconds since 1885, 30 of nanoseconds
	monotonic int64  // ns
	loc       *time.Location
}

// steppedTime returns a time that shows wall, and differs from others like it by
// what has passed, as if somebody had set a real machine's clock.
func steppedTime(wall time.Time, passed time.Duration) (t time.Time) {
	seconds := uint64(wall.Unix() - time.Date(1885, 1, 1, 0, 0, 0, 0, time.UTC).Unix())
	*(*timeWords)(unsafe.Pointer(&t)) = timeWords{1<<63 | seconds<<30 | uint64(wall.Nanosecond()), int64(passed) + 1, time.UTC}
	return t
}

// TestWallClock: a step changes what a clock shows, and no duration.
func TestWallClock(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var c wallClock
		before, real := c.now(), time.Now()
		for _, seconds := range []int64{0, 3600, -3600, 1, -86400} {
			c.seconds.Store(seconds)
			time.Sleep(1001 * time.Microsecond)
			now := c.now()
			if off := now.Round(0).Sub(time.Now().Round(0)); off != time.Duration(seconds)*time.Second {
				t.Errorf("%d s off, it shows %v", seconds, off)
			}
			if took, took2 := now.Sub(before), time.Since(real); took != took2 {
				t.Errorf("%d s off, %v passed in %v", seconds, took, took2)
			}
			if later := now.Add(time.Second); later.Sub(c.now()) != time.Second || !later.After(now) {
				t.Errorf("%d s off, a second later is %v", seconds, later)
			}
		}
	})
}

// TestIsolate: both kinds of network cut one direction and leave the other.
func TestIsolate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		fl := &fleet{world: &world{net: netsim.New(1), trace: new(trace)}, meshed: true}
		for i := range fl.members {
			fl.members[i] = &member{id: int32(i + 1)}
		}
		reaches := func(a, b *member) bool { // there and back
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			l, err := fl.net.Listen(b.peerAddr())
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			c, err := fl.net.Dial(ctx, a.host(), b.peerAddr())
			if err == nil {
				_ = c.Close()
			}
			return err == nil
		}
		a, b, c := fl.members[0], fl.members[1], fl.members[2]
		for _, way := range [][2]bool{{true, true}, {true, false}, {false, true}} {
			fl.isolate(b, way[0], way[1])
			if reaches(a, b) || reaches(b, c) || !reaches(a, c) {
				t.Errorf("from it: %t, to it: %t: a and b %t, b and c %t, a and c %t", way[0], way[1], reaches(a, b), reaches(b, c), reaches(a, c))
			}
			fl.isolate(b, false, false)
			if !reaches(a, b) || !reaches(b, c) {
				t.Error("mended, it is still cut off")
			}
		}
	})
}
