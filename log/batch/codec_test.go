package batch

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"runtime"
	"testing"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/snappy"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
)

// TestCodecRoundTrip tries sizes around the blocks of each codec, appending
// behind what is there.
func TestCodecRoundTrip(t *testing.T) {
	t.Parallel()
	for codec := range Codec(len(codecNames)) {
		for _, n := range []int{0, 1, 13, 1000, snappyBlockBytes - 1, snappyBlockBytes, snappyBlockBytes + 1,
			lz4BlockBytes - 1, lz4BlockBytes, lz4BlockBytes + 1, 300_000} {
			for name, src := range map[string][]byte{"pattern": pattern(n), "noise": noise(n), "zeros": make([]byte, n)} {
				packed, err := compress([]byte("before"), src, codec, DefaultLevel)
				if err != nil {
					t.Fatalf("%s of %d %s: compress: %v", codec, n, name, err)
				}
				if codec == None {
					continue
				}
				if !bytes.HasPrefix(packed, []byte("before")) {
					t.Fatalf("%s overwrote what it should append to", codec)
				}
				packed = packed[6:]
				out, err := decompress(nil, packed, codec, n)
				if err != nil || !bytes.Equal(out, src) {
					t.Fatalf("%s of %d %s: %d bytes back and %v", codec, n, name, len(out), err)
				}
				if n == 0 {
					continue
				}
				if _, err := decompress(nil, packed, codec, n-1); !errors.Is(err, ErrTooLarge) {
					t.Errorf("%s of %d %s, limit one below: %v, want ErrTooLarge", codec, n, name, err)
				}
			}
		}
	}
}

// TestForeignWriters reads what libraries of other clients write.
func TestForeignWriters(t *testing.T) {
	t.Parallel()
	data := append(pattern(200_000), noise(70_000)...)
	frame := func(opts ...lz4.Option) []byte {
		var buf bytes.Buffer
		w := lz4.NewWriter(&buf)
		if err := w.Apply(opts...); err != nil {
			t.Fatal(err)
		}
		mustWrite(t, w, data)
		return buf.Bytes()
	}
	zstdStream := func(opts ...zstd.EOption) []byte {
		var buf bytes.Buffer
		w, err := zstd.NewWriter(&buf, opts...)
		if err != nil {
			t.Fatal(err)
		}
		mustWrite(t, w, data)
		return buf.Bytes()
	}
	half := compressSnappy(nil, data[:100_000])
	tests := []struct {
		name  string
		codec Codec
		in    []byte
	}{
		{"lz4 defaults", LZ4, frame()},
		{"lz4 256 KiB", LZ4, frame(lz4.BlockSizeOption(lz4.Block256Kb), lz4.ChecksumOption(false))},
		{"lz4 1 MiB, block checksums", LZ4, frame(lz4.BlockSizeOption(lz4.Block1Mb), lz4.BlockChecksumOption(true))},
		{"lz4 all there is", LZ4, frame(lz4.BlockSizeOption(lz4.Block64Kb), lz4.BlockChecksumOption(true),
			lz4.ChecksumOption(true), lz4.SizeOption(uint64(len(data))))},
		{"raw snappy", Snappy, snappy.Encode(nil, data)},
		{"two snappy streams", Snappy, append(half[:len(half):len(half)], compressSnappy(nil, data[100_000:])...)},
		{"zstd stream", Zstd, zstdStream()},
		{"zstd large window", Zstd, zstdStream(zstd.WithWindowSize(64 << 20))},
		{"two zstd frames", Zstd, append(zstdFrame(t, data[:9]), zstdFrame(t, data[9:])...)},
		{"zstd skippable frame", Zstd, append([]byte("\x50\x2a\x4d\x18\x02\x00\x00\x00ab"), zstdFrame(t, data)...)},
	}
	for _, tt := range tests {
		out, err := decompress(nil, tt.in, tt.codec, 1<<20)
		if err != nil || !bytes.Equal(out, data) {
			t.Errorf("%s: %d bytes and %v, want %d", tt.name, len(out), err, len(data))
		}
	}
}

