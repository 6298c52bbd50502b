package broker

import (
	"bytes"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/flotilla-log/flotilla/log/batch"
	"github.com/flotilla-log/flotilla/partition"
)

// goldenPull are a request and an answer as they were first written.
var goldenPull = struct {
	request     pullRequest
	requestWire string
	answer      pullAnswer
	answerWire  string
}{
	request: pullRequest{shard: 2, index: 0x0102, topic: partition.TopicID{0xaa, 15: 0xbb}, part: 3, maxBytes: 1 << 20, offset: 10, end: 300},
	requestWire: "\x01\x00\x00\x00\x02\x00\x00\x00\x02\x01\x00\x00\x00\x00\x00\x00\xaa\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\xbb" +
		"\x03\x00\x00\x00\x00\x00\x10\x00\x0a\x00\x00\x00\x00\x00\x00\x00\x2c\x01\x00\x00\x00\x00\x00\x00",
	answer:     pullAnswer{logStart: 5, horizon: -1, batches: []byte("batch")},
	answerWire: "\x01\x00\x00\x00\x00\x00\x00\x00\x05\x00\x00\x00\x00\x00\x00\x00\xff\xff\xff\xff\xff\xff\xff\xffbatch",
}

func TestPullGolden(t *testing.T) {
	t.Parallel()
	g := &goldenPull
	if got := string(g.request.encode()); got != g.requestWire {
		t.Errorf("request %q, want %q", got, g.requestWire)
	}
	if got := string(g.answer.encode()); got != g.answerWire {
		t.Errorf("answer %q, want %q", got, g.answerWire)
	}
}

func FuzzPullRequest(f *testing.F) {
	f.Add([]byte(goldenPull.requestWire))
	f.Add([]byte{2})
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := decodePullRequest(b)
		if err != nil {
			if !errors.Is(err, errPull) {
				t.Fatalf("%v", err)
			}
			return
		}
		if got := r.encode(); !bytes.Equal(got, b) {
			t.Fatalf("%x is encoded as %x", b, got)
		}
	})
}

func FuzzPullAnswer(f *testing.F) {
	f.Add([]byte(goldenPull.answerWire))
	f.Add([]byte("\x01\x01\x00\x00\x00\x00\x00\x00\x05\x00\x00\x00\x00\x00\x00\x00\xff\xff\xff\xff\xff\xff\xff\xff"))
	f.Fuzz(func(t *testing.T, b []byte) {
		a, err := decodePullAnswer(b)
		if err != nil {
			if !errors.Is(err, errPull) {
				t.Fatalf("%v", err)
			}
			return
		}
		if got := a.encode(); !bytes.Equal(got, b) {
			t.Fatalf("%x is encoded as %x", b, got)
		}
	})
}

// TestPullRefuses what no version of these calls says.
func TestPullRefuses(t *testing.T) {
	t.Parallel()
	change := func(s string, at int, to byte) []byte {
		b := []byte(s)
		b[at] = to
		return b
	}
	for name, b := range map[string][]byte{
		"a newer format": change(goldenPull.requestWire, 0, 2), "flags": change(goldenPull.requestWire, 1, 1),
		"an empty range": change(goldenPull.requestWire, 40, 0xff), "nothing": nil, "a part of it": []byte(goldenPull.requestWire[:55]),
		"a negative partition": change(goldenPull.requestWire, 35, 0x80), "no bytes": change(goldenPull.requestWire, 38, 0),
	} {
		if name == "an empty range" {
			b[41] = 0x01 // offset 511, end 300
		}
		if r, err := decodePullRequest(b); !errors.Is(err, errPull) {
			t.Errorf("%s: %+v, %v", name, r, err)
		}
	}
	for name, b := range map[string][]byte{
		"a newer format": change(goldenPull.answerWire, 0, 2), "an unknown kind": change(goldenPull.answerWire, 1, 3),
		"aborted transactions": change(goldenPull.answerWire, 4, 1), "batches of a deleted partition": change(goldenPull.answerWire, 1, 2),
		"a part of it": []byte(goldenPull.answerWire[:20]),
	} {
		if a, err := decodePullAnswer(b); !errors.Is(err, errPull) {
			t.Errorf("%s: %+v, %v", name, a, err)
		}
	}
}

// TestBelow cuts a run of batches at an offset.
func TestBelow(t *testing.T) {
	t.Parallel()
	one := func(base int64, n int) []byte {
		var w batch.Builder
		w.Reset()
		for range n {
			if err := w.Append(1, nil, []byte("x"), nil); err != nil {
				t.Fatal(err)
			}
		}
		b, err := w.Build(nil, 0, 0)
		if err != nil {
			t.Fatal(err)
		}
		batch.PutPrefix(b, base, int32(len(b)-12), 1)
		return b
	}
	first, second := one(5, 2), one(7, 3)
	run := append(append([]byte(nil), first...), second...)
	for end, want := range map[int64][]byte{5: {}, 7: first, 10: run, 100: run} {
		got, err := below(run, end)
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("below %d: %d bytes, %v, want %d: %s", end, len(got), err, len(want), cmp.Diff(want, got))
		}
	}
	if _, err := below(run[:len(first)+10], 10); err == nil {
		t.Error("half a header is taken for a batch")
	}
}
