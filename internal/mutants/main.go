// Command mutants takes each of the product's guards away, one at a time, and
// checks that the test that is there for it goes red. A guard that can be
// removed without a red test is not tested.
//
// For each mutant of its tables it checks that
//
//   - the text to replace stands exactly once in the file,
//   - the named test is green before, and ran,
//   - the mutant compiles,
//   - the named test then fails by its own assertion: go test reports that test
//     as failed, with the text expected of it; not a panic, a time-out or
//     another test; and not by luck: with -again, it does so each time.
//
// A mutant is built with go's -overlay, and so is what its test builds, as GOFLAGS says
// so: the tree is not changed, and must not change meanwhile. What is intact is built once for each package of tests, and
// each of its tests is run once. It exits with 1 if any of this does not hold.
// Run it from the module's root:
//
//	go run ./internal/mutants [-run REGEXP] [-shard I/N] [-parallel N] [-again DURATION]
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"
)

// Times after which a test, and a build, has failed.
const (
	testTimeout  = 3 * time.Minute
	buildTimeout = 5 * time.Minute
)

func main() {
	only := flag.String("run", "", "only the mutants whose name matches this regular `expression`")
	part := flag.String("shard", "1/1", "only the `I/N`th part of them, to share the work among N machines")
	parallel := flag.Int("parallel", 2, "how many mutants are built and tested at a time")
	again := flag.Duration("again", 0, "how long each mutant's test is run again and again")
	flag.Parse()
	if err := run(*only, *part, *parallel, *again); err != nil {
		fmt.Fprintln(os.Stderr, "mutants:", err)
		os.Exit(1)
	}
}

// mutants returns all that there are.
func mutants() []mutant {
	return slices.Concat(table, doctorTable, kafkaTable, featuresTable, meshTable, clusterTable, inspectTable, catchUpTable, failoverTable, stormTable, membershipTable, repairTable, dataPathTable, carryTable, appendTimeTable, roomTable, dataPathRestTable, threeNodesTable, reliefTable, trapsTable, joinTable, followerTable, asideTable, joinHurtTable, overdueTable, paceTable, vacancyTable, lastWordTable, inTurnTable, vigilTable, turnsTable, letGoTable, groupRecordsTable, groupsTable, assignTable, consumerTable, migrationTable, kafkaGroupsTable, decisionsTable, runnerTable, coordinatorsTable, wireGroupsTable, clientGroupsTable, electionsTable, lookupTable, passOnTable, producersTable, idleTable, healTable, gatheringTable, restsTable)
}

// run checks the mutants that are chosen, and reports each on standard output.
func run(only, part string, parallel int, again time.Duration) error {
	chosen, err := choose(mutants(), only, part)
	if err != nil {
		return err
	}
	if parallel < 1 {
		return fmt.Errorf("-parallel %d: want 1 or more", parallel)
	}
	root, err := os.Getwd()
	if err != nil {
		return err
	}
	if _, err := os.Stat("go.mod"); err != nil {
		return errors.New("run this from the module's root")
	}
	tmp, err := os.MkdirTemp("", "mutants-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)

	w := &works{root: root, tmp: tmp, again: again, intact: make(map[string]*intact)}
	var (
		group sync.WaitGroup
		mu    sync.Mutex // of what is printed, and bad
		bad   []string   // what was said of those that survived
		slots = make(chan struct{}, parallel)
	)
	for i, m := range chosen {
		slots <- struct{}{}
		group.Go(func() {
			defer func() { <-slots }()
			start := time.Now()
			err := w.check(i, m)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				said := fmt.Sprintf("SURVIVED %-28s %v", m.name, err)
				fmt.Println(said)
				bad = append(bad, said)
				return
			}
			fmt.Printf("killed   %-28s by %s %s (%.1f s)\n", m.name, m.pkg, m.test, time.Since(start).Seconds())
		})
	}
	group.Wait()
	fmt.Printf("mutants: %d passed, %d failed\n", len(chosen)-len(bad), len(bad))
	if len(bad) == 0 {
		return nil
	}
	// Again, as the end is what is read first, and at times all that is kept.
	fmt.Println(strings.Join(bad, "\n"))
	return fmt.Errorf("%d of %d guards can be removed unnoticed", len(bad), len(chosen))
}

