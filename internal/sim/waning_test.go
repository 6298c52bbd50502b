package sim

import (
	"context"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/flotilla-log/flotilla/client"
	"github.com/flotilla-log/flotilla/internal/errcode"
	"github.com/flotilla-log/flotilla/internal/history"
	"github.com/flotilla-log/flotilla/internal/vfs"
)

// waning topics lose records: because clients ask for it, and by their configs,
// which are changed all the time but never beyond what is here.
const (
	askedTopic    = "asked"    // by DeleteRecords alone
	agesTopic     = "ages"     // after keptFor as well
	outgrowsTopic = "outgrows" // beyond keptBytes as well
	vanishesTopic = "vanishes" // as soon as retention looks at them
)

const (
	keptFor       = 300 * time.Millisecond
	keptBytes     = 8000
	waningBytes   = 200             // of a record's noise, at most
	overheadBytes = 8 + 61 + 8 + 20 // of a record that is a batch by itself, at most

	// retentionInterval is short, as nodes do not live long.
	retentionInterval = 100 * time.Millisecond
)

// retention is what the configs of waning topics allow.
var retention = map[string]history.Retention{
	agesTopic:     {Age: keptFor, Records: -1},
	outgrowsTopic: {Age: -1, Records: keptBytes / (waningBytes + overheadBytes)},
	vanishesTopic: {Age: 0, Records: 0},
}

// tightest are the configs that each waning topic has at times.
var tightest = map[string]map[string]string{
	askedTopic:    {},
	agesTopic:     {"retention.ms": strconv.FormatInt(keptFor.Milliseconds(), 10)},
	outgrowsTopic: {"retention.bytes": strconv.Itoa(keptBytes)},
	vanishesTopic: {"retention.ms": "0", "retention.bytes": "0"},
}

// keepsAll are configs by which nothing goes by itself.
var keepsAll = map[string]string{"retention.ms": "-1", "retention.bytes": "-1"}

func wanes(topic string) bool { return tightest[topic] != nil }

// drawWaning decides by dice of its own, so that it changes nothing else, which
// waning topic a history has, if any.
func (w *world) drawWaning() *rand.Rand {
	rng := rand.New(rand.NewPCG(w.seed, 2))
	names := []string{askedTopic, agesTopic, outgrowsTopic, vanishesTopic, "", "", "", ""}
	if name := names[rng.IntN(len(names))]; w.waning == "" {
		w.waning = name
	}
	return rng
}

// wane creates the waning topic, and starts the clients of it. It returns those
// that come to an end by themselves.
func (w *world) wane(rng *rand.Rand) (*crew, bool) {
	producers := new(crew)
	if w.waning == "" {
		return producers, true
	}
	topic := w.waning
	keys := make([]history.Key, 1+rng.IntN(2))
	for i := range keys {
		keys[i] = history.Key{Topic: topic, Partition: int32(i)}
	}
	bosses := []*person{w.hire(), w.hire()}
	if !bosses[0].createWaning(topic, int32(len(keys))) {
		return producers, false
	}
	l := load{keys: keys, records: 150 + rng.IntN(150), maxBytes: waningBytes, maxPause: 50 * time.Millisecond, timeout: 2 * time.Minute}
	employ := func(p *person, f func(p *person)) chan struct{} {
		done := make(chan struct{})
		w.clients.Go(func() {
			defer close(done)
			defer p.leave()
			f(p)
		})
		return done
	}
	producers.done = append(producers.done, employ(w.hire(), func(p *person) { p.produce(l) }))
	employ(w.hire(), func(p *person) { p.consume(keys, false) })
	for _, boss := range bosses {
		employ(boss, func(p *person) {
			for p.rest(200 * time.Millisecond) {
				p.diminish(topic, int32(len(keys)))
			}
		})
	}
	if rng.IntN(2) == 0 {
		pause := time.Duration(rng.Int64N(int64(2 * time.Second)))
		employ(w.hire(), func(p *person) { p.enlarge(l, pause) })
	}
	return producers, true
}

