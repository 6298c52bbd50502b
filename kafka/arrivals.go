package kafka

import "io"

const (
	// idleBufferBytes holds a heartbeat, and what most clients send while they are idle.
	idleBufferBytes = 512

	// readBufferBytes holds headers and small requests; larger reads go past it.
	readBufferBytes = 4 << 10

	// busyReads is how many reads in a row fill the buffer of a connection that is to
	// have the larger one.
	busyReads = 2
)

// arrivals buffers what is read of a connection: in little memory, until there are
// reads that want more. Most connections of a node are idle, and these buffers were
// most of its memory.
type arrivals struct {
	from io.Reader
	buf  []byte // buf[next:end] was read, and is yet to be taken
	next int
	end  int
	full int   // reads in a row that have filled buf
	err  error // that came with the last bytes
}

// newArrivals returns arrivals of a connection of which some bytes were read already.
func newArrivals(from io.Reader, read []byte) *arrivals {
	a := &arrivals{from: from, buf: make([]byte, max(idleBufferBytes, len(read)))}
	a.end = copy(a.buf, read)
	return a
}

// buffered is how many bytes can be taken without a read.
func (a *arrivals) buffered() int { return a.end - a.next }

// wait returns when there is something to take, or with the error of the read.
func (a *arrivals) wait() error {
	for tries := 0; a.next == a.end; tries++ {
		if a.err != nil {
			return a.takeErr()
		}
		if tries == maxEmptyReads {
			return io.ErrNoProgress
		}
		a.grow()
		a.next, a.end = 0, 0
		a.end, a.err = a.from.Read(a.buf)
		if a.end < len(a.buf) {
			a.full = 0
		} else {
			a.full = min(a.full+1, busyReads)
		}
	}
	return nil
}

// maxEmptyReads is how many reads without a byte and without an error are one too many.
const maxEmptyReads = 100

// grow makes the buffer of a busy connection the larger one. It is empty.
func (a *arrivals) grow() {
	if a.full >= busyReads && len(a.buf) < readBufferBytes {
		a.buf = make([]byte, readBufferBytes)
	}
}

func (a *arrivals) takeErr() error {
	err := a.err
	a.err = nil
	return err
}

// Read implements io.Reader. What does not fit into the buffer is read past it.
func (a *arrivals) Read(b []byte) (int, error) {
	if a.next == a.end && a.err == nil && len(b) >= len(a.buf) {
		return a.from.Read(b)
	}
	if len(b) == 0 {
		return 0, nil
	}
	if err := a.wait(); err != nil {
		return 0, err
	}
	n := copy(b, a.buf[a.next:a.end])
	a.next += n
	return n, nil
}
