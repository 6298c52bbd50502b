package history

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func encode(t testing.TB, h History) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := Write(&b, h); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestGolden pins the format: histories saved by one build are read by later
// ones.
func TestGolden(t *testing.T) {
	t.Parallel()
	h := History{
		{ID: 7, Process: 3, Type: Invoke, F: Send, At: 812, Mops: []Mop{Values(Key{"orders", 2}, 9001, 9002)}},
		{ID: 7, Process: 3, Type: OK, F: Send, At: 1530, Mops: []Mop{Values(Key{"orders", 2}, 9001, 9002).At(40)}},
		{ID: 8, Process: 4, Type: Invoke, F: Assign, Mops: []Mop{{Key: Key{"orders", 2}, From: NoOffset}, {Key: Key{"a<b", 0}, From: 5}}},
		{ID: 9, Process: 5, Type: Fail, F: CreateTopic, Saw: Present, Topic: "orders", Err: "TOPIC_ALREADY_EXISTS"},
		{ID: 10, Process: 5, Type: Info, F: Txn, Mops: []Mop{{Key: Key{"orders", 0}, F: Poll}}},
		{ID: 11, Process: 6, Type: Invoke, F: Commit, In: &Membership{"billing", "m1", 3}, Mops: []Mop{{Key: Key{"orders", 0}, From: 41}}},
	}
	const want = `{"flotilla-history":1}
{"id":7,"p":3,"t":"invoke","f":"send","at":812,"m":[{"k":"orders","n":2,"r":[-1,9001,-1,9002]}]}
{"id":7,"p":3,"t":"ok","f":"send","at":1530,"m":[{"k":"orders","n":2,"r":[40,9001,41,9002]}]}
{"id":8,"p":4,"t":"invoke","f":"assign","at":0,"m":[{"k":"orders","n":2,"o":-1},{"k":"a<b","n":0,"o":5}]}
{"id":9,"p":5,"t":"fail","f":"create","at":0,"topic":"orders","saw":"present","err":"TOPIC_ALREADY_EXISTS"}
{"id":10,"p":5,"t":"info","f":"txn","at":0,"m":[{"f":"poll","k":"orders","n":0}]}
{"id":11,"p":6,"t":"invoke","f":"commit","at":0,"g":"billing","c":"m1","e":3,"m":[{"k":"orders","n":0,"o":41}]}
`
	if diff := cmp.Diff(want, string(encode(t, h))); diff != "" {
		t.Errorf("written (-want +got):\n%s", diff)
	}
	got, err := Read(strings.NewReader(want))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(h, got); diff != "" {
		t.Errorf("read (-want +got):\n%s", diff)
	}
}

// TestSavedRun checks that a saved run reads back equal, so that it is judged
// the same.
func TestSavedRun(t *testing.T) {
	t.Parallel()
	for seed := range uint64(5) {
		h := append(modelRun(seed, 300).h, groupRun(seed, 100).h...)
		got, err := Read(bytes.NewReader(encode(t, h)))
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		if diff := cmp.Diff(h, got, cmpopts.EquateEmpty()); diff != "" {
			t.Fatalf("seed %d (-want +got):\n%s", seed, diff)
		}
	}
}

// TestReadCut stands in for a recorder that died at any moment of a write: Read
// must give every whole event, and say that something is missing.
func TestReadCut(t *testing.T) {
	t.Parallel()
	h := modelRun(1, 8).h
	image := encode(t, h)
	for cut := range len(image) {
		lines := bytes.Count(image[:cut], []byte("\n"))
		got, err := Read(bytes.NewReader(image[:cut]))
		if len(got) != max(0, lines-1) {
			t.Fatalf("cut=%d: %d events, want %d", cut, len(got), max(0, lines-1))
		}
		whole := cut > 0 && image[cut-1] == '\n'
		if whole && err != nil || !whole && !errors.Is(err, ErrDamaged) {
			t.Fatalf("cut=%d: error %v", cut, err)
		}
	}
}

