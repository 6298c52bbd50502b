package tidy

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// root is the module's folder, as seen from this package's.
var root = filepath.Join("..", "..")

// source is one Go file of the module.
type source struct {
	name string // from the root, with slashes
	pkg  string // its folder
	text []byte
	fset *token.FileSet
	ast  *ast.File
}

func parse(name string, text []byte) (source, error) {
	f := source{name: name, pkg: path.Dir(name), text: text, fset: token.NewFileSet()}
	var err error
	f.ast, err = parser.ParseFile(f.fset, name, text, parser.SkipObjectResolution)
	return f, err
}

func (f source) test() bool { return strings.HasSuffix(f.name, "_test.go") }

// imports returns the import paths of f.
func (f source) imports() []string {
	var out []string
	for _, spec := range f.ast.Imports {
		out = append(out, importPath(spec))
	}
	return out
}

func importPath(spec *ast.ImportSpec) string {
	imp, err := strconv.Unquote(spec.Path.Value)
	if err != nil {
		panic("tidy: import path that parsed does not unquote: " + spec.Path.Value)
	}
	return imp
}

// uses returns the position and name of every mention of one of the standard
// package's names in f, whatever f calls that package.
func (f source) uses(pkg string, names ...string) []string {
	local := ""
	for _, spec := range f.ast.Imports {
		if importPath(spec) != pkg {
			continue
		}
		if local = path.Base(pkg); spec.Name != nil {
			local = spec.Name.Name
		}
	}
	if local == "." {
		return []string{f.name + ": imports " + pkg + " as ."}
	}
	var out []string
	ast.Inspect(f.ast, func(n ast.Node) bool {
		sel, ok := n.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		if x, ok := sel.X.(*ast.Ident); ok && x.Name == local && slices.Contains(names, sel.Sel.Name) {
			out = append(out, fmt.Sprintf("%s: %s.%s", f.fset.Position(sel.Pos()), pkg, sel.Sel.Name))
		}
		return true
	})
	return out
}

// files calls visit with the name, from the root and with slashes, of every
// file of the module. It leaves out what is not source: git's own folder, what
// .gitignore names, and folders that are modules of their own.
func files(t *testing.T, visit func(name string)) {
	t.Helper()
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, p)
		if err != nil {
			return err
		}
		name := filepath.ToSlash(rel)
		switch {
		case d.IsDir() && slices.Contains([]string{".git", "bin", "flotilla-data"}, name):
			return filepath.SkipDir
		case d.IsDir() && name != ".":
			if _, err := os.Stat(filepath.Join(p, "go.mod")); err == nil {
				return filepath.SkipDir
			}
		case name != ".git" && d.Type().IsRegular() && !strings.HasSuffix(name, ".test") && !strings.HasSuffix(name, ".prof"):
			visit(name)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, name string) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(name)))
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// goFiles returns the module's Go files, but for test data.
func goFiles(t *testing.T) []source {
	t.Helper()
	var out []source
	files(t, func(name string) {
		if !strings.HasSuffix(name, ".go") || slices.Contains(strings.Split(name, "/"), "testdata") {
			return
		}
		f, err := parse(name, read(t, name))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			return
		}
		out = append(out, f)
	})
	if len(out) == 0 {
		t.Fatal("no Go file found")
	}
	return out
}

// pure lists the packages that decide: the same inputs give the same outputs on
// every replica and in every run.
var pure = []string{"partition", "consumergroup", "consumergroup/assign", "consumergroup/record", "broker/metadata"}

// impurities returns what a pure package's file must not hold.
func impurities(f source) []string {
	var out []string
	for _, imp := range f.imports() {
		if within(imp, "os") || within(imp, "net") || within(imp, "math/rand") || imp == "crypto/rand" {
			out = append(out, f.name+": imports "+imp)
		}
	}
	out = append(out, f.uses("time", "Now", "Since", "Until", "Sleep", "After", "AfterFunc", "Tick", "NewTicker", "NewTimer")...)
	ast.Inspect(f.ast, func(n ast.Node) bool {
		if g, ok := n.(*ast.GoStmt); ok {
			out = append(out, fmt.Sprintf("%s: starts a goroutine", f.fset.Position(g.Pos())))
		}
		return true
	})
	return out
}

