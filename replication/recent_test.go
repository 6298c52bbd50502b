package replication

import (
	"bytes"
	"errors"
	"testing"
	"unsafe"

	"github.com/hashicorp/raft"
)

// plainLog is an entryLog that counts what is read of it.
type plainLog struct {
	logs  []raft.Log
	reads int
	err   error // of append
}

func (p *plainLog) dir() string { return "plain" }

func (p *plainLog) first() uint64 {
	if len(p.logs) == 0 {
		return 0
	}
	return p.logs[0].Index
}

func (p *plainLog) last() uint64 {
	if len(p.logs) == 0 {
		return 0
	}
	return p.logs[len(p.logs)-1].Index
}

func (p *plainLog) read(index uint64, to *raft.Log, _ bool) error {
	p.reads++
	for _, l := range p.logs {
		if l.Index == index {
			*to = l
			return nil
		}
	}
	return raft.ErrLogNotFound
}

func (p *plainLog) append(logs []*raft.Log) error {
	if p.err != nil {
		return p.err
	}
	for _, l := range logs {
		p.logs = append(p.logs, *l)
	}
	return nil
}

func (p *plainLog) truncateFrom(index uint64) error {
	for len(p.logs) > 0 && p.last() >= index {
		p.logs = p.logs[:len(p.logs)-1]
	}
	return nil
}

func (p *plainLog) compact(upTo uint64) error {
	for len(p.logs) > 0 && p.first() <= upTo {
		p.logs = p.logs[1:]
	}
	return nil
}

// TestRecentLog: what is read is what is in the log, and new entries are read
// from memory for as long as somebody may want them.
func TestRecentLog(t *testing.T) {
	t.Parallel()
	entry := func(index, term uint64, size int) *raft.Log {
		return &raft.Log{Index: index, Term: term, Data: bytes.Repeat([]byte{byte(index)}, size)}
	}
	keep := uint64(never)
	plain := &plainLog{}
	r := &recentLog{entryLog: plain, limit: 100, keep: func() uint64 { return keep }}
	// check reads an entry, and says how often that was done in the log below.
	check := func(what string, index, term uint64, reads int) {
		t.Helper()
		before := plain.reads
		var l raft.Log
		err := r.read(index, &l, true)
		switch {
		case term == 0 && err != raft.ErrLogNotFound:
			t.Errorf("%s: entry %d is there: %+v, %v", what, index, l, err)
		case term != 0 && (err != nil || l.Index != index || l.Term != term || len(l.Data) == 0 || l.Data[0] != byte(index)):
			t.Errorf("%s: entry %d is %+v, %v, want one of term %d", what, index, l, err, term)
		}
		if got := plain.reads - before; got != reads {
			t.Errorf("%s: entry %d was read from the log %d times, want %d", what, index, got, reads)
		}
	}
	add := func(logs ...*raft.Log) {
		t.Helper()
		if err := r.append(logs); err != nil {
			t.Fatal(err)
		}
	}

	add(entry(1, 1, 10), entry(2, 1, 10), entry(3, 1, 10))
	for i := range uint64(3) {
		check("fresh", i+1, 1, 0)
	}
	check("beyond the end", 4, 0, 1)

	plain.err = errors.New("disk full")
	if err := r.append([]*raft.Log{entry(4, 1, 10)}); err != plain.err {
		t.Errorf("append: %v", err)
	}
	check("not stored", 4, 0, 1)
	plain.err = nil

	if err := r.truncateFrom(2); err != nil {
		t.Fatal(err)
	}
	check("truncated", 3, 0, 1)
	add(entry(2, 2, 10))
	check("replaced", 2, 2, 0)

	keep = 2
	r.applied(2)
	check("applied, and everybody has it", 1, 1, 1)
	check("applied, and asked for", 2, 2, 0)
	keep = never
	add(entry(3, 2, 10))
	r.applied(2)
	check("applied", 2, 2, 1)
	check("not applied", 3, 2, 0)
	keep = 0 // not known
	r.applied(3)
	check("may be asked for", 3, 2, 0)

	add(entry(4, 2, 60), entry(5, 2, 60))
	check("above the limit", 4, 2, 1)
	check("the newest", 5, 2, 0)
	add(entry(6, 2, 200))
	check("larger than the limit", 6, 2, 1)
	if r.bytes != 0 || r.logs != nil {
		t.Errorf("%d bytes of %d entries are left", r.bytes, len(r.logs))
	}

	add(entry(7, 3, 10), entry(8, 3, 10))
	if err := r.compact(7); err != nil {
		t.Fatal(err)
	}
	check("compacted", 7, 0, 1)
	check("not compacted", 8, 3, 0)
	// A log that begins anew elsewhere, as after the install of a checkpoint.
	if err := r.compact(8); err != nil {
		t.Fatal(err)
	}
	plain.logs = nil
	add(entry(20, 4, 10))
	check("after a gap", 20, 4, 0)
}

// TestUnshare: the entries of a large request have memory of their own, with the
// same content, and none is written over another.
func TestUnshare(t *testing.T) {
	t.Parallel()
	request := func(size int) (entries []*raft.Log, whole []byte) {
		whole = make([]byte, 3*size)
		for i := range whole {
			whole[i] = byte(i / size)
		}
		for i := range 3 {
			b := whole[i*size : (i+1)*size : (i+1)*size]
			entries = append(entries, &raft.Log{Extensions: b[:2:2], Data: b[2:]})
		}
		return entries, whole
	}
	within := func(b, whole []byte) bool {
		at, from := uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(unsafe.Pointer(unsafe.SliceData(whole)))
		return at >= from && at < from+uintptr(len(whole))
	}
	for _, tt := range []struct {
		size int
		own  bool
	}{{maxSharedBytes / 3, false}, {maxSharedBytes/3 + 1, true}} {
		entries, whole := request(tt.size)
		unshare(entries)
		for i, l := range entries {
			if got := !within(l.Data, whole); got != tt.own {
				t.Errorf("entries of %d bytes, memory of its own: %v, want %v", tt.size, got, tt.own)
			}
			want := bytes.Repeat([]byte{byte(i)}, tt.size)
			if !bytes.Equal(l.Extensions, want[:2]) || !bytes.Equal(append(l.Data, 9)[:tt.size-2], want[2:]) {
				t.Errorf("entry %d of %d bytes is not what it was", i, tt.size)
			}
		}
	}
	one, whole := request(maxSharedBytes)
	if unshare(one[:1]); !within(one[0].Data, whole) {
		t.Error("a single entry was copied")
	}
}
