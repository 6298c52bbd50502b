package main

import (
	"bytes"
	"context"
	"fmt"
	"html"
	"os"
	"time"

	"github.com/flotilla-log/flotilla/internal/peer"
)

const (
	plotLeave = 3 * time.Second // after the group has settled
	plotBack  = 10 * time.Second
	plotEnd   = 20 * time.Second

	// plotGap is how long nothing of a partition may be consumed without a gap in the
	// picture.
	plotGap = 60 * time.Millisecond
)

// stretch is a time in which one member consumed a partition without a gap.
type stretch struct {
	member   int
	from, to time.Duration
}

// timeline is what became of one group.
type timeline struct {
	protocol   string
	partitions [leavePartitions][]stretch
}

// add enters that a member consumed of a partition.
func (l *timeline) add(member int, partition int32, at time.Duration) {
	s := l.partitions[partition]
	if n := len(s); n > 0 && s[n-1].member == member && at-s[n-1].to <= plotGap {
		s[n-1].to = at
		return
	}
	l.partitions[partition] = append(s, stretch{member, at, at})
}

// gaps returns the longest time in which nobody consumed a partition: of those that one
// member had all the time, and of the others. Shorter ones than plotGap are 0.
func (l *timeline) gaps() (stayed, moved time.Duration) {
	for _, s := range l.partitions {
		longest, one := time.Duration(0), true
		for i := 1; i < len(s); i++ {
			longest = max(longest, s[i].from-s[i-1].to)
			one = one && s[i].member == s[0].member
		}
		if one {
			stayed = max(stayed, longest)
		} else {
			moved = max(moved, longest)
		}
	}
	return stayed, moved
}

// plot has a member leave a group and come back, in both protocols, and draws who
// consumes what.
func plot(ctx context.Context, s *peer.Server, name string) error {
	var all []*timeline
	for _, protocol := range protocols {
		l := &timeline{protocol: protocol}
		err := inParty(ctx, s, protocol, func(p *party) error {
			if err := p.settles(calm); err != nil {
				return err
			}
			return p.follow(l)
		})
		if err != nil {
			return err
		}
		all = append(all, l)
	}
	return os.WriteFile(name, draw(all), 0o644)
}

// follow notes who consumes what while the first member leaves and comes back.
func (p *party) follow(l *timeline) error {
	began := time.Now()
	leave, back, end := time.NewTimer(plotLeave), time.NewTimer(plotBack), time.NewTimer(plotEnd)
	defer leave.Stop()
	defer back.Stop()
	defer end.Stop()
	left := make(chan struct{})
	for {
		select {
		case r := <-p.records:
			if at := r.at.Sub(began); at >= 0 {
				l.add(r.member, r.partition, at)
			}
		case <-leave.C:
			go func() { // it takes until the coordinator has answered
				defer close(left)
				p.leaves(0)
			}()
		case <-back.C:
			<-left
			if err := p.joins(0); err != nil {
				return err
			}
		case <-end.C:
			return nil
		case <-p.running.Done():
			return p.running.Err()
		}
	}
}

// draw returns timelines as an SVG: a row for each partition, a color for each member.
func draw(all []*timeline) []byte {
	const (
		perSecond = 40
		row, gap  = 9, 3
		left, top = 40, 30
		block     = top + leavePartitions*(row+gap) + 30
	)
	colors := [leaveMembers]string{"#c0392b", "#2e86c1", "#28a068"}
	x := func(d time.Duration) float64 { return left + perSecond*d.Seconds() }
	var b bytes.Buffer
	width, height := x(plotEnd)+20, block*len(all)
	fmt.Fprintf(&b, "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%.0f\" height=\"%d\" font-family=\"sans-serif\" font-size=\"11\">\n", width, height)
	fmt.Fprintf(&b, "<rect width=\"%.0f\" height=\"%d\" fill=\"#fff\"/>\n", width, height)
	for i, l := range all {
		y0 := i * block
		stayed, moved := l.gaps()
		title := fmt.Sprintf("%s: partitions that change their member are consumed by nobody for %v at most, the others for %v", l.protocol, moved.Round(time.Millisecond), stayed.Round(time.Millisecond))
		fmt.Fprintf(&b, "<text x=\"%d\" y=\"%d\">%s</text>\n", left, y0+18, html.EscapeString(title))
		for part, stretches := range l.partitions {
			y := y0 + top + part*(row+gap)
			fmt.Fprintf(&b, "<text x=\"%d\" y=\"%d\" text-anchor=\"end\">%d</text>\n", left-6, y+row, part)
			for _, s := range stretches {
				fmt.Fprintf(&b, "<rect x=\"%.1f\" y=\"%d\" width=\"%.1f\" height=\"%d\" fill=\"%s\"/>\n", x(s.from), y, max(0.2, x(s.to)-x(s.from)), row, colors[s.member])
			}
		}
		bottom := y0 + top + leavePartitions*(row+gap)
		for at, text := range map[time.Duration]string{plotLeave: "one leaves", plotBack: "it comes back"} {
			fmt.Fprintf(&b, "<line x1=\"%.1f\" x2=\"%.1f\" y1=\"%d\" y2=\"%d\" stroke=\"#000\" stroke-dasharray=\"3 2\"/>\n", x(at), x(at), y0+top-4, bottom)
			fmt.Fprintf(&b, "<text x=\"%.1f\" y=\"%d\">%s, %v</text>\n", x(at), bottom+12, text, at)
		}
	}
	b.WriteString("</svg>\n")
	return b.Bytes()
}
