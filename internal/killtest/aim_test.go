package killtest

import (
	"context"
	"fmt"
	"path/filepath"
	"syscall"
	"time"
)

// long lists the phases in which a kill may come at any moment; others are over
// so soon that it has to come at once.
var long = map[string]bool{recovery: true, ringGrowth: true, checkpoint: true, topicDeletion: true, drain: true}

// delay returns how long after the beginning of a phase to kill.
func (r *round) delay(target string) time.Duration {
	if took := r.took[target]; long[target] && took > 0 && r.chance.IntN(3) > 0 {
		return time.Duration(r.chance.Int64N(int64(took)))
	}
	return 0
}

// kill kills a server in the target phase, if it can, and returns the phases in
// which it died. It starts the server if none runs, and leaves none. again says
// that the last kill has missed, and that no time should be lost.
func (r *round) kill(ctx context.Context, target string, again bool) (in []string, err error) {
	inFlight := make(chan int, 1)
	strike := func(s *server) {
		s.signal(syscall.SIGKILL)
		inFlight <- r.load.inFlight()
	}
	delay, skip := r.delay(target), r.chance.IntN(3)
	if target == recovery || target == ringGrowth && r.srv == nil {
		// Both may be over before the server serves.
		if r.srv != nil {
			strike(r.srv)
			<-r.srv.gone
			<-inFlight
		}
		for {
			err = r.start(func(s *server) { s.phases.aim(target, 0, false, after(delay, func() { strike(s) })) })
			if err == nil {
				err = r.awaitDeath(target, strike)
			}
			if !portTaken(err) || !wait(ctx, portPause) {
				return r.bury(inFlight, err)
			}
		}
	}
	if r.srv == nil {
		if err := r.start(nil); err != nil {
			return nil, err
		}
		if err := r.serving(ctx); err != nil {
			return nil, err
		}
		more := r.chance.Int64N(maxProgress)
		if again {
			more /= 50
		}
		if err := r.progress(1 + more); err != nil {
			return nil, err
		}
	}
	s := r.srv
	switch target {
	case idle:
		err = r.idle(func() { strike(s) })
	case appending:
		err = r.until("no produce was in flight outside of all phases", func() bool {
			return r.load.inFlight() > 0 && len(s.phases.now()) == 0
		})
		strike(s)
	default:
		if target == ringGrowth || target == drain {
			skip = 0 // a ring soon stops growing, and a server stops once
		}
		// How long a server takes to stop is seen once before it is cut short.
		if target != drain || r.took[drain] > 0 {
			s.phases.aim(target, skip, !long[target], after(delay, func() { strike(s) }))
		}
		if target == drain {
			s.signal(syscall.SIGTERM)
		}
	}
	if err == nil {
		err = r.awaitDeath(target, strike)
	}
	return r.bury(inFlight, err)
}

// ringFull reports whether the journal has all the files that it may have.
func (r *round) ringFull() bool {
	files, err := filepath.Glob(filepath.Join(r.dir, "data", "journal", "*.journal"))
	return err == nil && len(files) >= r.set.journalBytes/r.set.journalFileBytes
}

// after returns f, or what calls f so much later.
func after(delay time.Duration, f func()) func() {
	if delay == 0 {
		return f
	}
	return func() { time.AfterFunc(delay, f) }
}

// idle strikes when nothing is in flight. Half of the time everything has aged
// into segments by then.
func (r *round) idle(strike func()) error {
	if err := r.shut(); err != nil {
		return err
	}
	defer r.load.gate.open()
	if r.chance.IntN(2) == 0 {
		wait(r.load.ctx, 2*r.set.flushAge)
	}
	err := r.until("the phases did not end with the load", func() bool { return len(r.srv.phases.now()) == 0 })
	strike()
	<-r.srv.gone
	return err
}

// shut waits until everything that clients have begun is answered.
func (r *round) shut() error {
	shut := make(chan error, 1)
	ctx, cancel := context.WithCancel(r.load.ctx)
	defer cancel()
	go func() { shut <- r.load.gate.shut(ctx) }()
	timeout := time.NewTimer(phaseTimeout)
	defer timeout.Stop()
	select {
	case err := <-shut:
		return err
	case <-r.srv.gone:
		return r.srv.died(fmt.Sprint("the server died by itself: ", r.srv.err))
	case <-timeout.C:
		return r.srv.stuck(fmt.Sprintf("what is under way is not answered in %v", phaseTimeout))
	}
}

// awaitDeath waits until a server that is going to be killed is gone. One whose
// ring has grown up before it could be killed for growing is killed all the
// same, and has missed.
func (r *round) awaitDeath(target string, strike func(*server)) error {
	timeout := time.NewTimer(phaseTimeout)
	defer timeout.Stop()
	look := time.NewTicker(100 * time.Millisecond)
	defer look.Stop()
	for gone := false; !gone; {
		select {
		case <-r.srv.gone:
			gone = true
		case <-look.C:
			if target == ringGrowth && r.ringFull() && !r.srv.signalled.Load() {
				strike(r.srv)
			}
		case <-timeout.C:
			return r.srv.stuck(fmt.Sprintf("phase %q did not come in %v; seen: %v", target, phaseTimeout, r.srv.phases.seen()))
		case <-r.load.ctx.Done():
			return context.Cause(r.load.ctx)
		}
	}
	if !r.srv.signalled.Load() {
		return r.srv.died(fmt.Sprint("the server died by itself: ", r.srv.err))
	}
	return nil
}

// bury takes stock of a server that is gone, unless err says that it is not.
func (r *round) bury(inFlight <-chan int, err error) (in []string, _ error) {
	if err != nil {
		return nil, err
	}
	s := r.srv
	r.srv = nil
	s.phases.durations(r.took)
	if err := s.complaint(); err != nil {
		return nil, err
	}
	if !s.killed() {
		if s.err != nil {
			return nil, s.died("the server ended: " + s.err.Error())
		}
		s.phases.end(drain, time.Now())
		s.phases.durations(r.took)
		return []string{exited}, nil // it was quicker
	}
	in = s.phases.now()
	if n := <-inFlight; len(in) == 0 && n > 0 {
		in = []string{appending}
	} else if len(in) == 0 {
		in = []string{idle}
	}
	return in, nil
}
