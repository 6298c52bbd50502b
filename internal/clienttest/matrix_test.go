package clienttest

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the table into docs/kafka.md")

// features returns what a program is checked for.
func (p program) features() (out []feature) {
	for _, f := range features {
		if !slices.Contains(p.without, f.name) && p.fails[f.name] == "" {
			out = append(out, f)
		}
	}
	return out
}

// failing returns what a program is known to fail.
func (p program) failing() (out []feature) {
	for _, f := range features {
		if p.fails[f.name] != "" {
			out = append(out, f)
		}
	}
	return out
}

// matrix returns the table of docs/kafka.md.
func matrix() string {
	var b strings.Builder
	head, rule := "| |", "|---|"
	for _, p := range programs {
		head += " " + p.client + " |"
		rule += "---|"
	}
	fmt.Fprintln(&b, head)
	fmt.Fprintln(&b, rule)
	var notes []string
	for _, f := range features {
		fmt.Fprintf(&b, "| %s |", f.name)
		for _, p := range programs {
			cell, note := " Y |", p.fails[f.name]
			if slices.Contains(p.without, f.name) {
				cell = " |"
			} else if note != "" {
				if !slices.Contains(notes, note) {
					notes = append(notes, note)
				}
				cell = fmt.Sprintf(" no (%d) |", 1+slices.Index(notes, note))
			}
			b.WriteString(cell)
		}
		b.WriteByte('\n')
	}
	for i, note := range notes {
		fmt.Fprintf(&b, "\n(%d) %s\n", i+1, note)
	}
	return b.String()
}

// The table stands between these two lines.
const (
	matrixBegin = "<!-- clients: made by go test ./internal/clienttest -run TestMatrix -update -->\n"
	matrixEnd   = "<!-- end of clients -->\n"
)

// TestMatrix compares the table in docs/kafka.md with what is tested.
func TestMatrix(t *testing.T) {
	t.Parallel()
	name := filepath.Join("..", "..", "docs", "kafka.md")
	doc, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(doc), matrixBegin)
	have, after, ok2 := strings.Cut(rest, matrixEnd)
	if !ok || !ok2 {
		t.Fatalf("%s has no lines %q and %q", name, matrixBegin, matrixEnd)
	}
	want := matrix()
	if *update {
		if err := os.WriteFile(name, []byte(before+matrixBegin+want+matrixEnd+after), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if have != want {
		t.Errorf("the table of clients in %s is not what is tested; run this test with -update. It should be:\n%s", name, want)
	}
}

// TestPrograms checks that the columns name rows and folders that exist.
func TestPrograms(t *testing.T) {
	t.Parallel()
	for _, p := range programs {
		for _, name := range slices.AppendSeq(slices.Clone(p.without), maps.Keys(p.fails)) {
			if !slices.ContainsFunc(features, func(f feature) bool { return f.name == name }) {
				t.Errorf("%s names %q, which is no feature", p.name, name)
			}
		}
		if _, err := os.Stat(filepath.Join("..", "..", "examples", p.name)); err != nil {
			t.Errorf("%s: %v", p.name, err)
		}
	}
}
