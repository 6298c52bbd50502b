package server

import (
	"errors"
	"io"
	"net"
	"os"
	"sync/atomic"
	"time"

	"github.com/flotilla-log/flotilla/broker"
	"github.com/flotilla-log/flotilla/wire/frame"
	"github.com/flotilla-log/flotilla/wire/pb"
)

const (
	// smallDeliveryBytes is up to where a delivery is copied: it then holds
	// nothing of the store's, and takes one system call.
	smallDeliveryBytes = 16 << 10

	// stalledBytes is what a consumer that takes nothing is offered. It is a
	// copy, so that nothing else is held for it.
	stalledBytes = 4 << 10
)

// delivery is the payload of a Deliver frame, or of a fetch's answer, on its way
// out.
//
// What it holds of the store's memory is taken from Options.Answers, and for no
// longer than Options.PushHold: if the peer has not taken it by then, it is
// given back, and read again, from wherever it lies by now, once the peer takes
// something. Files are held until the end: they cost no memory, and the frame
// can be finished whatever becomes of them.
type delivery struct {
	c     *conn
	parts []deliveryPart
	bytes int64         // of the payload
	held  int64         // of Options.Answers
	all   *atomic.Int64 // held by all of its kind; nil: not counted
	again bool          // some of it was given back, to be read again
}

// deliveryPart is one partition's batches.
type deliveryPart struct {
	*broker.StreamResult
	bytes, written int64
}

func newDelivery(c *conn, results []broker.StreamResult) *delivery {
	d := &delivery{c: c, parts: make([]deliveryPart, len(results))}
	for i := range results {
		n := results[i].Bytes()
		d.parts[i] = deliveryPart{StreamResult: &results[i], bytes: n}
		d.bytes += n
	}
	return d
}

// header is that of the Deliver frame of a stream.
func (d *delivery) header(stream uint32) *pb.Deliver {
	m := &pb.Deliver{Stream: stream, Parts: make([]*pb.DeliverPart, len(d.parts))}
	for i := range d.parts {
		r := d.parts[i].StreamResult
		r.Sent()
		if r.Err != nil {
			d.c.s.meter.Error(deliverPlace, r.Err.Code)
		}
		m.Parts[i] = &pb.DeliverPart{
			TopicId: r.Topic[:], Partition: r.Index, Generation: r.Generation, Error: d.c.partitionError(r.Err, r.Topic, r.Index),
			HighWatermark: r.HighWatermark, LogStartOffset: r.LogStart, Length: uint32(d.parts[i].bytes),
		}
	}
	return m
}

// payload returns what to write, and holds no more memory than it may.
func (d *delivery) payload() ([]frame.Part, error) {
	if d.bytes == 0 {
		return nil, nil
	}
	if d.bytes <= smallDeliveryBytes && !d.again {
		small := make([]byte, 0, d.bytes)
		for i := range d.parts {
			for _, chunk := range d.parts[i].Chunks {
				var err error
				if small, err = chunk.AppendTo(small); err != nil {
					return nil, err
				}
			}
		}
		d.release()
		return []frame.Part{{Bytes: small}}, nil
	}
	if n := d.memory(); n > 0 {
		if d.c.s.opt.Answers.TryAcquire(n) {
			d.hold(n)
		} else {
			d.letGo() // WriteTo waits for room, and reads again
		}
	}
	return []frame.Part{{Source: d}}, nil
}

// memory is what is held of the store's, in bytes.
func (d *delivery) memory() (n int64) {
	for i := range d.parts {
		n += d.parts[i].memory()
	}
	return n
}

func (p *deliveryPart) memory() (n int64) {
	for _, chunk := range p.Chunks {
		if chunk.File == nil {
			n += chunk.Bytes
		}
	}
	return n
}

// letGo gives back the parts that are in memory, to be read again.
func (d *delivery) letGo() {
	for i := range d.parts {
		if d.parts[i].memory() > 0 {
			d.parts[i].Release()
			d.again = true
		}
	}
	d.keep(0)
}

