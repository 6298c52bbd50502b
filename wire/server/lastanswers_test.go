package server_test

import (
	"encoding/binary"
	"errors"
	"io"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/flotilla-log/flotilla/internal/errcode"
	"github.com/flotilla-log/flotilla/internal/netsim"
	"github.com/flotilla-log/flotilla/internal/vfs"
	"github.com/flotilla-log/flotilla/wire/frame"
	"github.com/flotilla-log/flotilla/wire/pb"
)

// holdSyncs makes every sync of the journal wait until let is called, so that
// nothing becomes durable meanwhile.
func (i *island) holdSyncs() (let func()) {
	held := make(chan struct{})
	i.disk.OnOp(func(op vfs.Op, phase vfs.Phase) {
		if phase == vfs.Before && op.Kind == vfs.OpSyncData && strings.Contains(op.Path, "journal") {
			<-held
		}
	})
	return sync.OnceFunc(func() {
		i.disk.OnOp(nil)
		close(held)
	})
}

// prefix is a frame's, of a Ping unless edit says otherwise.
func prefix(edit func(b []byte)) []byte {
	b := make([]byte, frame.PrefixBytes)
	b[3], b[8], b[15] = 12, byte(frame.KindPing), 9
	edit(b)
	return b
}

// silent wants that nothing has come by now.
func (p *peer) silent(when string) {
	p.t.Helper()
	synctest.Wait()
	if err := netsim.Silent(p.nc); err != nil {
		p.t.Fatalf("%s: %v", when, err)
	}
}

// lastWord wants a frame about the connection, and behind it the end, though the
// server takes bytes for a second yet.
func (p *peer) lastWord(when string, code errcode.Code, text string) {
	p.t.Helper()
	e := new(pb.Error)
	f, err := p.r.Read()
	if err == nil {
		err = frame.Unmarshal(f.Header, e)
	}
	if err != nil || f.Kind != frame.KindError || f.Flags != 0 || f.CorrelationID != 0 || e.Code != int32(code) || !strings.Contains(e.Message, text) {
		p.t.Fatalf("%s: %v %d, code %d %q, %v; want an Error with code %d and %q", when, f.Kind, f.CorrelationID, e.Code, e.Message, err, code, text)
	}
	p.lingers(when)
}

// lingers wants the stream to end, and the server to take bytes for a second yet.
func (p *peer) lingers(when string) {
	p.t.Helper()
	if f, err := p.r.Read(); !errors.Is(err, io.EOF) {
		p.t.Errorf("%s: behind the last word: %v, %v; want the end", when, f.Kind, err)
	}
	if _, err := p.nc.Write([]byte{0}); err != nil {
		p.t.Errorf("%s: the connection is closed at once, by which what was written may be lost: %v", when, err)
	}
	time.Sleep(2 * time.Second)
	if _, err := p.nc.Write([]byte{0}); err == nil {
		p.t.Errorf("%s: the connection takes bytes yet, two seconds after", when)
	}
}

// badEnds are bytes that end a connection, and what the client is told of them.
func badEnds() map[string]struct {
	bytes []byte
	code  errcode.Code
	text  string
} {
	credit := prefix(func(b []byte) { b[3], b[8] = 13, byte(frame.KindCredit) })
	unacknowledged := prefix(func(b []byte) { b[3], b[7], b[8] = 14, 2, byte(frame.KindProduce) })
	unacknowledged = append(unacknowledged, 1<<3, byte(pb.Acks_ACKS_NONE))
	return map[string]struct {
		bytes []byte
		code  errcode.Code
		text  string
	}{
		"a Produce of nothing, without acknowledgement": {unacknowledged, errcode.InvalidRequest, "without acknowledgement failed"},
		"a length of none":        {prefix(func(b []byte) { binary.BigEndian.PutUint32(b, 1<<32-1) }), errcode.InvalidRequest, "request.bytes.max"},
		"a length of less":        {prefix(func(b []byte) { b[3] = 11 }), errcode.InvalidRequest, "length 11, want at least 12"},
		"kind 0":                  {prefix(func(b []byte) { b[8] = 0 }), errcode.InvalidRequest, "kind 0; what follows it cannot be told from it"},
		"a response":              {prefix(func(b []byte) { b[9] = byte(frame.FlagResponse) }), errcode.InvalidRequest, "a client sent a response"},
		"a Credit with a payload": {append(credit, 'x'), errcode.InvalidRequest, "a Credit request with a payload"},
	}
}