func mustWrite(t testing.TB, w io.WriteCloser, data []byte) {
	t.Helper()
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
}

func zstdFrame(t testing.TB, data []byte) []byte {
	t.Helper()
	b, err := compressZstd(nil, data, DefaultLevel)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestForeignReaders has the libraries read what is written here.
func TestForeignReaders(t *testing.T) {
	t.Parallel()
	data := append(pattern(200_000), noise(70_000)...)
	for codec, reader := range map[Codec]func(io.Reader) (io.Reader, error){
		Gzip: func(r io.Reader) (io.Reader, error) { return gzip.NewReader(r) },
		LZ4:  func(r io.Reader) (io.Reader, error) { return lz4.NewReader(r), nil },
		Zstd: func(r io.Reader) (io.Reader, error) { return zstd.NewReader(r) },
	} {
		packed, err := compress(nil, data, codec, DefaultLevel)
		if err != nil {
			t.Fatal(err)
		}
		r, err := reader(bytes.NewReader(packed))
		if err != nil {
			t.Fatalf("%s: %v", codec, err)
		}
		if out, err := io.ReadAll(r); err != nil || !bytes.Equal(out, data) {
			t.Errorf("%s: %d bytes and %v, want %d", codec, len(out), err, len(data))
		}
	}
}

// TestLZ4HeaderOfJava pins the frame header, which Kafka's client writes too.
func TestLZ4HeaderOfJava(t *testing.T) {
	t.Parallel()
	b, err := compressLZ4(nil, nil, DefaultLevel)
	if err != nil {
		t.Fatal(err)
	}
	want := readGolden(t, "lz4-mixed")[HeaderBytes:][:7]
	if !bytes.Equal(b[:7], want) || !bytes.Equal(b[7:], make([]byte, 4)) {
		t.Errorf("empty frame %x, want %x and four zeros", b, want)
	}
}

// TestLZ4Refused names what Java's consumers, or others, could not read.
func TestLZ4Refused(t *testing.T) {
	t.Parallel()
	data := pattern(1000)
	ok := bytes.NewBuffer(nil)
	w := lz4.NewWriter(ok)
	if err := w.Apply(lz4.BlockSizeOption(lz4.Block64Kb), lz4.BlockChecksumOption(true),
		lz4.ChecksumOption(true), lz4.SizeOption(uint64(len(data)))); err != nil {
		t.Fatal(err)
	}
	mustWrite(t, w, data)
	// header makes a change to the frame header, and its checksum fit.
	header := func(change func(b []byte)) []byte {
		b := bytes.Clone(ok.Bytes())
		change(b)
		b[14] = byte(xxh32Of(b[4:14]) >> 8)
		return b
	}
	tests := []struct {
		name string
		in   []byte
	}{
		{"dependent blocks", header(func(b []byte) { b[4] &^= lz4Independent })},
		{"version 2", header(func(b []byte) { b[4] |= 0x80 })},
		{"version 0", header(func(b []byte) { b[4] &^= lz4Version })},
		{"dictionary", header(func(b []byte) { b[4] |= 1 })},
		{"reserved flag", header(func(b []byte) { b[4] |= 2 })},
		{"block size 3", header(func(b []byte) { b[5] = 3 << 4 })},
		{"reserved descriptor bit", header(func(b []byte) { b[5] |= 1 })},
		{"content size one too small", header(func(b []byte) { b[6]-- })},
		{"legacy magic", append([]byte{0x02, 0x21, 0x4c, 0x18}, ok.Bytes()[4:]...)},
		{"two frames", append(bytes.Clone(ok.Bytes()), ok.Bytes()...)},
		{"block cut off", ok.Bytes()[:ok.Len()-20]},
		{"a stored block of no bytes", []byte("\x04\x22\x4d\x18\x60\x40\x82\x00\x00\x00\x80\x00\x00\x00\x00")},
	}
	for _, tt := range tests {
		if _, err := decompress(nil, tt.in, LZ4, 1<<20); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: %v, want ErrCorrupt", tt.name, err)
		}
	}
	huge := header(func(b []byte) { b[13] = 0x7f })
	if _, err := decompress(nil, huge, LZ4, 1<<20); !errors.Is(err, ErrTooLarge) {
		t.Errorf("content size beyond the limit: %v, want ErrTooLarge", err)
	}
	// Every byte of this frame is covered by some checksum or count.
	for i := range ok.Bytes() {
		b := bytes.Clone(ok.Bytes())
		b[i] ^= 0x04
		if out, err := decompress(nil, b, LZ4, 1<<20); err == nil {
			t.Errorf("byte %d flipped: %d bytes, want an error", i, len(out))
		}
	}
}

