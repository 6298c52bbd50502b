package batch

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var javaOut = flag.String("java.out", "", "folder for TestBatchesForJava to write to, for Check.java to read")

// goldenBatch is what Kafka's own classes read from a batch.
type goldenBatch struct {
	Size          int            `json:"size"`
	BaseOffset    int64          `json:"base_offset"`
	LastOffset    int64          `json:"last_offset"`
	LeaderEpoch   int32          `json:"leader_epoch"`
	Codec         string         `json:"codec"`
	LogAppendTime bool           `json:"log_append_time"`
	Transactional bool           `json:"transactional"`
	Control       bool           `json:"control"`
	DeleteHorizon int64          `json:"delete_horizon"` // -1: none
	MaxTimestamp  int64          `json:"max_timestamp"`
	ProducerID    int64          `json:"producer_id"`
	ProducerEpoch int16          `json:"producer_epoch"`
	BaseSequence  int32          `json:"base_sequence"`
	LastSequence  int32          `json:"last_sequence"`
	CRC           uint32         `json:"crc"`
	Records       []goldenRecord `json:"records"`
}

type goldenRecord struct {
	Offset    int64          `json:"offset"`
	Timestamp int64          `json:"timestamp"`
	Key       goldenBytes    `json:"key"`
	Value     goldenBytes    `json:"value"`
	Headers   []goldenHeader `json:"headers"`
}

type goldenHeader [2]goldenBytes

// goldenBytes are hex, or the name and length of a made-up value, or null.
type goldenBytes []byte

func (g *goldenBytes) UnmarshalJSON(b []byte) error {
	*g = nil
	var s *string
	if err := json.Unmarshal(b, &s); err != nil || s == nil {
		return err
	}
	var n int
	if _, err := fmt.Sscanf(*s, "pattern %d", &n); err == nil {
		*g = pattern(n)
		return nil
	}
	if _, err := fmt.Sscanf(*s, "noise %d", &n); err == nil {
		*g = noise(n)
		return nil
	}
	raw, err := hex.DecodeString(*s)
	*g = raw
	return err
}

// Equal keeps cmp from walking long values byte by byte.
func (g goldenBytes) Equal(o goldenBytes) bool {
	return (g == nil) == (o == nil) && bytes.Equal(g, o)
}

// String writes g as Gen.java does.
func (g goldenBytes) String() string {
	switch {
	case g == nil:
		return "null"
	case len(g) > 200 && bytes.Equal(g, pattern(len(g))):
		return fmt.Sprintf(`"pattern %d"`, len(g))
	case len(g) > 200 && bytes.Equal(g, noise(len(g))):
		return fmt.Sprintf(`"noise %d"`, len(g))
	}
	return `"` + hex.EncodeToString(g) + `"`
}

func (r goldenRecord) String() string {
	var headers []string
	for _, h := range r.Headers {
		headers = append(headers, fmt.Sprintf("[%s, %s]", h[0], h[1]))
	}
	return fmt.Sprintf(`{"offset": %d, "timestamp": %d, "key": %s, "value": %s, "headers": [%s]}`,
		r.Offset, r.Timestamp, r.Key, r.Value, strings.Join(headers, ", "))
}

// pattern makes n bytes that compress well.
func pattern(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i*31 + i/251)
	}
	return b
}

// noise makes n bytes that do not compress.
func noise(n int) []byte {
	b := make([]byte, n)
	x := uint32(1)
	for i := range b {
		x = x*1103515245 + 12345
		b[i] = byte(x >> 16)
	}
	return b
}

func loadManifest(t testing.TB) map[string][]goldenBatch {
	t.Helper()
	b, err := os.ReadFile("testdata/golden/manifest.json")
	if err != nil {
		t.Fatal(err)
	}
	var m map[string][]goldenBatch
	if err := json.Unmarshal(b, &m); err != nil {
		t.Fatal(err)
	}
	return m
}

func readGolden(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", "golden", name+".bin"))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// records reads all of a batch.
func records(t testing.TB, b []byte) []goldenRecord {
	t.Helper()
	var it Iterator
	if err := it.Reset(b, 0); err != nil {
		t.Fatalf("Reset: %v", err)
	}
	out := []goldenRecord{}
	for r, ok := it.Next(); ok; r, ok = it.Next() {
		g := goldenRecord{Offset: r.Offset, Timestamp: r.Timestamp,
			Key: bytes.Clone(r.Key), Value: bytes.Clone(r.Value), Headers: []goldenHeader{}}
		for h := range r.Headers.All() {
			g.Headers = append(g.Headers, goldenHeader{bytes.Clone(h.Key), bytes.Clone(h.Value)})
		}
		out = append(out, g)
	}
	if err := it.Err(); err != nil {
		t.Fatalf("Err: %v", err)
	}
	return out
}

// TestGolden reads what Kafka's Java client wrote.
func TestGolden(t *testing.T) {
	t.Parallel()
	for name, want := range loadManifest(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rest := readGolden(t, name)
			for i, w := range want {
				b, r, err := Split(rest)
				if err != nil {
					t.Fatalf("Split of batch %d: %v", i, err)
				}
				rest = r
				checkGolden(t, b, w)
			}
			if len(rest) > 0 {
				t.Errorf("%d bytes after the last batch", len(rest))
			}
		})
	}
}

