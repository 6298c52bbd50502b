//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

// chaos is what happens to the server, by seed.
type chaos struct {
	srv    *server
	dir    string // of the file system that holds the data
	chance *rand.Rand

	mu     sync.Mutex
	action string // what goes on
	counts map[string]int
}

// action is one kind of trouble.
type action struct {
	name   string
	weight int
	ends   bool // the server
	do     func(c *chaos, ctx context.Context) error
}

var actions = []action{
	{"quiet", 3, false, (*chaos).quiet},
	{"kill -9", 4, true, (*chaos).kill},
	{"restart", 2, true, (*chaos).restart},
	{"pause", 1, false, (*chaos).pause},
	{"full disk", 2, false, (*chaos).fill},
	{"kill -9 on a full disk", 1, true, (*chaos).killFull},
}

// run does one thing after the other until ctx ends. steady leaves out what ends
// the server.
func (c *chaos) run(ctx context.Context, steady bool) error {
	for ctx.Err() == nil {
		a := c.pick(steady)
		c.set(a.name)
		err := a.do(c, ctx)
		c.set("")
		if err != nil {
			return fmt.Errorf("%s: %w", a.name, err)
		}
		if err := wait(ctx, time.Duration(500+c.chance.IntN(3000))*time.Millisecond); !err {
			return nil
		}
	}
	return nil
}

func (c *chaos) pick(steady bool) action {
	total := 0
	for _, a := range actions {
		if !a.ends || !steady {
			total += a.weight
		}
	}
	at := c.chance.IntN(total)
	for _, a := range actions {
		if a.ends && steady {
			continue
		}
		if at -= a.weight; at < 0 {
			return a
		}
	}
	panic("soak: the weights do not add up")
}

func (c *chaos) set(action string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.action = action
	if action != "" {
		c.counts[action]++
	}
}

// now returns what goes on.
func (c *chaos) now() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.action
}

// some waits for a random time between two.
func (c *chaos) some(ctx context.Context, least, most time.Duration) {
	wait(ctx, least+time.Duration(c.chance.Int64N(int64(most-least))))
}

func (c *chaos) quiet(ctx context.Context) error {
	c.some(ctx, 2*time.Second, 15*time.Second)
	return nil
}

func (c *chaos) kill(ctx context.Context) error {
	if err := c.srv.end(syscall.SIGKILL); err != nil {
		return err
	}
	if c.chance.IntN(3) == 0 {
		c.some(ctx, 0, 3*time.Second)
	}
	return c.srv.start(context.WithoutCancel(ctx))
}

func (c *chaos) restart(ctx context.Context) error {
	if err := c.srv.end(syscall.SIGTERM); err != nil {
		return err
	}
	return c.srv.start(context.WithoutCancel(ctx))
}

func (c *chaos) pause(ctx context.Context) error {
	c.srv.signal(syscall.SIGSTOP)
	defer c.srv.signal(syscall.SIGCONT)
	c.some(ctx, 100*time.Millisecond, 4*time.Second)
	return nil
}

func (c *chaos) fill(ctx context.Context) error { return c.full(ctx, func() error { return nil }) }

func (c *chaos) killFull(ctx context.Context) error {
	return c.full(ctx, func() error { return c.kill(ctx) })
}

// full fills the file system to its last byte for a while.
func (c *chaos) full(ctx context.Context, meanwhile func() error) (err error) {
	name := filepath.Join(c.dir, "ballast")
	defer func() { err = errors.Join(err, os.Remove(name)) }()
	if err := ballast(name); err != nil {
		return err
	}
	c.some(ctx, time.Second, 8*time.Second)
	if err := meanwhile(); err != nil {
		return err
	}
	c.some(ctx, time.Second, 4*time.Second)
	return nil
}

// ballast writes a file until nothing more fits.
func ballast(name string) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	defer f.Close()
	for b := make([]byte, 1<<20); len(b) > 0; {
		switch _, err := f.Write(b); {
		case errors.Is(err, syscall.ENOSPC):
			b = b[:len(b)/2] // what fitted of it is there
		case err != nil:
			return err
		}
	}
	return nil
}