func TestSnappyRefused(t *testing.T) {
	t.Parallel()
	ok := compressSnappy(nil, pattern(100))
	later := bytes.Clone(ok)
	later[15] = 2
	// An a, four more by offset 1, and five by the same offset, left out.
	repeat := []byte{10, 0x00, 'a', 0x01, 1, 0x05, 0}
	if out, err := snappy.Decode(nil, repeat); err != nil || string(out) != "aaaaaaaaaa" {
		t.Fatalf("the lenient decoder reads %q, %v", out, err)
	}
	tests := []struct {
		name string
		in   []byte
		want error
	}{
		{"empty", nil, ErrCorrupt},
		{"header cut off", ok[:15], ErrCorrupt},
		{"later framing", later, ErrCorrupt},
		{"length cut off", ok[:18], ErrCorrupt},
		{"block cut off", ok[:len(ok)-1], ErrCorrupt},
		{"empty block", append(bytes.Clone(ok), 0, 0, 0, 0), ErrCorrupt},
		{"negative length", append(bytes.Clone(ok), 0xff, 0xff, 0xff, 0xff), ErrCorrupt},
		{"s2's repeat", repeat, ErrCorrupt},
		{"s2's repeat, in framing", append(append(bytes.Clone(snappyHeader), 0, 0, 0, byte(len(repeat))), repeat...), ErrCorrupt},
		{"raw block that claims 4 GiB", []byte("\xff\xff\xff\xff\x0f\x00a"), ErrTooLarge},
		{"raw block that claims 1 MiB", []byte("\x80\x80\x40\x00a"), ErrCorrupt},
	}
	for _, tt := range tests {
		if _, err := decompress(nil, tt.in, Snappy, 1<<20); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
	}
}

