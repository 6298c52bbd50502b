package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// tally counts the answers that Kafka gave to a request in a version.
type tally struct {
	good, bad int // without an error; with one, or none at all
	codes     map[string]bool
}

// tallies returns what was recorded of each request, by its versions.
func tallies(recorded map[string][]step) map[kmsg.Key]map[int16]*tally {
	byName := make(map[string]kmsg.Key)
	out := make(map[kmsg.Key]map[int16]*tally)
	for key := range offered {
		byName[key.Name()], out[key] = key, make(map[int16]*tally)
		each(key, func(v int16) { out[key][v] = &tally{codes: make(map[string]bool)} })
	}
	for scenario, steps := range recorded {
		for _, s := range steps {
			p := parts(scenario, s.Step)
			key, ok := byName[p.request]
			if !ok || out[key][int16(p.version)] == nil {
				continue
			}
			t := out[key][int16(p.version)]
			codes := errorCodes(s.Answer)
			if len(codes) > 0 {
				t.bad++
			} else {
				t.good++
			}
			for _, c := range codes {
				t.codes[c] = true
			}
		}
	}
	return out
}

// errorCodes returns the codes in an answer, or what came in place of one.
func errorCodes(answer any) (codes []string) {
	if s, ok := answer.(string); ok && s != "no answer" { // as there should be none
		return []string{s}
	}
	for path, v := range leaves(answer) {
		if strings.HasSuffix(path, "ErrorCode") && v != element {
			codes = append(codes, v)
		}
	}
	return codes
}

// TestCoverage sees that every version of every request that is offered was
// recorded with arguments that Kafka takes, and with some that it refuses, and
// prints how many of each.
func TestCoverage(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	all := tallies(recordings(t))
	for _, key := range slices.Sorted(maps.Keys(all)) {
		fmt.Fprintf(&b, "%-24s", key.Name())
		each(key, func(v int16) {
			n := all[key][v]
			fmt.Fprintf(&b, " v%d:%d+%d", v, n.good, n.bad)
			bodiless := (key == kmsg.ApiVersions || key == kmsg.ListGroups) && v < 3 // nothing in it can be wrong
			if n.good == 0 || n.bad == 0 && !bodiless {
				t.Errorf("%s v%d: %d answers without an error, %d with one", key.Name(), v, n.good, n.bad)
			}
		})
		b.WriteByte('\n')
	}
	t.Logf("answers without an error + with one:\n%s", b.String())
}

// coverage returns the tallies as docs/kafka.md shows them.
func coverage(all map[kmsg.Key]map[int16]*tally) string {
	var b strings.Builder
	b.WriteString("| request | versions | without an error, in each | with one, or none | what Kafka answered |\n|---|---|---|---|---|\n")
	for _, key := range slices.Sorted(maps.Keys(all)) {
		codes := make(map[string]bool)
		var good, bad []int
		for _, n := range all[key] {
			good, bad = append(good, n.good), append(bad, n.bad)
			maps.Copy(codes, n.codes)
		}
		said := slices.Sorted(maps.Keys(codes))
		for i := range said {
			said[i] = "`" + said[i] + "`"
		}
		v := offered[key]
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s |\n", key.Name(), span(int(v.min), int(v.max)),
			span(slices.Min(good), slices.Max(good)), span(slices.Min(bad), slices.Max(bad)), strings.Join(said, ", "))
	}
	return b.String()
}

func span(from, to int) string {
	if from == to {
		return fmt.Sprint(from)
	}
	return fmt.Sprintf("%d to %d", from, to)
}