// TestLastAnswers: what came before bytes that end the connection is answered,
// though the connection is read no more: it may have been appended. A Fetch among
// it waits no longer, and a stream has ended. The last frame says why, and arrives.
func TestLastAnswers(t *testing.T) {
	for name, end := range badEnds() {
		t.Run(name, func(t *testing.T) {
			onIsland(t, func(t *testing.T, i *island) {
				p := i.connect()
				topic, other := p.create("a", 1), p.create("b", 1)
				p.ask(frame.KindSubscribe, &pb.SubscribeRequest{Stream: 1, CreditBytes: 1 << 20, Parts: []*pb.StreamPart{streamPart(topic, 0, 0, 1)}}, new(pb.SubscribeResponse))
				let := i.holdSyncs()
				defer let() // or the node would never close
				b := build(t, []byte("v"))
				first := p.start(frame.KindProduce, produceRequest(topic, b), b)
				waits := p.start(frame.KindFetch, fetchRequest(other, 60_000, 1))
				second := p.start(frame.KindProduce, produceRequest(topic, b), b)
				creates := p.start(frame.KindCreateTopic, &pb.CreateTopicRequest{Name: "c", Partitions: 1, TimeoutMs: 60_000})
				p.silent("of what waits")
				// Much follows it, which nobody reads.
				if _, err := p.nc.Write(append(end.bytes, make([]byte, 20_000)...)); err != nil {
					t.Fatal(err)
				}
				if f, refused := p.answer(new(pb.FetchResponse)); f.CorrelationID != waits || refused != nil {
					t.Fatalf("before it is durable: %v %d was answered, %v; want the Fetch that waits", f.Kind, f.CorrelationID, refused)
				}
				time.Sleep(20 * time.Second)
				p.silent("before it is durable")
				let()
				offsets := map[uint32]int64{first: -1, second: -1}
				for range 3 {
					f, err := p.r.Read()
					if err != nil || f.Flags != frame.FlagResponse {
						t.Fatalf("%v %d, flags %#x, %v", f.Kind, f.CorrelationID, f.Flags, err)
					}
					if f.CorrelationID == creates {
						continue
					}
					resp := new(pb.ProduceResponse)
					if err := frame.Unmarshal(f.Header, resp); err != nil || resp.Results[0].Error != nil {
						t.Fatalf("%v %d: %v, %v", f.Kind, f.CorrelationID, resp, err)
					}
					offsets[f.CorrelationID] = resp.Results[0].BaseOffset
				}
				if offsets[first] != 0 || offsets[second] != 1 {
					t.Errorf("offsets %d and %d, want 0 and 1", offsets[first], offsets[second])
				}
				p.lastWord(name, end.code, end.text)
				synctest.Wait()
				if n, st := i.node.RequestBytes(), i.node.Streams(); n != 0 || st.Streams != 0 || st.Partitions != 0 {
					t.Errorf("%d bytes of requests, and of streams %+v, stay counted", n, st)
				}
			})
		})
	}
}

// TestLastAnswersEnd: what is not answered in half a minute does not keep a
// connection that has ended.
func TestLastAnswersEnd(t *testing.T) {
	onIsland(t, func(t *testing.T, i *island) {
		p := i.connect()
		topic := p.create("a", 1)
		defer i.holdSyncs()()
		b := build(t, []byte("v"))
		m := produceRequest(topic, b)
		m.TimeoutMs = 10 * 60_000
		p.start(frame.KindProduce, m, b)
		began := time.Now()
		if _, err := p.nc.Write(prefix(func(b []byte) { b[8] = 0 })); err != nil {
			t.Fatal(err)
		}
		if n, err := p.nc.Read(make([]byte, 1)); n > 0 || err == nil {
			t.Errorf("%d bytes, %v; want the end", n, err)
		}
		if took := time.Since(began); took != 30*time.Second {
			t.Errorf("ended after %v, want 30 s", took)
		}
	})
}

// TestLastWordOfSlow: who is cut off in a request is told so; who sends none in
// time has the Hello's word for it, and no answer that was not read.
func TestLastWordOfSlow(t *testing.T) {
	onIsland(t, func(t *testing.T, i *island) {
		p, idle := i.connect(), i.connect()
		if _, err := p.nc.Write(prefix(func(b []byte) { b[2], b[8] = 9, byte(frame.KindProduce) })); err != nil {
			t.Fatal(err)
		}
		p.lastWord("half a request", errcode.RequestTimedOut, "send a request at once and whole")
		began := time.Now()
		if f, err := idle.r.Read(); !errors.Is(err, io.EOF) {
			t.Errorf("idle: %v, %v; want the end", f.Kind, err)
		}
		if _, err := idle.nc.Write([]byte{0}); err == nil {
			t.Errorf("idle: the connection takes bytes after %v", time.Since(began))
		}
	})
}

// TestLastWordAtHello: a client that is refused where it shakes hands is told so, and
// that arrives though more came than the Hello.
func TestLastWordAtHello(t *testing.T) {
	onIsland(t, func(t *testing.T, i *island) {
		nc, err := i.net.Dial(t.Context(), "client", "node:9092")
		if err != nil {
			t.Fatal(err)
		}
		p := &peer{t: t, nc: nc, r: frame.NewReader(nc)}
		if _, err := io.WriteString(nc, frame.Magic+string(prefix(func(b []byte) { b[8] = 0 }))+strings.Repeat("x", 20_000)); err != nil {
			t.Fatal(err)
		}
		p.magic()
		p.lastWord("kind 0", errcode.InvalidRequest, "kind 0")
	})
}

// magic reads the server's.
func (p *peer) magic() {
	p.t.Helper()
	if kind, _, err := frame.ReadMagic(p.nc); err != nil || kind != frame.Native {
		p.t.Fatal(kind, err)
	}
}
