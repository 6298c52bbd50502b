package admin

import (
	"flag"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the generated part of docs/metrics.md anew")

const page = "../../docs/metrics.md"

func readPage(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// markdown is the table for docs/metrics.md.
func markdown() string {
	var b strings.Builder
	b.WriteString("\n| metric | type | labels | |\n|---|---|---|---|\n")
	for _, m := range Metrics {
		labels := ""
		if len(m.Labels) > 0 {
			labels = "`" + strings.Join(m.Labels, "`, `") + "`"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", m.Name, m.Type, labels, m.Help)
	}
	return b.String() + "\n"
}

// TestDoc compares the generated part of docs/metrics.md with the table: what it
// lists exists, and what exists is listed.
func TestDoc(t *testing.T) {
	t.Parallel()
	text := readPage(t)
	begin := strings.Index(text, "<!-- metrics: begin")
	end := strings.Index(text, "<!-- metrics: end -->")
	if begin < 0 || end < begin {
		t.Fatalf("%s has no markers", page)
	}
	begin += strings.Index(text[begin:], "\n") + 1
	if *update {
		if err := os.WriteFile(page, []byte(text[:begin]+markdown()+text[end:]), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if got := text[begin:end]; got != markdown() {
		t.Errorf("%s differs from the table of metrics; run go test ./internal/admin -run Doc -update", page)
	}
}

// TestDocExpressions: the expressions to alert on name metrics and labels that
// exist.
func TestDocExpressions(t *testing.T) {
	t.Parallel()
	n := 0
	for _, m := range regexp.MustCompile(`(flotilla_[a-z_]*[a-z])(\{([a-z]+)=)?`).FindAllStringSubmatch(readPage(t), -1) {
		n++
		if !slices.ContainsFunc(Metrics, func(a Metric) bool {
			name := m[1]
			if a.Type == Histogram {
				name = strings.TrimSuffix(name, "_bucket")
			}
			return a.Name == name && (m[3] == "" || slices.Contains(a.Labels, m[3]))
		}) {
			t.Errorf("%s names %s", page, m[0])
		}
	}
	if n < len(Metrics)+10 {
		t.Errorf("%d names of metrics", n)
	}
}