func (p *person) createWaning(topic string, partitions int32) bool {
	configs := maps.Clone(topicConfigs)
	maps.Copy(configs, keepsAll)
	maps.Copy(configs, p.w.tight(topic))
	configs["segment.ms"] = "50"
	for began := time.Now(); time.Since(began) < time.Minute; time.Sleep(100 * time.Millisecond) {
		op := p.w.rec.Invoke(history.Op{Process: p.process, F: history.CreateTopic, Topic: topic})
		_, err := p.c.Admin().CreateTopic(p.w.stopping, client.TopicSpec{Name: topic, Partitions: partitions, Configs: configs})
		code, _ := client.CodeOf(err)
		if code == errcode.TopicAlreadyExists {
			op.Saw = history.Present // by an earlier try
		}
		p.w.rec.Complete(p.outcome(op, err))
		if err == nil || code == errcode.TopicAlreadyExists {
			return true
		}
	}
	p.w.problem("topic %s could not be created", topic)
	return false
}

func (w *world) tight(topic string) map[string]string {
	if w.tighter != nil {
		return w.tighter
	}
	return tightest[topic]
}

// diminish deletes records, has them deleted, or looks what is left.
func (p *person) diminish(topic string, partitions int32) {
	key := history.Key{Topic: topic, Partition: p.rng.Int32N(partitions)}
	if p.w.ghost {
		_, _ = p.c.Admin().DeleteRecords(p.w.stopping, topic, map[int32]int64{key.Partition: 1 + p.rng.Int64N(3)})
	}
	switch p.rng.IntN(6) {
	case 0, 1:
		ends, err := p.c.Admin().Offsets(p.w.stopping, topic, client.Latest)
		if err == nil { // above the end it is refused
			p.deleteRecords(key, p.rng.Int64N(ends[key.Partition]+2))
		}
	case 2:
		if p.rng.IntN(4) == 0 {
			p.deleteRecords(key, client.BeforeEnd)
		}
	case 3:
		p.alter(topic)
	default:
		if p.w.starts.Load() > 0 { // a fleet's leader may not know yet that it is none
			_ = p.logStarts(p.w.stopping, topic)
		}
	}
}

// alter changes the topic's configs, within bounds.
func (p *person) alter(topic string) {
	set := map[string]string{"segment.ms": strconv.Itoa(1 + p.rng.IntN(200))}
	if p.rng.IntN(2) == 0 {
		maps.Copy(set, keepsAll)
	}
	if p.rng.IntN(4) > 0 {
		maps.Copy(set, p.w.tight(topic))
	}
	_, err := p.c.Admin().AlterTopic(p.w.stopping, topic, client.TopicChange{Set: set})
	p.refused("alter "+topic, err)
}

// enlarge gives the topic of l another partition after a while, and writes to
// all of them.
func (p *person) enlarge(l load, pause time.Duration) {
	select {
	case <-time.After(pause):
	case <-p.w.stopping.Done():
		return
	}
	topic, n := l.keys[0].Topic, int32(len(l.keys))
	err := p.c.Admin().AddPartitions(p.w.stopping, topic, n+1, false)
	if p.refused("add a partition to "+topic, err); err != nil {
		return
	}
	l.keys, l.records = append(slices.Clone(l.keys), history.Key{Topic: topic, Partition: n}), 40
	p.produce(l)
}

// refused takes it for a problem if something was refused that is allowed. That
// it took too long is none.
func (p *person) refused(what string, err error) {
	if code, ok := client.CodeOf(err); ok && (code == errcode.InvalidConfig || code == errcode.InvalidRequest || code == errcode.InvalidPartitions) {
		p.w.problem("process %d: %s: %v", p.process, what, err)
	}
}

