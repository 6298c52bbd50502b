package main

import (
	"testing"
	"time"
)

func TestFromTime(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)
	for in, want := range map[string]time.Time{
		"2026-01-31T10:00:00Z":      now.Add(-2 * time.Hour),
		"2026-01-31T12:00:00+02:00": now.Add(-2 * time.Hour),
		"-15m":                      now.Add(-15 * time.Minute),
		"-1h30m":                    now.Add(-90 * time.Minute),
		"-15":                       {}, // the last 15 records
		"7":                         {},
		"end":                       {},
	} {
		f, err := parseFrom(in)
		if err != nil {
			t.Errorf("--from %s: %v", in, err)
			continue
		}
		got, ok := f.timed(now)
		if !got.Equal(want) || ok == want.IsZero() {
			t.Errorf("--from %s: %v %t, want %v", in, got, ok, want)
		}
	}
	for _, in := range []string{"15m", "2026-01-31", "yesterday", "-x"} {
		if f, err := parseFrom(in); err == nil {
			t.Errorf("--from %s is %+v, want an error", in, f)
		}
	}
}
