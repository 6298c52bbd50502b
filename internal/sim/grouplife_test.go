package sim

import (
	"time"

	"github.com/flotilla-log/flotilla/client"
	"github.com/flotilla-log/flotilla/internal/grouplife"
)

// What members of groups have.
const (
	groupSession   = 8 * time.Second
	groupHeartbeat = time.Second
)

// life is one life of a person as a member of a consumer group.
type life struct {
	*person
	*grouplife.Life
	late bool // it commits only what it gives up: franz-go holds a commit while it joins
}

// memberKind has a life join, with one client and protocol.
type memberKind func(l *life, topics []string) error

// join begins the life of a member.
func (p *person) join(group string, kind memberKind, topics []string) *life {
	l := &life{person: p, Life: &grouplife.Life{Recorder: p.w.rec, Process: p.process, Group: group, Value: valueOf}}
	l.Commits = func() bool { return !l.late && l.rng.IntN(3) == 0 }
	l.Begin()
	if err := kind(l, topics); err != nil {
		panic("sim: " + err.Error())
	}
	return l
}

// poll polls once, and reports whether it was given something.
func (l *life) poll(wait time.Duration) bool {
	given, waited := l.Poll(wait)
	if !given && !waited {
		l.rest(time.Second)
	}
	return given
}

// leave ends the life in good order.
func (l *life) leave() {
	l.Leave(10 * time.Second)
	l.person.leave()
}

// die ends the life: whatever the client says from here on, nobody hears it.
func (l *life) die() {
	l.Die(func() {
		l.silence()
		l.w.net.Reset(clientHost(l.process))
	})
	l.person.leave()
}

// silence cuts the client from everybody, until hears.
func (l *life) silence() {
	l.w.net.Cut(clientHost(l.process), "")
	l.w.net.Cut("", clientHost(l.process))
}

func (l *life) hears() {
	l.w.net.Mend(clientHost(l.process), "")
	l.w.net.Mend("", clientHost(l.process))
}

// native is a memberKind of the native client.
func native(l *life, topics []string) error {
	return grouplife.JoinNative(l.Life, l.c, client.GroupConfig{
		Topics: topics, MaxPollInterval: time.Minute,
		Consumer: client.ConsumerConfig{MaxWait: 100 * time.Millisecond, MaxPartitionBytes: 2 << 10},
	})
}
