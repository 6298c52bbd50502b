package history

import (
	"fmt"
	"math/rand/v2"
	"time"
)

// A run is a history that a correct server could have given, with the truth
// that only the server knows.
type run struct {
	seed uint64
	h    History
	opt  Options
	logs map[Key]*modelLog // as they are at the end

	// finals are the processes that polled everything at the end.
	finals []int32
}

// stable is a topic that is never deleted, fleeting one that is.
const (
	stable   = "stable"
	fleeting = "fleeting"
)

// modelLog is one key's log; values[i] is at offset i.
type modelLog struct {
	start  int64
	values []int64
}

// model is a server with its clients, moved a step at a time by one seed. All
// that a correct server and network may do to a client happens here: answers
// lost, requests that land late, retries, crashes, readers that buffer.
type model struct {
	run
	rng       *rand.Rand
	now       time.Time
	rec       *Recorder
	keys      []Key
	exists    bool // fleeting
	admin     *Op  // the create or delete under way
	landed    bool // it has taken effect
	nextValue int64

	starts    modelStarts
	producers []*modelProducer
	late      []*modelSend // nobody waits for them any more; may still land
	readers   []*modelReader
}

type modelProducer struct {
	process int32
	sends   []*modelSend
}

type modelSend struct {
	op      Op
	landed  bool
	base    int64
	session string
}

type modelReader struct {
	process  int32
	group    bool
	polling  *Op
	assigned bool
	next     map[Key]int64
	buffered []Mop // fetched, not yet given to the client
}

// modelRun plays steps steps of a correct run.
func modelRun(seed uint64, steps int) run {
	rng := rand.New(rand.NewPCG(seed, 0x5ca1ab1e))
	m := &model{rng: rng, now: time.Unix(1e9, 0), exists: true}
	m.rec = NewRecorder(func() time.Time { return m.now })
	m.seed = seed
	m.opt = Options{Idempotent: seed%3 != 0, Final: true, LogStart: map[Key]int64{}}
	m.logs = make(map[Key]*modelLog)
	for _, k := range []Key{{stable, 0}, {stable, 1}, {fleeting, 0}} {
		m.keys = append(m.keys, k)
		m.logs[k] = new(modelLog)
	}
	for p := range int32(3) {
		m.producers = append(m.producers, &modelProducer{process: p})
		m.readers = append(m.readers, &modelReader{process: 10 + p, group: p == 2, next: make(map[Key]int64)})
	}
	m.drawStarts()
	for range steps {
		m.now = m.now.Add(time.Duration(1+rng.IntN(5)) * time.Millisecond)
		m.step()
	}
	m.finish()
	return m.run
}

func (m *model) chance(percent int) bool { return m.rng.IntN(100) < percent }

func (m *model) step() {
	switch n := m.rng.IntN(100); {
	case n < 55:
		m.produce(m.producers[m.rng.IntN(len(m.producers))])
	case n < 60:
		m.landLate()
	case n < 94:
		m.consume(m.readers[m.rng.IntN(len(m.readers))])
	case n < 96:
		m.topics()
	default:
		m.moveStart()
	}
}

func (m *model) produce(p *modelProducer) {
	switch n := m.rng.IntN(100); {
	case n < 40 && len(p.sends) < 4:
		key := m.keys[m.rng.IntN(len(m.keys))]
		values := make([]int64, 1+m.rng.IntN(3))
		for i := range values {
			m.nextValue++
			values[i] = m.nextValue
			m.starts.sentAt[m.nextValue] = m.now
		}
		op := m.rec.Invoke(Op{Process: p.process, F: Send, Mops: []Mop{Values(key, values...)}})
		p.sends = append(p.sends, &modelSend{op: op})
	case n < 70:
		m.landNext(p)
	case n < 98 && len(p.sends) > 0:
		m.answer(p, m.rng.IntN(len(p.sends)))
	case n == 98:
		m.crash(p)
	}
}

// landNext lets a request reach the log: with idempotence the oldest of its
// key, otherwise any.
func (m *model) landNext(p *modelProducer) {
	if len(p.sends) == 0 {
		return
	}
	s := p.sends[m.rng.IntN(len(p.sends))]
	if m.opt.Idempotent {
		for _, older := range p.sends {
			if !older.landed && older.op.Mops[0].Key == s.op.Mops[0].Key {
				s = older
				break
			}
		}
	}
	if !s.landed {
		m.land(s)
	}
}

func (m *model) land(s *modelSend) {
	key := s.op.Mops[0].Key
	if key.Topic == fleeting && !m.exists {
		return
	}
	l := m.logs[key]
	copies := 1
	if !m.opt.Idempotent && m.chance(15) {
		copies = 2 // a retry whose first try had landed
	}
	for range copies {
		if copies == 1 || m.chance(50) || !s.landed {
			s.base = int64(len(l.values))
		}
		for _, r := range s.op.Mops[0].Records {
			l.values = append(l.values, r.Value)
		}
		s.landed = true
	}
}

// answer ends the i-th send of p.
func (m *model) answer(p *modelProducer, i int) {
	s := p.sends[i]
	op := s.op
	switch {
	case s.landed && m.chance(85):
		op.Mops = []Mop{op.Mops[0].At(s.base)}
		m.rec.Complete(op, OK)
	case s.landed:
		m.rec.Complete(op, Info)
	case m.chance(60):
		// Refused for good. Sends after it of the same key have not landed.
		m.rec.Complete(op, Fail)
	default:
		m.crash(p) // it may still land, so this producer must not go on
		return
	}
	p.sends = append(p.sends[:i], p.sends[i+1:]...)
}

