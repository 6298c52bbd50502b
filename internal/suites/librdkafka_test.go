//go:build clients

package suites

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Of the suite's tests that need a broker, and of the exclusions.
const (
	rdBrokerTests = 120
	rdFeatures    = 23 // of whole features, listed before the first run
	rdSingleMost  = 15 // single tests that may be excluded, or run in parts
)

// rdCount is what has run in one group protocol.
type rdCount struct{ passed, parts, skipped int }

// rdWant has what is to run, by whether all do and by group protocol.
var rdWant = map[bool]map[string]rdCount{
	true:  {"classic": {passed: 86, parts: 25, skipped: 3}, "consumer": {passed: 79, parts: 40, skipped: 5}},
	false: {"classic": {passed: 26, parts: 1, skipped: 1}, "consumer": {passed: 26, parts: 1, skipped: 1}},
}

// rdParts has the sub-tests that run of tests that do not run whole: texts that stand
// in the names of these, and of no others.
var rdParts = map[string][]string{
	"0011_produce_batch": {"test_single_partition:", "test_partitioner:", "test_per_message_partition_flag:", "test_message_partitioner_wo_per_message_flag:"},
	"0061_consumer_lag":  {"without transactions"},
	"0081_admin": {
		"do_test_CreateTopics:", "do_test_DeleteTopics:", "do_test_CreatePartitions:", "do_test_DescribeConfigs:", "do_test_unclean_destroy:", "do_test_DeleteRecords:",
		"do_test_ListConsumerGroups:", "do_test_DescribeTopics:", "do_test_DescribeCluster:", "do_test_DeleteGroups:",
		"do_test_DeleteConsumerGroupOffsets:", "do_test_AlterConsumerGroupOffsets:", "do_test_ListConsumerGroupOffsets:", "do_test_ListOffsets:",
	},
	"0081_admin@classic": {"do_test_DescribeConsumerGroups:"},
	"0113_cooperative_rebalance@consumer": {
		"a_assign_tests:", "b_subscribe_with_cb_test:", "c_subscribe_no_cb_test:", "d_change_subscription_add_topic:", "e_change_subscription_remove_topic:",
		"f_assign_call_cooperative:", "h_delete_topic:", "i_delete_topic_2:", "j_delete_topic_no_rb_callback:", "k_add_partition:", "l_unsubscribe:", "m_unsubscribe_2:",
		"n_wildcard:", "s_subscribe_when_rebalancing:", "t_max_poll_interval_exceeded:", "use_rebalance_cb: 0,",
	},
	"0137_barrier_batch_consume": {
		"batch_with_seek:", "pause_and_resume_different_batch:", "pause_and_resume_same_batch:", "batch_store_offset:", "batch_eof_position:",
	},
}

const (
	rdLimit   = 30 * time.Minute // for one process
	rdCrashes = 3                // of the client that its tests may have, in each protocol
)

// errCrash is a process that ended by a fault of its own memory: the client's, whatever
// the server says. What such a process tests is run again.
var errCrash = errors.New("the client has crashed")

// errEnded says of a process that it has ended as it should.
var errEnded = errors.New("ended")

// rdSuite is the suite as it was built, and the nodes that it runs against.
type rdSuite struct {
	folder   string // with test-runner
	jars     string // Kafka's, for its topic tool
	protocol string
	brokers  map[int]string // by the number of nodes
}

// TestLibrdkafka runs librdkafka's own tests of brokers, each in a process of its own,
// in both group protocols: with SUITES_LIBRDKAFKA=all all of them, and else a third.
//
// make test-librdkafka builds them: SUITES_RUNNER is the program, if it is elsewhere, and
// SUITES_KAFKA the folder of Kafka's jars, whose topic tool some of the tests use.
func TestLibrdkafka(t *testing.T) {
	built := filepath.Join("..", "..", "bin")
	runner, err := filepath.Abs(cmp.Or(os.Getenv("SUITES_RUNNER"),
		filepath.Join(built, "librdkafka", "node_modules", "@confluentinc", "kafka-javascript", "deps", "librdkafka", "tests", "test-runner")))
	if err != nil {
		t.Fatal(err)
	}
	s := rdSuite{folder: filepath.Dir(runner)}
	if s.jars, err = filepath.Abs(cmp.Or(os.Getenv("SUITES_KAFKA"), filepath.Join(built, "kafka"))); err != nil {
		t.Fatal(err)
	}
	source, err := os.ReadFile(filepath.Join(s.folder, "test.c"))
	if err != nil {
		t.Fatalf("%v; make test-librdkafka builds the suite", err)
	}
	tests, err := brokerTests(string(source))
	if err != nil {
		t.Fatal(err)
	}
	exclusions := rdExclusions(t, tests)
	all := os.Getenv("SUITES_LIBRDKAFKA") == "all"
	for _, protocol := range []string{"classic", "consumer"} {
		t.Run(protocol, func(t *testing.T) {
			t.Parallel()
			one := s
			one.protocol = protocol
			one.run(t, rdJobs(tests, exclusions, rdParts, protocol), all)
		})
	}
}

