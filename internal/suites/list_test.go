package suites

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
)

// readList returns a list of tests that do not run, and the reason of each. A line is
// a name and, after spaces, the reason; one that begins with # is a comment.
func readList(text string) (map[string]string, error) {
	list := make(map[string]string)
	for i, line := range strings.Split(text, "\n") {
		if line = strings.TrimSpace(line); line == "" || line[0] == '#' {
			continue
		}
		name, reason, _ := strings.Cut(line, " ")
		if reason = strings.TrimSpace(reason); reason == "" {
			return nil, fmt.Errorf("line %d: %s has no reason", i+1, name)
		}
		if _, twice := list[name]; twice {
			return nil, fmt.Errorf("line %d: %s is there twice", i+1, name)
		}
		list[name] = reason
	}
	return list, nil
}

// unknown returns what is in a list, and not in the suite.
func unknown(list map[string]string, suite []string) (names []string) {
	for _, name := range slices.Sorted(maps.Keys(list)) {
		if !slices.Contains(suite, name) {
			names = append(names, name)
		}
	}
	return names
}

// excluded returns the list in a file, all of whose names are in the suite.
func excluded(t *testing.T, file string, suite []string) map[string]string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	list, err := readList(string(text))
	if err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	if names := unknown(list, suite); len(names) > 0 {
		t.Fatalf("%s: the suite has no %s", file, strings.Join(names, ", "))
	}
	return list
}

func TestReadList(t *testing.T) {
	list, err := readList("# transactions\n\nTestA  they are not served\n  TestB none yet  \n")
	if want := map[string]string{"TestA": "they are not served", "TestB": "none yet"}; err != nil || !maps.Equal(list, want) {
		t.Errorf("readList = %v, %v, want %v", list, err, want)
	}
	if names := unknown(list, []string{"TestB", "TestC"}); !slices.Equal(names, []string{"TestA"}) {
		t.Errorf("unknown = %v, want TestA", names)
	}
	for text, want := range map[string]string{
		"TestA  x\nTestB":      "line 2: TestB has no reason",
		"TestA x\n\nTestA y\n": "line 3: TestA is there twice",
	} {
		if _, err := readList(text); err == nil || err.Error() != want {
			t.Errorf("readList(%q) fails with %v, want %q", text, err, want)
		}
	}
}