// choose returns the mutants whose name matches the expression only, and that
// are in the given part, I/N with I from 1 to N. It is an error if there is none.
func choose(all []mutant, only, part string) (out []mutant, err error) {
	match, err := regexp.Compile(only)
	if err != nil {
		return nil, err
	}
	var i, n int
	if _, err := fmt.Sscanf(part, "%d/%d", &i, &n); err != nil || i < 1 || i > n || part != fmt.Sprintf("%d/%d", i, n) {
		return nil, fmt.Errorf("-shard %q: want I/N, with I from 1 to N", part)
	}
	for at, m := range all {
		if match.MatchString(m.name) && at%n == i-1 {
			out = append(out, m)
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("no mutant matches -run %q -shard %s", only, part)
	}
	return out, nil
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

// apply returns the mutant's file without the guard.
func (m mutant) apply(src []byte) (string, error) {
	if n := strings.Count(string(src), m.old); n != 1 {
		return "", fmt.Errorf("%q stands %d times in %s, want once", m.old, n, m.file)
	}
	return strings.Replace(string(src), m.old, m.new, 1), nil
}

// works builds and runs. Safe for concurrent use.
type works struct {
	root  string        // of the module
	tmp   string        // what is built
	again time.Duration // how long a mutant's test is run again

	mu     sync.Mutex
	intact map[string]*intact // by package
}

// intact is the test binary of a package without any mutation.
type intact struct {
	mu    sync.Mutex // held while it is built and run
	bin   string     // empty before it is built
	green map[string]error
}

// check returns nil if the mutant applies, compiles, and is killed by its test.
// i numbers it.
func (w *works) check(i int, m mutant) error {
	path := filepath.Join(w.root, m.file)
	src, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	hurt, err := m.apply(src)
	if err != nil {
		return err
	}
	if err := w.green(m); err != nil {
		return fmt.Errorf("%s is not green without the mutation: %w", m.test, err)
	}
	name := filepath.Join(w.tmp, fmt.Sprintf("mutant-%d", i))
	overlay, err := json.Marshal(map[string]map[string]string{"Replace": {path: name + ".go"}})
	if err != nil {
		return err
	}
	if err := os.WriteFile(name+".go", []byte(hurt), 0o644); err != nil {
		return err
	}
	if err := os.WriteFile(name+".json", overlay, 0o644); err != nil {
		return err
	}
	defer os.Remove(name + ".test") // some are large
	if err := w.build(name+".test", m.pkg, "-overlay", name+".json"); err != nil {
		return fmt.Errorf("does not compile: %w", err)
	}
	var took time.Duration // of the last run
	for left := w.again; ; left -= took {
		began := time.Now()
		out, err := w.test(name+".test", m, "GOFLAGS=-overlay="+name+".json")
		if err := m.killed(out, err); err != nil {
			return err
		}
		if took = time.Since(began); took > left {
			return nil
		}
	}
}

// killed returns nil if the mutant's test, which printed out and ended with err, failed
// as it must.
func (m mutant) killed(out string, err error) error {
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

// green returns nil if the mutant's test ran and passed without the mutation.
func (w *works) green(m mutant) error {
	w.mu.Lock()
	p := w.intact[m.pkg]
	if p == nil {
		p = &intact{green: make(map[string]error)}
		w.intact[m.pkg] = p
	}
	w.mu.Unlock()

	p.mu.Lock()
	defer p.mu.Unlock()
	if p.bin == "" {
		bin := filepath.Join(w.tmp, strings.ReplaceAll(m.pkg, "/", "-")+".test")
		if err := w.build(bin, m.pkg); err != nil {
			return err
		}
		p.bin = bin
	}
	err, ran := p.green[m.test]
	if !ran {
		var out string
		if out, err = w.test(p.bin, m); err != nil || !strings.Contains(out, "--- PASS: "+m.test) {
			err = fmt.Errorf("%w\n%s", errors.Join(err, errors.New("no pass")), tail(out))
		}
		p.green[m.test] = err
	}
	return err
}

// build compiles the test binary of pkg.
func (w *works) build(bin, pkg string, flags ...string) error {
	ctx, cancel := context.WithTimeout(context.Background(), buildTimeout)
	defer cancel()
	args := append([]string{"test", "-c", "-vet=off", "-o", bin}, flags...)
	cmd := exec.CommandContext(ctx, "go", append(args, pkg)...)
	cmd.Dir = w.root
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%w\n%s", err, tail(string(out)))
	}
	return nil
}

// test runs the mutant's test in a test binary, as go test would, with env beside the
// environment.
func (w *works) test(bin string, m mutant, env ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), testTimeout+10*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, bin, "-test.v", "-test.count=1", "-test.timeout="+testTimeout.String(), "-test.run=^"+m.test+"$")
	cmd.Dir = filepath.Join(w.root, m.pkg)
	cmd.Env = append(os.Environ(), env...)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// tail returns the last bytes of a test's output.
func tail(s string) string {
	const most = 2000
	if len(s) > most {
		s = "..." + s[len(s)-most:]
	}
	return s
}
