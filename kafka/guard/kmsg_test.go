package guard

import (
	"bytes"
	"reflect"
	"slices"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// TestAcceptsWhatKmsgEncodes encodes every request in every version with kmsg,
// with its defaults and with random values. Check accepts each, and walks exactly
// its bytes.
func TestAcceptsWhatKmsgEncodes(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, key, version int16) {
		c := newChance(uint64(key)<<16|uint64(version), 4)
		for i := range 20 {
			req := kmsg.RequestForKey(key)
			req.SetVersion(version)
			if i > 0 {
				c.fill(reflect.ValueOf(req).Elem(), version)
			}
			body := req.AppendTo(nil)
			at, err := walkWhole(key, version, body)
			if err != nil || at != len(body) {
				t.Fatalf("walked %d of %d bytes of %x: %v\n%+v", at, len(body), body, err, req)
			}
		}
	})
}

// TestKmsgDecodesWhatIsAccepted encodes every request in every version as the
// tables say. Check accepts each, and kmsg decodes it without an error and, as
// it encodes it again, to the same bytes: it takes each byte for what the tables
// do.
func TestKmsgDecodesWhatIsAccepted(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, key, version int16) {
		c := newChance(uint64(key)<<16|uint64(version), 4)
		for range 20 {
			body := c.body(key, version)
			at, err := walkWhole(key, version, body)
			if err != nil || at != len(body) {
				t.Fatalf("walked %d of %d bytes of %x: %v", at, len(body), body, err)
			}
			req, err := decode(key, version, body)
			if err != nil {
				t.Fatalf("kmsg does not decode %x: %v", body, err)
			}
			if again := req.AppendTo(nil); !bytes.Equal(again, body) {
				t.Fatalf("encoded again as\n%x, was\n%x\n%+v", again, body, req)
			}
		}
	})
}

// TestVersionsAreKmsgs compares the tables with what kmsg knows, to notice that
// either is of another version of Kafka than the other.
func TestVersionsAreKmsgs(t *testing.T) {
	t.Parallel()
	removed := []int16{4, 5, 6, 7} // LeaderAndIsr, StopReplica, UpdateMetadata, ControlledShutdown
	for key := range int16(len(requests) + 20) {
		_, last, ok := Versions(key)
		switch req := kmsg.RequestForKey(key); {
		case req == nil && ok:
			t.Errorf("kmsg does not know key %d", key)
		case req == nil || slices.Contains(removed, key):
			if ok {
				t.Errorf("key %d has versions up to %d, Kafka has removed it", key, last)
			}
		case !ok || req.MaxVersion() != last:
			t.Errorf("%s: versions up to %d (%t), kmsg knows up to %d", kmsg.NameForKey(key), last, ok, req.MaxVersion())
		}
	}
}
