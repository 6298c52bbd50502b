package transport

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
)

// bubble runs a test of nodes in virtual time, and sees to it that nothing of them
// is left.
func bubble(t *testing.T, edit func(*MeshOptions), test func(t *testing.T, ms *meshes)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		ms := newMeshes(t, edit)
		defer func() { // also if the test stops halfway
			closeAll(t, ms.joined)
			ms.close()
			if err := ms.sim.Close(); err != nil {
				t.Error(err)
			}
			time.Sleep(time.Minute)
		}()
		test(t, ms)
	})
}

// wire is a connection that a test speaks on by hand.
type wire struct {
	t *testing.T
	net.Conn
	r *bufio.Reader
}

// hello says who this is, and returns the answer.
func (w *wire) hello(h hello) welcome {
	w.t.Helper()
	if _, err := w.Write(h.append(nil)); err != nil {
		w.t.Fatal(err)
	}
	got, err := readWelcome(w.r)
	if err != nil {
		w.t.Fatal(err)
	}
	return got
}

// send writes frames.
func (w *wire) send(frames ...outFrame) {
	w.t.Helper()
	var v vector
	if _, err := v.write(w.Conn, true, frames); err != nil {
		w.t.Fatal(err)
	}
}

// next reads a frame that is no ping, pong or received.
func (w *wire) next() (frameHeader, []byte) {
	w.t.Helper()
	for {
		var b [frameHeaderBytes]byte
		if _, err := io.ReadFull(w.r, b[:]); err != nil {
			return frameHeader{}, nil
		}
		h, err := decodeFrameHeader(b[:])
		if err != nil {
			w.t.Fatal(err)
		}
		data := make([]byte, h.length)
		if _, err := io.ReadFull(w.r, data); err != nil {
			w.t.Fatal(err)
		}
		if h.kind <= frameCancel {
			return h, data
		}
	}
}

// closed reports whether the other end closes the connection within a second.
func (w *wire) closed() bool {
	w.t.Helper()
	if err := w.SetReadDeadline(time.Now().Add(time.Second)); err != nil {
		return true
	}
	_, err := io.Copy(io.Discard, w.r)
	return !errors.Is(err, context.DeadlineExceeded) && !strings.Contains(errText(err), "timeout")
}

func errText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func (ms *meshes) dial(from, to int32) *wire {
	ms.t.Helper()
	conn, err := ms.sim.Dial(ms.t.Context(), host(from), addr(to))
	if err != nil {
		ms.t.Fatal(err)
	}
	return &wire{ms.t, conn, bufio.NewReader(conn)}
}

func helloOf(from, to int32) hello {
	return hello{min: 1, max: 1, from: from, to: to, session: 99, cluster: testCluster}
}

// caller is a session with a node that a test makes by hand, as node 8.
func (ms *meshes) caller(to int32) (l [lanes]*wire) {
	ms.t.Helper()
	h := helloOf(8, to)
	for n := range l {
		h.lane = laneNumber(n)
		l[n] = ms.dial(8, to)
		if w := l[n].hello(h); w.refused {
			ms.t.Fatal(w.reason)
		}
	}
	return l
}

// callee takes the session that a node dials, as node 8.
func (ms *meshes) callee(l net.Listener) (w [lanes]*wire) {
	ms.t.Helper()
	for n := range w {
		conn, err := l.Accept()
		if err != nil {
			ms.t.Fatal(err)
		}
		w[n] = &wire{ms.t, conn, bufio.NewReader(conn)}
		if h, err := readHello(conn); err != nil || h.lane != laneNumber(n) || h.to != 8 {
			ms.t.Fatalf("%+v, %v", h, err)
		}
		if _, err := conn.Write(welcome{min: 1, max: 1, version: 1, node: 8, window: 1 << 20, calls: 1 << 20, cluster: testCluster}.append(nil)); err != nil {
			ms.t.Fatal(err)
		}
	}
	return w
}

func (ms *meshes) wantLog(text string) {
	ms.t.Helper()
	synctest.Wait()
	if !strings.Contains(strings.ReplaceAll(ms.logs.String(), `\"`, `"`), text) {
		ms.t.Errorf("the log does not say %q:\n%s", text, ms.logs)
	}
}

