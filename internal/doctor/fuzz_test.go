package doctor

import (
	"bytes"
	"path"
	"strings"
	"testing"

	"github.com/flotilla-log/flotilla/internal/node"
)

// FuzzDecodePlan checks that no bytes make a PLAN that names a file outside of
// the data directory, and that nothing panics.
func FuzzDecodePlan(f *testing.F) {
	f.Add([]byte(`{"format":1,"moves":[{"path":"journal/RING","had":true}]}`))
	f.Add([]byte(`{"format":1,"moves":[{"path":"../x"}]}`))
	f.Add([]byte(`{"format":1,"moves":[{"path":"/etc/passwd"},{"path":"a/../../b"},{"path":".."}]}`))
	f.Add([]byte(`{"format":2}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, in := range [][]byte{b, node.Seal(bytes.Clone(b))} {
			p, err := decodePlan(in)
			if err != nil {
				continue
			}
			for _, m := range p.Moves {
				if full := path.Join("data", m.Path); !strings.HasPrefix(full, "data/") {
					t.Fatalf("%q moves %s", in, full)
				}
			}
		}
	})
}
