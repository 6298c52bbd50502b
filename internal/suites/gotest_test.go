package suites

import (
	"bufio"
	"io"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// goTest is what a test, or a sub-test, of a Go test binary came to.
type goTest struct {
	outcome string // PASS, FAIL, SKIP; "": it did not end
	output  []string
}

// Lines of a Go test binary with -test.v=test2json: each begins with a byte that tests
// do not print, so that it is found after a line that a test has not ended.
var (
	whose = regexp.MustCompile(`\x16=== (?:RUN|CONT|NAME)\s+(\S*)`)
	ended = regexp.MustCompile(`\x16 *--- (PASS|FAIL|SKIP): (\S+) \(`)
)

// readGoTests reads what a Go test binary prints, and returns its tests by name.
// Lines that are of no test have the name "".
func readGoTests(r io.Reader) (map[string]*goTest, error) {
	tests := make(map[string]*goTest)
	of := func(name string) *goTest {
		t := tests[name]
		if t == nil {
			t = new(goTest)
			tests[name] = t
		}
		return t
	}
	now := of("")
	lines := bufio.NewReader(r)
	for {
		line, err := lines.ReadString('\n')
		if m := ended.FindStringSubmatch(line); m != nil {
			now = of(m[2])
			now.outcome = m[1]
		} else if m := whose.FindStringSubmatch(line); m != nil {
			now = of(m[1])
		} else if text := strings.TrimRight(line, "\n"); text != "" && !strings.Contains(text, "\x16=== ") {
			now.output = append(now.output, text)
		}
		if err == io.EOF {
			return tests, nil
		} else if err != nil {
			return nil, err
		}
	}
}

// isSub reports whether a name is a sub-test's.
func isSub(name string) bool { return strings.Contains(name, "/") }

// goTestProblems returns what is wrong with a run: each test of the suite that is not
// in the list has to have passed, and nothing else may have run, or been skipped.
func goTestProblems(tests map[string]*goTest, suite []string, list map[string]string) (problems []string) {
	for _, name := range suite {
		t := tests[name]
		_, left := list[name]
		switch {
		case left && t != nil:
			problems = append(problems, name+" ran, and is in the list of those that do not")
		case !left && (t == nil || t.outcome == ""):
			problems = append(problems, name+" did not run to its end")
		}
	}
	for name, t := range tests {
		switch {
		case t.outcome == "FAIL":
			problems = append(problems, name+" failed")
		case t.outcome == "SKIP":
			problems = append(problems, name+" skipped itself, and is not in the list of those that do not run")
		case name != "" && !isSub(name) && !slices.Contains(suite, name):
			problems = append(problems, name+" is not in the suite")
		}
	}
	slices.Sort(problems)
	return problems
}

func TestReadGoTests(t *testing.T) {
	const out = "\x16=== RUN   TestA\n\x16=== PAUSE TestA\n\x16=== RUN   TestB\nb begins, and \x16=== CONT  TestA\na says\n" +
		"\x16=== RUN   TestA/one\n    --- PASS: TestB (0.00s)\n\x16    --- SKIP: TestA/one (0.00s)\n    a_test.go:1: why\n" +
		"\x16--- PASS: TestA (0.01s)\nno newline\x16--- FAIL: TestB (1.20s)\n\x16=== NAME  \nFAIL\n"
	tests, err := readGoTests(strings.NewReader(out))
	if err != nil {
		t.Fatal(err)
	}
	got := make(map[string]goTest)
	for name, test := range tests {
		got[name] = *test
	}
	want := map[string]goTest{
		"":          {output: []string{"FAIL"}},
		"TestA":     {outcome: "PASS", output: []string{"a says"}},
		"TestA/one": {outcome: "SKIP", output: []string{"    --- PASS: TestB (0.00s)", "    a_test.go:1: why"}},
		"TestB":     {outcome: "FAIL"},
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(goTest{})); diff != "" {
		t.Errorf("want -, got +:\n%s", diff)
	}
}

func TestGoTestProblems(t *testing.T) {
	tests := map[string]*goTest{
		"": {}, "TestPasses": {outcome: "PASS"}, "TestPasses/skips": {outcome: "SKIP"}, "TestHangs": {}, "TestListed": {outcome: "PASS"},
		"TestFails": {outcome: "FAIL"}, "TestNew": {outcome: "PASS"},
	}
	suite := []string{"TestPasses", "TestHangs", "TestListed", "TestFails", "TestMissing", "TestLeft"}
	want := []string{
		"TestFails failed",
		"TestHangs did not run to its end",
		"TestListed ran, and is in the list of those that do not",
		"TestMissing did not run to its end",
		"TestNew is not in the suite",
		"TestPasses/skips skipped itself, and is not in the list of those that do not run",
	}
	got := goTestProblems(tests, suite, map[string]string{"TestListed": "x", "TestLeft": "x"})
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("want -, got +:\n%s", diff)
	}
}
