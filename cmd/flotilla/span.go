package main

import (
	"context"
	"fmt"
	"math"
	"strconv"
	"time"

	"github.com/flotilla-log/flotilla/client"
)

// offsetFlag is what --from or --until says.
type offsetFlag struct {
	at     client.At // if named
	named  bool
	offset int64 // otherwise; negative: so many before the end

	// A point in time, if one of these is set.
	time time.Time
	ago  time.Duration
}

// timed reports whether a point in time is meant, and which, if it is now.
func (f offsetFlag) timed(now time.Time) (time.Time, bool) {
	if f.ago > 0 {
		return now.Add(-f.ago), true
	}
	return f.time, !f.time.IsZero()
}

// parseFrom parses --from.
func parseFrom(s string) (offsetFlag, error) { return parsePlace("--from", s) }

// parsePlace parses a flag that says where to begin.
func parsePlace(flag, s string) (offsetFlag, error) {
	switch s {
	case "beginning", "start", "earliest":
		return offsetFlag{named: true, at: client.Earliest}, nil
	case "end", "latest":
		return offsetFlag{named: true, at: client.Latest}, nil
	}
	if t, err := time.Parse(time.RFC3339, s); err == nil {
		return offsetFlag{time: t}, nil
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		if ago, err := time.ParseDuration(s); err == nil && ago < 0 {
			return offsetFlag{ago: -ago}, nil
		}
		return offsetFlag{}, usagef("%s %q: give beginning, end, an offset, -N for the last N records of each partition, "+
			"a time as in 2026-01-31T12:00:00Z, or how long ago, as in -15m", flag, s)
	}
	return offsetFlag{offset: n}, nil
}

// noEnd is the end of a span that is followed for ever.
const noEnd = math.MaxInt64

// parseUntil parses --until, "" for noEnd.
func parseUntil(s string) (offsetFlag, error) {
	switch s {
	case "":
		return offsetFlag{offset: noEnd}, nil
	case "end", "latest":
		return offsetFlag{named: true, at: client.Latest}, nil
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 0 {
		return offsetFlag{}, usagef("--until %q: give end, or the offset to stop before", s)
	}
	return offsetFlag{offset: n}, nil
}

// span is the offsets [from, until) of a partition.
type span struct{ from, until int64 }

// newSpan resolves what the flags say for a partition that holds [earliest,
// latest) now.
func newSpan(from, until offsetFlag, earliest, latest int64) (span, error) {
	resolve := func(f offsetFlag) int64 {
		switch {
		case f.named && f.at == client.Earliest:
			return earliest
		case f.named:
			return latest
		case f.offset < 0:
			return max(earliest, latest+f.offset)
		}
		return f.offset
	}
	s := span{from: resolve(from), until: resolve(until)}
	if s.from < earliest || s.from > latest {
		return s, fmt.Errorf("it holds the offsets %d to %d, and cannot be read from %d", earliest, latest, s.from)
	}
	return s, nil
}

func (s span) empty() bool { return s.from >= s.until }

// topicBounds is a topic with the ends of its partitions, for a flag that says where to
// begin in them.
type topicBounds struct {
	topic            client.TopicDescription
	from             offsetFlag
	earliest, latest []int64
	timed            []client.TimedOffset // nil: the flag means no point in time
}

func lookUpBounds(ctx context.Context, admin *client.Admin, topic string, from offsetFlag) (*topicBounds, error) {
	d, err := lookUp(ctx, admin, topic)
	if err != nil {
		return nil, err
	}
	b := &topicBounds{topic: d, from: from}
	if b.earliest, err = admin.Offsets(ctx, topic, client.Earliest); err != nil {
		return nil, err
	}
	if b.latest, err = admin.Offsets(ctx, topic, client.Latest); err != nil {
		return nil, err
	}
	if t, ok := from.timed(time.Now()); ok {
		if b.timed, err = admin.OffsetsForTime(ctx, topic, t); err != nil {
			return nil, err
		}
	}
	return b, nil
}

// place returns where the flag means to begin in a partition, which is no point in time
// any more.
func (b *topicBounds) place(partition int32) offsetFlag {
	switch {
	case b.timed == nil:
		return b.from
	case b.timed[partition].Offset < 0: // no record is so late
		return offsetFlag{named: true, at: client.Latest}
	}
	return offsetFlag{offset: b.timed[partition].Offset}
}
