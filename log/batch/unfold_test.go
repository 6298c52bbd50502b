package batch

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"runtime/debug"
	"testing"

	"github.com/klauspost/compress/snappy"
	"github.com/klauspost/compress/zstd"
)

// counted is a Room that knows what was taken of it.
type counted struct {
	held, most int64
	refuse     error
}

func (c *counted) Take(bytes int64) error {
	if c.refuse != nil {
		return c.refuse
	}
	c.held += bytes
	c.most = max(c.most, c.held)
	return nil
}

func (c *counted) Give(bytes int64) { c.held -= bytes }

// payloadOf encodes records of about size bytes each until there are as many
// bytes as wanted: some have a value that is larger than any piece.
func payloadOf(rng *rand.Rand, wantBytes, size int) (payload []byte, records int32) {
	for len(payload) < wantBytes {
		value := make([]byte, rng.IntN(2*size))
		for i := range value {
			value[i] = byte(rng.Uint32() % 5)
		}
		r := handmade{offset: int64(records), timestamp: rng.Int64N(1000), keyLength: -1, valueLength: int64(len(value)), value: string(value)}
		if rng.IntN(3) == 0 {
			r.keyLength, r.key = 3, "key"
		}
		if rng.IntN(4) == 0 {
			r.headerCount, r.headers = 2, []byte("\x02k\x01\x02l\x04vw")
		}
		payload = r.appendTo(payload)
		records++
	}
	return payload, records
}

// TestPieces: records are judged alike, whatever the pieces that they come in. A
// payload is judged as it is, in one piece, and compressed by each codec: with
// records of many sizes, with a byte changed, cut off, with bytes behind it, and
// with a wrong number of records.
func TestPieces(t *testing.T) {
	t.Parallel()
	for seed := range uint64(60) {
		rng := rand.New(rand.NewPCG(seed, 1))
		size := []int{1, 20, 300, 5000, 90_000}[rng.IntN(5)]
		payload, records := payloadOf(rng, 1+rng.IntN(300_000), size)
		switch rng.IntN(6) {
		case 0:
			payload[rng.IntN(len(payload))] ^= byte(1 + rng.IntN(255))
		case 1: // somewhere in a length, mostly
			for range 20 {
				payload[rng.IntN(len(payload))] ^= 0x80
			}
		case 2:
			payload = payload[:rng.IntN(len(payload))]
		case 3:
			payload = append(payload, make([]byte, 1+rng.IntN(100_000))...)
		case 4:
			records += []int32{-1, 1, 1000, 1 << 30}[rng.IntN(4)]
		}
		if records <= 0 {
			continue
		}
		lim := Limits{MaxBatchBytes: 4 << 20, MaxHeaders: 1 + rng.IntN(3), RequireKeys: rng.IntN(2) == 0, Room: new(counted)}
		judge := func(codec Codec) string {
			s, err := Validate(batchOf(t, records, payload, codec), lim)
			return fmt.Sprintf("%d bytes, %d records, latest %d, %v", s.RecordBytes, s.Records, s.LatestTimestamp, err)
		}
		want := judge(None)
		for codec := Gzip; codec <= Zstd; codec++ {
			if got := judge(codec); got != want {
				t.Errorf("seed %d, %s: %s\nin one piece: %s", seed, codec, got, want)
			}
		}
		if held := lim.Room.(*counted).held; held != 0 {
			t.Fatalf("seed %d: %d bytes stay taken", seed, held)
		}
	}
}

// TestStamps: they are those of the records, wherever these lie.
func TestStamps(t *testing.T) {
	t.Parallel()
	for codec := range Codec(len(codecNames)) {
		rng := rand.New(rand.NewPCG(7, uint64(codec)))
		payload, n := payloadOf(rng, 3<<20, 40_000)
		b := batchOf(t, n, payload, codec)
		room := new(counted)
		var got []goldenRecord
		err := Stamps(b, Limits{Room: room}, func(offset, ts int64) bool {
			got = append(got, goldenRecord{Offset: offset, Timestamp: ts})
			return true
		})
		want := records(t, b)
		if err != nil || len(got) != len(want) {
			t.Fatalf("%s: %d records of %d, %v", codec, len(got), len(want), err)
		}
		for i := range want {
			if got[i].Offset != want[i].Offset || got[i].Timestamp != want[i].Timestamp {
				t.Fatalf("%s: record %d is %+v, want %+v", codec, i, got[i], want[i])
			}
		}
		seen := 0
		if err := Stamps(b, Limits{Room: room}, func(int64, int64) bool { seen++; return seen < 3 }); err != nil || seen != 3 {
			t.Errorf("%s: stopped after %d, %v", codec, seen, err)
		}
		if room.held != 0 {
			t.Errorf("%s: %d bytes stay taken", codec, room.held)
		}
	}
}

