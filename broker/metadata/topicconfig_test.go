package metadata

import (
	"fmt"
	"os"
	"slices"
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

// TestKafkaDefaults pins what Kafka users rely on.
func TestKafkaDefaults(t *testing.T) {
	for key, want := range map[string]string{
		"cleanup.policy": "delete", "max.message.bytes": "1048588", "message.timestamp.type": "CreateTime",
		"retention.bytes": "-1", "retention.ms": "604800000", "segment.ms": "604800000",
	} {
		if got := ConfigValue(nil, key); got != want {
			t.Errorf("%s defaults to %q, want %q", key, got, want)
		}
	}
}

func TestCheckConfigs(t *testing.T) {
	tests := []struct{ key, value, want string }{ // want "": accepted
		{"retention.ms", "-1", ""},
		{"retention.ms", "9223372036854775807", ""},
		{"retention.ms", "-2", "want a number from -1 to"},
		{"retention.ms", "1d", "want a number from -1 to"},
		{"retention.bytes", "0", ""},
		{"segment.ms", "0", "want a number from 1 to"},
		{"segment.bytes", "1048576", ""},
		{"segment.bytes", "1048575", "want a number from 1048576 to 2147483647"},
		{"message.timestamp.type", "LogAppendTime", ""},
		{"message.timestamp.type", "logappendtime", "want one of CreateTime, LogAppendTime"},
		{"cleanup.policy", "delete", ""},
		{"cleanup.policy", "compact", "compaction is not built yet"},
		{"cleanup.policy", "compact,delete", "compaction is not built yet"},
		{"retention.sm", "1", "did you mean retention.ms?"},
		{"segment.byte", "1", "did you mean segment.bytes?"},
		{"max.mesage.bytes", "1", "did you mean max.message.bytes?"},
		{"flavour", "1", "there are cleanup.policy, max.message.bytes,"},
		{"", "1", "there are cleanup.policy, max.message.bytes,"},
	}
	for _, tt := range tests {
		err := CheckConfigs([]Config{{tt.key, tt.value}})
		switch {
		case tt.want == "" && err != nil:
			t.Errorf("%s=%s: %v", tt.key, tt.value, err)
		case tt.want != "" && (err == nil || err.Code != errcode.InvalidConfig || !strings.Contains(err.Detail, tt.want)):
			t.Errorf("%s=%s: %v, want INVALID_CONFIG with %q", tt.key, tt.value, err, tt.want)
		}
	}
	if err := CheckConfigs([]Config{{"retention.ms", "1"}, {"retention.ms", "1"}}); err == nil || !strings.Contains(err.Detail, "set twice") {
		t.Errorf("a key twice: %v", err)
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

// TestConfigsAreDocumented holds the table of docs/protocol.md against this one.
func TestConfigsAreDocumented(t *testing.T) {
	page, err := os.ReadFile("../../docs/protocol.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range TopicConfigs() {
		low := fmt.Sprintf("%d to ", d.Min)
		value := d.Default
		if d.Type == ConfigEnum {
			low = "`" + strings.Join(d.Values, "`, `") + "` "
			value = "`" + value + "`"
		}
		found := false
		for line := range strings.Lines(string(page)) {
			found = found || strings.HasPrefix(line, "| `"+d.Key+"` | "+low) && strings.Contains(line, "| "+value+" |")
		}
		if !found {
			t.Errorf("docs/protocol.md has no row of %s with %q and the default %s", d.Key, low, value)
		}
	}
}
