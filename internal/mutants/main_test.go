package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestTable looks at what needs no build: each mutant has a name of its own,
// says all that check asks, and its text stands once in its file.
func TestTable(t *testing.T) {
	names := make(map[string]bool)
	for _, m := range mutants() {
		if names[m.name] {
			t.Errorf("%s: a second mutant of this name", m.name)
		}
		names[m.name] = true
		if m.name == "" || m.old == m.new || m.want == "" || !strings.HasPrefix(m.test, "Test") || !strings.HasPrefix(m.pkg, "./") {
			t.Errorf("%s: incomplete: %+v", m.name, m)
		}
		src, err := os.ReadFile(filepath.Join("..", "..", m.file))
		if err != nil {
			t.Errorf("%s: %v", m.name, err)
			continue
		}
		if _, err := m.apply(src); err != nil {
			t.Errorf("%s: %v", m.name, err)
		}
	}
}

func TestChoose(t *testing.T) {
	all := []mutant{{name: "a1"}, {name: "a2"}, {name: "b3"}, {name: "b4"}, {name: "b5"}}
	for _, tt := range []struct{ only, part, want string }{
		{"", "1/1", "a1 a2 b3 b4 b5"},
		{"", "1/2", "a1 b3 b5"},
		{"", "2/2", "a2 b4"},
		{"b", "1/2", "b3 b5"},
		{"^b4$", "1/1", "b4"},
		{"c", "1/1", "error"},
		{"(", "1/1", "error"},
		{"", "0/2", "error"},
		{"", "3/2", "error"},
		{"", "1/2/3", "error"},
		{"", "", "error"},
	} {
		chosen, err := choose(all, tt.only, tt.part)
		var names []string
		for _, m := range chosen {
			names = append(names, m.name)
		}
		got := strings.Join(names, " ")
		if err != nil {
			got = "error"
		}
		if got != tt.want {
			t.Errorf("choose(%q, %q) = %s (%v), want %s", tt.only, tt.part, got, err, tt.want)
		}
	}
}