// keep gives back all of Options.Answers that is held but n bytes.
func (d *delivery) keep(n int64) {
	if d.held > n {
		d.c.s.opt.Answers.Release(d.held - n)
		d.hold(n - d.held)
	}
}

// hold notes that n bytes more of Options.Answers are held.
func (d *delivery) hold(n int64) {
	d.held += n
	if d.all != nil {
		d.all.Add(n)
	}
}

// release gives everything back.
func (d *delivery) release() {
	for i := range d.parts {
		d.parts[i].Release()
	}
	d.letGo()
}

// Len implements frame.Source.
func (d *delivery) Len() int64 { return d.bytes }

// WriteTo implements frame.Source.
func (d *delivery) WriteTo(w io.Writer) (int64, error) {
	if d.memory() > d.held {
		panic("server: a delivery holds memory that is not counted")
	}
	end := within(d.c.s.opt.WriteTimeout, d.bytes)
	var sent int64
	for i := range d.parts {
		p := &d.parts[i]
		for p.written < p.bytes {
			n, err := d.writeSome(w, p, end)
			p.written += n
			sent += n
			if err != nil {
				return sent, err
			}
		}
		p.Release()
		d.keep(d.memory()) // what is written is held no longer
	}
	return sent, d.c.nc.SetWriteDeadline(end)
}

// writeSome writes the next chunk of a part, or the first of its bytes if the
// peer takes no more.
func (d *delivery) writeSome(w io.Writer, p *deliveryPart, end time.Time) (int64, error) {
	if len(p.Chunks) == 0 {
		if err := d.reload(p); err != nil {
			return 0, err
		}
	}
	chunk, skip := p.at()
	if chunk.File != nil {
		if err := d.c.nc.SetWriteDeadline(end); err != nil {
			return 0, err
		}
		return fileRange{chunk, skip}.WriteTo(w)
	}
	hold := time.Now().Add(d.c.s.opt.PushHold)
	if hold.After(end) {
		hold = end
	}
	if err := d.c.nc.SetWriteDeadline(hold); err != nil {
		return 0, err
	}
	run := net.Buffers(after(chunk.Vectors, skip))
	n, err := run.WriteTo(w)
	if err == nil || !errors.Is(err, os.ErrDeadlineExceeded) || !time.Now().Before(end) || d.c.ctx.Err() != nil {
		return n, err
	}
	return d.stall(w, after(chunk.Vectors, skip+n), n, end)
}

// stall gives back what is held, and waits until the peer has taken a few bytes
// more of rest. It returns those and the n that went before them.
func (d *delivery) stall(w io.Writer, rest [][]byte, n int64, end time.Time) (int64, error) {
	probe := make([]byte, 0, stalledBytes)
	for _, v := range rest {
		probe = append(probe, v[:min(len(v), stalledBytes-len(probe))]...)
	}
	clear(rest)
	d.letGo()
	if err := d.c.nc.SetWriteDeadline(end); err != nil {
		return n, err
	}
	m, err := w.Write(probe)
	return n + int64(m), err
}

// reload reads a part that was let go of again, when there is room.
func (d *delivery) reload(p *deliveryPart) error {
	if err := d.c.s.opt.Answers.Acquire(d.c.ctx, p.bytes); err != nil {
		return err
	}
	d.hold(p.bytes)
	err := d.c.s.opt.Broker.Reload(p.StreamResult, p.bytes)
	d.keep(d.memory())
	return err
}

// at returns the chunk that the next byte is in, and how many bytes of it were
// written.
func (p *deliveryPart) at() (*broker.Chunk, int64) {
	skip := p.written
	for _, chunk := range p.Chunks {
		if skip < chunk.Bytes {
			return chunk, skip
		}
		skip -= chunk.Bytes
	}
	panic("server: a delivery of fewer bytes than announced")
}

// after returns a copy of vs without the first skip bytes.
func after(vs [][]byte, skip int64) [][]byte {
	i := 0
	for ; i < len(vs) && skip >= int64(len(vs[i])); i++ {
		skip -= int64(len(vs[i]))
	}
	rest := append([][]byte(nil), vs[i:]...)
	if len(rest) > 0 {
		rest[0] = rest[0][skip:]
	}
	return rest
}
