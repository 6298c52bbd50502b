package main

import (
	"encoding/xml"
	"io"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// TestQuantile: it is the smallest that so many do not exceed.
func TestQuantile(t *testing.T) {
	t.Parallel()
	var hundred []time.Duration
	for i := range 100 {
		hundred = append(hundred, time.Duration(i+1))
	}
	for q, want := range map[float64]time.Duration{0: 1, 0.5: 50, 0.99: 99, 0.999: 100, 1: 100} {
		if got := quantile(hundred, q); got != want {
			t.Errorf("quantile %v of 1 to 100 is %d, want %d", q, got, want)
		}
	}
	if got := quantile(nil, 0.5); got != 0 {
		t.Errorf("of nothing: %v", got)
	}
}

// TestParse: what cannot be measured is refused.
func TestParse(t *testing.T) {
	t.Parallel()
	for args, want := range map[string]string{
		"":                      "",
		"-groups 0 -commits 0":  "",
		"more":                  `unexpected ["more"]`,
		"-leaves -1":            "must not be negative",
		"-members 0":            "have to be positive",
		"-commit-for -1s":       "have to be positive",
		"-watch 0s -commits 10": "have to be positive",
	} {
		_, err := parse(strings.Fields(args), io.Discard)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%q: %v, want %q", args, err, want)
		}
	}
}

// TestWithout: a leave's wait ends when another one has consumed of the last of the
// partitions, not with what the one that leaves still consumes.
func TestWithout(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := &party{records: make(chan seen, 1000), running: t.Context()}
		consume := func(member int, partitions ...int32) {
			for _, i := range partitions {
				p.records <- seen{member: member, partition: i}
			}
		}
		go func() {
			consume(0, 0, 1, 2, 3, 4, 5)
			time.Sleep(time.Second)
			consume(1, 4, 5, 6, 7)
			consume(2, 8, 9, 10, 11)
			for range 10 { // it is even from here on
				consume(0, 0, 1, 2, 3)
				time.Sleep(time.Second)
			}
		}()
		began := time.Now()
		if err := p.settles(3 * time.Second); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took < 4*time.Second || took > 6*time.Second {
			t.Errorf("it was even after 1 s, and settled after %v, want 3 s more", took)
		}
		time.Sleep(10 * time.Second)
		for len(p.records) > 0 {
			<-p.records
		}

		cl, err := kgo.NewClient(kgo.SeedBrokers("127.0.0.1:1"))
		if err != nil {
			t.Fatal(err)
		}
		p.members[0], p.consuming[0] = cl, new(sync.WaitGroup)
		go func() {
			consume(0, 0, 1, 2, 3)
			time.Sleep(time.Second)
			consume(1, 0, 1)
			time.Sleep(time.Second)
			consume(2, 2, 2)
			time.Sleep(time.Second)
			consume(2, 3)
		}()
		if wait, err := p.without(0); err != nil || wait != 3*time.Second {
			t.Errorf("waited %v, %v, want 3 s", wait, err)
		}
		if p.members[0] != nil {
			t.Error("the member has not left")
		}
	})
}

// TestTimeline: a gap is of partitions that moved, or of such as did not.
func TestTimeline(t *testing.T) {
	t.Parallel()
	l := &timeline{protocol: classic}
	for at := time.Duration(0); at < time.Second; at += 10 * time.Millisecond {
		l.add(1, 0, at)
		if at < 300*time.Millisecond || at >= 500*time.Millisecond {
			l.add(2, 1, at) // it pauses
		}
		switch { // it moves
		case at < 200*time.Millisecond:
			l.add(0, 2, at)
		case at >= 600*time.Millisecond:
			l.add(1, 2, at)
		}
	}
	if n := len(l.partitions[0]); n != 1 {
		t.Errorf("%d stretches without a gap, want 1", n)
	}
	if stayed, moved := l.gaps(); stayed != 210*time.Millisecond || moved != 410*time.Millisecond {
		t.Errorf("gaps of %v and %v, want 210 and 410 ms", stayed, moved)
	}
	var x struct{}
	if err := xml.Unmarshal(draw([]*timeline{l}), &x); err != nil {
		t.Errorf("the picture: %v", err)
	}
}
