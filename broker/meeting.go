package broker

import (
	"maps"
	"net"
	"slices"
	"strconv"

	"github.com/flotilla-log/flotilla/broker/metadata"
)

// runMeeting watches the ways to the other nodes, those that join while it runs too,
// and tells Cluster.Met where they are, for as long as the broker runs.
func (b *Broker) runMeeting() {
	c := b.opt.Cluster
	var told map[int32]string
	watched := 0
	for {
		changed := b.metaState.changed.wait()
		im := b.image()
		if now := nodeAddresses(im); c.Met != nil && !maps.Equal(now, told) {
			told = now
			c.Met(maps.Clone(now))
		}
		if nodes := slices.Compact(slices.Sorted(b.otherNodes())); len(nodes) > watched { // none is ever taken away
			watched = len(nodes)
			c.Peers.Watch(nodes, b.failover.look)
			b.failover.look() // who is connected already will not be told of
		}
		select {
		case <-changed:
		case <-b.stopping.Done():
			return
		}
	}
}

// nodeAddresses returns where nodes listen for each other, host:port, as they have said.
func nodeAddresses(im *metadata.Image) map[int32]string {
	all := make(map[int32]string)
	for n := range im.Nodes() {
		for _, a := range n.Addresses {
			if a.Listener == metadata.NodeListener {
				all[int32(n.ID)] = net.JoinHostPort(a.Host, strconv.Itoa(int(a.Port)))
			}
		}
	}
	return all
}
