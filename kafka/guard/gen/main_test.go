package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestGeneratedCodeIsCurrent makes the tables again. It fails, too, if the
// summary of Kafka's definitions was changed by hand.
func TestGeneratedCodeIsCurrent(t *testing.T) {
	t.Parallel()
	want, err := generate("..")
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(filepath.Join("..", tablesFile))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s is stale, run go generate ./kafka/guard (-generated +committed):\n%s", tablesFile, diff)
	}
}

// definition is one of Kafka's, as its jar has them.
const definition = `// A comment.
{
  "apiKey": 44,
  "type": "request",
  "name": "IncrementalAlterConfigsRequest",
  // Another comment.
  "validVersions": "0-1",
  "flexibleVersions": "1+",
  "fields": [
    { "name": "Resources", "type": "[]AlterConfigsResource", "versions": "0+", "about": "See http://x.", "fields": [
      { "name": "ResourceType", "type": "int8", "versions": "0+" },
      { "name": "ResourceName", "type": "string", "versions": "0+" },
      { "name": "Configs", "type": "[]AlterableConfig", "versions": "0+" } ]},
    { "name": "ValidateOnly", "type": "bool", "versions": "0+", "default": "false" },
    { "name": "Note", "type": "string", "versions": "1", "nullableVersions": "1", "taggedVersions": "1", "tag": 3 }
  ],
  "commonStructs": [
    { "name": "AlterableConfig", "versions": "0+", "fields": [
      { "name": "Name", "type": "string", "versions": "0+" },
      { "name": "ConfigOperation", "type": "int8", "versions": "0+" },
      { "name": "Value", "type": "string", "versions": "0+", "nullableVersions": "0+" } ]}
  ]
}`

const summary = `request 44 IncrementalAlterConfigsRequest versions 0-1 flexible 1+
	Resources []AlterConfigsResource 0+
		ResourceType int8 0+
		ResourceName string 0+
		Configs []AlterableConfig 0+
			Name string 0+
			ConfigOperation int8 0+
			Value string 0+ nullable 0+
	ValidateOnly bool 0+
	Note string 1 nullable 1 tagged 1 as 3
`

// write writes definitions into a folder.
func write(t *testing.T, text ...string) string {
	t.Helper()
	dir := t.TempDir()
	for i, s := range text {
		if err := os.WriteFile(filepath.Join(dir, strings.Repeat("X", i)+"Request.json"), []byte(s), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// TestSummary reads a definition, and its summary again.
func TestSummary(t *testing.T) {
	t.Parallel()
	removed := `{"apiKey": 4, "type": "request", "name": "LeaderAndIsrRequest", "validVersions": "none"}`
	unstable := strings.NewReplacer(`"0-1"`, `"0-2"`, `"fields": [`, `"latestVersionUnstable": true, "fields": [`).Replace(definition)
	for _, text := range []string{definition, strings.Replace(unstable, `"latestVersionUnstable": true, `, "", 1)} {
		want := summary
		if text != definition {
			want = strings.Replace(want, "0-1", "0-2", 1)
		}
		msgs, err := readDefinitions(write(t, text, removed))
		if err != nil {
			t.Fatal(err)
		}
		s := summarise("4.4.0", msgs)
		if _, got, _ := bytes.Cut(s, []byte("below: ")); string(got[65:]) != want {
			t.Errorf("summary\n%s\nwant\n%s", got[65:], want)
		}
		version, again, err := parseSummary(s)
		if err != nil || version != "4.4.0" {
			t.Fatalf("parseSummary = %q, %v", version, err)
		}
		if got := summarise(version, again); !bytes.Equal(got, s) {
			t.Errorf("summarised again:\n%s\nwas\n%s", got, s)
		}
	}
	msgs, err := readDefinitions(write(t, strings.Replace(unstable, `"fields": [`, `"fields": [`, 1)))
	if err != nil {
		t.Fatal(err)
	}
	if got := msgs[0].Valid.String(); got != "0-1" {
		t.Errorf("with an unstable version 2, the versions are %s, want 0-1", got)
	}
}

// TestSummaryRefuses changes a summary by hand, and writes impossible ones.
func TestSummaryRefuses(t *testing.T) {
	t.Parallel()
	msgs, err := readDefinitions(write(t, definition))
	if err != nil {
		t.Fatal(err)
	}
	good := string(summarise("4.4.0", msgs))
	for name, text := range map[string]string{
		"empty":          "",
		"a field's type": strings.Replace(good, "int8", "int16", 1),
		"the version":    strings.Replace(good, "of Apache", "of an Apache", 1),
		"the digest":     strings.Replace(good, "below: ", "below: 0", 1),
	} {
		if _, _, err := parseSummary([]byte(text)); err == nil {
			t.Errorf("%s changed: no error", name)
		}
	}
}

func TestDefinitionsRefused(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ old, new, want string }{
		{`"type": "int8"`, `"type": "int9"`, "unknown type int9"},
		{`"0-1"`, `"zero"`, "want none, 3, 0-12 or 3+"},
		{`"type": "bool", "versions": "0+"`, `"type": "bool", "versions": "0+", "fields": [{"name": "X", "type": "bool", "versions": "0+"}]`, "ValidateOnly is a bool with fields"},
		{`"name": "Value", "type": "string"`, `"name": "Value", "type": "[]AlterableConfig"`, "deep in each other"},
		{`"apiKey"`, `apiKey`, "invalid character"},
	} {
		text := strings.Replace(definition, tt.old, tt.new, 1)
		if _, err := readDefinitions(write(t, text)); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q in it", tt.new, err, tt.want)
		}
	}
	if _, err := readDefinitions(t.TempDir()); err == nil || !strings.Contains(err.Error(), "unpack common/message") {
		t.Errorf("an empty folder: %v", err)
	}
}

// TestCompileRefused gives kmsg definitions that it does not have.
func TestCompileRefused(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ old, new, want string }{
		{`"apiKey": 44`, `"apiKey": 999`, "kmsg does not know key 999"},
		{`"0-1"`, `"0-7"`, "kmsg knows versions up to 1, and Kafka 7"},
		{`"type": "[]AlterConfigsResource"`, `"type": "AlterConfigsResource"`, "has no field for Resources"},
		{`"name": "ResourceName", "type": "string"`, `"name": "ResourceName", "type": "[]bytes"`, "has no walker"},
	} {
		msgs, err := readDefinitions(write(t, strings.Replace(definition, tt.old, tt.new, 1)))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := compile("4.4.0", msgs); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q in it", tt.new, err, tt.want)
		}
	}
}

// TestRun makes summary and tables from definitions, and compares them.
func TestRun(t *testing.T) {
	t.Parallel()
	definitions, out := write(t, definition), t.TempDir()
	if err := run(out, definitions, "4.4.0", false); err != nil {
		t.Fatal(err)
	}
	code, err := os.ReadFile(filepath.Join(out, tablesFile))
	if err != nil || !bytes.Contains(code, []byte(`44: {name: "IncrementalAlterConfigsRequest", first: 0, flexible: 1, bodies: []uint16{2, 5}},`)) {
		t.Errorf("tables: %v\n%s", err, code)
	}
	if err := run(out, definitions, "4.4.0", true); err != nil {
		t.Errorf("-check of the same definitions: %v", err)
	}
	if err := run(out, write(t, strings.Replace(definition, "int8", "int16", 1)), "4.4.0", true); err == nil || !strings.Contains(err.Error(), "not the summary") {
		t.Errorf("-check of others: %v", err)
	}
	if err := run(out, "", "4.4.0", false); err == nil {
		t.Error("a version without definitions: no error")
	}
}
