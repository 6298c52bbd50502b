// Command mutants takes each of the product's guards away, one at a time, and
// checks that the test that is there for it goes red. A guard that can be
// removed without a red test is not tested.
//
// For each mutant of table.go it checks that
//
//   - the text to replace stands exactly once in the file,
//   - the named test is green before, and ran,
//   - the mutant compiles,
//   - the named test then fails by its own assertion: go test reports that test
//     as failed, with the text expected of it; not a panic, a time-out or
//     another test.
//
// It works on a copy of the tree and changes nothing else. It exits with 1 if
// any of this does not hold. Run it from the module's root:
//
//	go run ./internal/mutants [-run REGEXP]
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// timeout bounds one go test.
const timeout = 5 * time.Minute

func main() {
	only := flag.String("run", "", "only the mutants whose name matches this regular `expression`")
	flag.Parse()
	if err := run(*only); err != nil {
		fmt.Fprintln(os.Stderr, "mutants:", err)
		os.Exit(1)
	}
}

func run(only string) error {
	match, err := regexp.Compile(only)
	if err != nil {
		return err
	}
	if _, err := os.Stat("go.mod"); err != nil {
		return errors.New("run this from the module's root")
	}
	root, err := os.MkdirTemp("", "mutants-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(root)
	if err := copyTree(root, "."); err != nil {
		return err
	}
	ran, bad := 0, 0
	for _, m := range table {
		if !match.MatchString(m.name) {
			continue
		}
		ran++
		start := time.Now()
		if err := m.check(root); err != nil {
			bad++
			fmt.Printf("SURVIVED %-28s %v\n", m.name, err)
			continue
		}
		fmt.Printf("killed   %-28s by %s %s (%.1f s)\n", m.name, m.pkg, m.test, time.Since(start).Seconds())
	}
	fmt.Printf("mutants: %d passed, %d failed\n", ran-bad, bad)
	if ran == 0 {
		return fmt.Errorf("no mutant matches %q", only)
	}
	if bad > 0 {
		return fmt.Errorf("%d of %d guards can be removed unnoticed", bad, ran)
	}
	return nil
}

// copyTree copies the Go module at src, without what is not built.
func copyTree(dst, src string) error {
	return filepath.WalkDir(src, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if name := d.Name(); p != src && (strings.HasPrefix(name, ".") || name == "bin" || name == "flotilla-data") {
				return filepath.SkipDir
			}
			return os.MkdirAll(filepath.Join(dst, p), 0o755)
		}
		if !d.Type().IsRegular() {
			return nil
		}
		b, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(dst, p), b, 0o644)
	})
}

// mutant is one guard, the edit that takes it away, and the test against that.
type mutant struct {
	name     string
	file     string // from the module's root
	old, new string // old stands exactly once in file
	pkg      string // as go test takes it
	test     string // the test that must fail
	want     string // in its output: what it says when the guard is gone
}

// check returns nil if the mutant applies, compiles, and is killed by its test.
func (m mutant) check(root string) error {
	path := filepath.Join(root, m.file)
	intact, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if n := strings.Count(string(intact), m.old); n != 1 {
		return fmt.Errorf("%q stands %d times in %s, want once", m.old, n, m.file)
	}
	if out, err := m.goTest(root); err != nil || !strings.Contains(out, "--- PASS: "+m.test) {
		return fmt.Errorf("%s is not green without the mutation: %v\n%s", m.test, err, tail(out))
	}
	hurt := strings.Replace(string(intact), m.old, m.new, 1)
	if err := os.WriteFile(path, []byte(hurt), 0o644); err != nil {
		return err
	}
	defer os.WriteFile(path, intact, 0o644)
	if out, err := goCommand(root, "vet", m.pkg); err != nil {
		return fmt.Errorf("does not compile: %v\n%s", err, tail(out))
	}
	out, err := m.goTest(root)
	switch {
	case err == nil:
		return fmt.Errorf("%s is still green", m.test)
	case strings.Contains(out, "panic:"):
		return fmt.Errorf("%s panicked instead of failing\n%s", m.test, tail(out))
	case !strings.Contains(out, "--- FAIL: "+m.test), !strings.Contains(out, m.want):
		return fmt.Errorf("%s did not fail with %q\n%s", m.test, m.want, tail(out))
	}
	return nil
}

func (m mutant) goTest(root string) (string, error) {
	return goCommand(root, "test", "-count=1", "-v", "-run", "^"+m.test+"$", m.pkg)
}

func goCommand(root string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = root
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// tail returns the last lines of a test's output.
func tail(s string) string {
	const most = 2000
	if len(s) > most {
		s = "..." + s[len(s)-most:]
	}
	return s
}