func TestMeshHandshakeRefused(t *testing.T) {
	for _, tt := range []struct {
		name string
		edit func(h *hello)
		want string
	}{
		{"another cluster", func(h *hello) { h.cluster = "cluster-b" }, `node 1 belongs to cluster "cluster-b", and node 2, which it called, to cluster "cluster-a": an address is wrong`},
		{"another node", func(h *hello) { h.to = 3 }, `node 1 looks for node 3 of cluster "cluster-a", and here is node 2: the address that is known for node 3 is wrong`},
		{"the same node", func(h *hello) { h.from = 2 }, `two nodes of cluster "cluster-a" say that they are node 2: give one of them another node id`},
		{"a newer version", func(h *hello) { h.min, h.max = 2, 3 }, `the other end speaks versions 2 to 3 of the protocol between nodes, and this one 1 to 1: upgrade the older`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, nil, func(t *testing.T, ms *meshes) {
				ms.node(2)
				h := helloOf(1, 2)
				tt.edit(&h)
				w := ms.dial(1, 2)
				if got := w.hello(h); !got.refused || !strings.Contains(got.reason, tt.want) {
					t.Errorf("answered %+v, want %q", got, tt.want)
				}
				if !w.closed() {
					t.Error("the connection stays open")
				}
				ms.wantLog(tt.want)
			})
		})
	}
}

// TestMeshHandshakeDialler: the end that dials says why, in its errors and its log.
func TestMeshHandshakeDialler(t *testing.T) {
	bubble(t, func(opt *MeshOptions) {
		if opt.Node == 1 {
			opt.ClusterID = "cluster-b"
		}
	}, func(t *testing.T, ms *meshes) {
		a := ms.node(1)
		ms.node(2)
		_, err := a.Call(t.Context(), 2, 0, nil)
		if !errors.Is(err, ErrUnreachable) || !errors.Is(err, ErrHandshake) || !strings.Contains(err.Error(), "node 2 refuses node 1: node 1 belongs to cluster") {
			t.Error(err)
		}
		ms.wantLog("no way to another node")
	})
	for _, tt := range []struct {
		w    welcome
		want string
	}{
		{welcome{min: 1, max: 1, version: 1, node: 7, window: 1, calls: 1, cluster: testCluster}, "node 7 of cluster \"cluster-a\" answers where node 8"},
		{welcome{min: 1, max: 1, version: 1, node: 8, window: 1, calls: 1, cluster: "c"}, "node 8 of cluster \"c\" answers where node 8"},
		{welcome{min: 1, max: 1, version: 2, node: 8, window: 1, calls: 1, cluster: testCluster}, "chose version 2"},
		{welcome{min: 1, max: 1, version: 1, node: 8, calls: 1, cluster: testCluster}, "takes no requests"},
		{welcome{min: 4, max: 5, version: 4, node: 8, window: 1, calls: 1, cluster: testCluster}, "versions 4 to 5"},
	} {
		bubble(t, nil, func(t *testing.T, ms *meshes) {
			a := ms.node(1)
			l, err := ms.sim.Listen(addr(8))
			if err != nil {
				t.Fatal(err)
			}
			go func() {
				conn, err := l.Accept()
				if err == nil {
					_, _ = readHello(conn)
					_, _ = conn.Write(tt.w.append(nil))
				}
				_ = l.Close()
			}()
			if _, err := a.Call(t.Context(), 8, 0, nil); !errors.Is(err, ErrHandshake) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, want %q", err, tt.want)
			}
		})
	}
}

// TestMeshStrangers: who says nothing, too little or something else does not stay,
// and does not keep nodes out.
func TestMeshStrangers(t *testing.T) {
	bubble(t, nil, func(t *testing.T, ms *meshes) {
		a := ms.node(1)
		b := ms.node(2)
		b.Serve(func(context.Context, int32, Method, []byte) ([]byte, error) { return nil, nil })
		began := time.Now()
		garbage := ms.dial(8, 2)
		if _, err := garbage.Write([]byte("GET / HTTP/1.1\r\n")); err != nil {
			t.Fatal(err)
		}
		if !garbage.closed() || time.Since(began) > 0 {
			t.Error("who speaks another protocol stays")
		}
		ms.wantLog("the other end speaks another protocol")
		slow := ms.dial(8, 2)
		if _, err := slow.Write(helloOf(8, 2).append(nil)[:helloBytes-1]); err != nil {
			t.Fatal(err)
		}
		half := ms.dial(8, 2) // one connection of a session, and no other
		half.hello(helloOf(8, 2))
		var idle []*wire
		for range maxStrangers - 2 {
			idle = append(idle, ms.dial(8, 2))
		}
		synctest.Wait()
		if n := strangersOf(b); n != maxStrangers {
			t.Errorf("%d strangers, want %d", n, maxStrangers)
		}
		if _, err := a.Call(t.Context(), 2, 0, nil); err != nil {
			t.Errorf("a node is kept out: %v", err)
		}
		if n := strangersOf(b); n >= maxStrangers || !slow.closed() || !half.closed() {
			t.Errorf("%d strangers after two more; the oldest are closed: %t, %t", n, slow.closed(), half.closed())
		}
		time.Sleep(handshakeTimeout)
		for _, w := range idle {
			if !w.closed() {
				t.Fatal("an idle stranger stays")
			}
		}
		if n := strangersOf(b); n != 0 {
			t.Errorf("%d strangers stay", n)
		}
	})
}

