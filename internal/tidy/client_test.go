package tidy

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestClientPage holds the programs in docs/client.md against the examples of
// package client, which are run as tests: each block is one of them, and each
// of them is a block.
func TestClientPage(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "client.md"))
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join("..", "..", "client", "example*_test.go"))
	if err != nil || len(files) == 0 {
		t.Fatal("no examples", err)
	}
	examples := make(map[string]string) // source by name
	function := regexp.MustCompile(`(?ms)^func (Example\w*)\(\) \{\n.*?^\}\n`)
	for _, name := range files {
		src, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range function.FindAllStringSubmatch(string(src), -1) {
			examples[m[1]] = m[0]
			if !strings.Contains(m[0], "// Output:") {
				t.Errorf("%s is not run: it has no output", m[1])
			}
		}
	}
	shown := make(map[string]bool)
	for _, m := range regexp.MustCompile("(?ms)^```go\n(.*?)^```").FindAllStringSubmatch(string(page), -1) {
		f := function.FindStringSubmatch(m[1])
		if f == nil || f[0] != m[1] {
			t.Errorf("a block that is no example:\n%s", m[1])
			continue
		}
		shown[f[1]] = true
		if examples[f[1]] != m[1] {
			t.Errorf("%s differs from what is run", f[1])
		}
	}
	for name := range examples {
		if !shown[name] {
			t.Errorf("%s is not in docs/client.md", name)
		}
	}
}