// crash leaves every send of p unanswered, some without a completion.
func (m *model) crash(p *modelProducer) {
	session := fmt.Sprint(p.process, m.nextValue, m.now.UnixNano())
	for _, s := range p.sends {
		if m.chance(70) {
			m.rec.Complete(s.op, Info)
		}
		if !s.landed {
			s.session = session
			m.late = append(m.late, s)
		}
	}
	p.sends = nil
	m.rec.Complete(m.rec.Invoke(Op{Process: p.process, F: Crash}), Info)
}

// landLate lands or drops a request whose client is gone; those of one client
// stay in order.
func (m *model) landLate() {
	if len(m.late) == 0 {
		return
	}
	i := m.rng.IntN(len(m.late))
	for j, s := range m.late[:i] {
		if m.opt.Idempotent && s.session == m.late[i].session {
			i = j
			break
		}
	}
	if m.chance(60) {
		m.land(m.late[i])
	}
	m.late = append(m.late[:i], m.late[i+1:]...)
}

func (m *model) topics() {
	if m.admin == nil {
		f := DeleteTopic
		if !m.exists {
			f = CreateTopic
		}
		op := m.rec.Invoke(Op{Process: 20, F: f, Topic: fleeting})
		m.admin, m.landed = &op, false
		return
	}
	if !m.landed {
		m.exists = !m.exists
		m.landed = true
		m.logs[Key{fleeting, 0}] = new(modelLog)
		return
	}
	op := *m.admin
	m.admin = nil
	if m.exists || m.chance(70) {
		m.rec.Complete(op, OK)
	} else {
		m.rec.Complete(op, Info) // a delete that worked, its answer lost
	}
}

func (m *model) consume(r *modelReader) {
	switch {
	case r.polling != nil:
		m.deliver(r)
	case !r.assigned || m.chance(3):
		m.assign(r)
	case m.chance(2):
		m.rec.Complete(m.rec.Invoke(Op{Process: r.process, F: Crash}), Info)
		r.assigned = false
	default:
		op := m.rec.Invoke(Op{Process: r.process, F: Poll})
		r.polling = &op
		m.fetch(r)
	}
}

func (m *model) assign(r *modelReader) {
	r.assigned = true
	r.buffered = nil
	clear(r.next)
	op := Op{Process: r.process, F: Assign}
	if r.group {
		op.F = Subscribe
	}
	for _, k := range m.keys {
		mop := Mop{Key: k, From: 0}
		if m.chance(20) {
			mop.From = NoOffset
			r.next[k] = m.rng.Int64N(int64(len(m.logs[k].values)) + 1)
		}
		op.Mops = append(op.Mops, mop)
	}
	if r.group {
		op.Mops = nil
	}
	m.rec.Complete(m.rec.Invoke(op), OK)
}

// fetch moves what the log holds now into r's buffer.
func (m *model) fetch(r *modelReader) {
	for _, k := range m.keys {
		l := m.logs[k]
		if r.group && m.chance(10) {
			r.next[k] = m.rng.Int64N(int64(len(l.values)) + 1) // a rebalance
		}
		if r.next[k] > int64(len(l.values)) && m.chance(50) {
			r.next[k] = 0 // the topic is a new one
		}
		from := max(r.next[k], l.start)
		to := min(from+m.rng.Int64N(6), int64(len(l.values)))
		if from >= to || (k.Topic == fleeting && !m.exists) {
			continue
		}
		r.buffered = append(r.buffered, Values(k, l.values[from:to]...).At(from))
		r.next[k] = to
	}
}

func (m *model) deliver(r *modelReader) {
	op := *r.polling
	r.polling = nil
	n := m.rng.IntN(len(r.buffered) + 1)
	op.Mops, r.buffered = r.buffered[:n:n], r.buffered[n:]
	switch {
	case m.chance(95):
		m.rec.Complete(op, OK)
	default:
		op.Mops = nil
		m.rec.Complete(op, Info)
	}
}

// finish ends what is under way and polls everything twice.
func (m *model) finish() {
	for _, p := range m.producers {
		for len(p.sends) > 0 {
			m.answer(p, 0)
		}
	}
	for range 2 * len(m.late) {
		m.landLate()
	}
	for m.admin != nil || !m.exists {
		m.topics()
	}
	for _, r := range m.readers {
		if r.polling != nil {
			m.deliver(r)
		}
	}
	for len(m.starts.open) > 0 {
		m.moveStart()
	}
	m.finals = []int32{30, 31}
	for _, process := range m.finals {
		m.pollAll(process)
	}
	m.finishStarts()
	m.h = m.rec.History()
}

func (m *model) pollAll(process int32) {
	r := &modelReader{process: process, next: make(map[Key]int64)}
	op := Op{Process: process, F: Assign}
	for _, k := range m.keys {
		op.Mops = append(op.Mops, Mop{Key: k})
	}
	m.rec.Complete(m.rec.Invoke(op), OK)
	behind := func() bool {
		for _, k := range m.keys {
			if r.next[k] < int64(len(m.logs[k].values)) && m.logs[k].start < int64(len(m.logs[k].values)) {
				return true
			}
		}
		return false
	}
	for behind() {
		m.now = m.now.Add(time.Millisecond)
		op := m.rec.Invoke(Op{Process: process, F: Poll})
		m.fetch(r)
		op.Mops, r.buffered = r.buffered, nil
		m.rec.Complete(op, OK)
	}
}
