package suites

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// rdTest is a test of librdkafka's that needs a broker.
type rdTest struct {
	name     string // begins with its number, of four digits
	scenario string // of the broker's settings: "default" or "noautocreate"
}

// number is what the suite selects tests by: those that share one run in one process.
func (t rdTest) number() string { return t.name[:4] }

var (
	rdEntry    = regexp.MustCompile(`^(\d{4}_\w+),\s*([\w |]+)`)
	rdScenario = regexp.MustCompile(`\.scenario = "([^",]+)`)
)

// brokerTests returns the tests that need a broker, from the table in the suite's
// test.c: those that are neither local nor to be run by hand.
func brokerTests(source string) ([]rdTest, error) {
	_, table, found := strings.Cut(source, "struct test tests[] = {")
	table, _, ends := strings.Cut(table, "{NULL}}")
	if !found || !ends {
		return nil, fmt.Errorf("no table of tests in the suite's test.c")
	}
	var tests []rdTest
	for _, entry := range strings.Split(table, "_TEST(")[1:] {
		m := rdEntry.FindStringSubmatch(entry)
		if m == nil {
			return nil, fmt.Errorf("the suite's test.c has an entry that is not understood: %.60q", entry)
		}
		if strings.Contains(m[2], "TEST_F_LOCAL") || strings.Contains(m[2], "TEST_F_MANUAL") {
			continue
		}
		t := rdTest{name: m[1], scenario: "default"}
		if s := rdScenario.FindStringSubmatch(entry); s != nil {
			t.scenario = s[1]
		}
		tests = append(tests, t)
	}
	return tests, nil
}

// rdJob is one process of the suite.
type rdJob struct {
	scenario, number string
	part             string            // if not empty, a text in the names of the only sub-tests to run
	want             map[string]string // each test's state in the report in the end: PASSED or SKIPPED
	mixed            bool              // tests run with them that are excluded
}

func (j rdJob) name() string {
	return strings.Join(slices.DeleteFunc([]string{j.number, j.scenario, j.part}, func(s string) bool { return s == "" || s == "default" }), "-")
}

// selfSkipped is how the reason of a test begins that is run and has to skip itself.
const selfSkipped = "skips itself"

// rdJobs returns what runs of the suite in a group protocol: all tests but the excluded
// ones, and parts of some of these. An exclusion's name is a test's, or one
// followed by @ and the protocol that it is meant for, and so are the names of parts,
// which are texts in the names of sub-tests.
func rdJobs(tests []rdTest, exclusions map[string]string, parts map[string][]string, protocol string) []rdJob {
	type process struct{ number, scenario string }
	jobs := make(map[process]*rdJob)
	for _, t := range tests {
		at := process{t.number(), t.scenario}
		if jobs[at] == nil {
			jobs[at] = &rdJob{scenario: t.scenario, number: t.number(), want: make(map[string]string)}
		}
		reason, out := exclusions[t.name]
		if !out {
			reason, out = exclusions[t.name+"@"+protocol]
		}
		switch {
		case !out:
			jobs[at].want[t.name] = "PASSED"
		case strings.HasPrefix(reason, selfSkipped):
			jobs[at].want[t.name] = "SKIPPED"
		default:
			jobs[at].mixed = true
		}
	}
	var all []rdJob
	for _, j := range jobs {
		if len(j.want) > 0 {
			all = append(all, *j)
		}
	}
	for key, some := range parts {
		name, only, _ := strings.Cut(key, "@")
		if only != "" && only != protocol {
			continue
		}
		for _, part := range some {
			all = append(all, rdJob{scenario: "default", number: name[:4], part: part, want: map[string]string{name: "PASSED"}})
		}
	}
	slices.SortFunc(all, func(a, b rdJob) int { return strings.Compare(a.name(), b.name()) })
	return all
}

func TestBrokerTests(t *testing.T) {
	source := `struct test tests[] = {
    {"<MAIN>", .flags = TEST_F_LOCAL},
    _TEST(0001_a, 0),
    _TEST(0002_local, TEST_F_LOCAL, TEST_BRKVER(1, 0, 0, 0)),
#if WITH_SOCKEM
    _TEST(0003_c,
          TEST_F_SOCKEM | TEST_F_KNOWN_ISSUE,
          TEST_BRKVER(0, 9, 0, 0),
          .scenario = "noautocreate"),
#endif
    _TEST(0003_d, 0, .scenario = "default,ak23"),
    _TEST(0004_e, 0),
    _TEST(8000_idle, TEST_F_MANUAL),

    {NULL}};`
	tests, err := brokerTests(source)
	want := []rdTest{{"0001_a", "default"}, {"0003_c", "noautocreate"}, {"0003_d", "default"}, {"0004_e", "default"}}
	if err != nil || !slices.Equal(tests, want) {
		t.Fatalf("brokerTests = %v, %v, want %v", tests, err, want)
	}
	for _, bad := range []string{"", "struct test tests[] = {\n_TEST(first, 0),\n{NULL}};"} {
		if _, err := brokerTests(bad); err == nil {
			t.Errorf("brokerTests(%q) succeeds", bad)
		}
	}
	exclusions := map[string]string{"0001_a": "no", "0003_d@consumer": "skips itself: old", "0004_e@consumer": "never"}
	for protocol, want := range map[string]map[string]map[string]string{
		"classic":  {"0001-one": {"0001_a": "PASSED"}, "0003": {"0003_d": "PASSED"}, "0003-noautocreate": {"0003_c": "PASSED"}, "0004": {"0004_e": "PASSED"}},
		"consumer": {"0001-one": {"0001_a": "PASSED"}, "0001-two": {"0001_a": "PASSED"}, "0003": {"0003_d": "SKIPPED"}, "0003-noautocreate": {"0003_c": "PASSED"}},
	} {
		got := make(map[string]map[string]string)
		for _, j := range rdJobs(tests, exclusions, map[string][]string{"0001_a": {"one"}, "0001_a@consumer": {"two"}}, protocol) {
			got[j.name()] = j.want
		}
		if !maps.EqualFunc(got, want, maps.Equal) {
			t.Errorf("rdJobs of %s = %v, want %v", protocol, got, want)
		}
	}
}
