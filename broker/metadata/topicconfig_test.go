package metadata

import (
	"fmt"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/flotilla-log/flotilla/internal/errcode"
)

// TestTopicConfigTable checks the table against itself: it is found by binary
// search, every entry says what it is, and every default is a legal value.
func TestTopicConfigTable(t *testing.T) {
	defs := TopicConfigs()
	if !slices.IsSortedFunc(defs, func(a, b ConfigDef) int { return strings.Compare(a.Key, b.Key) }) {
		t.Error("the table is not sorted by key")
	}
	for _, d := range defs {
		if d.Doc == "" || !strings.HasSuffix(d.Doc, ".") {
			t.Errorf("%s: doc %q", d.Key, d.Doc)
		}
		if err := CheckConfigs([]Config{{d.Key, d.Default}}); err != nil {
			t.Errorf("%s: its default %q is refused: %v", d.Key, d.Default, err)
		}
		if got := ConfigValue(nil, d.Key); got != d.Default {
			t.Errorf("ConfigValue(%s) = %q, want %q", d.Key, got, d.Default)
		}
	}
}

// kafkaConfigs are all topic configs of Apache Kafka 4.3.1, with type and
// default, as its DescribeConfigs answers them.
const kafkaConfigs = `cleanup.policy list delete
compression.gzip.level int -1
compression.lz4.level int 9
compression.type string producer
compression.zstd.level int 3
delete.retention.ms long 86400000
file.delete.delay.ms long 60000
flush.messages long 9223372036854775807
flush.ms long 9223372036854775807
follower.replication.throttled.replicas list
index.interval.bytes int 4096
leader.replication.throttled.replicas list
local.retention.bytes long -2
local.retention.ms long -2
max.compaction.lag.ms long 9223372036854775807
max.message.bytes int 1048588
message.timestamp.after.max.ms long 3600000
message.timestamp.before.max.ms long 9223372036854775807
message.timestamp.type string CreateTime
min.cleanable.dirty.ratio double 0.5
min.compaction.lag.ms long 0
min.insync.replicas int 1
preallocate boolean false
remote.log.copy.disable boolean false
remote.log.delete.on.disable boolean false
remote.storage.enable boolean false
retention.bytes long -1
retention.ms long 604800000
segment.bytes int 1073741824
segment.index.bytes int 10485760
segment.jitter.ms long 0
segment.ms long 604800000
unclean.leader.election.enable boolean false
`

// TestKafkaConfigs holds the table against Kafka's.
func TestKafkaConfigs(t *testing.T) {
	var have strings.Builder
	for _, d := range TopicConfigs() {
		def := d.Default
		if d.Key == ConfigSegmentBytes { // the one that differs
			def = "1073741824"
		}
		have.WriteString(strings.TrimSuffix(fmt.Sprintf("%s %s %s", d.Key, d.Type, def), " ") + "\n")
	}
	if have.String() != kafkaConfigs {
		t.Errorf("the table has\n%s\nKafka has\n%s", have.String(), kafkaConfigs)
	}
}

