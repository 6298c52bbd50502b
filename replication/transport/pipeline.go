package transport

import (
	"time"

	"github.com/hashicorp/raft"
)

// maxPipelined is how many AppendEntries of one pipeline may be unanswered.
const maxPipelined = 128

// pipeline is a raft.AppendPipeline. Its answers come in order, and it breaks at
// the first that is missing or bad: Raft then goes back to single calls, which
// can deal with both.
type pipeline struct {
	m      *Member
	to     raft.ServerID
	sent   chan *appendFuture
	ready  chan raft.AppendFuture
	stop   chan struct{} // closed by Close
	broken chan struct{} // closed at the first bad answer
}

// AppendEntriesPipeline implements raft.Transport.
func (m *Member) AppendEntriesPipeline(id raft.ServerID, _ raft.ServerAddress) (raft.AppendPipeline, error) {
	p := &pipeline{
		m: m, to: id,
		sent:   make(chan *appendFuture, maxPipelined),
		ready:  make(chan raft.AppendFuture, maxPipelined),
		stop:   make(chan struct{}),
		broken: make(chan struct{}),
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.ended {
		return nil, ErrClosed
	}
	m.group.Go(p.collect)
	return p, nil
}

// AppendEntries implements raft.AppendPipeline.
func (p *pipeline) AppendEntries(req *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) (raft.AppendFuture, error) {
	select {
	case <-p.broken:
		return nil, raft.ErrPipelineShutdown
	case <-p.stop:
		return nil, raft.ErrPipelineShutdown
	default:
	}
	f := &appendFuture{start: p.m.clock.Now(), req: req, resp: resp, done: make(chan struct{})}
	var err error
	if f.call, err = p.m.begin(&call{piped: true}, p.to, req, nil); err != nil {
		return nil, err
	}
	select {
	case p.sent <- f:
		return f, nil
	case <-p.broken:
	case <-p.stop:
	}
	return nil, raft.ErrPipelineShutdown
}

// collect waits for the answers, one after the other.
func (p *pipeline) collect() {
	defer close(p.broken)
	for {
		var f *appendFuture
		select {
		case f = <-p.sent:
		case <-p.stop:
			return
		case <-p.m.closed:
			return
		}
		select {
		case <-f.call.done:
		case <-p.stop:
			f.end(raft.ErrPipelineShutdown)
			return
		}
		answer, err := f.call.wait()
		if err != nil {
			f.end(err)
			return // not handed out: Raft would take it for contact
		}
		*f.resp = *answer.(*raft.AppendEntriesResponse)
		p.m.appended(p.to, f.req, f.resp)
		f.end(nil)
		select {
		case p.ready <- f:
		case <-p.stop:
			return
		case <-p.m.closed:
			return
		}
		if !f.resp.Success {
			return
		}
	}
}

// Consumer implements raft.AppendPipeline.
func (p *pipeline) Consumer() <-chan raft.AppendFuture { return p.ready }

// Close implements raft.AppendPipeline. Raft calls it once, when nothing waits
// for answers any more; or because the goroutine that sends was ended by an
// error of the log, and then one that waits is left. An unsuccessful answer ends
// it: without, Raft's Shutdown would wait for it for ever.
func (p *pipeline) Close() error {
	close(p.stop)
	last := &appendFuture{
		start: p.m.clock.Now(), req: new(raft.AppendEntriesRequest), resp: new(raft.AppendEntriesResponse),
		done: make(chan struct{}),
	}
	last.end(raft.ErrPipelineShutdown)
	for {
		select {
		case p.ready <- last:
			return nil
		default:
		}
		select {
		case <-p.ready: // makes room: it counts no more
		default:
		}
	}
}

// appendFuture is a raft.AppendFuture.
type appendFuture struct {
	start time.Time
	req   *raft.AppendEntriesRequest
	resp  *raft.AppendEntriesResponse
	call  *call
	done  chan struct{}
	err   error
}

func (f *appendFuture) end(err error) {
	f.err = err
	close(f.done)
}

// Error implements raft.AppendFuture.
func (f *appendFuture) Error() error {
	<-f.done
	return f.err
}

// Start implements raft.AppendFuture.
func (f *appendFuture) Start() time.Time { return f.start }

// Request implements raft.AppendFuture.
func (f *appendFuture) Request() *raft.AppendEntriesRequest { return f.req }

// Response implements raft.AppendFuture.
func (f *appendFuture) Response() *raft.AppendEntriesResponse { return f.resp }
