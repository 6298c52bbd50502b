package main

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"sync"
)

const (
	// maxLineBytes is where a line without an end is cut.
	maxLineBytes = 64 << 10

	// tailLines are kept of what a process says, for when it has ended.
	tailLines = 5
)

// sharedOutput is written to by several processes, whole lines at a time.
type sharedOutput struct {
	mu sync.Mutex
	w  io.Writer
}

func (o *sharedOutput) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.w.Write(b)
}

// prefixed writes each line of a process to the shared output, behind a prefix.
// Its methods are called by one goroutine at a time.
type prefixed struct {
	out    *sharedOutput
	prefix string
	part   []byte // of a line that has not ended

	mu   sync.Mutex
	tail []string // guarded by mu: the last lines
}

// Write never fails: a process does not end because nobody reads its log.
func (p *prefixed) Write(b []byte) (int, error) {
	p.part = append(p.part, b...)
	for {
		line, rest, whole := bytes.Cut(p.part, []byte("\n"))
		if !whole && len(line) < maxLineBytes {
			break
		}
		if !whole {
			line, rest = p.part[:maxLineBytes], p.part[maxLineBytes:]
		}
		p.line(string(line))
		p.part = append([]byte(nil), rest...)
	}
	return len(b), nil
}

// end writes what is left of a line that never ended.
func (p *prefixed) end() {
	if len(p.part) > 0 {
		p.line(string(p.part))
		p.part = nil
	}
}

func (p *prefixed) line(s string) {
	p.mu.Lock()
	p.tail = append(p.tail, s)
	if len(p.tail) > tailLines {
		p.tail = p.tail[1:]
	}
	p.mu.Unlock()
	_, _ = fmt.Fprintf(p.out, "%s%s\n", p.prefix, s)
}

// last returns the last lines.
func (p *prefixed) last() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.tail)
}
