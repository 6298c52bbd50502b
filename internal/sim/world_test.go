package sim

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/flotilla-log/flotilla/internal/history"
	"github.com/flotilla-log/flotilla/internal/netsim"
	"github.com/flotilla-log/flotilla/internal/node"
	"github.com/flotilla-log/flotilla/internal/vfs"
)

const (
	serverAddr = "server:9092"
	dataDir    = "data"

	// startTimeout is what a start may take. In virtual time only the delays
	// that a run asks for cost any.
	startTimeout = 2 * time.Minute

	// linger is longer than the goroutines live that raft leaves behind, and
	// than any delay of the disk.
	linger = 2 * time.Minute

	// maxProblems is how many a run reports; the trace has all.
	maxProblems = 10

	// hangTimeout is how much real time one bubble may take: its clock stands
	// still when a mutex is held by someone who sleeps.
	hangTimeout = 5 * time.Minute
)

// world is one node with its disk, its network and its clients. The goroutine
// that made it conducts: all methods are its own unless they say otherwise.
type world struct {
	seed    uint64
	rng     *rand.Rand
	net     *netsim.Network
	rec     *history.Recorder
	trace   *trace
	process atomic.Int32 // the last one given out
	value   atomic.Int64 // the last one sent
	addrs   []string     // what clients are given to begin with

	notIdempotent bool // producers do not deduplicate
	rots          bool // a consumer may get records whose checksum is not theirs, and refuses them

	waning  string                // the topic that loses records; "": the seed decides
	tighter map[string]string     // its configs, beyond what is allowed; nil: they are not
	ghost   bool                  // records are deleted that no client asked to delete
	hasty   bool                  // DeleteRecords are answered before they are done
	least   map[history.Key]int64 // log starts that a fleet promised; guarded by mu

	// acked is told of each record that was acknowledged; nil: nobody is.
	acked func(key history.Key, offset int64)

	// read is told of the leader epoch of each record that a Kafka client read; nil:
	// nobody is.
	read func(key history.Key, epoch int32)

	// wrap stands between the node and its disk; nil: nothing does.
	wrap func(vfs.FS) vfs.FS
	// reserve is what is to be free for records to be taken; 0: a byte.
	reserve int64

	// inject and onOp are set on the disk by start.
	inject vfs.Injector
	onOp   func(vfs.Op, vfs.Phase)

	broken error // the error for which the node stopped or would not start; tale's

	disk   *vfs.Mem
	node   *node.Node // nil while it is down
	starts atomic.Int64

	stopping context.Context // ends when the clients are to stop
	stop     context.CancelFunc
	clients  sync.WaitGroup

	mu       sync.Mutex
	problems []string
}

// run makes a world in a bubble of its own, calls f, tears down what is left
// and returns what went wrong, beside what the history shows.
func run(t *testing.T, seed uint64, f func(w *world)) (problems []string, tr *trace) {
	watchdog := time.AfterFunc(hangTimeout, func() {
		debug.SetTraceback("all")
		panic(fmt.Sprintf("sim: %s seed %d: virtual time stands still", t.Name(), seed))
	})
	defer watchdog.Stop()
	tr = new(trace)
	synctest.Test(t, func(t *testing.T) {
		w := &world{
			seed:  seed,
			rng:   rand.New(rand.NewPCG(seed, 1)),
			net:   netsim.New(seed),
			rec:   history.NewRecorder(time.Now),
			trace: tr,
			disk:  vfs.NewMem(seed),
			addrs: []string{serverAddr},
		}
		w.stopping, w.stop = context.WithCancel(context.Background())
		defer func() {
			w.close()
			tr.history = w.rec.History()
			problems = w.problems
		}()
		f(w)
	})
	return problems, tr
}

// close ends everything that runs in the bubble.
func (w *world) close() {
	w.stop()
	if w.node != nil {
		w.kill()
	}
	w.clients.Wait()
	_ = w.net.Close()
	time.Sleep(linger)
}

