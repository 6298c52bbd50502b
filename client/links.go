package client

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/flotilla-log/flotilla/internal/errcode"
	"github.com/flotilla-log/flotilla/wire/frame"
	"google.golang.org/protobuf/proto"
)

// links are the ways to all addresses in use.
type links struct {
	mu     sync.Mutex
	byAddr map[string]*link
	closed bool
	next   atomic.Uint32 // which of all addresses answers for any node
}

// close makes link return a closed one from now on.
func (ls *links) close() {
	ls.mu.Lock()
	ls.closed = true
	ls.mu.Unlock()
}

// link returns the way to an address.
func (c *Client) link(addr string) *link {
	ls := &c.links
	ls.mu.Lock()
	defer ls.mu.Unlock()
	l := ls.byAddr[addr]
	if l == nil {
		l = &link{c: c, addr: addr, wake: make(chan struct{}, 1), stir: make(chan struct{}, 1), closed: ls.closed}
		ls.byAddr[addr] = l
		if !ls.closed {
			c.wg.Go(func() { l.run(c.ctx) })
			c.wg.Go(func() { l.attend(c.ctx) })
		}
	}
	return l
}

// nodeLink returns the way to a node, nil if its address is not known.
func (c *Client) nodeLink(id int32) *link {
	addr, ok := c.meta.image.Load().nodes[id]
	if !ok {
		return nil
	}
	return c.link(addr)
}

// anyLink returns the way to some node: known nodes first, then the bootstrap
// list, from which a cluster that moved as a whole is found again. One that owes
// an answer is passed over, unless all do.
func (c *Client) anyLink() *link {
	nodes := c.meta.image.Load().nodes
	addrs := make([]string, 0, len(nodes)+len(c.cfg.Bootstrap))
	for _, id := range slices.Sorted(maps.Keys(nodes)) {
		addrs = append(addrs, nodes[id])
	}
	addrs = append(addrs, c.cfg.Bootstrap...)
	next := int(c.links.next.Load())
	for i := range addrs {
		if l := c.link(addrs[(next+i)%len(addrs)]); !l.late.Load() {
			return l
		}
	}
	return c.link(addrs[next%len(addrs)])
}

// ask sends a request that changes nothing, to any node, and retries until it
// is answered, ctx ends or RequestTimeout has passed.
func (c *Client) ask(ctx context.Context, kind frame.Kind, req, resp proto.Message) error {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.RequestTimeout)
	defer cancel()
	l := c.anyLink()
	for failures := 1; ; failures++ {
		_, _, err := l.do(ctx, &call{kind: kind, req: req, resp: resp})
		if err == nil || !retriable(err) || c.meta.image.Load().hopeless(err) {
			return err
		}
		if !pause(ctx, c.backoff(failures)) {
			return errors.Join(ctx.Err(), err)
		}
		l = c.linkAfter(err)
		proto.Reset(resp)
	}
}

// linkAfter returns the link to try after an error: to the node that the answer
// names for the controller, which may be none of those that the client knows, or
// to the next one.
func (c *Client) linkAfter(err error) *link {
	var se *serverError
	if errors.As(err, &se) && se.cause.Code == errcode.NotController && se.leader.GetAddress() != "" {
		return c.link(se.leader.Address)
	}
	c.links.next.Add(1)
	return c.anyLink()
}
