package kafka_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/flotilla-log/flotilla/internal/errcode"
	"github.com/flotilla-log/flotilla/log/batch"
)

// prose is n words, of which some come often.
func prose(n int) string {
	rng := rand.New(rand.NewPCG(1, 1))
	var b strings.Builder
	for range n {
		w := rng.IntN(40) * rng.IntN(40)
		fmt.Fprintf(&b, "word%x ", w*w)
	}
	return b.String()
}

// TestCompressionLevels: a batch that is compressed for a topic is so at the
// topic's level: at a higher one it is smaller, and what is in it is the same. A
// level that the codec has not is refused.
func TestCompressionLevels(t *testing.T) {
	t.Parallel()
	c := dialRaw(t, startCore(t, nil).addr)
	value := prose(10_000)
	stored := func(name string, codec batch.Codec, configs ...string) int {
		t.Helper()
		ids := map[string][16]byte{name: c.create(name, 1, append(configs, "compression.type="+codec.String())...)}
		if p := c.produce(9, ids, topicPart{name, 0, recordsOf(t, batch.None, value)})[0]; p.ErrorCode != 0 {
			t.Fatalf("%s: %+v", name, p)
		}
		b := c.fetched(fetchReq(12, ids, from{name, 0, 0, nil}))[0].RecordBatches
		h, err := batch.ParseHeader(b)
		if err != nil || h.Attributes.Codec() != codec || batch.CheckCRC(b) != nil {
			t.Fatalf("%s: %+v, %v", name, h, err)
		}
		var it batch.Iterator
		if err := it.Reset(b, 1<<20); err != nil {
			t.Fatal(err)
		}
		if r, ok := it.Next(); !ok || string(r.Value) != value {
			t.Errorf("%s: another record", name)
		}
		return len(b)
	}
	for _, tt := range []struct {
		codec  batch.Codec
		levels []string // each better than the one before
		same   string   // as the default
		wrong  []string
	}{
		{batch.Gzip, []string{"1", "5", "9"}, "-1", []string{"0", "-2", "10", "x", ""}},
		{batch.LZ4, []string{"9", "1", "17"}, "9", []string{"0", "-1", "18", "x", ""}},
		{batch.Zstd, []string{"1", "3", "7", "19"}, "3", []string{"-131073", "23", "x", ""}},
	} {
		name := tt.codec.String()
		config := "compression." + name + ".level="
		before := 0
		for _, level := range tt.levels {
			n := stored(name+level, tt.codec, config+level)
			if before > 0 && n >= before {
				t.Errorf("%s at level %s: %d bytes, and %d at the one before", name, level, n, before)
			}
			before = n
		}
		if usual, same := stored(name+"-usual", tt.codec), stored(name+"-same", tt.codec, config+tt.same); usual != same {
			t.Errorf("%s: %d bytes by default, %d at level %s", name, usual, same, tt.same)
		}
		c.create(name+"-alter", 1)
		for _, level := range tt.wrong {
			r := c.createTopics(7, false, newTopic(name+"-wrong", 1, config+level))[0]
			if r.ErrorCode != int16(errcode.InvalidConfig) || r.ErrorMessage == nil || !strings.Contains(*r.ErrorMessage, "compression."+name+".level") {
				t.Errorf("CreateTopics, %s%s: %v, %s", config, level, errcode.Code(r.ErrorCode), message(r.ErrorMessage))
			}
			if got := c.alter(1, false, int8(kmsg.ConfigResourceTypeTopic), name+"-alter", configOp{strings.TrimSuffix(config, "="), 0, level}); !strings.HasPrefix(got, "INVALID_CONFIG") {
				t.Errorf("IncrementalAlterConfigs, %s%s: %s", config, level, got)
			}
		}
	}
}