// allocatedBy returns the bytes that f allocates when the pools are empty, and no
// collection empties them meanwhile. The race detector does so at random: then
// it returns 0.
func allocatedBy(f func()) int64 {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1)) // a pool has no more than one thing for each processor that f moves to
	runtime.GC()                                    // twice: what pools have is of no help
	runtime.GC()
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	if raceEnabled {
		return 0
	}
	return int64(after.TotalAlloc - before.TotalAlloc)
}

// oneZero is a batch of one record, whose value is so many zeros.
func oneZero(t testing.TB, zeros int, codec Codec) []byte {
	t.Helper()
	payload := handmade{keyLength: -1, valueLength: int64(zeros), value: string(make([]byte, zeros))}.appendTo(nil)
	return batchOf(t, 1, payload, codec)
}

// withPayload is a batch of one record with another payload.
func withPayload(b, payload []byte) []byte {
	return edit(b, func(b []byte) []byte {
		b = append(b[:HeaderBytes], payload...)
		putLength(b)
		return b
	})
}

// TestMemoryOfABatch: whatever a batch unfolds to, what validating it takes is a
// window, and no more than was taken from the room before. It runs alone, as it
// measures what the process allocates.
func TestMemoryOfABatch(t *testing.T) {
	const zeros, usual = 24 << 20, 9 << 20
	limits := func(room Room) Limits {
		return Limits{MaxBatchBytes: 16 << 20, MaxDecompressedBytes: 256 << 20, Room: room}
	}
	batches := map[string][]byte{}
	for _, codec := range []Codec{Gzip, Snappy, LZ4, Zstd} {
		batches[codec.String()] = oneZero(t, zeros, codec)
	}
	payload := handmade{keyLength: -1, valueLength: zeros, value: string(make([]byte, zeros))}.appendTo(nil)
	for name, window := range map[string]int{"zstd, 64 KiB window": 64 << 10, "zstd, 8 MiB window": 8 << 20} {
		e, err := zstd.NewWriter(nil, zstd.WithWindowSize(window), zstd.WithEncoderConcurrency(1), zstd.WithSingleSegment(false))
		if err != nil {
			t.Fatal(err)
		}
		batches[name] = withPayload(batches["zstd"], e.EncodeAll(payload, nil))
	}
	small := payload[:2<<20]
	small = handmade{keyLength: -1, valueLength: int64(len(small)), value: string(small)}.appendTo(nil)
	batches["snappy, one block of 2 MiB"] = withPayload(batches["snappy"], snappy.Encode(nil, small))
	for name, b := range batches {
		room := new(counted)
		var s Summary
		var err error
		spent := allocatedBy(func() { s, err = Validate(b, limits(room)) })
		t.Logf("%s: %d bytes unfold to %d, %d KiB taken, %d KiB allocated", name, len(b), s.RecordBytes, room.most>>10, spent>>10)
		if err != nil || s.RecordBytes < 2<<20 {
			t.Errorf("%s: %d bytes, %v", name, s.RecordBytes, err)
		}
		if room.most > usual || spent > room.most {
			t.Errorf("%s: %d bytes were allocated, %d taken; want no more than taken, and at most %d", name, spent, room.most, usual)
		}
		if room.held != 0 {
			t.Errorf("%s: %d bytes stay taken", name, room.held)
		}
	}
}

// TestTooMuchAtOnce: what has to be in memory at once, and is more than the
// bound, is refused before any of it is, and without taking room.
func TestTooMuchAtOnce(t *testing.T) {
	t.Parallel()
	zeros := make([]byte, MaxWindowBytes+1<<20)
	rle := []byte("\x28\xb5\x2f\xfd\x00\x88") // 128 MiB window, size unknown
	for range len(zeros) >> 17 {
		rle = append(rle, 0x02, 0x00, 0x10, 0) // 128 KiB of one byte
	}
	bombs := map[string]struct {
		codec   Codec
		payload []byte
	}{
		"a bare snappy block":   {Snappy, snappy.Encode(nil, zeros)},
		"a large zstd window":   {Zstd, append(rle, 0x01, 0, 0)},
		"a window of 1 GiB":     {Zstd, []byte("\x28\xb5\x2f\xfd\x00\xa0\x01\x00\x00")},
		"an exabyte of content": {Zstd, []byte("\x28\xb5\x2f\xfd\xe0\x00\x00\x00\x00\x00\x00\x00\x10\x01\x00\x00")},
	}
	for name, bomb := range bombs {
		b := edit(withPayload(build(t, 1, None), bomb.payload), func(b []byte) []byte {
			binary.BigEndian.PutUint16(b[attrsAt:], uint16(bomb.codec))
			return b
		})
		room := new(counted)
		_, err := Validate(b, Limits{MaxBatchBytes: 16 << 20, MaxDecompressedBytes: 256 << 20, Room: room})
		if !errors.Is(err, ErrTooLarge) || room.most != 0 {
			t.Errorf("%s: %v, %d bytes taken; want ErrTooLarge, and none", name, err, room.most)
		}
	}
	if got := classBytes(classOf(MaxWindowBytes)); got != MaxWindowBytes || classOf(MaxWindowBytes) >= classes {
		t.Errorf("the largest class is of %d bytes", got)
	}
}