func TestPure(t *testing.T) {
	t.Parallel()
	for _, f := range goFiles(t) {
		if f.test() || !slices.Contains(pure, f.pkg) {
			continue
		}
		for _, why := range impurities(f) {
			t.Error(why)
		}
	}
}

// bubbles are the packages whose tests all run in virtual time.
var bubbles = []string{"internal/sim"}

// sleeps returns the calls of time.Sleep in a test file that has no bubble to
// make them take no time.
func sleeps(f source) []string {
	if !f.test() || slices.Contains(f.imports(), "testing/synctest") || slices.Contains(bubbles, f.pkg) {
		return nil
	}
	return f.uses("time", "Sleep")
}

func TestNoSleep(t *testing.T) {
	t.Parallel()
	for _, f := range goFiles(t) {
		for _, why := range sleeps(f) {
			t.Errorf("%s outside of testing/synctest", why)
		}
	}
}

var unfinished = regexp.MustCompile(`\b(TODO|FIXME)\b`)

func TestFinished(t *testing.T) {
	t.Parallel()
	for _, f := range goFiles(t) {
		if at := unfinished.FindIndex(f.text); at != nil && !f.test() {
			t.Errorf("%s:%d: %s", f.name, line(f.text, at[0]), f.text[at[0]:at[1]])
		}
	}
}

// line returns the line number of the byte at offset.
func line(text []byte, offset int) int { return 1 + bytes.Count(text[:offset], []byte("\n")) }

// elsewhere matches the paths of the machine that a file was written on. It is
// put together so that this file does not match.
var elsewhere = regexp.MustCompile(strings.Join([]string{`/work` + `/`, `\.\./` + `shared`, `/root` + `/`, `/tmp` + `/brief`}, "|"))

func TestNoMachinePaths(t *testing.T) {
	t.Parallel()
	files(t, func(name string) {
		text := read(t, name)
		if at := elsewhere.FindIndex(text); at != nil {
			t.Errorf("%s:%d: mentions %s", name, line(text, at[0]), text[at[0]:at[1]])
		}
	})
}

// TestRules shows each rule a file that breaks it and one that does not.
func TestRules(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, text string
		rule       func(source) []string
		found      int
	}{
		{"p/a.go", `import "time"; var now = time.Now`, impurities, 1},
		{"p/a.go", `import clock "time"; func f() { clock.Sleep(1); <-clock.After(1) }`, impurities, 2},
		{"p/a.go", `import . "time"`, impurities, 1},
		{"p/a.go", `import ("os/exec"; "net/netip"; "math/rand/v2")`, impurities, 3},
		{"p/a.go", `func f() { go f() }`, impurities, 1},
		{"p/a.go", `import ("math"; "time"); var d = time.Second + math.Pi`, impurities, 0},
		{"p/a_test.go", `import "time"; func f() { time.Sleep(1) }`, sleeps, 1},
		{"p/a_test.go", `import ("testing/synctest"; "time"); func f() { time.Sleep(1); synctest.Wait() }`, sleeps, 0},
		{"p/a.go", `import "time"; func f() { time.Sleep(1) }`, sleeps, 0},
	}
	for _, tt := range tests {
		f, err := parse(tt.name, []byte("package p; "+tt.text))
		if err != nil {
			t.Fatal(err)
		}
		if got := tt.rule(f); len(got) != tt.found {
			t.Errorf("%s: found %q, want %d", tt.text, got, tt.found)
		}
	}
	for text, want := range map[string]bool{
		"// TODO: later": true, "x // FIXME": true, "mastodon TODOS": false,
	} {
		if unfinished.MatchString(text) != want {
			t.Errorf("unfinished(%q), want %t", text, want)
		}
	}
	for text, want := range map[string]bool{
		"see /work" + "/main": true, "(.." + "/shared/x)": true, "network/ and /workers": false,
	} {
		if elsewhere.MatchString(text) != want {
			t.Errorf("elsewhere(%q), want %t", text, want)
		}
	}
}