// TestCanonicalConfigs has, for each config, a value that is taken and one that is
// not, with Kafka's text where Kafka refuses it too.
func TestCanonicalConfigs(t *testing.T) {
	const no = "\x00" // refused
	tests := []struct{ key, value, canonical, want string }{
		{"cleanup.policy", " delete , delete", "delete", ""},
		{"cleanup.policy", "", "", ""},
		{"cleanup.policy", "delete,", no, "Configuration 'cleanup.policy' values must not be empty."},
		{"cleanup.policy", "delete,foo", no, "Invalid value foo for configuration cleanup.policy: String must be one of: compact, delete"},
		{"cleanup.policy", "compact", no, "Invalid value compact for configuration cleanup.policy: compaction is not built yet; only delete is"},
		{"cleanup.policy", "compact,delete", no, "compaction is not built yet"},
		{"compression.gzip.level", "-1", "-1", ""},
		{"compression.gzip.level", "0", no, "Invalid value 0 for configuration compression.gzip.level: Value must be between 1 and 9 or equal to -1"},
		{"compression.gzip.level", "10", no, "Value must be no more than 9"},
		{"compression.lz4.level", "17", "17", ""},
		{"compression.lz4.level", "18", no, "Invalid value 18 for configuration compression.lz4.level: Value must be no more than 17"},
		{"compression.type", "zstd", "zstd", ""},
		{"compression.type", "GZIP", no, "Invalid value GZIP for configuration compression.type: String must be one of: uncompressed, zstd, lz4, snappy, gzip, producer"},
		{"compression.zstd.level", "-131072", "-131072", ""},
		{"compression.zstd.level", "23", no, "Value must be no more than 22"},
		{"delete.retention.ms", "0", "0", ""},
		{"delete.retention.ms", "-1", no, "Invalid value -1 for configuration delete.retention.ms: Value must be at least 0"},
		{"file.delete.delay.ms", "0", "0", ""},
		{"file.delete.delay.ms", "-1", no, "Value must be at least 0"},
		{"flush.messages", "1", "1", ""},
		{"flush.messages", "0", no, "Value must be at least 1"},
		{"flush.ms", "0", "0", ""},
		{"flush.ms", "-1", no, "Value must be at least 0"},
		{"follower.replication.throttled.replicas", "0:1, 1:2", "0:1,1:2", ""},
		{"follower.replication.throttled.replicas", "0:", no, "[partitionId]:[brokerId]"},
		{"index.interval.bytes", "0", "0", ""},
		{"index.interval.bytes", "2147483648", no, "Invalid value 2147483648 for configuration index.interval.bytes: Not a number of type INT"},
		{"leader.replication.throttled.replicas", "*", "*", ""},
		{"leader.replication.throttled.replicas", "*,0:1", no, "the literal '*'"},
		{"local.retention.bytes", "-2", "-2", ""},
		{"local.retention.bytes", "-3", no, "Value must be at least -2"},
		{"local.retention.ms", "0", "0", ""},
		{"local.retention.ms", "-3", no, "Value must be at least -2"},
		{"max.compaction.lag.ms", "1", "1", ""},
		{"max.compaction.lag.ms", "0", no, "Value must be at least 1"},
		{"max.message.bytes", "0", "0", ""},
		{"max.message.bytes", "-1", no, "Value must be at least 0"},
		{"max.message.bytes", "16777217", no, "Value must be no more than 16777216"},
		{"message.timestamp.after.max.ms", "0", "0", ""},
		{"message.timestamp.after.max.ms", "-1", no, "Value must be at least 0"},
		{"message.timestamp.before.max.ms", "9223372036854775807", "9223372036854775807", ""},
		{"message.timestamp.before.max.ms", "9223372036854775808", no, "Not a number of type LONG"},
		{"message.timestamp.type", "LogAppendTime", "LogAppendTime", ""},
		{"message.timestamp.type", "logappendtime", no, "String must be one of: CreateTime, LogAppendTime"},
		{"min.cleanable.dirty.ratio", "1", "1", ""},
		{"min.cleanable.dirty.ratio", " 1e-1", "1e-1", ""},
		{"min.cleanable.dirty.ratio", "1.5", no, "Value must be no more than 1"},
		{"min.cleanable.dirty.ratio", "NaN", no, "Not a number of type DOUBLE"},
		{"min.compaction.lag.ms", "5", "5", ""},
		{"min.compaction.lag.ms", "x", no, "Invalid value x for configuration min.compaction.lag.ms: Not a number of type LONG"},
		{"min.insync.replicas", "2147483647", "2147483647", ""},
		{"min.insync.replicas", "0", no, "Invalid value 0 for configuration min.insync.replicas: Value must be at least 1"},
		{"preallocate", "TRUE", "true", ""},
		{"preallocate", "yes", no, "Invalid value yes for configuration preallocate: Expected value to be either true or false"},
		{"remote.log.copy.disable", "true", "true", ""},
		{"remote.log.copy.disable", "", no, "Expected value"},
		{"remote.log.delete.on.disable", "false", "false", ""},
		{"remote.log.delete.on.disable", "0", no, "Expected value"},
		{"remote.storage.enable", "false", "false", ""},
		{"remote.storage.enable", "true", no, "Tiered Storage functionality is disabled"},
		{"retention.bytes", "-99", "-99", ""},
		{"retention.bytes", "1.5", no, "Not a number of type LONG"},
		{"retention.ms", " +5 ", "5", ""},
		{"retention.ms", "-2", no, "Invalid value -2 for configuration retention.ms: Value must be at least -1"},
		{"retention.ms", "", no, "Invalid value  for configuration retention.ms: Not a number of type LONG"},
		{"segment.bytes", "1048576", "1048576", ""},
		{"segment.bytes", "1048575", no, "Value must be at least 1048576"},
		{"segment.index.bytes", "4", "4", ""},
		{"segment.index.bytes", "3", no, "Value must be at least 4"},
		{"segment.jitter.ms", "7", "7", ""},
		{"segment.jitter.ms", "-1", no, "Value must be at least 0"},
		{"segment.ms", "1", "1", ""},
		{"segment.ms", "0", no, "Value must be at least 1"},
		{"unclean.leader.election.enable", "True", "true", ""},
		{"unclean.leader.election.enable", "1", no, "Expected value"},
		{"retention.sm", "1", no, "Unknown topic config name: retention.sm; did you mean retention.ms?"},
		{"segment.byte", "1", no, "did you mean segment.bytes?"},
		{"max.mesage.bytes", "1", no, "did you mean max.message.bytes?"},
		{"flavour", "1", no, "Unknown topic config name: flavour"},
		{"", "1", no, "Unknown topic config name: "},
		{"leader.replication.throttled.replicas", strings.Repeat("1:1,", 300) + "1:1", no, "a value of 1203 bytes for configuration leader.replication.throttled.replicas"},
	}
	taken, refused := make(map[string]bool), make(map[string]bool)
	for _, tt := range tests {
		got, err := CanonicalConfigs([]Config{{tt.key, tt.value}})
		switch {
		case tt.canonical == no:
			refused[tt.key] = true
			if err == nil || err.Code != errcode.InvalidConfig || !strings.Contains(err.Detail, tt.want) {
				t.Errorf("%s=%s: %v, want INVALID_CONFIG with %q", tt.key, tt.value, err, tt.want)
			}
		case err != nil || len(got) != 1 || got[0].Value != tt.canonical:
			t.Errorf("%s=%s: %v, %v, want %q", tt.key, tt.value, got, err, tt.canonical)
		default:
			taken[tt.key] = true
		}
	}
	for _, d := range TopicConfigs() {
		if !taken[d.Key] || !refused[d.Key] {
			t.Errorf("%s is not tested with a good and a bad value", d.Key)
		}
	}
	if err := CheckConfigs([]Config{{"retention.ms", "1"}, {"retention.ms", "1"}}); err == nil || !strings.Contains(err.Detail, "set twice") {
		t.Errorf("a key twice: %v", err)
	}
	if err := CheckConfigs([]Config{{"max.compaction.lag.ms", "5"}, {"min.compaction.lag.ms", "10"}}); err == nil ||
		err.Detail != "conflict topic config setting min.compaction.lag.ms (10) > max.compaction.lag.ms (5)" {
		t.Errorf("lags in contradiction: %v", err)
	}
}

