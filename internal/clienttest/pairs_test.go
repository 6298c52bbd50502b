//go:build clients

package clienttest

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kgo"
)

// record is a record as it is given to one client and got from another. Key and
// value may be null.
type record struct {
	Offset    int64    `json:"offset"`
	Timestamp int64    `json:"timestamp"` // in ms; 0 before it is produced
	Key       []byte   `json:"key"`
	Value     []byte   `json:"value"`
	Headers   []header `json:"headers"`
}

type header struct {
	Key   string `json:"key"`
	Value []byte `json:"value"`
}

// Bytes that separate records, and keys from values, on the way to programs that
// read a stream. No key or value holds them.
const (
	recordEnd = 0x1e
	keyEnd    = 0x1f
)

// pairRecords returns records of all sizes, with every other byte, some that
// compress well and some that do not, without a key or a value among them.
func pairRecords(seed uint64) (out []record) {
	chance := rand.New(rand.NewPCG(seed, 0))
	random := func(n int) []byte {
		b := make([]byte, n)
		for i := range b {
			for b[i] = byte(chance.Uint32()); b[i] == recordEnd || b[i] == keyEnd; {
				b[i] = byte(chance.Uint32())
			}
		}
		return b
	}
	for i := range 60 {
		r := record{
			Offset: int64(i), Key: random(1 + chance.IntN(40)), Value: random(1 + chance.IntN(3000)),
			Headers: []header{{"source", []byte("pair")}, {"é", []byte("日本")}},
		}
		if i%3 == 0 {
			r.Value = bytes.Repeat(random(1+chance.IntN(50)), 100)
		}
		switch i % 20 {
		case 5:
			r.Key = nil
		case 15:
			r.Value = nil
		}
		out = append(out, r)
	}
	return out
}

// stream returns records as kcat and flotilla read them.
func stream(records []record) io.Reader {
	var b bytes.Buffer
	for _, r := range records {
		b.Write(r.Key)
		b.WriteByte(keyEnd)
		b.Write(r.Value)
		b.WriteByte(recordEnd)
	}
	return &b
}

// streamFormat is how kcat and flotilla are told to print a record: a line of
// numbers and headers, then its bytes.
const streamFormat = `%o %T %K %S %h\n%k%s`

// parseStream reads what kcat and flotilla printed.
func parseStream(printed []byte) (out []record, err error) {
	in := bufio.NewReader(bytes.NewReader(printed))
	for {
		head, err := in.ReadString('\n')
		if errors.Is(err, io.EOF) && head == "" {
			return out, nil
		}
		var r record
		fields := strings.SplitN(strings.TrimSuffix(head, "\n"), " ", 5)
		if len(fields) != 5 {
			return out, fmt.Errorf("record %d begins with %q", len(out), head)
		}
		var sizes [2]int
		for i, to := range []any{&r.Offset, &r.Timestamp, &sizes[0], &sizes[1]} {
			if _, err := fmt.Sscan(fields[i], to); err != nil {
				return out, fmt.Errorf("record %d: %q: %w", len(out), head, err)
			}
		}
		for i, to := range []*[]byte{&r.Key, &r.Value} {
			if sizes[i] < 0 {
				continue // null
			}
			*to = make([]byte, sizes[i])
			if _, err := io.ReadFull(in, *to); err != nil {
				return out, fmt.Errorf("record %d: %w", len(out), err)
			}
		}
		for h := range strings.SplitSeq(fields[4], ",") {
			key, value, _ := strings.Cut(h, "=")
			r.Headers = append(r.Headers, header{key, []byte(value)})
		}
		out = append(out, r)
	}
}

// peer is a client that can carry any bytes, both ways, through partition 0.
type peer struct {
	name    string
	produce func(ctx context.Context, addr, codec, topic string, records []record) error
	consume func(ctx context.Context, addr string, topics []string) (map[string][]record, error)
}

