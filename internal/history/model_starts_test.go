package history

import "time"

// modelStarts is what moves log starts of a model, and who asks for them.
type modelStarts struct {
	recorded bool // the history has it; else Options.LogStart
	sentAt   map[int64]time.Time
	open     []*modelDeletion
}

// modelDeletion is a DeleteRecords or LogStarts under way.
type modelDeletion struct {
	op     Op
	landed bool
	start  int64 // what the answer says
}

// drawStarts decides how log starts move: behind everybody's back, as asked
// for, or by retention as well.
func (m *model) drawStarts() {
	m.starts = modelStarts{recorded: m.seed%4 != 0, sentAt: make(map[int64]time.Time)}
	switch m.seed % 4 {
	case 2:
		m.opt.Retention = map[string]Retention{stable: {Age: -1, Records: 8}}
	case 3:
		m.opt.Retention = map[string]Retention{stable: {Age: 300 * time.Millisecond, Records: -1}}
	}
}

// moveStart moves the log start of some key, or goes on with what does.
func (m *model) moveStart() {
	k := m.keys[m.rng.IntN(2)]
	l := m.logs[k]
	if !m.starts.recorded {
		l.start += m.rng.Int64N(min(3, int64(len(l.values))-l.start+1))
		return
	}
	if n := len(m.starts.open); n > 0 && (n > 2 || m.chance(60)) {
		m.goOn(m.rng.IntN(n))
		return
	}
	if m.chance(30) {
		m.retain(k, l)
	}
	op := Op{Process: 21, F: DeleteRecords, Mops: []Mop{{Key: k, From: m.rng.Int64N(min(l.start+4, int64(len(l.values))) + 1)}}}
	switch {
	case m.chance(40):
		op.F, op.Mops = LogStarts, []Mop{{Key: k}}
	case m.chance(10):
		op.Mops[0].From = NoOffset
	}
	m.starts.open = append(m.starts.open, &modelDeletion{op: m.rec.Invoke(op)})
}

// goOn lands the i-th operation, or answers it.
func (m *model) goOn(i int) {
	d := m.starts.open[i]
	asked := d.op.Mops[0]
	l := m.logs[asked.Key]
	if !d.landed {
		d.landed = true
		switch {
		case d.op.F == LogStarts:
		case asked.From == NoOffset:
			l.start = int64(len(l.values))
		default:
			l.start = max(l.start, asked.From)
		}
		d.start = l.start
		return
	}
	m.starts.open = append(m.starts.open[:i], m.starts.open[i+1:]...)
	if m.chance(20) {
		if m.chance(50) {
			m.rec.Complete(d.op, Info)
		}
		return
	}
	d.op.Mops = []Mop{{Key: asked.Key, From: d.start}}
	m.rec.Complete(d.op, OK)
}

// retain moves a log start as far as retention lets it.
func (m *model) retain(k Key, l *modelLog) {
	r, ok := m.opt.Retention[k.Topic]
	for ok && l.start < int64(len(l.values)) {
		old := r.Age >= 0 && m.now.Sub(m.starts.sentAt[l.values[l.start]]) >= r.Age
		more := r.Records >= 0 && m.opt.Idempotent && int64(len(l.values))-l.start > int64(r.Records)
		if !old && !more {
			return
		}
		l.start++
	}
}

// finishStarts says where the logs start when nobody reads any more.
func (m *model) finishStarts() {
	for k, l := range m.logs {
		if !m.starts.recorded {
			m.opt.LogStart[k] = l.start
			continue
		}
		op := m.rec.Invoke(Op{Process: 21, F: LogStarts})
		op.Mops = []Mop{{Key: k, From: l.start}}
		m.rec.Complete(op, OK)
	}
}