func checkGolden(t *testing.T, b []byte, want goldenBatch) {
	t.Helper()
	h, err := ParseHeader(b)
	if err != nil {
		t.Fatalf("ParseHeader: %v", err)
	}
	got := goldenBatch{
		Size: h.Size(), BaseOffset: h.BaseOffset, LastOffset: h.LastOffset(), LeaderEpoch: h.LeaderEpoch,
		Codec: h.Attributes.Codec().String(), LogAppendTime: h.Attributes.LogAppendTime(),
		Transactional: h.Attributes.Transactional(), Control: h.Attributes.Control(),
		DeleteHorizon: -1, MaxTimestamp: h.MaxTimestamp,
		ProducerID: h.ID, ProducerEpoch: h.Epoch, BaseSequence: h.Sequence, LastSequence: -1,
		CRC: h.CRC, Records: records(t, b),
	}
	if h.Attributes.DeleteHorizon() {
		got.DeleteHorizon = h.BaseTimestamp
	}
	if h.Sequence >= 0 {
		got.LastSequence = h.LastSequence()
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("batch differs from what Kafka reads (-want +got):\n%s", diff)
	}
	if err := CheckCRC(b); err != nil {
		t.Errorf("CheckCRC: %v", err)
	}
	if want.LeaderEpoch != -1 {
		return // stored by a broker, not sent by a client
	}
	s, err := Validate(b, Limits{})
	if err != nil {
		t.Fatalf("Validate: %v", err)
	}
	if s.LatestTimestamp != h.MaxTimestamp || s.Header != h {
		t.Errorf("Validate = %+v, want the header %+v and its max timestamp", s, h)
	}
}

// fill puts the records of a client's golden batch into w.
func (g goldenBatch) fill(t testing.TB, w *Builder) {
	t.Helper()
	w.Reset()
	w.SetProducer(Producer{g.ProducerID, g.ProducerEpoch, g.BaseSequence}, g.Transactional)
	for _, r := range g.Records {
		var hs []RecordHeader
		for _, h := range r.Headers {
			hs = append(hs, RecordHeader{Key: h[0], Value: h[1]})
		}
		size := w.SizeWith(r.Timestamp, r.Key, r.Value, hs)
		if err := w.Append(r.Timestamp, r.Key, r.Value, hs); err != nil {
			t.Fatalf("Append: %v", err)
		}
		if w.Size() != size {
			t.Fatalf("Size = %d after Append, SizeWith said %d", w.Size(), size)
		}
	}
}

// TestBuilderMatchesJava wants our uncompressed batches byte for byte as the
// Java client writes them.
func TestBuilderMatchesJava(t *testing.T) {
	t.Parallel()
	tried := 0
	for name, batches := range loadManifest(t) {
		g := batches[0]
		if !strings.HasPrefix(name, "none-") || g.LeaderEpoch != -1 {
			continue
		}
		tried++
		var w Builder
		g.fill(t, &w)
		got, err := w.Build([]byte("before"), None, DefaultLevel)
		if err != nil {
			t.Fatalf("%s: Build: %v", name, err)
		}
		if want := append([]byte("before"), readGolden(t, name)...); !bytes.Equal(want, got) {
			t.Errorf("%s (-java +ours):\n%s", name, cmp.Diff(want, got))
		}
		if w.Size() != g.Size {
			t.Errorf("%s: Size = %d, want %d", name, w.Size(), g.Size)
		}
	}
	if tried < 6 {
		t.Errorf("%d batches compared, want at least 6", tried)
	}
}

// TestBatchesForJava builds every client's golden batch with every codec and
// several levels, and reads it back. With -java.out it leaves the batches for
// Kafka's classes to read: see testdata/golden/README.md.
func TestBatchesForJava(t *testing.T) {
	t.Parallel()
	levels := map[Codec][]int{None: {0}, Gzip: {0, 1, 9}, Snappy: {0}, LZ4: {0, 1, 9, 12}, Zstd: {0, -5, 1, 7, 22}}
	for name, batches := range loadManifest(t) {
		g := batches[0]
		if !strings.HasPrefix(name, "none-") || g.LeaderEpoch != -1 {
			continue
		}
		var w Builder
		g.fill(t, &w)
		for codec, levels := range levels {
			for _, level := range levels {
				at := fmt.Sprintf("%s-%s-%d", strings.TrimPrefix(name, "none-"), codec, level)
				b, err := w.Build(nil, codec, level)
				if err != nil {
					t.Fatalf("%s: Build: %v", at, err)
				}
				if _, err := Validate(b, Limits{}); err != nil {
					t.Errorf("%s: Validate: %v", at, err)
				}
				if diff := cmp.Diff(g.Records, records(t, b)); diff != "" {
					t.Errorf("%s (-want +got):\n%s", at, diff)
				}
				if *javaOut != "" {
					writeForJava(t, at, b, g.Records)
				}
			}
		}
	}
}

func writeForJava(t *testing.T, name string, b []byte, rs []goldenRecord) {
	t.Helper()
	var sb strings.Builder
	for _, r := range rs {
		fmt.Fprintln(&sb, r)
	}
	if err := os.MkdirAll(*javaOut, 0o750); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(*javaOut, name)
	if err := os.WriteFile(path+".bin", b, 0o640); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path+".txt", []byte(sb.String()), 0o640); err != nil {
		t.Fatal(err)
	}
}