var peers = []peer{
	{"franz-go", franzProduce, franzConsume},
	{"java", javaProduce, javaConsume},
	{"kcat", kcatProduce, each(kcatConsume)},
	{"flotilla", nativeProduce, each(nativeConsume)},
}

// each makes a consumer of topics from one of a topic.
func each(consume func(ctx context.Context, addr, topic string) ([]byte, error)) func(context.Context, string, []string) (map[string][]record, error) {
	return func(ctx context.Context, addr string, topics []string) (map[string][]record, error) {
		out := make(map[string][]record)
		for _, topic := range topics {
			printed, err := consume(ctx, addr, topic)
			if err != nil {
				return nil, err
			}
			if out[topic], err = parseStream(printed); err != nil {
				return nil, fmt.Errorf("%s: %w", topic, err)
			}
		}
		return out, nil
	}
}

// commandLimit bounds a command that hangs: none waits for anything but a server
// that answers at once.
const commandLimit = 3 * time.Minute

// command runs a program to its end, and returns what it printed.
func command(ctx context.Context, in io.Reader, name string, args ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, commandLimit)
	defer cancel()
	c := exec.CommandContext(ctx, name, args...)
	c.Stdin, c.WaitDelay = in, time.Second
	var stdout, stderr bytes.Buffer
	c.Stdout, c.Stderr = &stdout, &stderr
	if err := c.Run(); err != nil {
		return nil, fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, lastLines(stderr.String(), 10))
	}
	return stdout.Bytes(), nil
}

func headerArgs(r record) (args []string) {
	for _, h := range r.Headers {
		args = append(args, "-H", h.Key+"="+string(h.Value))
	}
	return args
}

func kcatProduce(ctx context.Context, addr, codec, topic string, records []record) error {
	args := []string{
		"-P", "-b", addr, "-t", topic, "-p", "0", "-z", codec, "-Z", "-D", `\x1e`, "-K", `\x1f`,
		"-X", "enable.idempotence=true", "-X", "linger.ms=20",
	}
	_, err := command(ctx, stream(records), "kcat", append(args, headerArgs(records[0])...)...)
	return err
}

func kcatConsume(ctx context.Context, addr, topic string) ([]byte, error) {
	return command(ctx, nil, "kcat", "-C", "-b", addr, "-t", topic, "-p", "0", "-o", "beginning", "-e", "-q", "-f", streamFormat)
}

func nativeProduce(ctx context.Context, addr, codec, topic string, records []record) error {
	binary, err := serverBinary()
	if err != nil {
		return err
	}
	args := []string{
		"produce", topic, "--bootstrap", addr, "-q", "-p", "0", "-z", codec, "-Z", "-D", `\x1e`, "-K", `\x1f`,
	}
	_, err = command(ctx, stream(records), binary, append(args, headerArgs(records[0])...)...)
	return err
}

func nativeConsume(ctx context.Context, addr, topic string) ([]byte, error) {
	binary, err := serverBinary()
	if err != nil {
		return nil, err
	}
	return command(ctx, nil, binary, "consume", topic, "--bootstrap", addr, "-q", "-p", "0", "--until", "end", "-f", streamFormat)
}

func franzProduce(ctx context.Context, addr, codec, topic string, records []record) error {
	cl, err := kgo.NewClient(
		kgo.SeedBrokers(addr), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerLinger(20*time.Millisecond),
		kgo.ProducerBatchCompression(map[string]kgo.CompressionCodec{
			"none": kgo.NoCompression(), "gzip": kgo.GzipCompression(), "snappy": kgo.SnappyCompression(),
			"lz4": kgo.Lz4Compression(), "zstd": kgo.ZstdCompression(),
		}[codec]),
	)
	if err != nil {
		return err
	}
	defer cl.Close()
	var out []*kgo.Record
	for _, r := range records {
		to := &kgo.Record{Topic: topic, Key: r.Key, Value: r.Value}
		for _, h := range r.Headers {
			to.Headers = append(to.Headers, kgo.RecordHeader{Key: h.Key, Value: h.Value})
		}
		out = append(out, to)
	}
	return cl.ProduceSync(ctx, out...).FirstErr()
}

