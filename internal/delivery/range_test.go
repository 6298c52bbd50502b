package delivery

import (
	"bytes"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/flotilla-log/flotilla/broker"
	"github.com/flotilla-log/flotilla/internal/vfs"
)

// coldFile takes a while for each read. It has what is asked of it.
type coldFile struct {
	vfs.File
	each time.Duration
}

func (f coldFile) ReadAt(b []byte, _ int64) (int, error) {
	time.Sleep(f.each)
	return len(b), nil
}

// TestColdDiskIsTheNodes: the time that a file takes to be read is not its peer's,
// who has as long as ever.
func TestColdDiskIsTheNodes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const size, each = 64 << 10, 50 * time.Second // two reads
		p := newPaused(t, time.Minute, func() []broker.StreamResult {
			return []broker.StreamResult{{FetchResult: broker.FetchResult{Chunks: []*broker.Chunk{{File: coldFile{each: each}, Bytes: size}}}}}
		}, nil)
		pauses, paused := 0, time.Duration(0)
		p.peer.Pause = func() (resume func()) {
			began := time.Now()
			return func() {
				pauses++
				paused += time.Since(began)
			}
		}
		p.write(t)
		got := make([]byte, size)
		for half := range 2 {
			time.Sleep(each + 25*time.Second)
			if _, err := io.ReadFull(p.far, got[:size/2]); err != nil {
				t.Fatalf("half %d: a peer that took nothing for 50 of its 60 s was cut off, for it was counted that the disk took 100 s: %v", half, err)
			}
		}
		if err := <-p.ended; err != nil || pauses != 2 || paused != 2*each {
			t.Errorf("ended with %v after %d pauses, of %v; want 2 of %v", err, pauses, paused, 2*each)
		}
	})
}

// TestSendfileIsTheNodes: where a file goes to the socket without a copy, the time
// of each system call is the node's too.
func TestSendfileIsTheNodes(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	far, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer far.Close()
	near, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer near.Close()
	want := bytes.Repeat([]byte("0123456789abcdef"), 2<<20) // more than sockets hold
	name := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(name, want, 0o600); err != nil {
		t.Fatal(err)
	}
	file, err := vfs.OS.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	begun := 0
	d := New(&Peer{
		Conn: near, Ctx: t.Context(), Answers: broker.NewBudget(100), WriteTimeout: time.Hour, Hold: time.Hour,
		Pause: func() func() {
			begun++
			return func() {}
		},
	}, []broker.StreamResult{{FetchResult: broker.FetchResult{Chunks: []*broker.Chunk{{File: file, Bytes: int64(len(want))}}}}}, nil, nil)
	if whole, err := d.Prepare(); whole != nil || err != nil {
		t.Fatal(len(whole), err)
	}
	ended := make(chan error, 1)
	go func() {
		_, err := d.WriteTo(near)
		ended <- err
		_ = near.Close()
	}()
	got, err := io.ReadAll(far)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("%d bytes, %v; want %d, as they are", len(got), err, len(want))
	}
	if err := <-ended; err != nil || begun < 2 {
		t.Errorf("ended with %v, after %d calls", err, begun)
	}
}
