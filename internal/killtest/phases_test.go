package killtest

import (
	"encoding/json"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// Phases as the server names them, and those that only the harness knows.
const (
	recovery      = "recovery"
	ringGrowth    = "ring growth"
	ringReuse     = "ring reuse"
	flush         = "flush"
	segmentRoll   = "segment roll"
	checkpoint    = "checkpoint"
	topicDeletion = "topic deletion"

	idle      = "idle"   // nothing in flight, no phase open
	appending = "append" // a produce in flight, no phase open
	drain     = "drain"  // stopping after SIGTERM
	exited    = "exit"   // not killed: it had stopped by then
)

// phases follows one process through its log.
type phases struct {
	mu     sync.Mutex
	open   map[string][]time.Time // beginnings without an end
	begun  map[string]int
	took   map[string]time.Duration // the last one, as seen from here
	target string                   // "": none
	skip   int                      // beginnings of target to let pass
	fire   func()                   // called once, under mu, at the next one
	short  bool                     // fire only while target is open
	due    bool                     // a short target has begun; fire once all that is there is read
}

func newPhases() *phases {
	return &phases{
		open: make(map[string][]time.Time), begun: make(map[string]int), took: make(map[string]time.Duration),
	}
}

// aim has fire called when the target begins for the time after skip others. Of
// a short target, which has to come again and again, a beginning whose end is
// there to be read already is let pass too: on a busy machine the log is read so
// late that nearly all are over by then.
func (p *phases) aim(target string, skip int, short bool, fire func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.target, p.skip, p.short, p.fire, p.due = target, skip, short, fire, false
}

// caughtUp tells that all of the log that is there was read.
func (p *phases) caughtUp() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.due {
		p.fireLocked()
	}
}

func (p *phases) fireLocked() {
	p.fire()
	p.fire, p.due = nil, false
}

// logLine is what is of interest in a line of the server's log.
type logLine struct {
	Level string `json:"level"`
	Msg   string `json:"msg"`
	Phase string `json:"phase"`
	State string `json:"state"`
}

// line takes one line of the log, and reports false if it is none.
func (p *phases) line(b []byte, now time.Time) (l logLine, ok bool) {
	if err := json.Unmarshal(b, &l); err != nil {
		return l, false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case l.Msg == "stopping":
		p.beginLocked(drain, now)
	case l.Msg == "phase" && l.State == "begin":
		p.beginLocked(l.Phase, now)
	case l.Msg == "phase" && l.State == "end":
		p.endLocked(l.Phase, now)
		if l.Phase == flush { // which a roll is a part of
			p.endLocked(segmentRoll, now)
		}
	}
	return l, true
}

func (p *phases) beginLocked(name string, now time.Time) {
	p.open[name] = append(p.open[name], now)
	p.begun[name]++
	if p.fire == nil || p.target != name {
		return
	}
	if p.skip--; p.skip >= 0 {
		return
	}
	if p.due = p.short; !p.due {
		p.fireLocked()
	}
}

func (p *phases) endLocked(name string, now time.Time) {
	if since := p.open[name]; len(since) > 0 {
		p.took[name] = now.Sub(since[0])
		p.open[name] = since[1:]
	}
	if name == p.target && len(p.open[name]) == 0 {
		p.due = false
	}
}

// end ends a phase that the log shows no end of.
func (p *phases) end(name string, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.endLocked(name, now)
}

// now returns the phases that are open, sorted.
func (p *phases) now() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	var names []string
	for name, since := range p.open {
		if len(since) > 0 {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// seen returns how often each phase has begun.
func (p *phases) seen() map[string]int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return maps.Clone(p.begun)
}

// durations adds to all how long each phase took, where it is known.
func (p *phases) durations(all map[string]time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	maps.Copy(all, p.took)
}

func TestPhases(t *testing.T) {
	t.Parallel()
	phase := func(name, state string) string {
		return `{"level":"DEBUG","msg":"phase","phase":"` + name + `","state":"` + state + `"}`
	}
	tests := []struct {
		name  string
		lines []string
		open  []string
		fired int // lines after which the second flush has been told of
		late  int // the same, if it is short and all lines were there at once
	}{
		{"nothing", []string{`{"msg":"journal recovered"}`, `panic: no log line`}, nil, 0, 0},
		{"ended", []string{phase(recovery, "begin"), phase(recovery, "end")}, nil, 0, 0},
		{"nested", []string{phase(checkpoint, "begin"), phase(flush, "begin"), phase(flush, "end")}, []string{checkpoint}, 0, 0},
		{"two flushers", []string{phase(flush, "begin"), phase(flush, "begin"), phase(flush, "end")}, []string{flush}, 2, 3},
		{"two flushes", []string{phase(flush, "begin"), phase(flush, "end"), phase(flush, "begin"), phase(flush, "end")}, nil, 3, 0},
		{"a third", []string{phase(flush, "begin"), phase(flush, "end"), phase(flush, "begin"), phase(flush, "end"), phase(flush, "begin")}, []string{flush}, 3, 5},
		{"roll", []string{phase(flush, "begin"), phase(segmentRoll, "begin")}, []string{flush, segmentRoll}, 0, 0},
		{"rolled", []string{phase(flush, "begin"), phase(segmentRoll, "begin"), phase(flush, "end")}, nil, 0, 0},
		{"stopping", []string{`{"level":"INFO","msg":"stopping"}`}, []string{drain}, 0, 0},
		{"end alone", []string{phase(flush, "end")}, nil, 0, 0},
	}
	for _, tt := range tests {
		for _, mode := range []struct {
			name        string
			short, late bool
			want        int
		}{{"long", false, true, tt.fired}, {"short", true, false, tt.fired}, {"short, read late", true, true, tt.late}} {
			p, fired := newPhases(), 0
			at := 0
			p.aim(flush, 1, mode.short, func() { fired = at })
			for i, l := range tt.lines {
				at = i + 1
				p.line([]byte(l), time.Now())
				if !mode.late || at == len(tt.lines) {
					p.caughtUp()
				}
			}
			if diff := cmp.Diff(tt.open, p.now()); diff != "" {
				t.Errorf("%s, %s: open (-want +got):\n%s", tt.name, mode.name, diff)
			}
			if fired != mode.want {
				t.Errorf("%s, %s: fired after line %d, want %d", tt.name, mode.name, fired, mode.want)
			}
		}
	}
}
