package consumergroup

import (
	"regexp"
	"strings"
	"testing"

	"github.com/flotilla-log/flotilla/internal/errcode"
)

func TestRegex(t *testing.T) {
	t.Parallel()
	tests := []struct {
		pattern string
		yes, no []string
	}{
		{"orders", []string{"orders"}, []string{"orders2", "my.orders", "order", ""}},
		{"orders|bills", []string{"orders", "bills"}, []string{"orders-bills", "bill"}},
		{"a|ab", []string{"a", "ab"}, []string{"abc"}},                   // the longer one, though it comes later
		{"a*?", []string{"", "a", "aaa"}, []string{"b", "ab"}},           // however lazy
		{"^orders$", []string{"orders"}, []string{"orders1"}},            // what says so itself
		{".*orders.*", []string{"orders", "my.orders.2"}, nil},           // anywhere
		{"(?i)ORDERS", []string{"orders", "Orders"}, nil},                // flags
		{"(a+)+b", []string{"aaab"}, []string{strings.Repeat("a", 249)}}, // no backtracking
		{`team\.[a-z]+-\d{2,3}`, []string{"team.x-12", "team.yy-123"}, []string{"team.x-1", "teamxx-12", "team.x-1234"}},
		{"", []string{""}, []string{"a"}},
		{`\Qa.b\E`, []string{"a.b"}, []string{"aab"}},
		{`\Qa.b`, []string{"a.b"}, []string{"aab"}}, // what does not end is not to swallow what is put after it
	}
	for _, tt := range tests {
		r, err := CompileRegex(tt.pattern)
		if err != nil {
			t.Errorf("%q: %v", tt.pattern, err)
			continue
		}
		for _, s := range tt.yes {
			if !r.Match(s) {
				t.Errorf("%q does not match %q", tt.pattern, s)
			}
		}
		for _, s := range tt.no {
			if r.Match(s) {
				t.Errorf("%q matches %q", tt.pattern, s)
			}
		}
	}
}

func TestRegexRefused(t *testing.T) {
	t.Parallel()
	for pattern, says := range map[string]string{
		"(":                                   "missing closing )",
		"a)(b":                                "unexpected )", // though (a)(b) would be none
		"*":                                   "missing argument to repetition",
		"(?=a)":                               "RE2's syntax", // what backtracks is not there
		`(a)\1`:                               "RE2's syntax",
		"a{1001}":                             "invalid repeat count",
		strings.Repeat("a", MaxRegexBytes+1):  "has 1025 bytes, the limit is 1024",
		strings.Repeat("[a-z]{900}", 10):      "more than 1000 instructions",
		strings.Repeat(`(\pL\pN\pS){30}`, 10): "more than 1000 instructions",
		"((((a{10}){10}){10}b){1}){1}[a-z]{1000}": "more than 1000 instructions",
	} {
		_, err := CompileRegex(pattern)
		if err == nil || err.Code != errcode.InvalidRegularExpression || !strings.Contains(err.Detail, says) {
			t.Errorf("%q: %v, want %q", errcode.Short(pattern), err, says)
		}
	}
	if _, err := CompileRegex(strings.Repeat("orders-[a-z0-9]{1,20}|", 20) + "x"); err != nil {
		t.Errorf("one that people write: %v", err)
	}
}

// FuzzRegex holds what matches against the longest of the matches that begin first
// of the pattern itself, which is the whole name if any is.
func FuzzRegex(f *testing.F) {
	f.Add("orders|bills", "orders")
	f.Add("a*?b+", "aab")
	f.Add(`\Qa`, "a")
	f.Add("(?m)^a$", "a\nb")
	f.Add("a{2,", "a{2,")
	f.Fuzz(func(t *testing.T, pattern, name string) {
		r, err := CompileRegex(pattern)
		if err != nil {
			if err.Code != errcode.InvalidRegularExpression {
				t.Fatalf("%q: %v", pattern, err)
			}
			return
		}
		plain := regexp.MustCompile(pattern)
		plain.Longest()
		at := plain.FindStringIndex(name)
		if got, want := r.Match(name), at != nil && at[0] == 0 && at[1] == len(name); got != want {
			t.Errorf("%q matches %q: %t, want %t", pattern, name, got, want)
		}
	})
}

// BenchmarkRegex gives the time to look at 10,000 topics: with an expression that
// people write, and with the worst that the bounds let through.
func BenchmarkRegex(b *testing.B) {
	for name, pattern := range map[string]string{
		"usual": "orders-.*", "worst": strings.Repeat("a?.?", 240) + "b",
	} {
		b.Run(name, func(b *testing.B) {
			r, err := CompileRegex(pattern)
			if err != nil {
				b.Fatal(err)
			}
			topic := strings.Repeat("a", 40)
			for b.Loop() {
				for range 10_000 {
					r.Match(topic)
				}
			}
		})
	}
}