// rdExclusions returns the list of exclusions, which has to be of these tests and no
// longer than it may.
func rdExclusions(t *testing.T, tests []rdTest) map[string]string {
	t.Helper()
	if len(tests) != rdBrokerTests {
		t.Errorf("the suite has %d tests that need a broker, and had %d", len(tests), rdBrokerTests)
	}
	var names []string
	for _, test := range tests {
		names = append(names, test.name, test.name+"@classic", test.name+"@consumer")
	}
	list := excluded(t, "librdkafka_excluded.txt", names)
	single := -rdFeatures
	for _, reason := range list {
		if !strings.HasPrefix(reason, selfSkipped) {
			single++
		}
	}
	if single > rdSingleMost {
		t.Errorf("%d single tests are excluded, at most %d may be", single, rdSingleMost)
	}
	for key := range rdParts {
		if name, _, _ := strings.Cut(key, "@"); list[name] == "" && list[key] == "" {
			t.Errorf("parts of %s run, which runs whole", name)
		}
	}
	return list
}

// run runs the jobs of one group protocol, and counts what has passed.
func (s *rdSuite) run(t *testing.T, jobs []rdJob, all bool) {
	if !all {
		jobs = third(t, jobs)
	}
	s.brokers = make(map[int]string)
	for _, j := range jobs {
		if n := j.nodes(); s.brokers[n] == "" {
			s.brokers[n] = strings.Join(startRdNodes(t, n), ",")
		}
	}
	var mu sync.Mutex
	var got rdCount
	var crashed []string
	t.Run("tests", func(t *testing.T) {
		for _, j := range jobs {
			t.Run(j.name(), func(t *testing.T) {
				t.Parallel()
				err := s.try(t, j)
				if errors.Is(err, errCrash) {
					mu.Lock()
					crashed = append(crashed, j.name())
					most := len(crashed) > rdCrashes
					mu.Unlock()
					if t.Logf("%v", err); !most {
						err = s.try(t, j)
					}
				}
				if err != nil {
					t.Fatal(err)
				}
				mu.Lock()
				defer mu.Unlock()
				got.add(j)
			})
		}
	})
	if len(crashed) > 0 {
		t.Logf("the client has crashed in %s", strings.Join(crashed, ", "))
	}
	if want := rdWant[all][s.protocol]; got != want {
		t.Errorf("%d tests, %d parts of others have passed, and %d skipped themselves; want %d, %d and %d",
			got.passed, got.parts, got.skipped, want.passed, want.parts, want.skipped)
	}
}

// third returns the jobs of a third of the tests, by their numbers: the third that takes
// the least time, and has groups that rebalance in it all the same.
func third(t *testing.T, jobs []rdJob) (some []rdJob) {
	t.Helper()
	for _, j := range jobs {
		n, err := strconv.Atoi(j.number)
		if err != nil {
			t.Fatal(err)
		}
		if n%3 == 1 {
			some = append(some, j)
		}
	}
	return some
}

func (c *rdCount) add(j rdJob) {
	if j.part != "" {
		c.parts++
		return
	}
	for _, state := range j.want {
		if state == "SKIPPED" {
			c.skipped++
		} else {
			c.passed++
		}
	}
}

// nodes is how many a job's tests want: three where they make topics of three
// replicas. The suite's authors give all of them three.
func (j rdJob) nodes() int {
	if j.scenario == "noautocreate" || j.number == "0101" {
		return 3
	}
	return 1
}

// patience is what the suite multiplies its time-outs by, as other tests run beside. One
// has time-outs of 30 ms.
func (j rdJob) patience() int {
	if j.number == "0127" {
		return 8
	}
	return 2
}

// startRdNodes starts nodes with the settings that the suite's authors have. Those of the
// three are of the scenario without automatic topics, which the one other test on them
// does not need; their leaders stay, as many of the tests lose a session otherwise.
// Members of a few are told to send heartbeats as seldom as Kafka tells them: with one a
// second n_wildcard of 0113, which makes two topics after two seconds, has one member hear
// of them one by one and the other of both, which its authors did not think of.
func startRdNodes(t *testing.T, nodes int) []string {
	t.Helper()
	settings := []string{"--num.partitions", "4", "--group.consumer.heartbeat.interval.min", "5s"}
	if nodes > 1 {
		settings = append(settings, "--auto.create.topics.enable=false", "--leader.balance.interval", "0s",
			"--racks", "RACK1,RACK2,RACK3", "--replica.selector.class", "org.apache.kafka.common.replica.RackAwareReplicaSelector")
	}
	return startFleet(t, nodes, settings...)
}

