package transport

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
)

// nobody is the node that a hello names that only asks who is there: it has no
// cluster either.
const nobody = -1

// asks reports whether the end that dialled only asks who is here.
func (h hello) asks() bool { return h.cluster == "" && h.from == nobody }

// Ask asks who listens at the other end of a connection, which it closes: it returns
// the node's id and its cluster's. addr is what was dialled, and security, unless nil,
// how both ends prove who they are, as in MeshOptions. Errors match ErrHandshake if
// something is there, and it is no node that would talk.
func Ask(ctx context.Context, raw net.Conn, addr string, security *tls.Config) (cluster string, node int32, err error) {
	defer func() { _ = raw.Close() }()
	defer context.AfterFunc(ctx, func() { _ = raw.Close() })()
	if security, err = mutual(security); err != nil {
		return "", 0, err
	}
	conn, err := secure(ctx, raw, addr, security)
	if err != nil {
		return "", 0, err
	}
	if _, err := conn.Write(hello{min: minVersion, max: maxVersion, from: nobody, to: nobody}.append(nil)); err != nil {
		return "", 0, err
	}
	w, err := readWelcome(conn)
	switch {
	case err != nil:
		return "", 0, err
	case w.cluster == "" || w.node < 0:
		return "", 0, fmt.Errorf("%w: node %d of cluster %q answers", ErrHandshake, w.node, w.cluster)
	}
	return w.cluster, w.node, nil
}

// secure begins TLS on a connection that this end has dialled, unless c is nil.
func secure(ctx context.Context, raw net.Conn, addr string, c *tls.Config) (net.Conn, error) {
	if c == nil {
		return raw, nil
	}
	if c.ServerName == "" {
		c = c.Clone()
		if c.ServerName, _, _ = net.SplitHostPort(addr); c.ServerName == "" {
			c.ServerName = addr
		}
	}
	t := tls.Client(raw, c)
	if err := t.HandshakeContext(ctx); err != nil {
		return nil, explainTLS(err)
	}
	return t, nil
}
