package broker

import (
	"slices"
	"sync/atomic"
	"time"

	"github.com/flotilla-log/flotilla/internal/errcode"
	"github.com/flotilla-log/flotilla/internal/histogram"
)

// Refusal is why a connection was not taken.
type Refusal uint8

const (
	RefusedMax      Refusal = iota // connections.max
	RefusedMaxPerIP                // connections.max.per.ip
	refusals
)

var refusalNames = [refusals]string{RefusedMax: "max", RefusedMaxPerIP: "max_per_ip"}

// Ending is why a connection ended.
type Ending uint8

const (
	EndedByPeer     Ending = iota // or by the network
	EndedByTimeout                // connections.idle.timeout, or a request that came too slowly
	EndedHandshake                // it never became one
	EndedTooLarge                 // a frame above request.bytes.max
	EndedMalformed                // bytes that are no frame
	EndedByError                  // anything else
	EndedByListener               // the node stops
	EndedByPanic                  // of the handler of a request
	endings
)

var endingNames = [endings]string{
	EndedByPeer: "peer", EndedByTimeout: "timeout", EndedHandshake: "handshake", EndedTooLarge: "too_large",
	EndedMalformed: "malformed", EndedByError: "error", EndedByListener: "stopping", EndedByPanic: "panic",
}

// meterCodes is how many codes a Meter tells apart: more than there are. Others
// count as UNKNOWN_SERVER_ERROR.
const meterCodes = 256

// kindMeter counts the requests of one kind.
type kindMeter struct {
	times  *histogram.Histogram
	errors [meterCodes]atomic.Uint64 // by code + 1
}

// Meter counts what one listener does, for metrics. Its kinds of requests, and
// its codes, are fixed, so its size is. Safe for concurrent use.
type Meter struct {
	protocol string
	names    []string
	kinds    []kindMeter

	connections, inFlight atomic.Int64
	accepted              atomic.Uint64
	refused               [refusals]atomic.Uint64
	ended                 [endings]atomic.Uint64
	bytesIn, bytesOut     atomic.Uint64
}

// NewMeter returns the meter of a listener that speaks a protocol, whose
// requests have kinds of these names; a kind is then its place in names. The
// kinds after them, of what is pushed, have errors alone.
func NewMeter(protocol string, names []string, pushed ...string) *Meter {
	all := append(slices.Clone(names), pushed...)
	m := &Meter{protocol: protocol, names: all, kinds: make([]kindMeter, len(all))}
	for i := range names {
		m.kinds[i].times = histogram.New(histogram.Request)
	}
	return m
}

// Comes counts a connection that is there, and may yet turn out to be another
// meter's; Goes ends that.
func (m *Meter) Comes() { m.connections.Add(1) }

// Goes is the opposite of Comes.
func (m *Meter) Goes() { m.connections.Add(-1) }

// Opened counts a connection that was taken.
func (m *Meter) Opened() { m.accepted.Add(1); m.connections.Add(1) }

// Ended counts the end of a connection that was taken.
func (m *Meter) Ended(e Ending) { m.connections.Add(-1); m.ended[e].Add(1) }

// Refused counts a connection that was not taken.
func (m *Meter) Refused(r Refusal) { m.refused[r].Add(1) }

// Begin counts a request of that many bytes that begins.
func (m *Meter) Begin(bytes int) { m.inFlight.Add(1); m.bytesIn.Add(uint64(bytes)) }

// Done counts the end of a request that began: its answer is queued after took.
func (m *Meter) Done(kind int, took time.Duration) {
	m.inFlight.Add(-1)
	m.kinds[kind].times.ObserveDuration(took)
}

// Wrote counts bytes that were sent.
func (m *Meter) Wrote(bytes int64) { m.bytesOut.Add(uint64(bytes)) }

// Error counts an error of a request, or of a part of it.
func (m *Meter) Error(kind int, code errcode.Code) {
	i := int(code) + 1
	if i < 0 || i >= meterCodes || !code.Known() {
		i = int(errcode.UnknownServer) + 1
	}
	m.kinds[kind].errors[i].Add(1)
}

// MeterStats is what a Meter has counted.
type MeterStats struct {
	Protocol              string
	Connections, InFlight int64
	Accepted              uint64
	Refused, Ended        map[string]uint64 // by reason: all reasons that there are
	BytesIn, BytesOut     uint64
	Kinds                 []KindStats
}

// KindStats is what was counted of one kind of request.
type KindStats struct {
	Name   string
	Times  *histogram.Snapshot // from the whole request to its answer being queued, in ns; nil: it is pushed
	Errors map[string]uint64   // by the code's name; those that occurred
}

// Stats returns the counts by now.
func (m *Meter) Stats() MeterStats {
	s := MeterStats{
		Protocol: m.protocol, Connections: m.connections.Load(), InFlight: m.inFlight.Load(), Accepted: m.accepted.Load(),
		BytesIn: m.bytesIn.Load(), BytesOut: m.bytesOut.Load(),
		Refused: make(map[string]uint64, refusals), Ended: make(map[string]uint64, endings),
	}
	for i := range m.refused {
		s.Refused[refusalNames[i]] = m.refused[i].Load()
	}
	for i := range m.ended {
		s.Ended[endingNames[i]] = m.ended[i].Load()
	}
	for i := range m.kinds {
		k := KindStats{Name: m.names[i], Errors: make(map[string]uint64)}
		if t := m.kinds[i].times; t != nil {
			times := t.Snapshot()
			k.Times = &times
		}
		for c := range m.kinds[i].errors {
			if n := m.kinds[i].errors[c].Load(); n > 0 {
				k.Errors[errcode.Code(c-1).Name()] = n
			}
		}
		s.Kinds = append(s.Kinds, k)
	}
	return s
}
