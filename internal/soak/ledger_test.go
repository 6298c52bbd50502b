//go:build linux

package main

import (
	"strings"
	"testing"
)

// rec is the record of a producer's n-th value at an offset.
func rec(offset int64, producer uint32, n uint64) record {
	return record{offset: offset, value: value{producer, n}, sum: producer<<16 ^ uint32(n)}
}

// series is count records of producer 1 from an offset on, which count as the n-th
// and following.
func series(from int64, n uint64, count int) (rs []record) {
	for i := range count {
		rs = append(rs, rec(from+int64(i), 1, n+uint64(i)))
	}
	return rs
}

func TestLedger(t *testing.T) {
	tests := []struct {
		name  string
		steps func(l *ledger) error
		want  string // in the error; "": none
	}{
		{"in order", func(l *ledger) error { return l.read(0, series(0, 0, 3000)) }, ""},
		{"acknowledged and read", func(l *ledger) error {
			if err := l.ack(1, value{1, 1}); err != nil {
				return err
			}
			return l.read(0, series(0, 0, 2))
		}, ""},
		{"acknowledged for another", func(l *ledger) error {
			if err := l.ack(1, value{2, 0}); err != nil {
				return err
			}
			return l.read(0, series(0, 0, 2))
		}, "was acknowledged for"},
		{"acknowledged twice", func(l *ledger) error {
			if err := l.ack(1, value{2, 0}); err != nil {
				return err
			}
			return l.ack(1, value{1, 0})
		}, "answered for"},
		{"read before the answer", func(l *ledger) error {
			if err := l.read(0, series(0, 0, 2)); err != nil {
				return err
			}
			return l.ack(1, value{1, 1})
		}, ""},
		{"passed before the answer", func(l *ledger) error {
			if err := l.read(0, series(0, 0, 2)); err != nil {
				return err
			}
			return l.ack(1, value{1, 2})
		}, "has not seen it"},
		{"an offset twice", func(l *ledger) error {
			return l.read(0, []record{rec(0, 1, 0), rec(0, 1, 1)})
		}, "came again"},
		{"a value twice", func(l *ledger) error {
			return l.read(0, []record{rec(0, 1, 0), rec(1, 1, 0)})
		}, "came twice"},
		{"a value is missing", func(l *ledger) error {
			return l.read(0, []record{rec(0, 1, 0), rec(1, 1, 2)})
		}, "is missing"},
		{"a value was given up", func(l *ledger) error {
			l.retire(1)
			return l.read(0, []record{rec(0, 1, 0), rec(1, 1, 2)})
		}, ""},
		{"a gap", func(l *ledger) error {
			return l.read(0, []record{rec(0, 1, 0), rec(2, 1, 1)})
		}, "a gap"},
		{"retention", func(l *ledger) error {
			return l.read(2, []record{rec(2, 1, 7)})
		}, ""},
		{"a gap above the log start", func(l *ledger) error {
			return l.read(2, []record{rec(3, 1, 7)})
		}, "a gap"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := tt.steps(newLedger("t-0"))
			switch {
			case tt.want == "" && err != nil:
				t.Fatal(err)
			case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
				t.Fatalf("error %v, want one with %q", err, tt.want)
			}
		})
	}
}

func TestUnread(t *testing.T) {
	l := newLedger("t-0")
	for _, offset := range []int64{1, 5} {
		if err := l.ack(offset, value{1, uint64(offset)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.read(0, series(0, 0, 3)); err != nil {
		t.Fatal(err)
	}
	if got := l.unread(); len(got) != 1 || got[0] != 5 {
		t.Errorf("unread = %v, want [5]", got)
	}
	if err := l.read(6, []record{rec(6, 1, 6)}); err != nil {
		t.Fatal(err)
	}
	if got := l.unread(); len(got) != 0 || l.lost() != 1 {
		t.Errorf("unread = %v, lost %d; retention took it", got, l.lost())
	}
}

func TestReplay(t *testing.T) {
	const n = 3*blockRecords + 5
	l := newLedger("t-0")
	if err := l.read(0, series(0, 0, n)); err != nil {
		t.Fatal(err)
	}
	if checked, err := newReplay(l).read(0, series(0, 0, n)); err != nil || checked != 3 {
		t.Fatalf("the same again: %d blocks, %v; want 3", checked, err)
	}
	// From the middle of a block: only whole ones are compared.
	if checked, err := newReplay(l).read(0, series(10, 10, n-10)); err != nil || checked != 2 {
		t.Fatalf("from 10 on: %d blocks, %v; want 2", checked, err)
	}
	for _, change := range []int{0, blockRecords, 3*blockRecords - 1} {
		rs := series(0, 0, n)
		rs[change].sum++
		if _, err := newReplay(l).read(0, rs); err == nil || !strings.Contains(err.Error(), "do not hold what they held") {
			t.Errorf("record %d changed: %v", change, err)
		}
	}
	rs := series(0, 0, n)
	if _, err := newReplay(l).read(0, append(rs[:7:7], rs[8:]...)); err == nil || !strings.Contains(err.Error(), "a gap") {
		t.Errorf("a record left out: %v", err)
	}
	p := newReplay(l)
	if _, err := p.read(9, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := p.read(8, nil); err == nil {
		t.Error("a log start that went back passed")
	}
}
