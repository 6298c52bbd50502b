package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Versions without a step that would only cost the load: before 4 of JoinGroup a member
// need not ask twice.
const (
	findVersion      = 3
	joinVersion      = 3
	syncVersion      = 3
	heartbeatVersion = 3
	commitVersion    = 7
	consumerVersion  = 0
)

const (
	maxAnswer = 1 << 20 // more than any answer here takes
	readAhead = 512     // most answers take less
)

// conn is a connection that speaks Kafka's protocol, for loads that no client makes:
// thousands of members in one process.
type conn struct {
	net.Conn
	r    *bufio.Reader // of Conn
	fmt  *kmsg.RequestFormatter
	next int32 // correlation id
	buf  []byte
}

func dial(ctx context.Context, address string) (*conn, error) {
	nc, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	return &conn{Conn: nc, r: bufio.NewReaderSize(nc, readAhead), fmt: kmsg.NewRequestFormatter(kmsg.FormatterClientID("bench"))}, nil
}

// send writes a request. One goroutine sends.
func (c *conn) send(req kmsg.Request) error {
	c.buf = c.fmt.AppendRequest(c.buf[:0], req, c.next)
	c.next++
	_, err := c.Write(c.buf)
	return err
}

// receive reads the next answer into resp. One goroutine receives.
func (c *conn) receive(resp kmsg.Response) error {
	var length [4]byte
	if _, err := io.ReadFull(c.r, length[:]); err != nil {
		return err
	}
	n := binary.BigEndian.Uint32(length[:])
	if n < 4 || n > maxAnswer {
		return fmt.Errorf("an answer of %d bytes", n)
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(c.r, b); err != nil {
		return err
	}
	if b = b[4:]; resp.IsFlexible() {
		if len(b) == 0 || b[0] != 0 {
			return errors.New("an answer with tags, or without a byte for them")
		}
		b = b[1:]
	}
	return resp.ReadFrom(b)
}

func (c *conn) ask(req kmsg.Request, resp kmsg.Response) error {
	if err := c.send(req); err != nil {
		return err
	}
	resp.SetVersion(req.GetVersion())
	return c.receive(resp)
}

// coordinator returns the address of a group's coordinator, once there is one.
func coordinator(ctx context.Context, bootstrap, group string) (string, error) {
	c, err := dial(ctx, bootstrap)
	if err != nil {
		return "", err
	}
	defer c.Close()
	t := time.NewTicker(100 * time.Millisecond)
	defer t.Stop()
	for {
		req, resp := kmsg.NewPtrFindCoordinatorRequest(), kmsg.NewPtrFindCoordinatorResponse()
		req.Version, req.CoordinatorKey = findVersion, group
		if err := c.ask(req, resp); err != nil {
			return "", err
		}
		err := kerr.ErrorForCode(resp.ErrorCode)
		if err == nil {
			return net.JoinHostPort(resp.Host, fmt.Sprint(resp.Port)), nil
		}
		select {
		case <-t.C:
		case <-ctx.Done():
			return "", fmt.Errorf("no coordinator of %s: %w", group, err)
		}
	}
}
