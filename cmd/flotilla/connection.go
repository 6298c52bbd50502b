package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/flotilla-log/flotilla/client"
	"github.com/flotilla-log/flotilla/internal/errcode"
)

const (
	defaultPort      = "9092"
	defaultBootstrap = "127.0.0.1:" + defaultPort
)

// connection is how a command reaches a cluster.
type connection struct {
	bootstrap []string
	timeout   time.Duration
}

func addConnectionFlags(fs *pflag.FlagSet) *connection {
	conn := new(connection)
	fs.StringSliceVar(&conn.bootstrap, "bootstrap", []string{defaultBootstrap},
		"host:port of some nodes; the others are learnt from them ($FLOTILLA_BOOTSTRAP)")
	fs.DurationVar(&conn.timeout, "timeout", client.DefaultRequestTimeout,
		"how long to wait for an answer; a record is tried four times as long ($FLOTILLA_TIMEOUT)")
	markSettings(fs)
	return conn
}

// hideConnectionFlags is for commands that connect to nothing.
func hideConnectionFlags(c *cobra.Command) {
	c.SetUsageTemplate(strings.Replace(c.UsageTemplate(), "{{if .HasAvailableInheritedFlags}}", "{{if false}}", 1))
}

// with calls work with a client. The context that work gets ends when there
// turns out to be no server at any of the addresses.
func (conn *connection) with(ctx context.Context, stderr io.Writer, work func(context.Context, *client.Client) error) error {
	return conn.dialing(ctx, stderr, func(ctx context.Context, d *dialer) error {
		cl, err := client.New(client.Config{
			Bootstrap: conn.addresses(), ClientID: "flotilla-cli", Dial: d.dial,
			RequestTimeout: conn.timeout, DialTimeout: min(conn.timeout, client.DefaultDialTimeout),
		})
		if err != nil {
			return usagef("--bootstrap: %w", err)
		}
		defer cl.Close()
		return work(ctx, cl)
	})
}

// dialing calls work with what opens a client's connections, and says in its
// error what a user can do about it.
func (conn *connection) dialing(ctx context.Context, stderr io.Writer, work func(context.Context, *dialer) error) error {
	if conn.timeout <= 0 {
		return usagef("--timeout %s: give a positive duration, such as 10s", conn.timeout)
	}
	ctx, giveUp := context.WithCancelCause(ctx)
	defer giveUp(nil)
	d := &dialer{untried: make(map[string]bool), giveUp: giveUp, stderr: stderr}
	for _, a := range conn.addresses() {
		d.untried[a] = true
	}
	err := work(ctx, d)
	var unreachable *unreachableError
	if err != nil && errors.As(context.Cause(ctx), &unreachable) {
		return unreachable
	}
	return conn.explain(err)
}

// addresses returns the bootstrap addresses, each with a port.
func (conn *connection) addresses() []string {
	addrs := make([]string, len(conn.bootstrap))
	for i, a := range conn.bootstrap {
		addrs[i] = withPort(a)
	}
	return addrs
}

// withPort adds the default port to an address that has none.
func withPort(addr string) string {
	if ip := strings.Trim(addr, "[]"); net.ParseIP(ip) != nil {
		return net.JoinHostPort(ip, defaultPort)
	}
	if addr != "" && !strings.Contains(addr, ":") {
		return net.JoinHostPort(addr, defaultPort)
	}
	return addr
}

// explain says what a user can do about err, where the client's error does not.
func (conn *connection) explain(err error) error {
	code, answered := client.CodeOf(err)
	switch {
	case errors.Is(err, client.ErrUnknownOutcome):
		return fmt.Errorf("%w; it may have happened, or may yet: look before you try again", err)
	case answered && code == errcode.MessageTooLarge:
		return fmt.Errorf("%w; send smaller records, or create a topic that takes them: %q",
			err, "flotilla topic create NAME --config max.message.bytes=BYTES")
	case !answered && errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("no answer within %s (--timeout): %w", conn.timeout, err)
	case errors.Is(err, context.Canceled):
		return errors.New("interrupted")
	}
	return err
}

// unreachableError says that no bootstrap address can be connected to.
type unreachableError struct {
	addrs []string
	err   error // of the last one
}

func (e *unreachableError) Error() string {
	at := strings.Join(e.addrs, ", ")
	if errors.Is(e.err, syscall.ECONNREFUSED) {
		return fmt.Sprintf("no server at %s: start one with %q, or say where one is with --bootstrap", at, "flotilla serve")
	}
	return fmt.Sprintf("no server at %s: %v; say where one is with --bootstrap", at, e.err)
}

func (e *unreachableError) Unwrap() error { return e.err }

// dialer opens the client's connections. The client itself tries again for as
// long as it is asked to, which is right once there was a server, and a long
// silence for somebody who has started none.
type dialer struct {
	net.Dialer
	giveUp context.CancelCauseFunc
	stderr io.Writer

	mu      sync.Mutex
	untried map[string]bool // bootstrap addresses
	failed  []string
	reached bool // some server, once
	lost    bool // said so
}

func (d *dialer) dial(ctx context.Context, network, address string) (net.Conn, error) {
	nc, err := d.DialContext(ctx, network, address)
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case err == nil && d.lost:
		d.lost = false
		fmt.Fprintf(d.stderr, "%% connected to %s again\n", address)
	case err == nil:
		d.reached = true
	case d.reached && !d.lost:
		d.lost = true
		fmt.Fprintf(d.stderr, "%% no connection to %s, trying again: %v\n", address, err)
	case !d.reached && d.untried[address]:
		delete(d.untried, address)
		d.failed = append(d.failed, address)
		if len(d.untried) == 0 {
			d.giveUp(&unreachableError{addrs: d.failed, err: err})
		}
	}
	return nc, err
}
