//go:build linux

// Command soak runs the real server under load for a long time, on a small file
// system of its own, while it is killed, restarted, paused, and its disk filled,
// in a mix that a seed decides. Retention, DeleteRecords, topics that come and
// go and readers that cannot keep up run all the while.
//
// Every record is checked as it is read: see ledger. The last third of the time
// passes without a restart, and shows whether memory creeps. At the end all is
// read once more, before and after a last restart. Samples go to a table, and to
// samples.csv beside the server's log.
//
//	go run ./internal/soak [-for 1h] [-seed N] [-binary FILE] [-out DIR] [flags of the server behind --]
//
// It needs Linux, and either root or user namespaces, to mount the file system.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/flotilla-log/flotilla/client"
	"github.com/flotilla-log/flotilla/internal/proctest"
)

type options struct {
	length     time.Duration
	seed       uint64
	rate       int
	binary     string
	out        string
	diskBytes  int64
	memory     int64
	extra      int64
	serverArgs []string
}

func main() {
	var o options
	flag.DurationVar(&o.length, "for", time.Hour, "how long")
	flag.Uint64Var(&o.seed, "seed", uint64(time.Now().Unix()), "of the mix")
	flag.IntVar(&o.rate, "rate", 4000, "records a second")
	flag.StringVar(&o.binary, "binary", "", "server; default: built from this module")
	flag.StringVar(&o.out, "out", "", "directory for log and samples; default: a new one")
	flag.Int64Var(&o.diskBytes, "disk", 768<<20, "size of the file system, in bytes of memory")
	flag.Int64Var(&o.memory, "memory", 64<<20, "memory.bytes of the server")
	flag.Int64Var(&o.extra, "extra", 192<<20, "what the server may have resident beside memory.bytes")
	inside := flag.Bool("inside", false, "used by the command itself")
	flag.Parse()
	o.serverArgs = flag.Args()
	err := error(nil)
	if *inside {
		err = soak(o)
	} else {
		err = outside(&o)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "soak: FAIL:", err)
		os.Exit(1)
	}
}

// outside builds the server and runs the command again in a mount namespace.
func outside(o *options) (err error) {
	if o.out == "" {
		if o.out, err = os.MkdirTemp("", "flotilla-soak-"); err != nil {
			return err
		}
	}
	if o.out, err = filepath.Abs(o.out); err != nil {
		return err
	}
	if o.binary == "" {
		if o.binary, err = proctest.Build("", filepath.Join(o.out, "flotilla")); err != nil {
			return err
		}
	}
	args := []string{
		"-inside", "-for", o.length.String(), "-seed", fmt.Sprint(o.seed), "-rate", fmt.Sprint(o.rate), "-binary", o.binary, "-out", o.out,
		"-disk", fmt.Sprint(o.diskBytes), "-memory", fmt.Sprint(o.memory), "-extra", fmt.Sprint(o.extra), "--",
	}
	fmt.Printf("seed %d; again: make soak FOR=%s SEED=%d\n", o.seed, o.length, o.seed)
	cmd := exec.Command("/proc/self/exe", append(args, o.serverArgs...)...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
		Pdeathsig:   syscall.SIGTERM,
	}
	signal.Ignore(os.Interrupt) // it goes to the whole group: the inner one reports and ends
	return cmd.Run()
}

// soak is the run itself.
func soak(o options) error {
	disk := filepath.Join(o.out, "disk")
	if err := os.MkdirAll(disk, 0o755); err != nil {
		return err
	}
	if err := syscall.Mount("tmpfs", disk, "tmpfs", 0, fmt.Sprintf("size=%d", o.diskBytes)); err != nil {
		return fmt.Errorf("mount a tmpfs of %d bytes on %s: %w", o.diskBytes, disk, err)
	}
	log, err := os.Create(filepath.Join(o.out, "server.log"))
	if err != nil {
		return err
	}
	defer log.Close()
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	r := &run{opt: o, disk: disk, began: time.Now(), stats: new(stats)}
	r.srv = &server{
		binary: o.binary, addr: "127.0.0.1:0", log: log, failed: make(chan error, 1),
		args: append([]string{
			"--data.dir", filepath.Join(disk, "data"), "--admin.listen", "off", "--retention.check.interval", "5s", "--memory.bytes", fmt.Sprint(o.memory),
			"--journal.bytes", fmt.Sprint(o.diskBytes / 8), "--journal.file.bytes", fmt.Sprint(8 << 20),
		}, o.serverArgs...),
	}
	if err := r.srv.start(ctx); err != nil {
		return err
	}
	defer func() { _ = r.srv.end(syscall.SIGKILL) }()
	r.chaos = &chaos{srv: r.srv, dir: disk, chance: rand.New(rand.NewPCG(o.seed, 1)), counts: make(map[string]int)}
	r.load = &load{addr: r.srv.addr, seed: o.seed, rate: o.rate, stats: r.stats}
	r.load.ctx, r.load.cancel = context.WithCancelCause(ctx)
	err = r.whole()
	r.load.cancel(errStopped)
	r.load.group.Wait()
	return errors.Join(err, r.report(err))
}

// run is one soak.
type run struct {
	opt     options
	disk    string
	began   time.Time
	srv     *server
	load    *load
	chaos   *chaos
	stats   *stats
	samples []sample
}

// sampleEvery is the time between two samples.
const sampleEvery = 2 * time.Second

// whole is the run from the first record to the last check.
func (r *run) whole() error {
	if err := r.load.start(); err != nil {
		return err
	}
	if err := r.part(r.opt.length*2/3, false); err != nil {
		return err
	}
	if err := r.part(r.opt.length/3, true); err != nil {
		return err
	}
	return r.finish()
}