func TestReadRefuses(t *testing.T) {
	t.Parallel()
	const head = `{"flotilla-history":1}` + "\n"
	tests := []struct {
		name, in string
		want     error
	}{
		{name: "empty", want: ErrDamaged},
		{name: "no header", in: `{"id":1}` + "\n", want: ErrDamaged},
		{name: "newer", in: `{"flotilla-history":2}` + "\n", want: ErrVersion},
		{name: "no object", in: head + "[]\n", want: ErrDamaged},
		{name: "blank line", in: head + "\n", want: ErrDamaged},
		{name: "unknown type", in: head + `{"t":"maybe","f":"poll"}` + "\n", want: ErrDamaged},
		{name: "no type", in: head + `{"f":"poll"}` + "\n", want: ErrDamaged},
		{name: "unknown function", in: head + `{"t":"ok","f":"push"}` + "\n", want: ErrDamaged},
		{name: "unknown presence", in: head + `{"t":"ok","f":"create","saw":"x"}` + "\n", want: ErrDamaged},
		{name: "unknown micro-operation", in: head + `{"t":"ok","f":"txn","m":[{"f":"x"}]}` + "\n", want: ErrDamaged},
		{name: "offset without value", in: head + `{"t":"ok","f":"poll","m":[{"r":[1]}]}` + "\n", want: ErrDamaged},
		{name: "number too large", in: head + `{"t":"ok","f":"poll","m":[{"r":[1,9223372036854775808]}]}` + "\n", want: ErrDamaged},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if _, err := Read(strings.NewReader(tt.in)); !errors.Is(err, tt.want) {
				t.Errorf("Read = %v, want %v", err, tt.want)
			}
		})
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error)  { return 0, f.err }
func (f failing) Write([]byte) (int, error) { return 0, f.err }

func TestErrorsOfTheFile(t *testing.T) {
	t.Parallel()
	f := failing{err: errors.New("disk on fire")}
	if err := Write(f, nil); !errors.Is(err, f.err) {
		t.Errorf("Write = %v", err)
	}
	in := io.MultiReader(bytes.NewReader(encode(t, History{{ID: 1, Type: OK, F: Poll}})), f)
	if h, err := Read(in); !errors.Is(err, f.err) || errors.Is(err, ErrDamaged) || len(h) != 1 {
		t.Errorf("Read = %d events, %v", len(h), err)
	}
}

func TestScanStopsEarly(t *testing.T) {
	t.Parallel()
	n := 0
	for range Scan(bytes.NewReader(encode(t, modelRun(1, 50).h))) {
		if n++; n == 3 {
			break
		}
	}
	if n != 3 {
		t.Errorf("%d events", n)
	}
}

// FuzzRead checks, for any text at all, that
//   - Read does not panic,
//   - what it read writes and reads back the same,
//   - Check and CheckTopics give a verdict on it.
func FuzzRead(f *testing.F) {
	const head = `{"flotilla-history":1}` + "\n"
	f.Add([]byte(nil))
	f.Add([]byte(head))
	for seed := range uint64(4) {
		f.Add(encode(f, modelRun(seed, 40).h))
		f.Add(encode(f, groupRun(seed, 40).h))
	}
	f.Add([]byte(head + `{"id":1,"t":"invoke","f":"poll"}` + "\n" +
		`{"id":1,"t":"ok","f":"poll","m":[{"k":"a","r":[9223372036854775807,-1,-9223372036854775808,0]}]}` + "\n"))
	f.Fuzz(func(t *testing.T, in []byte) {
		h, err := Read(bytes.NewReader(in))
		if err != nil && len(h) == 0 {
			return
		}
		again, err := Read(bytes.NewReader(encode(t, h)))
		if err != nil {
			t.Fatalf("read back: %v", err)
		}
		if diff := cmp.Diff(h, again, cmpopts.EquateEmpty()); diff != "" {
			t.Fatalf("read back (-want +got):\n%s", diff)
		}
		for _, opt := range []Options{{}, {Idempotent: true, Assigned: true, Final: true, Groups: map[string][]string{"g": {stable}}}} {
			_ = Check(h, opt).String()
		}
		_ = CheckTopics(h, 1)
	})
}
