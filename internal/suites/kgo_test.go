//go:build clients

package suites

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/flotilla-log/flotilla/internal/proctest"
)

// kgoRan is how many tests of franz-go's suite run, and kgoSubRan how many sub-tests
// they have, those that a seed of a fuzz test makes among them.
const (
	kgoRan    = 145
	kgoSubRan = 406
)

// kgoGroups are the consumer groups of TestGroupETL, its heart: chains of three, whose
// members come and go, and each record is to be consumed once.
var kgoGroups = []string{"range", "cooperative-sticky", "range/848", "sticky/848", "cooperative-sticky/static", "sticky/848/static"}

// kgoRecords is how many records go through each of kgoGroups, unless SUITES_KGO_RECORDS
// says otherwise, for TestKgo. The suite's own number is 500000.
const kgoRecords = "20000"

// kgoUnchecked is what TestGroupETL says when it will check nothing, because a member's
// commit while it gives partitions away was refused (before KIP-1251 that could happen).
const kgoUnchecked = "skipping validation"

// kgo is franz-go's suite, of the version in go.mod.
type kgo struct {
	dir    string   // the package's
	binary string   // the test binary
	tests  []string // names, in it
}

var buildKgo = sync.OnceValues(func() (*kgo, error) {
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/twmb/franz-go").Output()
	if err != nil {
		return nil, fmt.Errorf("go list: %w", err)
	}
	k := &kgo{dir: filepath.Join(strings.TrimSpace(string(out)), "pkg", "kgo")}
	if k.binary, err = filepath.Abs(filepath.Join(buildDir, "kgo.test")); err != nil {
		return nil, err
	}
	if out, err := exec.Command("go", "test", "-C", k.dir, "-c", "-o", k.binary, ".").CombinedOutput(); err != nil {
		return nil, fmt.Errorf("go test -c in %s: %w\n%s", k.dir, err, out)
	}
	if out, err = exec.Command(k.binary, "-test.list", "^(Test|Fuzz|Example)").Output(); err != nil {
		return nil, fmt.Errorf("%s -test.list: %w", k.binary, err)
	}
	k.tests = strings.Fields(string(out))
	return k, nil
})

// TestKgo runs franz-go's suite against one node, with topics of one replica, and
// against three nodes, with topics of three.
func TestKgo(t *testing.T) {
	k, err := buildKgo()
	if err != nil {
		t.Fatal(err)
	}
	list := excluded(t, "kgo_excluded.txt", k.tests)
	records := os.Getenv("SUITES_KGO_RECORDS")
	if records == "" {
		records = kgoRecords
	}
	names := slices.DeleteFunc(slices.Clone(k.tests), func(name string) bool { return list[name] != "" })
	for _, nodes := range []int{1, 3} {
		t.Run(fmt.Sprintf("nodes=%d", nodes), func(t *testing.T) {
			t.Parallel()
			tests := k.run(t, nodes, names, "KGO_TEST_RECORDS="+records)
			checkKgo(t, tests, goTestProblems(tests, k.tests, list))
			ran, subRan := 0, 0
			for name := range tests {
				switch {
				case isSub(name):
					subRan++
				case name != "":
					ran++
				}
			}
			t.Logf("%d tests and %d sub-tests of kgo ran, with %s records", ran, subRan, records)
			if ran != kgoRan || subRan != kgoSubRan {
				t.Errorf("%d tests and %d sub-tests, want %d and %d", ran, subRan, kgoRan, kgoSubRan)
			}
		})
	}
}

// TestKgoChaos runs the suite's consumer groups with connections that the suite breaks
// when they are about a second old.
func TestKgoChaos(t *testing.T) {
	k, err := buildKgo()
	if err != nil {
		t.Fatal(err)
	}
	for _, nodes := range []int{1, 3} {
		t.Run(fmt.Sprintf("nodes=%d", nodes), func(t *testing.T) {
			t.Parallel()
			names := []string{"TestGroupETL"}
			tests := k.run(t, nodes, names, "KGO_TEST_CHAOS=1", "KGO_TEST_RECORDS="+kgoRecords)
			checkKgo(t, tests, goTestProblems(tests, names, nil))
		})
	}
}

// checkKgo reports problems, what the tests said that failed, and groups that were not
// checked.
func checkKgo(t *testing.T, tests map[string]*goTest, problems []string) {
	t.Helper()
	for _, p := range problems {
		t.Error(p)
	}
	for name, test := range tests {
		if test.outcome == "FAIL" {
			t.Logf("%s said:\n%s", name, strings.Join(test.output[max(0, len(test.output)-30):], "\n"))
		}
		if i := slices.IndexFunc(test.output, func(line string) bool { return strings.Contains(line, kgoUnchecked) }); i >= 0 {
			t.Errorf("%s passed without a check: %s", name, test.output[i])
		}
	}
	for _, group := range kgoGroups {
		if name := "TestGroupETL/" + group; tests[name] == nil || tests[name].outcome != "PASS" {
			t.Errorf("%s did not pass", name)
		}
	}
}

// run runs some tests. All that they print stays in a file beside the binary.
func (k *kgo) run(t *testing.T, nodes int, names []string, env ...string) map[string]*goTest {
	t.Helper()
	seeds := startFleet(t, nodes)
	args := []string{"-test.v=test2json", "-test.run", "^(" + strings.Join(names, "|") + ")$"}
	if deadline, ok := t.Deadline(); ok {
		args = append(args, "-test.timeout", (time.Until(deadline) - proctest.StopLimit).Round(time.Second).String())
	}
	c := exec.Command(k.binary, args...)
	c.Dir, c.SysProcAttr = k.dir, proctest.Tied()
	c.Env = append(os.Environ(), "KGO_SEEDS="+strings.Join(seeds, ","), fmt.Sprint("KGO_TEST_RF=", nodes), "KGO_LOG_LEVEL=none")
	c.Env = append(c.Env, env...)
	// The suite dies with this thread, so the thread stays.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	out, err := c.CombinedOutput()
	file := filepath.Join(filepath.Dir(k.binary), strings.ReplaceAll(t.Name(), "/", "-")+".log")
	if err := os.WriteFile(file, out, 0o644); err != nil {
		t.Error(err)
	}
	if err != nil {
		t.Errorf("the suite: %v; what it printed is in %s", err, file)
	}
	tests, err := readGoTests(bytes.NewReader(out))
	if err != nil {
		t.Fatal(err)
	}
	return tests
}
