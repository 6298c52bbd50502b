package main

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// ranged is a range of versions [first, last]; its zero value is none.
type ranged struct {
	first, last int16
	some        bool
}

func (r ranged) empty() bool { return !r.some || r.first > r.last }

func (r ranged) has(version int16) bool {
	return r.some && r.first <= version && version <= r.last
}

// String returns r as Kafka's definitions write it.
func (r ranged) String() string {
	switch {
	case r.empty():
		return "none"
	case r.last == math.MaxInt16:
		return fmt.Sprintf("%d+", r.first)
	case r.first == r.last:
		return strconv.Itoa(int(r.first))
	}
	return fmt.Sprintf("%d-%d", r.first, r.last)
}

// UnmarshalText reads "none", "3", "0-12" or "3+".
func (r *ranged) UnmarshalText(text []byte) error {
	*r = ranged{}
	s := string(text)
	if s == "none" {
		return nil
	}
	from, to, open := s, s, false
	if rest, ok := strings.CutSuffix(s, "+"); ok {
		from, open = rest, true
	} else if a, b, ok := strings.Cut(s, "-"); ok {
		from, to = a, b
	}
	first, err := strconv.ParseInt(from, 10, 16)
	if err != nil {
		return fmt.Errorf("versions %q: want none, 3, 0-12 or 3+", s)
	}
	last := int64(math.MaxInt16)
	if !open {
		if last, err = strconv.ParseInt(to, 10, 16); err != nil {
			return fmt.Errorf("versions %q: want none, 3, 0-12 or 3+", s)
		}
	}
	*r = ranged{first: int16(first), last: int16(last), some: true}
	return nil
}