// problem notes what no checker of histories sees. Any goroutine may call it.
func (w *world) problem(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	p := fmt.Sprintf("at %v: ", time.Since(epoch)) + fmt.Sprintf(format, args...)
	if len(w.problems) < maxProblems {
		w.problems = append(w.problems, p)
	}
	w.trace.add("PROBLEM " + p)
}

// epoch is when the clock of every bubble starts.
var epoch = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

// start starts the node on the disk as it is.
func (w *world) start() error {
	w.trace.add(fmt.Sprintf("START %d", w.starts.Add(1)))
	l, err := w.net.Listen(serverAddr)
	if err != nil {
		return err
	}
	w.disk.SetInjector(asOS(w.inject))
	onOp := w.onOp // goroutines of an earlier node may still be about to call theirs
	w.disk.OnOp(func(op vfs.Op, ph vfs.Phase) {
		if ph == vfs.After {
			w.trace.put(entry{op: op})
		}
		if onOp != nil {
			onOp(op, ph)
		}
	})
	var disk vfs.FS = w.disk
	if w.wrap != nil {
		disk = w.wrap(disk)
	}
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	w.node, err = node.Start(ctx, node.Options{
		FS: disk, Dir: dataDir, NodeID: 1, ClusterID: "sim", Version: "sim", Listener: l,
		Shards: 2, JournalFileBytes: 32 << 10, JournalBytes: 4 * 32 << 10,
		MemoryBytes: 4 << 20, FlushAge: 50 * time.Millisecond, DiskReserveBytes: max(1, w.reserve),
		RetentionInterval: retentionInterval,
		Now:               time.Now, Rand: newChance(w.seed, uint64(w.starts.Load())), Log: slog.New(logHandler{tr: w.trace}),
	})
	if err != nil {
		w.node = nil
		_ = l.Close()
		w.trace.add("START FAILED " + err.Error())
		if ctx.Err() != nil {
			w.problem("start did not end: %v", err)
		}
		return err
	}
	w.trace.add("STARTED")
	return nil
}

// asOS makes the errors of inject name their files, as those of the operating
// system's files do.
func asOS(inject vfs.Injector) vfs.Injector {
	if inject == nil {
		return nil
	}
	return func(op vfs.Op) vfs.Fault {
		ft := inject(op)
		if ft.Err != nil {
			ft.Err = &fs.PathError{Op: op.Kind.String(), Path: op.Path, Err: ft.Err}
		}
		return ft
	}
}

// mustStart starts the node, and takes it for a problem if it refuses.
func (w *world) mustStart() bool {
	if err := w.start(); err != nil {
		w.problem("start %d: %v", w.starts.Load(), err)
		return false
	}
	return true
}

// cut takes the power away, and leaves the disk as it is when it comes back.
func (w *world) cut(opt vfs.CrashOptions) {
	e := cutEnd(opt.Unsynced)
	w.end(e, opt.Seed)
}

// end brings the node to its end in some way, and leaves the disk to the next.
func (w *world) end(e end, seed uint64) {
	w.disk.Freeze()
	w.trace.add(fmt.Sprintf("%s, seed %d", strings.ToUpper(e.name), seed))
	next := e.left(w.disk, seed)
	w.kill()
	w.disk = next
}

// kill ends the node without giving it time for anything.
func (w *world) kill() {
	w.disk.SetInjector(nil)
	w.net.Reset("server")
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	if w.node != nil {
		w.within(func() { _ = w.node.Close(ended) }) // the disk is gone: what it says means nothing
	}
	w.node = nil
}

// within runs f, which must end by itself: a bubble that cannot be left tells
// nobody why.
func (w *world) within(f func()) {
	stuck := time.AfterFunc(10*time.Minute, func() {
		debug.SetTraceback("all")
		panic(fmt.Sprintf("sim: seed %d: the node does not stop; trace: %s", w.seed, w.trace.save("stuck")))
	})
	f()
	stuck.Stop()
}

// stopNode stops the node in good order; the disk goes on.
func (w *world) stopNode() {
	w.trace.add("CLEAN STOP")
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	w.within(func() {
		if err := w.node.Close(ctx); err != nil {
			w.problem("clean stop: %v", err)
		}
	})
	w.node = nil
}