func TestEditDistance(t *testing.T) {
	for _, tt := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"abc", "", 3}, {"", "abc", 3}, {"kitten", "sitting", 3}, {"flaw", "lawn", 2}} {
		if got := editDistance(tt.a, tt.b); got != tt.want {
			t.Errorf("editDistance(%q, %q) = %d, want %d", tt.a, tt.b, got, tt.want)
		}
	}
}

// uses are the three kinds of topic configs, as docs/kafka.md lists them.
var uses = []struct {
	use   ConfigUse
	title string
}{
	{ConfigHonoured, "Honoured: they do what they do in Kafka."},
	{ConfigTranslated, "Translated: what they ask for is so, in another way and whatever their value."},
	{ConfigIgnored, "Ignored and reported: their values are checked, kept and shown, and do nothing; the node's log says so when one is set."},
}

// configsMarkdown is the list of topic configs for people.
func configsMarkdown() string {
	var b strings.Builder
	for _, u := range uses {
		fmt.Fprintf(&b, "%s\n\n| config | type | values | default | |\n|---|---|---|---|---|\n", u.title)
		for _, d := range TopicConfigs() {
			if d.Use != u.use {
				continue
			}
			values := ""
			switch {
			case d.Values != nil:
				values = "`" + strings.Join(d.Values, "`, `") + "`"
			case d.Type == ConfigInt || d.Type == ConfigLong || d.Type == ConfigDouble:
				values = number(d.Min) + " to " + number(d.Max)
			case d.Type == ConfigBool:
				values = "`true`, `false`"
			}
			def := d.Default
			if n, err := strconv.ParseInt(def, 10, 64); err == nil {
				def = number(n)
			}
			fmt.Fprintf(&b, "| `%s` | %s | %s | %s | %s |\n", d.Key, d.Type, values, def, d.Doc)
		}
		b.WriteString("\n")
	}
	return b.String()
}

func number(n int64) string {
	switch n {
	case math.MaxInt64:
		return "2^63 - 1"
	case math.MinInt64:
		return "-2^63"
	}
	return strconv.FormatInt(n, 10)
}

// TestConfigsAreDocumented compares the generated part of docs/kafka.md with the
// table.
func TestConfigsAreDocumented(t *testing.T) {
	const name, begin, end = "../../docs/kafka.md", "<!-- topic configs: begin (generated: go test ./broker/metadata -run Documented -update) -->\n\n", "<!-- topic configs: end -->"
	page, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(page), begin)
	have, after, ended := strings.Cut(rest, end)
	if !ok || !ended {
		t.Fatalf("%s has no markers %q and %q", name, begin, end)
	}
	if want := configsMarkdown(); *update {
		err = os.WriteFile(name, []byte(before+begin+want+end+after), 0o644)
	} else if have != want {
		err = fmt.Errorf("%s differs from the table; run go test ./broker/metadata -run Documented -update", name)
	}
	if err != nil {
		t.Error(err)
	}
}
