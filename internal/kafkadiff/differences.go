package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// difference is a way in which Flotilla answers otherwise than Kafka 4.3.1, on
// purpose. It names what differs exactly: every step that it matches has to
// differ in every field that it names, and in no field that is not named by
// exactly one difference; or else the comparison fails.
//
// In all of its texts but why, {a|b} stands for a and for b. In what, path, kafka
// and ours a * stands for any text; in path, for any that stays within its brackets.
type difference struct {
	scenario string // "fetch-limits"
	request  string // "Fetch"
	versions string // "7+": from 7 on; "7-9"; "7"; "": all
	what     string // "at most 100 bytes"
	path     string // "Topics[*].ErrorCode"
	kafka    string // what Kafka answers
	ours     string // what Flotilla answers
	why      string // one sentence, for docs/kafka.md
}

// Values that stand for others.
const (
	absent  = "(default)" // the field holds its default, or there is no such element
	someone = "(a text)"  // any text for people; only as a value of a difference
)

// played is a step that was asked, by its parts.
type played struct {
	scenario, step string
	request        string
	version        int
	what           string
}

// parts takes the name of a step apart. One that is no request's has none of them.
func parts(scenario, name string) played {
	p := played{scenario: scenario, step: name, what: name}
	request, rest, _ := strings.Cut(name, " v")
	version, what, ok := strings.Cut(rest, " ")
	if n, err := strconv.Atoi(version); ok && err == nil && !strings.Contains(request, " ") {
		p.request, p.version, p.what = request, n, what
	}
	return p
}

// matches reports whether d, which has no braces, is about the step.
func (d *difference) matches(p *played) bool {
	return d.scenario == p.scenario && d.request == p.request && within(d.versions, p.version) && matches(d.what, p.what, false)
}

// within reports whether v is one of the versions.
func within(versions string, v int) bool {
	if versions == "" {
		return true
	}
	low, high, isRange := strings.Cut(strings.TrimSuffix(versions, "+"), "-")
	from, err := strconv.Atoi(low)
	if err != nil {
		panic(fmt.Sprintf("kafkadiff: versions %q", versions))
	}
	switch {
	case strings.HasSuffix(versions, "+"):
		return v >= from
	case isRange:
		to, err := strconv.Atoi(high)
		if err != nil {
			panic(fmt.Sprintf("kafkadiff: versions %q", versions))
		}
		return from <= v && v <= to
	}
	return v == from
}

// explains reports whether f, of a step that d is about, is d's.
func (d *difference) explains(f *field) bool {
	return matches(d.path, f.path, true) && holds(d.kafka, f.kafka) && holds(d.ours, f.ours)
}

func holds(want, value string) bool {
	if want == someone {
		return value != absent && isText(value)
	}
	return slices.ContainsFunc(alternatives(want), func(w string) bool { return matches(w, value, false) })
}

// matches reports whether s is pattern, in which a * stands for any text, or for
// any without brackets.
func matches(pattern, s string, inBrackets bool) bool {
	before, after, star := strings.Cut(pattern, "*")
	if !star {
		return pattern == s
	}
	s, ok := strings.CutPrefix(s, before)
	if !ok {
		return false
	}
	for j := 0; j <= len(s); j++ {
		if matches(after, s[j:], inBrackets) {
			return true
		}
		if inBrackets && j < len(s) && (s[j] == '[' || s[j] == ']') {
			return false
		}
	}
	return false
}

// alternatives returns what the braces of s stand for, in their order.
func alternatives(s string) []string {
	before, rest, ok := strings.Cut(s, "{")
	choices, after, closed := strings.Cut(rest, "}")
	if !ok || !closed {
		return []string{s}
	}
	var out []string
	for choice := range strings.SplitSeq(choices, "|") {
		for _, end := range alternatives(after) {
			out = append(out, before+choice+end)
		}
	}
	return out
}

// expand returns d once for each combination of what its braces stand for, but
// for those of its values.
func (d *difference) expand() []difference {
	var out []difference
	for _, scenario := range alternatives(d.scenario) {
		for _, request := range alternatives(d.request) {
			for _, versions := range alternatives(d.versions) {
				for _, what := range alternatives(d.what) {
					for _, path := range alternatives(d.path) {
						out = append(out, difference{scenario, request, versions, what, path, d.kafka, d.ours, d.why})
					}
				}
			}
		}
	}
	return out
}

// judge returns what is wrong with a list of differences: fields that differ and
// that it does not name, or names twice, and what it names that is not so. steps
// are all that were asked, and fields what differs in them.
func judge(list []difference, steps []played, fields []field) []string {
	wrong, answered := explain(list, steps, fields)
	for i := range list {
		for _, side := range []struct{ name, values string }{{"Kafka", list[i].kafka}, {"Flotilla", list[i].ours}} {
			for _, v := range alternatives(side.values) {
				if !answered[i][side.name+v] {
					wrong = append(wrong, fmt.Sprintf("listed, but never answered by %s: %s: %s: %s", side.name, list[i].title(), list[i].path, v))
				}
			}
		}
	}
	return wrong
}

// explain is judge, but for values that are in braces and never answered: it
// returns for each difference which were.
func explain(list []difference, steps []played, fields []field) (wrong []string, answered []map[string]bool) {
	type key struct{ scenario, step string }
	differs := make(map[key][]*field)
	for i := range fields {
		k := key{fields[i].scenario, fields[i].step}
		differs[k] = append(differs[k], &fields[i])
	}
	named := make(map[*field]int)
	answered = make([]map[string]bool, len(list))
	for i := range list {
		answered[i] = make(map[string]bool)
		for _, d := range list[i].expand() {
			found := false
			for j := range steps {
				if !d.matches(&steps[j]) {
					continue
				}
				found = true
				here := 0
				for _, f := range differs[key{steps[j].scenario, steps[j].step}] {
					if d.explains(f) {
						here++
						named[f]++
						answered[i]["Kafka"+used(d.kafka, f.kafka)], answered[i]["Flotilla"+used(d.ours, f.ours)] = true, true
					}
				}
				if here == 0 {
					wrong = append(wrong, fmt.Sprintf("listed, but not so: %s: %s: %s: Kafka %s, Flotilla %s", steps[j].scenario, steps[j].step, d.path, d.kafka, d.ours))
				}
			}
			if !found {
				wrong = append(wrong, "listed, but there is no such step: "+d.title())
			}
		}
	}
	for i := range fields {
		switch named[&fields[i]] {
		case 0:
			wrong = append(wrong, "not listed: "+fields[i].String())
		case 1:
		default:
			wrong = append(wrong, "listed more than once: "+fields[i].String())
		}
	}
	return wrong, answered
}

// used returns the alternative of want that value is.
func used(want, value string) string {
	for _, w := range alternatives(want) {
		if holds(w, value) {
			return w
		}
	}
	return ""
}

// title is a difference's steps, as the scenarios name them.
func (d *difference) title() string {
	v := " v*"
	if d.versions != "" {
		v = " v" + d.versions
	}
	return d.scenario + ": " + d.request + v + " " + d.what
}

// table returns the differences as docs/kafka.md shows them.
func table(list []difference) string {
	var b strings.Builder
	b.WriteString("| scenario: request | field | Kafka " + kafkaVersion + " | Flotilla | why |\n|---|---|---|---|---|\n")
	for i := range list {
		d := &list[i]
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s |\n", cell(d.title()), cell(d.path), cell(d.kafka), cell(d.ours), d.why)
	}
	return b.String()
}

func cell(s string) string { return "`" + strings.ReplaceAll(s, "|", `\|`) + "`" }
