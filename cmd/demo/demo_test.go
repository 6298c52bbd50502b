package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// build builds a command of this module into dir.
func build(t *testing.T, dir, pkg string) string {
	t.Helper()
	bin := filepath.Join(dir, filepath.Base(pkg))
	if out, err := exec.Command("go", "build", "-o", bin, pkg).CombinedOutput(); err != nil {
		t.Fatalf("go build %s: %v\n%s", pkg, err, out)
	}
	return bin
}

// tree writes a small corpus with everything that lines can be.
func tree(t *testing.T, dir string) {
	t.Helper()
	files := map[string]string{
		"empty":           "",
		"no newline":      "one line, and no newline at its end",
		"blank/lines":     "\n\n\nx\n\n",
		"binary":          "\x00\xff\r\n\xf1FLO\n\x00",
		"long":            strings.Repeat("0123456789", 100_000) + "\nand more\n",
		"deep/er/and/so":  "a\nb\nc\n",
		"unicode/имя.txt": "строка\n",
	}
	for i := range 200 {
		files[fmt.Sprintf("many/%03d", i)] = strings.Repeat(fmt.Sprintf("file %d says this, again and again\n", i), 500)
	}
	for name, content := range files {
		full := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(full, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// TestDemo runs the demo as `make run` does, on a small tree: the verdict is
// PASS. With one stored record changed behind the server's back, checksum and
// all, it is FAIL, and so says the exit status.
func TestDemo(t *testing.T) {
	dir := t.TempDir()
	server, demo := build(t, dir, "github.com/flotilla-log/flotilla/cmd/flotilla"), build(t, dir, "github.com/flotilla-log/flotilla/cmd/demo")
	corpus := filepath.Join(dir, "corpus")
	tree(t, corpus)
	run := func(args ...string) (out string, status int) {
		t.Helper()
		cmd := exec.Command(demo, append([]string{"-binary", server, "-file", corpus, "-partitions", "5"}, args...)...)
		var b bytes.Buffer
		cmd.Stdout, cmd.Stderr = &b, &b
		err := cmd.Run()
		var exit *exec.ExitError
		if err != nil && !errors.As(err, &exit) {
			t.Fatal(err)
		}
		return b.String(), cmd.ProcessState.ExitCode()
	}
	out, status := run("-data", filepath.Join(dir, "well", "data"))
	if status != 0 || !strings.Contains(out, "VERDICT: PASS") || !strings.Contains(out, "batches in flight") {
		t.Errorf("status %d, want 0 and PASS:\n%s", status, out)
	}
	out, status = run("-tamper", "-data", filepath.Join(dir, "tampered", "data"))
	if status != 1 || !strings.Contains(out, "VERDICT: FAIL") || !strings.Contains(out, "the content that came back is not the file's") {
		t.Errorf("status %d, want 1 and FAIL for the content:\n%s", status, out)
	}
}
