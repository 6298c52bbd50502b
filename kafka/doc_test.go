package kafka

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the generated part of docs/kafka.md anew")

// documented is the table of requests for docs/kafka.md.
func documented() string {
	var b strings.Builder
	b.WriteString("\n| key | request | versions |\n|---|---|---|\n")
	for _, a := range newTable(coreAPIs, dataAPIs, adminAPIs, groupAPIs).all {
		fmt.Fprintf(&b, "| %d | %s | %s |\n", a.key, a.name, a.versions())
	}
	return b.String() + "\n"
}

// versions says which versions are served, and which are listed if others are.
func (a *api) versions() string {
	s := fmt.Sprintf("%d to %d", a.min, a.max)
	if a.min == a.max {
		s = fmt.Sprint(a.min)
	}
	if a.advertised != a.min {
		s += fmt.Sprintf(" (listed from %d, as Kafka does)", a.advertised)
	}
	return s
}

// TestDocumentedRequests compares the table in docs/kafka.md with what is served.
func TestDocumentedRequests(t *testing.T) {
	t.Parallel()
	const name = "../docs/kafka.md"
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	page := string(b)
	begin, end := strings.Index(page, "<!-- requests: begin"), strings.Index(page, "<!-- requests: end -->")
	if begin < 0 || end < begin {
		t.Fatalf("%s has no markers", name)
	}
	begin += strings.Index(page[begin:], "\n") + 1
	if *update {
		if err := os.WriteFile(name, []byte(page[:begin]+documented()+page[end:]), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if got := page[begin:end]; got != documented() {
		t.Errorf("%s differs from the requests that are served; run go test ./kafka -run TestDocumentedRequests -update", name)
	}
}