func franzConsume(ctx context.Context, addr string, topics []string) (map[string][]record, error) {
	out := make(map[string][]record)
	for _, topic := range topics {
		f, err := gather(ctx, addr, topic)
		if err != nil {
			return nil, err
		}
		for _, from := range f.records[0] {
			r := record{Offset: from.Offset, Timestamp: from.Timestamp.UnixMilli(), Key: from.Key, Value: from.Value}
			for _, h := range from.Headers {
				r.Headers = append(r.Headers, header{h.Key, h.Value})
			}
			out[topic] = append(out[topic], r)
		}
	}
	return out, nil
}

// pipe runs testdata/Pipe.java.
func pipe(ctx context.Context, in io.Reader, args ...string) ([]byte, error) {
	run, err := javaCommand("Pipe")
	if err != nil {
		return nil, err
	}
	return command(ctx, in, run[0], append(run[1:], args...)...)
}

func javaProduce(ctx context.Context, addr, codec, topic string, records []record) error {
	var in bytes.Buffer
	for _, r := range records {
		line, err := json.Marshal(r)
		if err != nil {
			return err
		}
		in.Write(append(line, '\n'))
	}
	_, err := pipe(ctx, &in, "produce", addr, codec, topic)
	return err
}

func javaConsume(ctx context.Context, addr string, topics []string) (map[string][]record, error) {
	printed, err := pipe(ctx, nil, append([]string{"consume", addr}, topics...)...)
	if err != nil {
		return nil, err
	}
	out := make(map[string][]record)
	for line := range bytes.Lines(printed) {
		var r struct {
			record
			Topic string `json:"topic"`
		}
		if err := json.Unmarshal(line, &r); err != nil {
			return nil, fmt.Errorf("%q: %w", line, err)
		}
		out[r.Topic] = append(out[r.Topic], r.record)
	}
	return out, nil
}

// TestPairs has each client produce with each codec what every client then
// consumes: the same bytes, offsets, headers and timestamps, stored with the
// codec that was asked for.
func TestPairs(t *testing.T) {
	addr := startServer(t)
	ctx := t.Context()
	var topics []string
	want := make(map[string][]record)
	for i, p := range peers {
		for codec, name := range codecs {
			topic := "pair-" + p.name + "-" + name + "-" + strconv.FormatInt(time.Now().UnixNano(), 36)
			records := pairRecords(uint64(i*len(codecs) + codec))
			if err := makeTopic(ctx, addr, topic); err != nil {
				t.Fatal(err)
			}
			if err := p.produce(ctx, addr, name, topic, records); err != nil {
				t.Fatalf("%s produces with %s: %v", p.name, name, err)
			}
			f, err := gather(ctx, addr, topic)
			if err != nil {
				t.Fatal(err)
			}
			for j, r := range f.records[0] {
				if got := int(r.Attrs.CompressionType()); got != codec {
					t.Errorf("%s was asked for %s, and record %d is stored with %s", p.name, name, j, codecs[got])
					break
				}
				if j < len(records) {
					records[j].Timestamp = r.Timestamp.UnixMilli()
				}
			}
			topics, want[topic] = append(topics, topic), records
		}
	}
	for _, p := range peers {
		got, err := p.consume(ctx, addr, topics)
		if err != nil {
			t.Errorf("%s consumes: %v", p.name, err)
			continue
		}
		for _, topic := range topics {
			if diff := cmp.Diff(want[topic], got[topic]); diff != "" {
				t.Errorf("%s consumes %s (-want +got):\n%s", p.name, topic, diff)
			}
		}
		t.Logf("%s has read %d topics as they were produced", p.name, len(topics))
	}
}
