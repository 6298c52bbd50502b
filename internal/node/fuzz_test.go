package node

import (
	"bytes"
	"errors"
	"testing"
)

// FuzzSealed gives any bytes, and any line under a checksum that fits, to what
// reads IDENTITY and GENERATION, and checks that
//   - nothing panics,
//   - what is refused is refused by name,
//   - what decodes is what was written, and survives no one-bit change.
func FuzzSealed(f *testing.F) {
	f.Add([]byte(nil), uint16(0))
	f.Add([]byte(`{"format":1,"cluster_id":"c","node_id":1,"shards":4,"incarnation":"1","generation":3}`), uint16(9))
	f.Add([]byte(`{"format":2}`), uint16(1))
	f.Add([]byte(`{"format":1,"incarnation":"fedcba9876543211","generation":7}`), uint16(70))
	f.Add(goldenIdentity.encode(), uint16(3))
	f.Add([]byte(`{"format":1,"cluster_id":"c","node_id":1,"lost":"1","fresh":"3","shards":4,"at_ms":5,"cause":"x"}`), uint16(3))
	f.Fuzz(func(t *testing.T, b []byte, bit uint16) {
		for _, in := range [][]byte{b, Seal(bytes.Clone(b))} {
			body, err := Unseal(in)
			if err == nil && !bytes.HasPrefix(in, body) {
				t.Fatalf("Unseal(%q) = %q", in, body)
			}
			id, idErr := decodeIdentity(in)
			if idErr != nil && !errors.Is(idErr, ErrDamagedIdentity) && !errors.Is(idErr, ErrNewer) {
				t.Fatalf("decodeIdentity(%q) = %v", in, idErr)
			}
			if idErr == nil {
				if again, err := decodeIdentity(id.encode()); err != nil || again != id {
					t.Fatalf("%+v is written as what reads as %+v, %v", id, again, err)
				}
			}
			g, gErr := decodeGeneration(in)
			if gErr == nil {
				if again, err := decodeGeneration(seal(g)); err != nil || again != g {
					t.Fatalf("%+v is written as what reads as %+v, %v", g, again, err)
				}
			}
			if a, err := decodeWhy(in); err == nil {
				if again, err := decodeWhy(seal(&a)); err != nil || again != a {
					t.Fatalf("%+v is written as what reads as %+v, %v", a, again, err)
				}
			}
			if idErr != nil && gErr != nil {
				continue
			}
			hurt := bytes.Clone(in)
			i := int(bit) % (8 * len(hurt))
			hurt[i/8] ^= 1 << (i % 8)
			if _, err := decodeIdentity(hurt); err == nil {
				t.Fatalf("bit %d of %q flipped, and it is an identity", i, in)
			}
			if _, err := decodeGeneration(hurt); err == nil {
				t.Fatalf("bit %d of %q flipped, and it is a generation", i, in)
			}
		}
		var n hexNumber
		if n.UnmarshalText(b) == nil {
			text, _ := n.MarshalText()
			var again hexNumber
			if err := again.UnmarshalText(text); err != nil || again != n {
				t.Fatalf("%q reads as %d, which reads as %d, %v", b, n, again, err)
			}
		}
	})
}