// healthy takes it for a problem if the node wants to stop.
func (w *world) healthy() bool {
	if w.node == nil {
		return false
	}
	select {
	case err := <-w.node.Failed():
		w.problem("the node failed: %v", err)
		return false
	default:
		return true
	}
}

// chance is a seeded source of random bytes for several goroutines.
type chance struct {
	mu sync.Mutex
	r  *rand.ChaCha8
}

func newChance(seed, stream uint64) io.Reader {
	var key [32]byte
	for i := range 8 {
		key[i], key[8+i] = byte(seed>>(8*i)), byte(stream>>(8*i))
	}
	return &chance{r: rand.NewChaCha8(key)}
}

func (c *chance) Read(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.r.Read(p)
}

// trace keeps the last disk operations and log lines of a run, and its history.
type trace struct {
	mu      sync.Mutex
	entries []entry // a ring
	at      int
	phases  map[string]int // how often each began, as the node's log says
	history history.History
}

// entry is an operation or, with none, a line.
type entry struct {
	at   time.Duration
	op   vfs.Op
	line string
}

func (e entry) String() string {
	if e.op.Kind == 0 {
		return fmt.Sprintf("%12v %s", e.at, e.line)
	}
	return fmt.Sprintf("%12v #%d %s %s %s %d+%d", e.at, e.op.Seq, e.op.Kind, e.op.Path, e.op.From, e.op.Off, e.op.N)
}

const traceEntries = 20_000

func (tr *trace) put(e entry) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	e.at = time.Since(epoch)
	if len(tr.entries) < traceEntries {
		tr.entries = append(tr.entries, e)
		return
	}
	tr.entries[tr.at] = e
	tr.at = (tr.at + 1) % traceEntries
}

func (tr *trace) add(line string) { tr.put(entry{line: line}) }

// saw reports whether a line holds text.
func (tr *trace) saw(text string) bool {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	return slices.ContainsFunc(tr.entries, func(e entry) bool { return strings.Contains(e.line, text) })
}

// began counts the beginning of a phase.
func (tr *trace) began(phase string) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	if tr.phases == nil {
		tr.phases = make(map[string]int)
	}
	tr.phases[phase]++
}

// logHandler puts the node's log into the trace.
type logHandler struct {
	tr     *trace
	prefix string
}

// Enabled implements slog.Handler.
func (logHandler) Enabled(context.Context, slog.Level) bool { return true }

// Handle implements slog.Handler.
func (h logHandler) Handle(_ context.Context, r slog.Record) error {
	line, phase, begins := h.prefix+r.Level.String()+" "+r.Message, "", false
	r.Attrs(func(a slog.Attr) bool {
		line += " " + a.String()
		switch a.Key {
		case "phase":
			phase = a.Value.String()
		case "state":
			begins = a.Value.String() == "begin"
		}
		return true
	})
	if strings.HasPrefix(r.Message, "raft: entering leader state") {
		h.tr.began("leadership")
	}
	if phase != "" && begins {
		h.tr.began(phase)
	}
	h.tr.add(line)
	return nil
}

// WithAttrs implements slog.Handler.
func (h logHandler) WithAttrs([]slog.Attr) slog.Handler { return h }

// WithGroup implements slog.Handler.
func (h logHandler) WithGroup(string) slog.Handler { return h }

// save writes the trace and the history to a file, and returns its name.
func (tr *trace) save(name string) string {
	dir := filepath.Join(os.TempDir(), "flotilla-sim")
	path := filepath.Join(dir, strings.NewReplacer("/", "-", "=", "").Replace(name)+".log")
	err := os.MkdirAll(dir, 0o755)
	var f *os.File
	if err == nil {
		f, err = os.Create(path)
	}
	if err != nil {
		return "no file: " + err.Error()
	}
	tr.mu.Lock()
	entries := slices.Concat(tr.entries[tr.at:], tr.entries[:tr.at])
	tr.mu.Unlock()
	for _, e := range entries {
		fmt.Fprintln(f, e)
	}
	if err = errors.Join(err, history.Write(f, tr.history), f.Close()); err != nil {
		return "no file: " + err.Error()
	}
	return path
}
