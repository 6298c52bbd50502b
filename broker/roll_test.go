package broker

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/flotilla-log/flotilla/replication/transport"
)

// FuzzRoll gives any bytes to what reads an answer: it does not panic, and refuses by name.
func FuzzRoll(f *testing.F) {
	f.Add([]byte(nil))
	f.Add([]byte(`{"founders":[1,2,3],"nodes":{"1":"a:1","4":""},"later":7}`))
	f.Add([]byte(`{"founders":[2,1]}`))
	f.Add([]byte(`{"founders":[1],"nodes":{"-1":""}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := decodeRoll(b)
		if err != nil && !errors.Is(err, errRoll) {
			t.Fatalf("decodeRoll(%q) = %v", b, err)
		}
		if (err == nil) != (len(r.Founders) > 0) {
			t.Fatalf("decodeRoll(%q) = %+v, %v", b, r, err)
		}
	})
}

// rolls are nodes that answer, or do not.
type rolls struct {
	transport.Peers
	answers map[int32]string
}

func (r rolls) Call(_ context.Context, node int32, m transport.Method, _ []byte) ([]byte, error) {
	if answer, ok := r.answers[node]; ok && m == MethodRoll {
		return []byte(answer), nil
	}
	return nil, errors.New("nobody is there")
}

// TestAskRoll has nodes know of different others: what any of them knows counts.
func TestAskRoll(t *testing.T) {
	t.Parallel()
	peers := rolls{answers: map[int32]string{
		1: `{"founders":[9],"nodes":{"9":"self:1"}}`, // who asks does not count
		2: `{"founders":[1,2,3],"nodes":{"1":"a:1","4":""}}`,
		3: `{"founders":[1,2,3],"nodes":{"1":"old:1","4":"d:1","5":""}}`,
	}}
	got, err := AskRoll(t.Context(), peers, 1, []int32{1, 2, 3, 6})
	want := Roll{Founders: []int32{1, 2, 3}, Nodes: map[int32]string{1: "a:1", 4: "d:1", 5: ""}}
	if d := cmp.Diff(want, got); d != "" || err != nil {
		t.Errorf("%v (-want +got):\n%s", err, d)
	}
	if _, err := AskRoll(t.Context(), peers, 1, []int32{1, 6}); err == nil || !strings.Contains(err.Error(), "node 6 does not say which nodes there are") {
		t.Errorf("nobody answers: %v", err)
	}
}
