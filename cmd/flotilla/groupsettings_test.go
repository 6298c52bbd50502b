package main

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/flotilla-log/flotilla/internal/config"
)

// TestGroupSettingsReachTheNode: each setting of groups and their offsets, with another
// value than its default, makes other options of a node.
func TestGroupSettingsReachTheNode(t *testing.T) {
	options := func(flags map[string]string) string {
		v, err := config.Resolve(config.Sources{Flags: flags})
		if err != nil {
			t.Fatal(err)
		}
		o := nodeOptions(v, 1000)
		g := reflect.ValueOf(o.Groups)
		var all strings.Builder
		for i := range g.NumField() {
			if f := g.Field(i); f.Kind() != reflect.Func {
				fmt.Fprintln(&all, g.Type().Field(i).Name, f.Interface())
			}
		}
		fmt.Fprintln(&all, o.OffsetsPartitions, o.OffsetsReplication, o.LagInterval)
		return all.String()
	}
	usual, tried := options(nil), 0
	for _, key := range config.Keys() {
		if !strings.HasPrefix(key, "group.") && !strings.HasPrefix(key, "offset") {
			continue
		}
		s := config.Find(key)
		other := fmt.Sprint(s.Max)
		switch s.Kind {
		case config.Choice:
			other = s.Choices[0]
			if other == s.Default {
				other = s.Choices[1]
			}
		case config.Duration:
			other = "17s" // between a heartbeat and a session, whichever it is
			if s.Min > int64(17*time.Second) {
				other = "17m"
			}
		}
		tried++
		if options(map[string]string{key: other}) == usual {
			t.Errorf("%s=%s changes nothing", key, other)
		}
	}
	if tried < 15 {
		t.Errorf("%d settings", tried)
	}
}
