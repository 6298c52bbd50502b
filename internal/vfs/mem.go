package vfs

import (
	"errors"
	"io/fs"
	"math"
	"sync"
	"syscall"
	"time"
)

// ErrCrashed is returned by every operation on a Mem after Freeze.
var ErrCrashed = errors.New("vfs: crashed")

// Mem is a file system in memory that knows what a power cut would leave of it.
//
// It keeps what is durable beside what a reader sees: for every 512-byte sector
// that was written and not synced the old bytes too, and for names the list of
// operations that no SyncDir has made durable. CrashClone draws one of the
// states that the package comment allows. Memory is proportional to the bytes
// written that are not zero, and shared between clones.
//
// What it does where systems differ:
//   - Names are kept as ext4 and xfs keep them, whose journal commits in order:
//     of a directory's unsynced operations a crash leaves the first few.
//     Directories are independent of each other, except that a rename between
//     two happens in both or in neither.
//   - The size of a file that grew may stop at any sector in between.
//   - After a failed sync the bytes it covered stay readable and are never
//     durable, whatever later syncs return, until they are written again. After
//     a failed SyncDir the same holds for the names, until they change again.
//   - Names take no space; bytes take 4 KiB at a time.
//   - Modification times are zero.
//
// A Mem is safe for concurrent use and works in testing/synctest bubbles: it
// starts no goroutine and holds no lock while it waits out a Fault's Delay.
type Mem struct {
	seed uint64

	mu       sync.Mutex
	root     *node
	lastID   uint64   // of nodes
	pending  []*dirOp // names changed and not synced, in order
	lastDir  uint64   // seq of the newest dirOp
	used     int64    // bytes
	capacity int64    // bytes; no file gets new space at used >= capacity
	frozen   bool
	lastSeq  uint64
	stats    Stats
	inject   Injector
	hook     func(Op, Phase)
}

// node is a file or a directory. Its fields are guarded by Mem.mu.
type node struct {
	id     uint64
	dir    *dirNames // nil for a file
	data   *content  // nil for a directory
	linked bool      // has a name that a reader sees
	opens  int       // Files
	locked bool
}

// dirNames is a directory: names as readers see them, and as they are durable.
type dirNames struct {
	now, saved map[string]*node
}

// unlimited is the capacity of a Mem until SetCapacity; it is far above what
// the process can hold, and far enough below overflow.
const unlimited = math.MaxInt64 / 4

// NewMem returns an empty Mem without limit, faults or hooks. seed goes into
// every draw of CrashClone.
func NewMem(seed uint64) *Mem {
	m := &Mem{seed: seed, capacity: unlimited, stats: Stats{Ops: make(map[OpKind]int64)}}
	m.root = m.newNode(true)
	m.root.linked = true
	return m
}

func (m *Mem) newNode(dir bool) *node {
	m.lastID++
	n := &node{id: m.lastID}
	if dir {
		n.dir = &dirNames{now: make(map[string]*node), saved: make(map[string]*node)}
	} else {
		n.data = newContent()
	}
	return n
}

// SetInjector makes f decide the faults from the next operation on; nil: none.
func (m *Mem) SetInjector(f Injector) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.inject = f
}

// OnOp makes f be called before and after every operation, without any lock
// held, on the goroutine of the operation; nil: none. f may call Freeze and
// CrashClone: frozen before an operation, that one does not happen. It must not
// use the Mem as a file system.
func (m *Mem) OnOp(f func(op Op, phase Phase)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.hook = f
}

// SetCapacity limits the bytes that all files together may take. At less than
// they take already the disk is full; below zero there is no limit.
func (m *Mem) SetCapacity(bytes int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if bytes < 0 {
		bytes = unlimited
	}
	m.capacity = bytes
}

// Freeze takes the disk away from its users: every operation that has not ended
// yet has no further effect and returns ErrCrashed, and so does every later one.
// Closing is still possible. Freeze a Mem before CrashClone to cut the power of
// a process that goes on running.
func (m *Mem) Freeze() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.frozen = true
}

// Stats returns the counts so far.
func (m *Mem) Stats() Stats {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.stats.clone()
}

// begin starts an operation: it numbers and counts it, calls the hook, and
// returns its fault.
func (m *Mem) begin(op *Op) (Fault, error) {
	m.mu.Lock()
	if m.frozen {
		m.mu.Unlock()
		return Fault{}, ErrCrashed
	}
	m.lastSeq++
	op.Seq = m.lastSeq
	m.stats.Ops[op.Kind]++
	hook, inject := m.hook, m.inject
	m.mu.Unlock()
	if hook != nil {
		hook(*op, Before)
	}
	if inject == nil {
		return Fault{}, nil
	}
	ft := inject(*op)
	if errno, ok := ft.Err.(syscall.Errno); ok {
		// As those of the operating system: they say what failed, and where.
		ft.Err = &fs.PathError{Op: op.Kind.String(), Path: op.Path, Err: errno}
	}
	return ft, nil
}

// end calls the hook after an operation.
func (m *Mem) end(op Op) {
	m.mu.Lock()
	hook := m.hook
	m.mu.Unlock()
	if hook != nil {
		hook(op, After)
	}
}

// do runs an operation whose effect comes at its end. apply runs with mu held.
func (m *Mem) do(op Op, apply func(ft Fault) error) error {
	ft, err := m.begin(&op)
	if err != nil {
		return err
	}
	err = m.finish(ft, apply)
	m.end(op)
	return err
}

// finish waits out the fault's delay, then applies the operation unless the
// fault prevents it.
func (m *Mem) finish(ft Fault, apply func(ft Fault) error) error {
	pause(ft.Delay)
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.frozen {
		return ErrCrashed
	}
	if ft.Err != nil && !ft.Applied {
		return ft.Err
	}
	if err := apply(ft); err != nil {
		return err
	}
	return ft.Err
}

func pause(d time.Duration) {
	if d > 0 {
		time.Sleep(d)
	}
}