// part makes trouble for a time, and samples.
func (r *run) part(length time.Duration, steady bool) error {
	ctx, cancel := context.WithTimeout(r.load.ctx, length)
	defer cancel()
	trouble := make(chan error, 1)
	go func() { trouble <- r.chaos.run(ctx, steady) }()
	tick := time.NewTicker(sampleEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			r.sample(steady)
		case err := <-r.srv.failed:
			r.load.cancel(err)
			<-trouble
			return err
		case err := <-trouble:
			if err == nil && r.load.ctx.Err() != nil {
				err = context.Cause(r.load.ctx)
			}
			return err
		}
	}
}

func (r *run) sample(steady bool) {
	s := sample{
		at: time.Since(r.began).Round(time.Second), action: r.chaos.now(), steady: steady, usage: r.srv.usage(), diskBytes: diskUsed(r.disk),
		acked: r.stats.acked.Load(), read: r.stats.readRecords.Load(),
	}
	s.p50, s.p99, s.longest = r.stats.latencies()
	r.samples = append(r.samples, s)
	if n := len(r.samples); n%15 == 0 {
		fmt.Printf("%6.0f s: %d acked, %d read, %d blocks replayed, %d topics lived, RSS %d MiB, disk %d MiB, start %d, %s\n",
			s.at.Seconds(), s.acked, s.read, r.load.replays.Load(), r.load.lives.Load(), s.usage.rssBytes>>20, s.diskBytes>>20, s.usage.starts, s.action)
	}
}

// finish lets the producers end, and wants everything that was acknowledged:
// from the main reader, and from a reader of all that is left, before and after
// a restart.
func (r *run) finish() error {
	l := r.load
	l.paused.Store(true)
	l.producing.Wait()
	if err := r.caughtUp(); err != nil {
		return err
	}
	for again := range 2 {
		before := l.replays.Load()
		if err := r.readAll(); err != nil {
			return err
		}
		fmt.Printf("read all that is left: %d blocks are what they were\n", l.replays.Load()-before)
		if again == 0 {
			if err := r.chaos.restart(l.ctx); err != nil {
				return err
			}
		}
	}
	return nil
}

// finishTimeout bounds each step of the end.
const finishTimeout = 2 * time.Minute

// ends returns the high watermarks of the stable topic.
func (r *run) ends(ctx context.Context) ([]int64, error) {
	c, err := r.load.connect("soak-end")
	if err != nil {
		return nil, err
	}
	defer c.Close()
	return c.Admin().Offsets(ctx, stable, client.Latest)
}

// caughtUp waits until the main reader is at every partition's end.
func (r *run) caughtUp() error {
	ctx, cancel := context.WithTimeoutCause(r.load.ctx, finishTimeout, errors.New("the main reader does not reach the end"))
	defer cancel()
	ends, err := r.ends(ctx)
	if err != nil {
		return err
	}
	for p, l := range r.load.ledgers {
		for l.position() < ends[p] {
			if !wait(ctx, 50*time.Millisecond) {
				return fmt.Errorf("%s: at %d of %d: %w", l.name, l.position(), ends[p], context.Cause(ctx))
			}
		}
		if left := l.unread(); len(left) > 0 {
			return fmt.Errorf("%s: %d acknowledged records were not read, the first at offset %d; the log ends at %d", l.name, len(left), left[0], ends[p])
		}
	}
	return nil
}

// readAll reads the stable topic from its beginning to its end.
func (r *run) readAll() error {
	ctx, cancel := context.WithTimeoutCause(r.load.ctx, finishTimeout, errors.New("the final reads do not end"))
	defer cancel()
	ends, err := r.ends(ctx)
	if err != nil {
		return err
	}
	c, err := r.load.connect("soak-final")
	if err != nil {
		return err
	}
	defer c.Close()
	co, err := r.load.consumer(c, client.Beginning, 8<<20)
	if err != nil {
		return err
	}
	defer co.Close()
	var replays [partitions]*replay
	for p, l := range r.load.ledgers {
		replays[p] = newReplay(l)
	}
	for p := range ends {
		for {
			if at, err := co.Position(stable, int32(p)); err != nil {
				return err
			} else if at >= ends[p] {
				break
			}
			err := poll(ctx, co, func(q int32, start int64, rs []record) error {
				n, err := replays[q].read(start, rs)
				r.load.replays.Add(int64(n))
				return err
			})
			if err != nil {
				return errors.Join(err, context.Cause(ctx))
			}
		}
	}
	return nil
}

// report prints what was seen.
func (r *run) report(failed error) error {
	if f, err := os.Create(filepath.Join(r.opt.out, "samples.csv")); err == nil {
		if err := errors.Join(writeCSV(f, r.samples), f.Close()); err != nil {
			return err
		}
	}
	writeTable(os.Stdout, r.samples)
	var expired int64
	for _, l := range r.load.ledgers {
		expired += l.lost()
	}
	fmt.Printf("%v, seed %d: %d records acknowledged, %d read, %d taken by retention unread, %d given up, %d blocks of %d replayed, %d topics lived, %d starts\n",
		time.Since(r.began).Round(time.Second), r.opt.seed, r.stats.acked.Load(), r.stats.readRecords.Load(), expired, r.stats.givenUp.Load(),
		r.load.replays.Load(), blockRecords, r.load.lives.Load(), r.srv.starts)
	var did []string
	for _, a := range actions {
		did = append(did, fmt.Sprintf("%s %d", a.name, r.chaos.counts[a.name]))
	}
	fmt.Printf("actions: %s; log and samples in %s\n", strings.Join(did, ", "), r.opt.out)
	if failed != nil {
		return nil
	}
	if err := verdict(r.samples, r.opt.memory+r.opt.extra); err != nil {
		return err
	}
	fmt.Println("soak: PASS")
	return nil
}
