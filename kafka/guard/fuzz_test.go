package guard

import (
	"bytes"
	"errors"
	"runtime"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// FuzzCheck checks, for any bytes as the body of any request, that
//   - Check does not panic, and refuses with an error of its own,
//   - what it accepts, kmsg decodes, without an error, and allocates no more than
//     Check says,
//   - whatever it says, it is within the limits.
func FuzzCheck(f *testing.F) {
	for key := range int16(len(requests)) {
		first, last, ok := Versions(key)
		if !ok {
			continue
		}
		c := newChance(uint64(key), 3)
		f.Add(key, last, c.body(key, last))
		f.Add(key, first, c.body(key, first))
		e := c.encoder(key, last)
		e.strange = true
		e.structure(root(key, last))
		f.Add(key, last, e.out)
	}
	f.Add(int16(18), int16(3), be(2, "a", 2, "b", uint32(0xffffffff), "xyz"))
	f.Add(int16(3), int16(1), be(int32(0x7fffffff), make([]byte, 64)))
	f.Fuzz(func(t *testing.T, key, version int16, body []byte) {
		limits := LimitsFor(len(body))
		says, err := Check(key, version, body, limits)
		if err != nil {
			if !errors.Is(err, ErrUnknown) && !errors.Is(err, ErrMalformed) && !errors.Is(err, ErrTooLarge) {
				t.Fatalf("Check: %v", err)
			}
			return
		}
		if says < 0 || says > limits.AllocBytes {
			t.Fatalf("Check says that decoding allocates %d bytes, %d are allowed", says, limits.AllocBytes)
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		req, err := decode(key, version, body)
		runtime.ReadMemStats(&after)
		if err != nil {
			t.Fatalf("accepted, and kmsg does not decode it: %v: %+v", err, req)
		}
		const noise = 64 << 10 // of the fuzzing engine's goroutines
		if took := int64(after.TotalAlloc - before.TotalAlloc); took > says+noise {
			t.Fatalf("Check says that decoding allocates %d bytes, it allocates %d", says, took)
		}
	})
}

// FuzzParseHeader checks, for any bytes, that
//   - ParseHeader does not panic, and refuses with an error of its own,
//   - what it accepts without tags is, encoded again, the same bytes.
func FuzzParseHeader(f *testing.F) {
	for _, key := range []int16{0, 3, 18} {
		first, last, _ := Versions(key)
		for _, version := range []int16{first, last} {
			f.Add(header(kmsg.RequestForKey(key), version, []byte("client"), be(1, 7, 2, "xy")))
			f.Add(header(kmsg.RequestForKey(key), version, nil, nil))
		}
	}
	f.Fuzz(func(t *testing.T, frame []byte) {
		h, err := ParseHeader(frame, LimitsFor(len(frame)))
		if err != nil {
			if !errors.Is(err, ErrUnknown) && !errors.Is(err, ErrMalformed) && !errors.Is(err, ErrTooLarge) {
				t.Fatalf("ParseHeader: %v", err)
			}
			return
		}
		again := be(h.Key, h.Version, h.CorrelationID, int16(len(h.ClientID)), h.ClientID)
		if h.ClientID == nil { // any negative length is null
			copy(again[8:10], frame[8:10])
		}
		if h.BodyAt < len(again) || h.BodyAt > len(frame) || !bytes.Equal(frame[:len(again)], again) {
			t.Fatalf("ParseHeader(%x) = %+v", frame, h)
		}
	})
}