func strangersOf(m *Mesh) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.strangers)
}

// probeFrame is a request that is answered ErrUnreachable: there is no replica.
func probeFrame(number uint64) outFrame {
	parts, size := encodeRequest(1, probe{}, nil)
	return outFrame{
		h:     frameHeader{kind: frameRequest, op: opProbe, flags: frameFirst | frameLast, number: number, length: uint32(size), total: uint32(size)},
		parts: parts,
	}
}

// pieceFrame is the first of an AppendEntries of a size.
func pieceFrame(number uint64, total uint32) outFrame {
	return outFrame{
		h:     frameHeader{kind: frameRequest, op: opAppendEntries, flags: frameFirst, number: number, length: 100, total: total},
		parts: [][]byte{make([]byte, 100)},
	}
}

// TestMeshHostileCaller breaks each rule that a callee holds its caller to.
func TestMeshHostileCaller(t *testing.T) {
	next := func(f outFrame, edit func(h *frameHeader)) outFrame {
		f.h.flags = 0
		if edit != nil {
			edit(&f.h)
		}
		return f
	}
	for _, tt := range []struct {
		name   string
		frames []outFrame
		want   string
	}{
		{"an answer", []outFrame{{h: frameHeader{kind: frameAnswer, op: opProbe, flags: 3, number: 1}}}, "an answer to what was not asked"},
		{"a pong", []outFrame{{h: frameHeader{kind: framePong}}}, "not from this end"},
		{"received", []outFrame{{h: frameHeader{kind: frameReceived}}}, "not from this end"},
		{"a request twice", []outFrame{pieceFrame(1, 1000), pieceFrame(1, 1000)}, "begins twice"},
		{"a piece of nothing", []outFrame{next(pieceFrame(1, 1000), nil)}, "without a beginning"},
		{"a piece of another shard", []outFrame{pieceFrame(1, 1000), next(pieceFrame(1, 1000), func(h *frameHeader) { h.shard = 5 })}, "does not fit its message"},
		{"a piece of another size", []outFrame{pieceFrame(1, 1000), next(pieceFrame(1, 1001), nil)}, "does not fit its message"},
		{"the end too early", []outFrame{pieceFrame(1, 1000), next(pieceFrame(1, 1000), func(h *frameHeader) { h.flags = frameLast })}, "does not fit its message"},
		{"more than the window", []outFrame{pieceFrame(1, 900<<10), pieceFrame(2, 200<<10)}, "on top of 921600 unanswered, at most 1048576"},
		{"a body that is none", []outFrame{{
			h:     frameHeader{kind: frameRequest, op: opTimeoutNow, flags: 3, number: 1, length: 9, total: 9},
			parts: [][]byte{make([]byte, 9)},
		}}, "damaged message"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(opt *MeshOptions) { opt.MaxHeldBytes = 1 << 20 }, func(t *testing.T, ms *meshes) {
				b := ms.node(2)
				l := ms.caller(2)
				l[bulk].send(probeFrame(77))
				if h, text := l[small].next(); h.number != 77 || h.code != answerUnreachable || len(text) == 0 {
					t.Fatalf("%+v %s", h, text)
				}
				s := sessionFrom(b, 8)
				l[bulk].send(tt.frames...)
				if !l[bulk].closed() || !l[small].closed() {
					t.Fatal("the connections stay open")
				}
				if <-s.done; !strings.Contains(s.err.Error(), tt.want) {
					t.Errorf("ended by %v, want %q", s.err, tt.want)
				}
			})
		})
	}
}

func sessionFrom(m *Mesh, node int32) *session {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.inbound[node]
}

