package config

import (
	"flag"
	"os"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the generated part of docs/configuration.md anew")

// TestDoc compares the generated part of docs/configuration.md with the table:
// what it lists exists, and what exists is listed.
func TestDoc(t *testing.T) {
	t.Parallel()
	const name = "../../docs/configuration.md"
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	page := string(b)
	begin := strings.Index(page, "<!-- settings: begin")
	end := strings.Index(page, "<!-- settings: end -->")
	if begin < 0 || end < begin {
		t.Fatalf("%s has no markers", name)
	}
	begin += strings.Index(page[begin:], "\n") + 1
	want := Markdown() + "\n"
	if *update {
		if err := os.WriteFile(name, []byte(page[:begin]+want+page[end:]), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if got := page[begin:end]; got != want {
		t.Errorf("%s differs from the table of settings; run go test ./internal/config -run Doc -update", name)
	}
}