// try runs a job's process, and holds what became of its tests against what is wanted.
func (s *rdSuite) try(t *testing.T, j rdJob) error {
	// It finds a file by ../src.
	root, err := os.MkdirTemp(t.TempDir(), "")
	dir := filepath.Join(root, "tests")
	err = cmp.Or(err, os.Symlink(filepath.Join(s.folder, "..", "src"), filepath.Join(root, "src")), os.Mkdir(dir, 0o755))
	if err != nil {
		return err
	}
	conf := fmt.Sprintf("metadata.broker.list=%s\ntest.topic.prefix=%s%s%d\ntest.timeout.multiplier=%d\n",
		s.brokers[j.nodes()], s.protocol, j.number, time.Now().UnixMilli(), j.patience())
	if err := os.WriteFile(filepath.Join(dir, "test.conf"), []byte(conf), 0o644); err != nil {
		return err
	}
	out, failed, err := s.execute(t.Context(), dir, j)
	if err != nil {
		return err
	}
	report, err := readReport(filepath.Join(dir, "report.json"))
	if err == nil {
		err = j.check(report, out)
	}
	if err == nil && !j.mixed {
		err = failed
	}
	if err != nil {
		return fmt.Errorf("%s: %w (the process: %w)\n%s", j.name(), err, cmp.Or(failed, errEnded), theEnd(out))
	}
	return nil
}

// execute runs a job's process until its end, in a folder of its own. failed is how it
// ended.
func (s *rdSuite) execute(ctx context.Context, dir string, j rdJob) (out string, failed, err error) {
	ctx, cancel := context.WithTimeout(ctx, rdLimit)
	defer cancel()
	scripts, err := filepath.Abs(filepath.Join("testdata", "kafka"))
	if err != nil {
		return "", nil, err
	}
	c := exec.CommandContext(ctx, filepath.Join(s.folder, "test-runner"), "-p1", "-L", "-s", j.scenario)
	c.Dir = dir
	c.Env = slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "CI=") })
	for name, value := range map[string]string{
		"TESTS": j.number, "TEST_REPORT": "report.json", "RDKAFKA_TEST_CONF": "test.conf",
		"TEST_KAFKA_VERSION": "4.2.0", "TEST_CONSUMER_GROUP_PROTOCOL": s.protocol,
		"LD_LIBRARY_PATH": filepath.Join(s.folder, "..", "src") + ":" + filepath.Join(s.folder, "..", "src-cpp"),
		"BROKERS":         s.brokers[j.nodes()], "KAFKA_PATH": scripts, "KAFKA_JARS": s.jars,
	} {
		c.Env = append(c.Env, name+"="+value)
	}
	if j.part != "" {
		c.Env = append(c.Env, "SUBTESTS="+j.part)
	}
	// Its tools are in its process group, and end with it.
	c.SysProcAttr, c.WaitDelay = &syscall.SysProcAttr{Setpgid: true}, time.Second
	c.Cancel = func() error { return syscall.Kill(-c.Process.Pid, syscall.SIGKILL) }
	b, failed := c.CombinedOutput()
	var status syscall.WaitStatus
	if exit := (*exec.ExitError)(nil); errors.As(failed, &exit) {
		status, _ = exit.Sys().(syscall.WaitStatus)
	}
	switch {
	case ctx.Err() != nil:
		failed = fmt.Errorf("it was ended after %v: %w", rdLimit, ctx.Err())
	case status.Signaled() && (status.Signal() == syscall.SIGSEGV || status.Signal() == syscall.SIGABRT || status.Signal() == syscall.SIGBUS):
		failed = fmt.Errorf("%w: %w", errCrash, failed)
	}
	return colour.ReplaceAllString(string(b), ""), failed, nil
}

// readReport returns the state of each test in a report of the suite.
func readReport(file string) (map[string]string, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("the process has written no report: %w", err)
	}
	var r struct {
		Tests map[string]struct {
			State string `json:"state"`
		} `json:"tests"`
	}
	if err := json.Unmarshal(b, &r); err != nil {
		return nil, fmt.Errorf("the process's report: %w", err)
	}
	states := make(map[string]string)
	for name, test := range r.Tests {
		states[name] = test.State
	}
	return states, nil
}

var (
	colour  = regexp.MustCompile(`\x1b\[[0-9;]*m`)
	running = regexp.MustCompile(`(?m)^.*\d+ test\(s\) running:.*\n`)
	subPass = regexp.MustCompile(`\[ .*: PASS \(`)
)

// check compares a report with what is wanted.
func (j rdJob) check(states map[string]string, out string) error {
	for _, name := range slices.Sorted(maps.Keys(j.want)) {
		if states[name] != j.want[name] {
			return fmt.Errorf("%s is %s, want %s", name, cmp.Or(states[name], "not there"), j.want[name])
		}
	}
	if j.part != "" && !subPass.MatchString(out) {
		return fmt.Errorf("no sub-test is called %q", j.part)
	}
	return nil
}

// theEnd returns the last lines of what a process has printed.
func theEnd(out string) string {
	lines := strings.Split(running.ReplaceAllString(out, ""), "\n")
	return strings.Join(lines[max(0, len(lines)-80):], "\n")
}
