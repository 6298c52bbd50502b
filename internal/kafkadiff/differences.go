package main

import (
	"fmt"
	"strings"
)

// difference is a way in which Flotilla answers otherwise than Kafka 4.3.1, on
// purpose. Every field that differs must match one, and every one must match a
// field, or the comparison fails. In step, path, kafka and ours a * stands for
// any text, and {a,b} for a and for b.
type difference struct {
	step  string // "Metadata v* by id": as the scenarios name it
	path  string // "Topics[*].ErrorCode"
	kafka string // what Kafka answers; "": anything
	ours  string // what Flotilla answers; "": anything
	texts bool   // only if both sides have a text: that there is one is not excused
	why   string // one sentence, for docs/kafka.md
}

// explains reports whether f is the difference d.
func (d difference) explains(f field) bool {
	if d.texts && (!text(f.kafka) || !text(f.ours)) {
		return false
	}
	return matches(d.step, f.step) && matches(d.path, f.path) &&
		(d.kafka == "" || matches(d.kafka, f.kafka)) && (d.ours == "" || matches(d.ours, f.ours))
}

func text(v string) bool { return v != absent && v != "null" && v != `""` }

// matches reports whether s is pattern, in which a * stands for any text, and
// {a,b} for a and for b.
func matches(pattern, s string) bool {
	i := strings.IndexAny(pattern, "*{")
	if i < 0 {
		return pattern == s
	}
	s, ok := strings.CutPrefix(s, pattern[:i])
	if !ok {
		return false
	}
	if pattern[i] == '{' {
		choices, rest, _ := strings.Cut(pattern[i+1:], "}")
		for choice := range strings.SplitSeq(choices, ",") {
			if matches(choice+rest, s) {
				return true
			}
		}
		return false
	}
	for j := 0; j <= len(s); j++ {
		if matches(pattern[i+1:], s[j:]) {
			return true
		}
	}
	return false
}

// judge returns the fields that no difference explains, and the differences
// that explain no field.
func judge(list []difference, fields []field) (unlisted []field, gone []difference) {
	used := make([]bool, len(list))
	for _, f := range fields {
		explained := false
		for i, d := range list {
			if d.explains(f) {
				used[i], explained = true, true
			}
		}
		if !explained {
			unlisted = append(unlisted, f)
		}
	}
	for i, d := range list {
		if !used[i] {
			gone = append(gone, d)
		}
	}
	return unlisted, gone
}

// table returns the differences as docs/kafka.md shows them.
func table(list []difference) string {
	var b strings.Builder
	b.WriteString("| request | field | Kafka " + kafkaVersion + " | Flotilla | why |\n|---|---|---|---|---|\n")
	for _, d := range list {
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s |\n", cell(d.step), cell(d.path), value(d.kafka), value(d.ours), d.why)
	}
	return b.String()
}

func cell(s string) string { return "`" + strings.ReplaceAll(s, "|", `\|`) + "`" }

func value(s string) string {
	if s == "" {
		return "differs"
	}
	return cell(s)
}
