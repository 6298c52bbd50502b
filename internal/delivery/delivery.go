// Package delivery writes batches that were read from partitions to a client's
// connection, from where they lie: from files by sendfile, from memory by
// vectored writes, with what frames them in between. Both listeners deliver by
// it.
package delivery

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync/atomic"
	"time"

	"github.com/flotilla-log/flotilla/broker"
)

const (
	// SmallBytes is up to where a delivery is copied: it then holds nothing of
	// the store's, and takes one system call.
	SmallBytes = 16 << 10

	// answerShare is which part of the node's budget for answers one delivery may
	// take.
	answerShare = 8

	// stalledBytes is what a consumer that takes nothing is offered. It is a
	// copy, so that nothing else is held for it.
	stalledBytes = 4 << 10

	// minBytesPerSecond is the slowest that a peer may take what is under way:
	// what it holds is not held for long.
	minBytesPerSecond = 256 << 10

	// runVectors is how many pieces of memory are written at a time: as many as
	// one system call takes. More would be gathered anew for each few bytes that a
	// slow peer takes.
	runVectors = 1024
)

// ErrNoRoom reports a delivery that the node had no memory for in time.
var ErrNoRoom = errors.New("delivery: no room for an answer in the node's memory for them")

// MostBytes is the most that one delivery may take of the node's budget for
// answers.
func MostBytes(answers *broker.Budget) int {
	return max(int(answers.Limit()/answerShare), SmallBytes)
}

// Deadline returns until when n bytes may take, besides a grace.
func Deadline(grace time.Duration, n int64) time.Time {
	return time.Now().Add(grace + time.Duration(n)*time.Second/minBytesPerSecond)
}

// Reloader reads again what was given back, as broker.Broker does.
type Reloader interface {
	Reload(r *broker.StreamResult, bytes int64) error
}

// Deadlines sets until when the peer has to take what is being written to it, as
// net.Conn does. An error ends the delivery.
type Deadlines interface{ SetWriteDeadline(t time.Time) error }

// Peer is what the deliveries of one connection have in common.
type Peer struct {
	Conn    Deadlines
	Ctx     context.Context // ends when the connection does
	Broker  Reloader
	Answers *broker.Budget // of the memory that deliveries hold

	WriteTimeout time.Duration // a peer that takes nothing for as long is given up
	Hold         time.Duration // how long memory waits for the peer to take it

	// Pause is called before the peer is kept waiting by this end, and what it
	// returns when that is over; nil: nobody wants to know.
	Pause func() (resume func())
}

// Delivery is batches of some partitions on their way out, each partition's
// after the bytes that frame them.
//
// What it holds of the store's memory is taken from Peer.Answers, and for no
// longer than Peer.Hold: if the peer has not taken it by then, it is given back,
// and read again, from wherever it lies by now, once the peer takes more. Files
// are held until the end: they cost no memory, and what was announced can be
// sent whatever becomes of them.
//
// It belongs to one goroutine at a time.
type Delivery struct {
	peer  *Peer
	parts []part
	bytes int64         // to write, in all
	held  int64         // of Peer.Answers
	all   *atomic.Int64 // held by all of its kind; nil: not counted
	again bool          // some of it was given back, to be read again
	end   time.Time     // until then the peer has to have taken all, once it is being written
	given time.Duration // of end, what its write deadline does not have yet

	// What is held of the store's memory is of parts in [first, loaded): what comes
	// before is written, and what comes after was given back.
	first, loaded int
}

// part is one partition's batches, after their frame.
type part struct {
	*broker.StreamResult
	head    []byte // written first
	bytes   int64  // of the batches
	written int64  // of both
}

func (p *part) len() int64 { return int64(len(p.head)) + p.bytes }

// New returns a delivery of results, whose chunks it owns from now on. heads are
// written as they are: heads[i] before the batches of results[i], and one more
// after all; nil means none. all, if it is not nil, counts the memory that is
// held.
func New(peer *Peer, results []broker.StreamResult, heads [][]byte, all *atomic.Int64) *Delivery {
	d := &Delivery{peer: peer, all: all, parts: make([]part, len(results), len(results)+1)}
	for i := range results {
		d.parts[i] = part{StreamResult: &results[i], bytes: results[i].Bytes()}
	}
	if heads != nil {
		d.parts = append(d.parts, part{StreamResult: new(broker.StreamResult)})
		for i := range d.parts {
			d.parts[i].head = heads[i]
		}
	}
	for i := range d.parts {
		d.bytes += d.parts[i].len()
	}
	d.loaded = len(d.parts)
	return d
}

