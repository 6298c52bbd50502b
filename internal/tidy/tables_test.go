package tidy

import (
	"fmt"
	"path"
	"regexp"
	"strings"
	"testing"
)

// rowCells returns how many cells a line of a table has, and 0 for another line.
// A bar with a backslash before it is text.
func rowCells(line string) int {
	if !strings.HasPrefix(line, "|") {
		return 0
	}
	line = strings.TrimRight(line, " ")
	bars := strings.Count(line, "|") - strings.Count(line, `\|`)
	if !strings.HasSuffix(line, "|") || strings.HasSuffix(line, `\|`) {
		return bars // the last one is not closed
	}
	return bars - 1
}

// rule is the second line of each table.
var rule = regexp.MustCompile(`^\|(\s*:?-+:?\s*\|)+\s*$`)

// badRows says which lines of a page have not as many cells as the first line of
// their table, and which tables have no rule. What is in a fence is no table.
func badRows(text string) (bad []string) {
	fenced, at, want := false, 0, 0
	for i, line := range strings.Split(text, "\n") {
		if strings.HasPrefix(line, "```") {
			fenced = !fenced
		}
		n := rowCells(line)
		if fenced || n == 0 {
			at = 0
			continue
		}
		switch at++; {
		case at == 1:
			want = n
		case at == 2 && !rule.MatchString(line):
			bad = append(bad, fmt.Sprintf("line %d: a table's second line is not its rule", i+1))
		}
		if n != want {
			bad = append(bad, fmt.Sprintf("line %d: %d cells in a table of %d", i+1, n, want))
		}
	}
	return bad
}

func TestBadRows(t *testing.T) {
	for _, tt := range []struct {
		name, page string
		want       int
	}{
		{"none", "a | b\n", 0},
		{"sound", "| a | b |\n|---|---|\n| c `\\|` d | |\n", 0},
		{"two tables", "| a |\n|---|\n| b |\n\n| a | b |\n|---|:-:|\n| c | d |\n", 0},
		{"in a fence", "```\n| 0x10 |\n| a | b |\n```\n", 0},
		{"a cell more", "| a | b |\n|---|---|\n| c | d | e |\n", 1},
		{"a cell less", "| a | b |\n|---|---|\n| c |\n", 1},
		{"another table's row", "| a |\n|---|\n| b |\n| c | d |\n", 1},
		{"not closed", "| a | b |\n|---|---|\n| c | d\n", 0},
		{"no rule", "| a | b |\n| c | d |\n", 1},
		{"a row on its own", "text\n| a | b | c |\ntext\n", 0},
	} {
		if bad := badRows(tt.page); len(bad) != tt.want {
			t.Errorf("%s: %q, want %d", tt.name, bad, tt.want)
		}
	}
}

// TestTables: each row of a table of the documentation has a cell for each
// column. One that a merge put behind another table mostly has not.
func TestTables(t *testing.T) {
	pages := 0
	files(t, func(name string) {
		if path.Ext(name) != ".md" {
			return
		}
		pages++
		for _, bad := range badRows(string(read(t, name))) {
			t.Errorf("%s: %s", name, bad)
		}
	})
	if pages < 5 {
		t.Errorf("only %d pages", pages)
	}
}

var (
	// named is a test that a page names.
	named = regexp.MustCompile(`\b(?:Test|Fuzz)[A-Z]\w*`)
	// placed are tests that a page names behind their package.
	placed = regexp.MustCompile("`([a-z][a-z/]*)` ((?:Test|Fuzz)[A-Z]\\w*(?:, (?:Test|Fuzz)[A-Z]\\w*)*)")
)

// lostTests returns the tests that a page names and that are not there, or not
// in the package that it says. in has the packages of each test.
func lostTests(text string, in map[string][]string) (lost []string) {
	for _, name := range named.FindAllString(text, -1) {
		if len(in[name]) == 0 {
			lost = append(lost, name)
		}
	}
	for _, m := range placed.FindAllStringSubmatch(text, -1) {
		for name := range strings.SplitSeq(m[2], ", ") {
			found := len(in[name]) == 0 // is told above
			for _, pkg := range in[name] {
				found = found || pkg == m[1]
			}
			if !found {
				lost = append(lost, m[1]+" "+name)
			}
		}
	}
	return lost
}

func TestLostTests(t *testing.T) {
	in := map[string][]string{"TestA": {"p"}, "TestB": {"p", "q/r"}, "FuzzC": {"q/r"}}
	for text, want := range map[string]string{
		"| `p` TestA, TestB | the same |": "",
		"`q/r` TestB and FuzzC/seed":      "",
		"that, and TestB":                 "",
		"TestNone":                        "TestNone",
		"`q/r` TestA":                     "q/r TestA",
		"`p` TestB, FuzzC":                "p FuzzC",
		"a Testament, a Fuzzy thing":      "",
	} {
		if got := strings.Join(lostTests(text, in), ", "); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

// TestNamedTests: the tests that pages name for each bug and each promise are there.
func TestNamedTests(t *testing.T) {
	declared := regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)[A-Z]\w*)\(`)
	in := make(map[string][]string)
	for _, f := range goFiles(t) {
		if !f.test() {
			continue
		}
		for _, m := range declared.FindAllSubmatch(f.text, -1) {
			in[string(m[1])] = append(in[string(m[1])], f.pkg)
		}
	}
	for page, least := range map[string]int{"docs/robustness.md": 50, "docs/guarantees.md": 30, "README.md": 15, "docs/raft.md": 15} {
		text := string(read(t, page))
		for _, lost := range lostTests(text, in) {
			t.Errorf("%s names %s, which is not there", page, lost)
		}
		if n := len(named.FindAllString(text, -1)); n < least {
			t.Errorf("%s names only %d tests", page, n)
		}
	}
}

// unheld returns the lines of docs/raft.md that tell of what was reproduced, and name no
// test behind the words "Held by".
func unheld(text string) (bad []string, held int) {
	_, body, _ := strings.Cut(text, "\n## ") // what comes before says what "seen" means
	for line := range strings.SplitSeq(body, "\n") {
		if !seen.MatchString(line) {
			continue
		}
		_, by, _ := strings.Cut(line, " Held by ")
		if !placed.MatchString(by) {
			bad = append(bad, line[:min(len(line), 60)])
			continue
		}
		held++
	}
	return bad, held
}

var seen = regexp.MustCompile(`\bseen\b`)

func TestUnheld(t *testing.T) {
	for text, want := range map[string][2]int{
		"seen means\n## Traps\n1. a (seen). Held by `p` TestA.\n2. b\n": {0, 1},
		"\n## Traps\n1. a (seen, twice): `p` TestA says\n":              {1, 0},
		"\n## Traps\n1. a (issue 3, seen). Held by nobody.\n":           {1, 0},
		"\n## Traps\n1. unforeseen, and oversee\n":                      {0, 0},
	} {
		if bad, held := unheld(text); len(bad) != want[0] || held != want[1] {
			t.Errorf("%q: %q and %d held, want %v", text, bad, held, want)
		}
	}
}

// TestTraps: each trap of Raft's and the log's that was reproduced has a test of the
// product that holds against it.
func TestTraps(t *testing.T) {
	bad, held := unheld(string(read(t, "docs/raft.md")))
	for _, line := range bad {
		t.Errorf("docs/raft.md names no test of the product for: %s", line)
	}
	if held < 10 {
		t.Errorf("only %d traps are told of", held)
	}
}