// deleteRecords deletes records below an offset of a key.
func (p *person) deleteRecords(key history.Key, before int64) {
	op := p.w.rec.Invoke(history.Op{
		Process: p.process, F: history.DeleteRecords, Mops: []history.Mop{{Key: key, From: before}},
	})
	if p.w.hasty { // answers before it is done
		op.Mops = []history.Mop{{Key: key, From: before}}
		if before == client.BeforeEnd {
			op.Mops = nil
		}
		p.w.rec.Complete(op, history.OK)
		if !p.rest(500 * time.Millisecond) {
			return
		}
	}
	starts, err := p.c.Admin().DeleteRecords(p.w.stopping, key.Topic, map[int32]int64{key.Partition: before})
	if p.w.hasty {
		return
	}
	if err != nil {
		op.Err = err.Error()
		p.w.rec.Complete(op, history.Info)
		return
	}
	p.w.deleted(op, starts[key.Partition])
}

// deleted records the answer to a DeleteRecords. In a fleet, where it may be that
// of a leader which has been deposed, as nothing was left to do, only what it
// promises counts.
func (w *world) deleted(op history.Op, start int64) {
	key, before := op.Mops[0].Key, op.Mops[0].From
	if w.starts.Load() > 0 {
		op.Mops = []history.Mop{{Key: key, From: start}}
		w.rec.Complete(op, history.OK)
		return
	}
	w.rec.Complete(op, history.Info)
	if start < before {
		w.problem("records of %s[%d] below offset %d were deleted, and the log starts at %d", key.Topic, key.Partition, before, start)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.least == nil {
		w.least = make(map[history.Key]int64)
	}
	w.least[key] = max(w.least[key], start)
}

// logStarts asks where the partitions of a topic start.
func (p *person) logStarts(ctx context.Context, topic string) error {
	op := p.w.rec.Invoke(history.Op{Process: p.process, F: history.LogStarts})
	starts, err := p.c.Admin().Offsets(ctx, topic, client.Earliest)
	if err != nil {
		op.Err = err.Error()
		p.w.rec.Complete(op, history.Fail)
		return err
	}
	for i, start := range starts {
		op.Mops = append(op.Mops, history.Mop{Key: history.Key{Topic: topic, Partition: int32(i)}, From: start})
	}
	p.w.rec.Complete(op, history.OK)
	return nil
}

// keepWaning lets nothing go by itself any more, so that what is left by then is
// read at the end.
func (w *world) keepWaning() {
	if w.waning == "" {
		return
	}
	p := w.hire()
	defer p.leave()
	if _, err := p.c.Admin().AlterTopic(context.Background(), w.waning, client.TopicChange{Set: keepsAll}); err != nil {
		w.problem("alter %s at the end: %v", w.waning, err)
	}
}

// startsOfWaning asks where the waning topic starts, after it was read: nothing
// above may be missing.
func (w *world) startsOfWaning() {
	if w.waning == "" {
		return
	}
	p := w.hire()
	defer p.leave()
	if err := p.logStarts(context.Background(), w.waning); err != nil {
		w.problem("log starts of %s at the end: %v", w.waning, err)
		return
	}
	h := w.rec.History()
	for _, m := range h[len(h)-1].Mops {
		if least := w.least[m.Key]; m.From < least {
			w.problem("%s[%d] starts at %d, and it was said to start at %d", m.Key.Topic, m.Key.Partition, m.From, least)
		}
	}
}

// TestWaningCatches shows that histories would see what matters of log starts:
// with it wrong, some seed must fail for that very reason, within few.
func TestWaningCatches(t *testing.T) {
	t.Parallel()
	const within = uint64(30)
	journal := func(name string) bool { return strings.HasSuffix(name, ".journal") }
	none := func(string) bool { return false }
	for _, tt := range []struct {
		name  string
		topic string
		bug   func(w *world)
		want  history.Kind
	}{
		{"log start moved without its command", askedTopic, func(w *world) { w.ghost = true }, history.UnexplainedStart},
		{"answered before it is done", askedTopic, func(w *world) { w.hasty = true }, history.StartBack},
		{"deleted records are served", askedTopic, func(w *world) { w.hasty = true }, history.BelowStart},
		{"retention takes the newest segment", outgrowsTopic, func(w *world) {
			w.tighter = map[string]string{"retention.bytes": "0"}
		}, history.UnexplainedStart},
		{"retention takes what is young", agesTopic, func(w *world) {
			w.tighter = map[string]string{"retention.ms": "100"}
		}, history.UnexplainedStart},
		{"log start goes back after a restart", askedTopic, func(w *world) {
			w.wrap = func(fs vfs.FS) vfs.FS { return &forgetful{FS: fs, files: journal, dirs: none} }
		}, history.StartBack},
	} {
		t.Run(strings.ReplaceAll(tt.name, " ", "_"), func(t *testing.T) {
			t.Parallel()
			for seed := uint64(1); seed <= within; seed++ {
				problems, tr := run(t, seed, func(w *world) {
					w.waning = tt.topic
					tt.bug(w)
					randomHistory(w)
				})
				problems = verdict(problems, tr.history)
				found := slices.IndexFunc(problems, func(p string) bool { return strings.Contains(p, string(tt.want)) })
				if found < 0 {
					continue
				}
				sound, tr := run(t, seed, func(w *world) {
					w.waning = tt.topic
					randomHistory(w)
				})
				if sound = verdict(sound, tr.history); len(sound) > 0 {
					t.Fatalf("seed %d fails without the bug as well: %s", seed, firstLine(sound[0]))
				}
				t.Logf("seed %d: %s", seed, firstLine(problems[found]))
				return
			}
			t.Errorf("no seed up to %d noticed it", within)
		})
	}
}

// TestWaning checks that histories have what they are to show: log starts that
// moved, by request and by each limit, with records left above them.
func TestWaning(t *testing.T) {
	t.Parallel()
	for _, topic := range slices.Sorted(maps.Keys(tightest)) {
		t.Run(topic, func(t *testing.T) {
			t.Parallel()
			moved, left := 0, 0
			for _, seed := range seeds(t, 30, 8) {
				problems, tr := run(t, seed, func(w *world) {
					w.waning = topic
					randomHistory(w)
				})
				report(t, seed, verdict(problems, tr.history), tr)
				m, l := waned(tr.history, topic)
				moved, left = moved+m, left+l
			}
			t.Logf("log starts moved %d times; %d polls from above the last ones", moved, left)
			if moved == 0 || left == 0 && topic != vanishesTopic {
				t.Error("too few to show anything")
			}
		})
	}
}

// waned returns how many log starts of a topic were told of that nobody had
// asked for, if it has any retention, or at all; and how many polls returned
// records at or above the last ones.
func waned(h history.History, topic string) (moved, left int) {
	type place struct {
		key   history.Key
		start int64
	}
	asked, seen := make(map[place]bool), make(map[place]bool)
	last := make(map[history.Key]int64)
	for _, op := range h {
		for _, m := range op.Mops {
			at := place{m.Key, m.From}
			switch {
			case m.Key.Topic != topic:
			case op.F == history.DeleteRecords && op.Type == history.Invoke:
				asked[at] = true
			case op.Type == history.OK && (op.F == history.DeleteRecords || op.F == history.LogStarts):
				if _, byItself := retention[topic]; m.From > 0 && !seen[at] && !(byItself && asked[at]) {
					moved++
				}
				seen[at] = true
				last[m.Key] = max(last[m.Key], m.From)
			}
		}
	}
	for _, op := range h {
		for _, m := range op.Mops {
			if op.F == history.Poll && m.Key.Topic == topic && len(m.Records) > 0 && m.Records[len(m.Records)-1].Offset >= last[m.Key] {
				left++
			}
		}
	}
	return moved, left
}