// Prepare decides what is held until it is written: it claims the memory, or
// gives it back to be read again later. A small delivery is copied, and holds
// nothing more: Prepare returns it whole then, and WriteTo must not be called.
func (d *Delivery) Prepare() (whole []byte, err error) {
	if d.bytes <= SmallBytes && !d.again {
		whole = make([]byte, 0, d.bytes)
		for i := range d.parts {
			whole = append(whole, d.parts[i].head...)
			for _, chunk := range d.parts[i].Chunks {
				if whole, err = chunk.AppendTo(whole); err != nil {
					return nil, err
				}
			}
		}
		d.Release()
		return whole, nil
	}
	if n := d.memory(); n > 0 {
		if d.peer.Answers.TryAcquire(n) {
			d.hold(n)
		} else {
			d.LetGo() // WriteTo waits for room, and reads again
		}
	}
	return nil, nil
}

// memory is what is held of the store's, in bytes.
func (d *Delivery) memory() (n int64) {
	for i := range d.parts[d.first:d.loaded] {
		n += d.parts[d.first+i].memory()
	}
	return n
}

func (p *part) memory() (n int64) {
	for _, chunk := range p.Chunks {
		if chunk.File == nil {
			n += chunk.Bytes
		}
	}
	return n
}

// LetGo gives back the parts that are in memory, to be read again: their turn to
// be written may be long in coming.
func (d *Delivery) LetGo() {
	for i := range d.parts[d.first:d.loaded] {
		if p := &d.parts[d.first+i]; p.memory() > 0 {
			p.Release()
			d.again = true
		}
	}
	d.loaded = d.first
	d.keep(0)
}

// keep gives back all of Peer.Answers that is held but n bytes.
func (d *Delivery) keep(n int64) {
	if d.held > n {
		d.peer.Answers.Release(d.held - n)
		d.hold(n - d.held)
	}
}

// hold notes that n bytes more of Peer.Answers are held.
func (d *Delivery) hold(n int64) {
	d.held += n
	if d.all != nil {
		d.all.Add(n)
	}
}

// Release gives everything back. It may be called again.
func (d *Delivery) Release() {
	defer d.keep(0)
	for i := range d.parts {
		d.parts[i].Release()
	}
}

// Len returns how many bytes are written in all.
func (d *Delivery) Len() int64 { return d.bytes }

// WriteTo writes everything to w, the connection of Peer.Conn, after Prepare. An error is
// the connection's end: some of what was announced is missing.
func (d *Delivery) WriteTo(w io.Writer) (int64, error) {
	if d.memory() > d.held {
		panic("delivery: memory is held that is not counted")
	}
	d.end = Deadline(d.peer.WriteTimeout, d.bytes)
	var sent int64
	for d.wrote(0); d.first < len(d.parts); {
		n, err := d.writeSome(w)
		sent += n
		d.wrote(n)
		if err != nil {
			return sent, err
		}
	}
	return sent, d.peer.Conn.SetWriteDeadline(d.end)
}

// wrote takes note of n bytes more that are written. What is written is held no
// longer.
func (d *Delivery) wrote(n int64) {
	for ; d.first < len(d.parts); d.first++ {
		p := &d.parts[d.first]
		m := min(n, p.len()-p.written)
		p.written += m
		n -= m
		if p.written < p.len() {
			break
		}
		freed := p.memory()
		p.Release()
		d.keep(d.held - freed)
	}
	d.loaded = max(d.loaded, d.first)
}

// writeSome writes what comes next: what lies in memory up to the next range of a
// file, or that range, or if the peer takes no more the first few bytes.
func (d *Delivery) writeSome(w io.Writer) (int64, error) {
	vectors := d.run()
	if len(vectors) == 0 {
		p := &d.parts[d.first]
		if len(p.Chunks) == 0 {
			return 0, d.reload()
		}
		chunk, skip := p.at()
		if err := d.peer.Conn.SetWriteDeadline(d.end); err != nil {
			return 0, err
		}
		return fileRange{chunk, skip, d.readFile}.WriteTo(w)
	}
	hold := time.Now().Add(d.peer.Hold)
	if hold.After(d.end) {
		hold = d.end
	}
	if err := d.peer.Conn.SetWriteDeadline(hold); err != nil {
		return 0, err
	}
	run := net.Buffers(vectors)
	n, err := run.WriteTo(w)
	if err == nil || !errors.Is(err, os.ErrDeadlineExceeded) || !time.Now().Before(d.end) || d.peer.Ctx.Err() != nil {
		return n, err
	}
	return d.stall(w, appendAfter(nil, d.run(), n), n)
}