// TestRoomRefuses: the room's error is the answer, and nothing stays taken.
func TestRoomRefuses(t *testing.T) {
	t.Parallel()
	full := errors.New("full")
	for codec := Gzip; codec <= Zstd; codec++ {
		b, room := build(t, 100, codec), &counted{refuse: full}
		if _, err := Validate(b, Limits{Room: room}); !errors.Is(err, full) {
			t.Errorf("%s: Validate = %v", codec, err)
		}
		if _, err := Recompress(nil, b, None, DefaultLevel, Limits{Room: room}); !errors.Is(err, full) {
			t.Errorf("%s: Recompress = %v", codec, err)
		}
		if err := Stamps(b, Limits{Room: room}, func(int64, int64) bool { return true }); !errors.Is(err, full) {
			t.Errorf("%s: Stamps = %v", codec, err)
		}
		if room.held != 0 {
			t.Errorf("%s: %d bytes stay taken", codec, room.held)
		}
		damaged := bytes.Clone(b)
		damaged = edit(damaged, func(b []byte) []byte { return b[:len(b)-1] })
		putLength(damaged)
		putCRC(damaged)
		room = new(counted)
		if _, err := Validate(damaged, Limits{Room: room}); err == nil || room.held != 0 {
			t.Errorf("%s, cut off: %v, and %d bytes stay taken", codec, err, room.held)
		}
	}
}

// TestRecompressMemory: the payload goes from codec to codec in pieces, and what
// that takes was taken from the room. What becomes too large ends it early.
func TestRecompressMemory(t *testing.T) {
	const zeros = 16 << 20
	in := oneZero(t, zeros, Zstd)
	for to := range Codec(len(codecNames)) {
		levels := []int{DefaultLevel}
		if to != None && to != Snappy {
			levels = append(levels, 1, 5, 9)
		}
		if to == Zstd {
			levels = append(levels, 15)
		}
		for _, level := range levels {
			room := new(counted)
			lim := Limits{MaxBatchBytes: 4 << 20, MaxDecompressedBytes: 256 << 20, Room: room}
			dst := make([]byte, 0, 5<<20)
			var out []byte
			var err error
			spent := allocatedBy(func() { out, err = Recompress(dst, in, to, level, lim) })
			t.Logf("%s, level %d: %d bytes, %d KiB taken, %d KiB allocated", to, level, len(out), room.most>>10, spent>>10)
			if tooLarge := to == None; tooLarge != errors.Is(err, ErrTooLarge) || tooLarge != (len(out) == 0) {
				t.Errorf("%s: %d bytes, %v", to, len(out), err)
			}
			if spent > room.most || room.held != 0 {
				t.Errorf("%s, level %d: %d bytes were allocated, %d taken, and %d stay taken", to, level, spent, room.most, room.held)
			}
			if err != nil {
				continue
			}
			if s, err := Validate(out, lim); err != nil || s.RecordBytes < zeros {
				t.Errorf("%s: %d bytes of records, %v", to, s.RecordBytes, err)
			}
		}
	}
}

// TestUnfoldsTooFar: what a batch unfolds to has a limit, also where it comes in
// pieces, of which each is small. At the limit it passes.
func TestUnfoldsTooFar(t *testing.T) {
	t.Parallel()
	const zeros = 5 << 20
	for codec := Gzip; codec <= Zstd; codec++ {
		b, room := oneZero(t, zeros, codec), new(counted)
		lim := Limits{MaxBatchBytes: 16 << 20, Room: room}
		s, err := Validate(b, lim)
		if err != nil {
			t.Fatalf("%s: %v", codec, err)
		}
		lim.MaxDecompressedBytes = s.RecordBytes
		if _, err := Validate(b, lim); err != nil {
			t.Errorf("%s, at the limit: %v", codec, err)
		}
		lim.MaxDecompressedBytes--
		if _, err := Validate(b, lim); !errors.Is(err, ErrTooLarge) {
			t.Errorf("%s, a byte above the limit: %v, want ErrTooLarge", codec, err)
		}
		if room.held != 0 {
			t.Errorf("%s: %d bytes stay taken", codec, room.held)
		}
	}
}