// TestMeshHostileCallee breaks each rule that a caller holds its callee to.
func TestMeshHostileCallee(t *testing.T) {
	answer := func(h frameHeader) outFrame {
		h.kind = frameAnswer
		h.length = min(h.total, 8)
		return outFrame{h: h, parts: [][]byte{make([]byte, h.length)}}
	}
	for _, tt := range []struct {
		name  string
		frame outFrame
		want  string
	}{
		{"what was not asked", answer(frameHeader{op: opProbe, flags: 3, number: 7, total: 8}), "an answer to what was not asked"},
		{"of another kind", answer(frameHeader{op: opCall, flags: 3, number: 1, total: 8}), "an answer to what was not asked"},
		{"a request", outFrame{h: frameHeader{kind: frameRequest, op: opProbe, flags: 3, number: 1, length: 8, total: 8}, parts: [][]byte{make([]byte, 8)}}, "a request from the end that answers"},
		{"a ping", outFrame{h: frameHeader{kind: framePing}}, "not from this end"},
		{"a cancel", outFrame{h: frameHeader{kind: frameCancel, number: 1}}, "not from this end"},
		{"received more than was sent", outFrame{h: frameHeader{kind: frameReceived, number: 1 << 30}}, "not here"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, nil, func(t *testing.T, ms *meshes) {
				l, err := ms.sim.Listen(addr(8))
				if err != nil {
					t.Fatal(err)
				}
				a := ms.node(1)
				r := a.Join(1, one)
				ended := make(chan error, 1)
				go func() {
					_, err := r.Probe(context.Background(), ReplicaID{Node: 8, Incarnation: 1})
					ended <- err
				}()
				w := ms.callee(l)
				_ = l.Close()
				if h, _ := w[small].next(); h.op != opProbe || h.number != 1 {
					t.Fatalf("asked %+v", h)
				}
				w[bulk].send(tt.frame)
				if err := <-ended; !errors.Is(err, ErrBroken) || !strings.Contains(err.Error(), tt.want) {
					t.Errorf("ended with %v, want %q", err, tt.want)
				}
				if err := r.Close(); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// TestMeshAllocatesWhatCame: a size that somebody names is not allocated.
func TestMeshAllocatesWhatCame(t *testing.T) {
	bubble(t, nil, func(t *testing.T, ms *meshes) {
		ms.node(2)
		l := ms.caller(2)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		l[bulk].send(pieceFrame(1, maxMessageBytes))
		synctest.Wait()
		runtime.ReadMemStats(&after)
		if got := after.TotalAlloc - before.TotalAlloc; got > 4*firstBytes {
			t.Errorf("100 bytes of %d came, and %d were allocated", maxMessageBytes, got)
		}
		_ = l[bulk].Close()
	})
}

// flipping changes the byte at a place of what is written.
type flipping struct {
	net.Conn
	at, n int
}

func (f *flipping) Write(b []byte) (int, error) {
	if i := f.at - f.n; i >= 0 && i < len(b) {
		b = append([]byte(nil), b...)
		b[i] ^= 0x10
	}
	n, err := f.Conn.Write(b)
	f.n += n
	return n, err
}

// TestMeshDamage flips bytes of an AppendEntries on its way: none reaches Raft.
func TestMeshDamage(t *testing.T) {
	const size = 3000
	for at := helloBytes + len(testCluster); at < helloBytes+len(testCluster)+2*frameHeaderBytes+size; at += 97 {
		n := 0
		bubble(t, func(opt *MeshOptions) {
			if opt.Node != 1 {
				return
			}
			dial := opt.Dial
			opt.Dial = func(ctx context.Context, to string) (net.Conn, error) {
				conn, err := dial(ctx, to)
				if n++; n == 2 && err == nil { // the first bulk connection
					conn = &flipping{Conn: conn, at: at}
				}
				return conn, err
			}
		}, func(t *testing.T, ms *meshes) {
			ms.node(1)
			ms.node(2)
			a, b := ms.nodes[1].Join(1, one), ms.nodes[2].Join(1, two)
			came := answering(b, yes)
			pipe, err := a.AppendEntriesPipeline(name(two), "")
			if err != nil {
				t.Fatal(err)
			}
			f, err := pipe.AppendEntries(appendOf(5, size), new(raft.AppendEntriesResponse))
			if err != nil {
				t.Fatal(err)
			}
			if f.Error() == nil {
				t.Errorf("byte %d flipped, and the call succeeds", at)
			}
			if got := came(); len(got) > 0 {
				t.Errorf("byte %d flipped, and Raft saw the request", at)
			}
			_ = pipe.Close()
			for _, r := range []*Member{a, b} {
				if err := r.Close(); err != nil {
					t.Error(err)
				}
			}
		})
	}
}