// run gathers what lies in memory from the first unwritten byte on, up to a range
// of a file, a part that is to be read again, or a part's end after runVectors.
func (d *Delivery) run() (vectors [][]byte) {
	for i := d.first; i < len(d.parts) && len(vectors) < runVectors; i++ {
		p := &d.parts[i]
		skip := p.written
		if n := int64(len(p.head)); skip < n {
			vectors = append(vectors, p.head[skip:])
			skip = 0
		} else {
			skip -= n
		}
		if p.bytes > 0 && len(p.Chunks) == 0 {
			return vectors
		}
		for _, chunk := range p.Chunks {
			if skip >= chunk.Bytes {
				skip -= chunk.Bytes
				continue
			}
			if chunk.File != nil {
				return vectors
			}
			vectors = appendAfter(vectors, chunk.Vectors, skip)
			skip = 0
		}
	}
	return vectors
}

// stall gives back what is held, and waits until the peer has taken a few bytes
// more of rest. It returns those and the n that went before them.
func (d *Delivery) stall(w io.Writer, rest [][]byte, n int64) (int64, error) {
	probe := make([]byte, 0, stalledBytes)
	for _, v := range rest {
		probe = append(probe, v[:min(len(v), stalledBytes-len(probe))]...)
	}
	clear(rest)
	d.LetGo()
	if err := d.peer.Conn.SetWriteDeadline(d.end); err != nil {
		return n, err
	}
	m, err := w.Write(probe)
	return n + int64(m), err
}

// reload reads the first part, which was let go of, again, when there is room. The
// time that it takes is the node's, and not counted as the peer's.
func (d *Delivery) reload() error {
	p := &d.parts[d.first]
	defer d.ours()()
	if err := d.room(p.bytes); err != nil {
		return err
	}
	d.hold(p.bytes)
	err := d.peer.Broker.Reload(p.StreamResult, p.bytes)
	d.loaded = max(d.loaded, d.first+1)
	d.keep(d.memory())
	return err
}

// ours begins time that this end takes, until over is called. It is not counted as
// the peer's.
func (d *Delivery) ours() (over func()) {
	began, resume := time.Now(), func() {}
	if d.peer.Pause != nil {
		resume = d.peer.Pause()
	}
	return func() {
		d.end = d.end.Add(time.Since(began))
		resume()
	}
}

// readFile has do read a file while a range of it is written: a cold disk may be
// slower than the peer has to be.
func (d *Delivery) readFile(do func()) error {
	before, over := d.end, d.ours()
	do()
	over()
	if d.given += d.end.Sub(before); d.given < time.Second { // each time would cost more than most reads
		return nil
	}
	d.given = 0
	return d.peer.Conn.SetWriteDeadline(d.end)
}

// room takes n bytes of Peer.Answers. It waits for them as long as a peer may that
// takes nothing.
func (d *Delivery) room(n int64) error {
	answers := d.peer.Answers
	if answers.TryAcquire(n) {
		return nil
	}
	ctx, cancel := context.WithTimeout(d.peer.Ctx, d.peer.WriteTimeout)
	defer cancel()
	if answers.Acquire(ctx, n) == nil {
		return nil
	}
	if err := d.peer.Ctx.Err(); err != nil {
		return err
	}
	return fmt.Errorf("%w: %d bytes of %d, for %v; raise memory.bytes, or ask for less at a time", ErrNoRoom, n, answers.Limit(), d.peer.WriteTimeout)
}

// at returns the chunk that the next byte is in, and how many bytes of it were
// written.
func (p *part) at() (*broker.Chunk, int64) {
	skip := p.written - int64(len(p.head))
	for _, chunk := range p.Chunks {
		if skip < chunk.Bytes {
			return chunk, skip
		}
		skip -= chunk.Bytes
	}
	panic("delivery: fewer bytes than announced")
}

// appendAfter appends vs without their first skip bytes to dst.
func appendAfter(dst, vs [][]byte, skip int64) [][]byte {
	for _, v := range vs {
		if n := int64(len(v)); skip >= n {
			skip -= n
			continue
		}
		dst = append(dst, v[skip:])
		skip = 0
	}
	return dst
}
