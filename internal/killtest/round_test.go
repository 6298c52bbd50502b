package killtest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// settings are what differs between the data directories of a run. All are
// small, so that phases are frequent.
type settings struct {
	journalBytes, journalFileBytes, memoryBytes int
	flushAge                                    time.Duration
	more                                        func(*load) []func() // loops beside those of every load; nil: none
}

// phaseTimeout is how long to wait for something that a healthy server does all
// the time.
const phaseTimeout = time.Minute

// maxProgress is how many records may be acknowledged between a start and what
// the next kill is aimed at.
const maxProgress = 5000

// round is one data directory, its clients, and the servers that live and die
// on it.
type round struct {
	binary string
	dir    string // holds the data, the log and, after a failure, the history
	set    settings
	chance *rand.Rand
	took   map[string]time.Duration // phases, as they took last

	log  *os.File
	addr string
	srv  *server // nil: none runs
	load *load
}

// newRound starts a first server on an empty directory, and the load.
func newRound(ctx context.Context, binary, dir string, set settings, seed uint64) (*round, error) {
	r := &round{
		binary: binary, dir: dir, set: set, addr: "127.0.0.1:0",
		chance: rand.New(rand.NewPCG(seed, 0)), took: make(map[string]time.Duration),
	}
	var err error
	if err = os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	if r.log, err = os.Create(filepath.Join(dir, "server.log")); err != nil {
		return nil, err
	}
	if err = r.start(nil); err == nil {
		err = r.serving(ctx)
	}
	if err == nil {
		r.load, err = startLoad(ctx, r.addr, seed, set.more)
	}
	if err != nil {
		r.close()
		return nil, err
	}
	return r, nil
}

// close ends what runs.
func (r *round) close() {
	if r.load != nil {
		r.load.stop()
	}
	if r.srv != nil {
		r.srv.signal(syscall.SIGKILL)
		<-r.srv.gone
	}
	_ = r.log.Close()
}

// start starts a server; aim may watch it from its first line on.
func (r *round) start(aim func(*server)) (err error) {
	r.srv, err = startServer(r.binary, r.log, []string{
		"serve", "--data.dir", filepath.Join(r.dir, "data"), "--listen", r.addr, "--admin.listen", "off",
		"--journal.bytes", fmt.Sprint(r.set.journalBytes), "--journal.file.bytes", fmt.Sprint(r.set.journalFileBytes),
		"--memory.bytes", fmt.Sprint(r.set.memoryBytes), "--flush.age", r.set.flushAge.String(),
		"--retention.check.interval", "1s",
		"--log.level", "debug", "--log.format", "json",
	}, aim)
	return err
}

// portPause is how long to wait for a port that somebody has for a moment, as
// the near end of a connection.
const portPause = 50 * time.Millisecond

// portTaken reports whether a server died for want of its port.
func portTaken(err error) bool {
	return err != nil && strings.Contains(err.Error(), "address already in use")
}

// serving waits until the server serves, and starts it again as long as its
// port is taken.
func (r *round) serving(ctx context.Context) error {
	deadline := time.Now().Add(startTimeout)
	for {
		addr, err := r.srv.serving(ctx)
		if err == nil {
			r.addr = addr
			return nil
		}
		if !portTaken(err) || time.Now().After(deadline) || !wait(ctx, portPause) {
			return err
		}
		if err := r.start(nil); err != nil {
			return err
		}
	}
}

// progress waits until more records were acknowledged.
func (r *round) progress(more int64) error {
	from := r.load.acked.Load()
	return r.until(fmt.Sprintf("only some of %d more records were acknowledged", more), func() bool {
		return r.load.acked.Load()-from >= more
	})
}

// until waits for a condition that the load and the server bring about.
func (r *round) until(what string, is func() bool) error {
	timeout := time.NewTimer(phaseTimeout)
	defer timeout.Stop()
	look := time.NewTicker(200 * time.Microsecond)
	defer look.Stop()
	for !is() {
		select {
		case <-look.C:
		case <-r.srv.gone:
			return r.srv.died(fmt.Sprint("the server died by itself: ", r.srv.err))
		case <-r.load.ctx.Done():
			return context.Cause(r.load.ctx)
		case <-timeout.C:
			return r.srv.stuck(fmt.Sprintf("%s in %v", what, phaseTimeout))
		}
	}
	return nil
}
