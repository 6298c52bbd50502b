package bench

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/flotilla-log/flotilla/client"
)

// polls is a Source and its Reader that give what was written down, one element
// for each Poll, and then nothing more.
type polls struct {
	left   [][]Portion
	opened [][]Span
}

func (p *polls) Open(spans []Span) (Reader, error) {
	p.opened = append(p.opened, spans)
	return p, nil
}

func (p *polls) Close() {}

func (p *polls) Poll(ctx context.Context) ([]Portion, error) {
	if len(p.left) == 0 {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	next := p.left[0]
	p.left = p.left[1:]
	return next, nil
}

// portion is of the records [from, until), after whose Poll reading goes on at
// next.
func portion(partition int32, from, until, next int64) Portion {
	return Portion{Topic: "t", Partition: partition, Next: next, Records: func(yield func(client.Record, error) bool) {
		for at := from; at < until; at++ {
			if !yield(client.Record{Offset: at, Value: []byte{1}}, nil) {
				return
			}
		}
	}}
}

// TestReplayCountsToTheEnd gives the end of a partition in several portions of
// one Poll, with more records than were there when the replay began.
func TestReplayCountsToTheEnd(t *testing.T) {
	t.Parallel()
	source := &polls{left: [][]Portion{
		{portion(0, 0, 4, 4), portion(1, 0, 2, 9)},
		{portion(0, 4, 6, 12), portion(0, 6, 9, 12), portion(0, 9, 12, 12)},
	}}
	res, err := Replay{
		// Partition 1 ends with records that were compacted away.
		Spans:  []Span{{"t", 0, 0, 10}, {"t", 1, 0, 9}, {"t", 2, 3, 3}},
		Passes: 1,
	}.Run(t.Context(), Watch{Now: time.Now}, []Source{source})
	if err != nil || res.Records != 12 || res.Bytes != 12 {
		t.Errorf("%+v, %v, want 10 and 2 records", res, err)
	}
	if want := [][]Span{{{"t", 0, 0, 10}, {"t", 1, 0, 9}}}; !slices.EqualFunc(source.opened, want, slices.Equal) {
		t.Errorf("opened %v: the empty partition has nothing to wait for", source.opened)
	}
}

func TestReplayStalls(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		source := &polls{left: [][]Portion{{portion(0, 0, 4, 4)}}}
		_, err := Replay{
			Spans: []Span{{"t", 0, 0, 10}}, Passes: 1, Patience: 5 * time.Second,
		}.Run(t.Context(), Watch{Now: time.Now}, []Source{source})
		if !errors.Is(err, ErrStalled) || !strings.Contains(err.Error(), "t[0], whose end is offset 10") || time.Since(start) != 5*time.Second {
			t.Errorf("%v after %s", err, time.Since(start))
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err = Replay{
			Spans: []Span{{"t", 0, 0, 10}}, Passes: 1, Patience: 5 * time.Second,
		}.Run(ctx, Watch{Now: time.Now}, []Source{new(polls)})
		if !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, ErrStalled) {
			t.Errorf("interrupted: %v", err)
		}
	})
}
