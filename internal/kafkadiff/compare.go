package main

import (
	"fmt"
	"slices"
	"strings"
)

// field is one field of one answer in which two servers differ.
type field struct {
	scenario string
	step     string
	path     string // Topics[name].Partitions[0].ErrorCode
	kafka    string // absent: the field holds its default, or its element is missing
	ours     string
}

// notBoth is the path of a step that only one side came to.
const notBoth = "(step)"

func (f field) String() string {
	return fmt.Sprintf("%s: %s: %s: Kafka %s, Flotilla %s", f.scenario, f.step, f.path, f.kafka, f.ours)
}

// compare returns every field in which the answers to a scenario differ. A step
// that one side did not come to counts as one field.
func compare(scenario string, kafka, ours []step) []field {
	var out []field
	theirs := make(map[string]any)
	for _, s := range ours {
		theirs[s.Step] = s.Answer
	}
	for _, s := range kafka {
		answer, ok := theirs[s.Step]
		delete(theirs, s.Step)
		if !ok {
			out = append(out, field{scenario, s.Step, notBoth, "answered", "not asked"})
			continue
		}
		for _, f := range compareAnswers(s.Answer, answer) {
			f.scenario, f.step = scenario, s.Step
			out = append(out, f)
		}
	}
	for _, s := range ours {
		if _, left := theirs[s.Step]; left {
			out = append(out, field{scenario, s.Step, notBoth, "not asked", "answered"})
		}
	}
	return out
}

// compareAnswers returns the fields in which two answers differ, by path. Of an
// element that only Kafka's has its own path is returned, and none below it: that
// it is not there is all that there is to say. Of one that only ours has, each of
// its fields is returned, too. Two texts that are meant for people count as equal, whatever
// they say.
func compareAnswers(kafka, ours any) []field { return compareLeaves(leaves(kafka), leaves(ours)) }

func compareLeaves(a, b map[string]string) []field {
	var paths []string
	for p, v := range a {
		if b[p] != v {
			paths = append(paths, p)
		}
	}
	for p := range b {
		if _, both := a[p]; !both {
			paths = append(paths, p)
		}
	}
	slices.Sort(paths)
	var out []field
	missing := ""
	for _, p := range paths {
		va, oka := a[p]
		vb, okb := b[p]
		switch {
		case missing != "" && strings.HasPrefix(p, missing), forPeople(p) && isText(va) && isText(vb):
			continue
		case strings.HasSuffix(p, order) && !sameElements(va, vb):
			continue // they are not the same elements, which shows elsewhere
		case va == element && !okb:
			missing = p + "."
		}
		out = append(out, field{path: p, kafka: or(va, oka), ours: or(vb, okb)})
	}
	return out
}

// forPeople reports whether the field at path is a text that says something to
// people.
func forPeople(path string) bool {
	return strings.HasSuffix(path, "ErrorMessage") || strings.HasSuffix(path, ".Documentation")
}

func isText(v string) bool { return v != "" && v != "null" && v != `""` }

func or(v string, ok bool) string {
	if !ok {
		return absent
	}
	return v
}

// element is the value of the path of a structure.
const element = "(there)"

// leaves returns the leaves of an answer by path.
func leaves(answer any) map[string]string {
	out := make(map[string]string)
	if m, ok := answer.(map[string]any); ok {
		flatten(out, "", m)
	} else {
		flatten(out, noFields, answer)
	}
	return out
}

// noFields is the path of what came instead of an answer with fields.
const noFields = "(answer)"

// order ends the path of the order of an array's structures, which are told apart
// by their labels.
const (
	order    = " (order)"
	orderSep = ", then "
)

// sameElements reports whether two orders are of the same elements.
func sameElements(a, b string) bool {
	x, y := strings.Split(a, orderSep), strings.Split(b, orderSep)
	slices.Sort(x)
	slices.Sort(y)
	return slices.Equal(x, y)
}

// flatten writes the leaves of an answer into out, by path. The elements of an
// array of structures are told apart by what identifies them, or else counted.
func flatten(out map[string]string, path string, v any) {
	switch v := v.(type) {
	case map[string]any:
		if path != "" {
			out[path] = element
		}
		for k, e := range v {
			flatten(out, join(path, k), e)
		}
	case []any:
		if len(v) == 0 {
			out[path] = "[]"
			return
		}
		seen := make(map[string]int)
		var labels []string
		for i, e := range v {
			id := fmt.Sprint(i)
			if _, structure := e.(map[string]any); structure {
				id = label(e)
				if seen[id]++; seen[id] > 1 {
					id = fmt.Sprintf("%s#%d", id, seen[id])
				}
				labels = append(labels, id)
			}
			flatten(out, path+"["+id+"]", e)
		}
		if len(labels) > 1 {
			out[path+order] = strings.Join(labels, orderSep)
		}
	case nil:
		out[path] = "null"
	case string:
		out[path] = v
		if v == "" {
			out[path] = `""`
		}
	default:
		out[path] = fmt.Sprint(v)
	}
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

// label is the short form of identity: the values alone. An element whose
// identifying fields all hold their defaults is partition 0, or the like.
func label(v any) string {
	var parts []string
	m := v.(map[string]any)
	for _, k := range identifiers {
		if k == "TopicID" && m["Topic"] != nil || k == "NodeID" && m["Key"] != nil {
			continue // a field like any other of a topic that has a name, or a coordinator's group
		}
		if x, ok := m[k]; ok && x != nil {
			parts = append(parts, fmt.Sprint(x))
		}
	}
	if len(parts) == 0 {
		return "0"
	}
	return strings.Join(parts, " ")
}
