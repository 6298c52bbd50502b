package vfs

import (
	"maps"
	"time"
)

// OpKind says what an operation on a Mem does. Its String is the word that
// names it in a fault script.
type OpKind uint8

const (
	OpCreate OpKind = iota + 1
	OpOpen
	OpRemove
	OpRemoveAll
	OpRename
	OpMkdirAll
	OpReadDir
	OpStat
	OpSyncDir
	OpLock
	OpFree
	OpReadAt
	OpWriteAt // WriteVecAt too
	OpTruncate
	OpPreallocate
	OpSync
	OpSyncData
	OpWriteBack
)

var opNames = [...]string{
	OpCreate:      "create",
	OpOpen:        "open",
	OpRemove:      "remove",
	OpRemoveAll:   "removeall",
	OpRename:      "rename",
	OpMkdirAll:    "mkdir",
	OpReadDir:     "readdir",
	OpStat:        "stat",
	OpSyncDir:     "syncdir",
	OpLock:        "lock",
	OpFree:        "free",
	OpReadAt:      "read",
	OpWriteAt:     "write",
	OpTruncate:    "truncate",
	OpPreallocate: "preallocate",
	OpSync:        "fsync",
	OpSyncData:    "fdatasync",
	OpWriteBack:   "writeback",
}

func (k OpKind) String() string {
	if int(k) < len(opNames) && k != 0 {
		return opNames[k]
	}
	return "unknown"
}

// Op is one operation on a Mem, as hooks and injectors see it.
type Op struct {
	Kind OpKind
	Path string // as the caller named it, cleaned; the new name of a rename
	From string // the old name of a rename, else empty
	Off  int64  // of a read, write or write-back, in bytes
	N    int64  // its length; the size given to Truncate or Preallocate
	Seq  uint64 // 1 for the first operation on this Mem, then one more each
}

// Fault says what goes wrong with an operation. The zero Fault is none.
type Fault struct {
	// Err is what the operation returns, a syscall.Errno in an *fs.PathError
	// that names operation and file. The operation has no effect then, but for a
	// write, which still writes its first Short bytes, and a sync or SyncDir,
	// after which nothing that it covered is ever known to be durable.
	Err error

	// Short is how many bytes a failing write writes. If Err is nil, a Short
	// above zero is a write that fails with io.ErrShortWrite.
	Short int64

	// Applied makes the operation take its whole effect although it returns Err.
	Applied bool

	// Full makes the operation find no free space, whatever the capacity.
	Full bool

	// Delay is how long the operation takes. Written bytes are there, and
	// unsynced, from its start; everything else happens at its end.
	Delay time.Duration
}

// Injector decides the fault of each operation. It runs without any lock held,
// on the goroutine of the operation, and may run on several at a time.
type Injector func(op Op) Fault

// Phase says on which side of an operation a hook is called.
type Phase uint8

const (
	Before Phase = iota + 1 // nothing has happened yet
	After                   // it has taken effect, or failed
)

func (p Phase) String() string {
	if p == Before {
		return "before"
	}
	return "after"
}

// Stats counts what was done to a Mem since it was made.
type Stats struct {
	Ops          map[OpKind]int64 // started, faulty ones too
	ReadBytes    int64
	WrittenBytes int64
}

func (s Stats) clone() Stats {
	s.Ops = maps.Clone(s.Ops)
	return s
}