// TestBombs has small payloads claim or hold far more than the limit. It runs
// alone, as it measures what the process allocates.
func TestBombs(t *testing.T) {
	const limit, zeros = 1 << 20, 64 << 20
	bombs := map[string][]byte{}
	for codec := Gzip; codec <= Zstd; codec++ {
		b, err := compress(nil, make([]byte, zeros), codec, DefaultLevel)
		if err != nil {
			t.Fatal(err)
		}
		bombs[codec.String()] = b
	}
	rle := []byte("\x28\xb5\x2f\xfd\x00\x88") // 128 MiB window, size unknown
	for range zeros >> 17 {
		rle = append(rle, 0x02, 0x00, 0x10, 0) // 128 KiB of one byte
	}
	bombs["zstd rle"] = append(rle, 0x01, 0, 0)
	small := bytes.Clone(rle)
	small[5] = 0x68 // 8 MiB window
	bombs["zstd rle, usual window"] = append(small, 0x01, 0, 0)
	bombs["zstd claim of an exabyte"] = []byte("\x28\xb5\x2f\xfd\xe0\x00\x00\x00\x00\x00\x00\x00\x10\x01\x00\x00")
	bombs["zstd second frame claims"] = append(zstdFrame(t, []byte("x")), bombs["zstd claim of an exabyte"]...)
	bombs["zstd claim of 100 MiB in a 128 MiB window"] = []byte("\x28\xb5\x2f\xfd\x80\x88\x00\x00\x40\x06\x01\x00\x00")
	bombs["snappy claim of 4 GiB"] = []byte("\xff\xff\xff\xff\x0f\x00a")
	bombs["snappy framed claim"] = append(bytes.Clone(snappyHeader), "\x00\x00\x00\x07\xff\xff\xff\xff\x0f\x00a"...)
	var stream bytes.Buffer // declares no size
	zw, err := zstd.NewWriter(&stream, zstd.WithEncoderConcurrency(1))
	if err != nil {
		t.Fatal(err)
	}
	for range zeros >> 20 {
		if _, err := zw.Write(make([]byte, 1<<20)); err != nil {
			t.Fatal(err)
		}
	}
	mustWrite(t, zw, nil)
	bombs["zstd stream"] = stream.Bytes()
	var large bytes.Buffer
	w := lz4.NewWriter(&large) // blocks of 4 MiB
	mustWrite(t, w, make([]byte, zeros))
	bombs["lz4 4 MiB blocks"] = large.Bytes()

	for name, b := range bombs {
		var codec Codec
		for codec = Gzip; !bytes.HasPrefix([]byte(name), []byte(codec.String())); codec++ {
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		out, err := decompress(nil, b, codec, limit)
		runtime.ReadMemStats(&after)
		if !errors.Is(err, ErrTooLarge) {
			t.Errorf("%s: %d bytes and %v, want ErrTooLarge", name, len(out), err)
		}
		// The sum of the buffers that the last one was grown from: by doubling,
		// or as append does it, by a quarter.
		bound := uint64(4 * limit)
		if codec == Zstd {
			bound = 6 * minZstdMemoryBytes
		}
		spent := after.TotalAlloc - before.TotalAlloc
		t.Logf("%s: %d bytes, %d KiB allocated, buffer of %d KiB", name, len(b), spent>>10, cap(out)>>10)
		if spent > bound {
			t.Errorf("%s: %d bytes allocated, bound %d", name, spent, bound)
		}
	}
}

// TestSmallClaims has payloads that say much but stay within the limit: a zstd
// frame of few bytes that declares the largest window, as the highest levels
// do, and a snappy block that claims more than its size can hold. Neither may
// have memory allocated for what it says.
func TestSmallClaims(t *testing.T) {
	tests := []struct {
		name  string
		codec Codec
		in    []byte
		want  error
	}{
		{"zstd 128 MiB window", Zstd, readGolden(t, "zstd22-mixed")[HeaderBytes:], nil},
		{"snappy 16 MiB in 6 bytes", Snappy, []byte("\x80\x80\x80\x08\x00a"), ErrCorrupt},
	}
	for _, tt := range tests {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := decompress(nil, tt.in, tt.codec, 32<<20)
		runtime.ReadMemStats(&after)
		if !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
		if spent := after.TotalAlloc - before.TotalAlloc; spent > 4<<20 {
			t.Errorf("%s: %d bytes allocated", tt.name, spent)
		}
	}
}

func TestXXH32(t *testing.T) {
	t.Parallel()
	// The first three are published test vectors.
	tests := []struct {
		in   string
		want uint32
	}{
		{"", 0x02cc5d05},
		{"a", 0x550d7456},
		{"abc", 0x32d153ff},
		{"Nobody inspects the spammish repetition", 0xe2293b2f},
	}
	for _, tt := range tests {
		if got := xxh32Of([]byte(tt.in)); got != tt.want {
			t.Errorf("xxh32(%q) = %08x, want %08x", tt.in, got, tt.want)
		}
	}
	// The library writes the checksum of the content at a frame's end.
	for n := range 100 {
		var buf bytes.Buffer
		data := noise(n + 1)
		mustWrite(t, lz4.NewWriter(&buf), data)
		if got, want := xxh32Of(data), binary.LittleEndian.Uint32(buf.Bytes()[buf.Len()-4:]); got != want {
			t.Fatalf("xxh32 of %d bytes = %08x, want %08x", n+1, got, want)
		}
	}
}

func ExampleCodec_String() {
	fmt.Println(None, Gzip, Snappy, LZ4, Zstd)
	// Output: none gzip snappy lz4 zstd
}
