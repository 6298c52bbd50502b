package main

import (
	"context"
	"fmt"
	"io"
	"slices"

	"github.com/spf13/cobra"

	"github.com/flotilla-log/flotilla/client"
)

// seekFlags are the settings of group seek.
type seekFlags struct {
	topics      []string
	partitions  []int32
	to, toGroup string
	execute     bool
	out         outputFormat
}

func groupSeekCommand(conn *connection) *cobra.Command {
	var f seekFlags
	c := &cobra.Command{
		Use:               "seek GROUP",
		ValidArgsFunction: conn.groupNames(1),
		Short:             "Move a group to other offsets",
		Long: `Move a consumer group that has no members to other offsets: to the beginning, the
end, an offset, a point in time, or to where another group is. Without --execute the
command only says what it would do. By default all topics of which the group has
committed something are moved; a group that does not exist needs --topic, and is made.`,
		Example: `  flotilla group seek billing --to beginning
  flotilla group seek billing --topic orders --to -2h --execute
  flotilla group seek billing --topic orders --partition 3 --to 1200 --execute
  flotilla group seek audit --to-group billing --execute`,
		Args: groups(1),
		RunE: func(c *cobra.Command, args []string) error {
			to, err := f.place()
			if err != nil {
				return err
			}
			return conn.with(c.Context(), c.ErrOrStderr(), func(ctx context.Context, cl *client.Client) error {
				return f.run(ctx, cl, args[0], to, c.OutOrStdout(), c.ErrOrStderr())
			})
		},
	}
	fl := c.Flags()
	fl.StringSliceVarP(&f.topics, "topic", "t", nil, "topic, may be repeated; default: all of which the group has committed something")
	fl.Int32SliceVarP(&f.partitions, "partition", "p", nil, "partition of the only --topic, may be repeated; default: all")
	fl.StringVar(&f.to, "to", "", "beginning, end, an offset, -N: the last N of each partition, a time (RFC 3339), or how long ago, as -15m")
	fl.StringVar(&f.toGroup, "to-group", "", "another group, to whose committed offsets to move")
	fl.BoolVar(&f.execute, "execute", false, "move the group; without it, only say what would be done")
	f.out.add(c)
	return c
}

// place checks the flags, and parses --to.
func (f *seekFlags) place() (offsetFlag, error) {
	switch {
	case (f.to == "") == (f.toGroup == ""):
		return offsetFlag{}, usagef("give one of --to and --to-group")
	case len(f.partitions) > 0 && len(f.topics) != 1:
		return offsetFlag{}, usagef("--partition needs exactly one --topic")
	case f.toGroup != "":
		return offsetFlag{}, nil
	}
	return parsePlace("--to", f.to)
}

// seekLine is where a partition is, and where it is to go.
type seekLine struct {
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
	Committed *int64 `json:"committed_offset"` // null: none
	New       int64  `json:"new_offset"`
	End       int64  `json:"end_offset"`
	Moved     bool   `json:"moved"` // it is there now
}

// moves reports whether there is something to do.
func (l seekLine) moves() bool { return l.Committed == nil || *l.Committed != l.New }

func (f *seekFlags) run(ctx context.Context, cl *client.Client, group string, to offsetFlag, w, stderr io.Writer) error {
	lines, err := f.plan(ctx, cl, group, to)
	if err != nil {
		return err
	}
	members := 0
	if d, err := cl.Groups().Describe(ctx, group); err == nil {
		members = len(d.Members)
	}
	if f.execute && members > 0 {
		return fmt.Errorf("group %q has %s, and a member knows better where it is; stop them all first; nothing was changed", group, count(members, "member"))
	}
	offsets := make(map[client.TopicPartition]int64)
	for _, l := range lines {
		if l.moves() {
			offsets[client.TopicPartition{Topic: l.Topic, Partition: l.Partition}] = l.New
		}
	}
	if f.execute {
		if err := cl.Groups().SetOffsets(ctx, group, offsets); err != nil {
			return err
		}
		for i := range lines {
			lines[i].Moved = lines[i].moves()
		}
	}
	if err := printSeek(w, lines, f.out); err != nil {
		return err
	}
	switch {
	case f.out == outputJSON:
	case len(offsets) == 0:
		_, err = fmt.Fprintln(w, "the group is there already")
	case f.execute:
		_, err = fmt.Fprintf(w, "moved %s\n", count(len(offsets), "partition"))
	default:
		_, err = fmt.Fprintln(w, "nothing was changed; give --execute to do it")
	}
	if members > 0 {
		fmt.Fprintf(stderr, "%% group %s has %s: stop them before you give --execute\n", group, count(members, "member"))
	}
	return err
}

func printSeek(w io.Writer, lines []seekLine, out outputFormat) error {
	if out == outputJSON {
		for _, l := range lines {
			if err := printJSON(w, l); err != nil {
				return err
			}
		}
		return nil
	}
	tw := newTable(w)
	fmt.Fprintln(tw, "TOPIC\tPARTITION\tCOMMITTED\tNEW\tEND\tLAG THEN")
	for _, l := range lines {
		fmt.Fprintf(tw, "%s\t%d\t%s\t%d\t%d\t%d\n", l.Topic, l.Partition, orDash(l.Committed), l.New, l.End, max(0, l.End-l.New))
	}
	return tw.Flush()
}

// plan works out where each partition is to go, by topic and partition.
func (f *seekFlags) plan(ctx context.Context, cl *client.Client, group string, to offsetFlag) ([]seekLine, error) {
	committed, err := cl.Groups().Offsets(ctx, group)
	if err != nil {
		return nil, err
	}
	from := make(map[client.TopicPartition]int64)
	topics := slices.Clone(f.topics)
	for _, o := range committed {
		from[o.TopicPartition] = o.Offset
		if len(f.topics) == 0 {
			topics = append(topics, o.Topic)
		}
	}
	var others map[client.TopicPartition]int64
	if f.toGroup != "" {
		there, err := cl.Groups().Offsets(ctx, f.toGroup)
		if err != nil {
			return nil, err
		}
		if len(there) == 0 {
			return nil, fmt.Errorf("group %q has committed nothing", f.toGroup)
		}
		others = make(map[client.TopicPartition]int64)
		for _, o := range there {
			others[o.TopicPartition] = o.Offset
			if len(f.topics) == 0 {
				topics = append(topics, o.Topic)
			}
		}
	}
	slices.Sort(topics)
	var lines []seekLine
	for _, topic := range slices.Compact(topics) {
		more, err := f.planTopic(ctx, cl.Admin(), topic, to, others)
		if err != nil {
			return nil, err
		}
		lines = append(lines, more...)
	}
	if len(lines) == 0 {
		return nil, fmt.Errorf("group %q has committed nothing; say which topics with --topic", group)
	}
	for i := range lines {
		if offset, ok := from[client.TopicPartition{Topic: lines[i].Topic, Partition: lines[i].Partition}]; ok {
			lines[i].Committed = &offset
		}
	}
	return lines, nil
}

func (f *seekFlags) planTopic(ctx context.Context, admin *client.Admin, topic string, to offsetFlag, others map[client.TopicPartition]int64) ([]seekLine, error) {
	b, err := lookUpBounds(ctx, admin, topic, to)
	if err != nil {
		return nil, err
	}
	var lines []seekLine
	for i := range b.topic.Partitions {
		p := int32(i)
		if len(f.partitions) > 0 && !slices.Contains(f.partitions, p) {
			continue
		}
		place := b.place(p)
		switch other, ok := others[client.TopicPartition{Topic: topic, Partition: p}]; {
		case ok:
			// Where it would go on itself, if records it has yet to consume are deleted.
			place = offsetFlag{offset: min(max(other, b.earliest[p]), b.latest[p])}
		case others != nil:
			continue // that group has committed nothing of it
		}
		s, err := newSpan(place, offsetFlag{offset: noEnd}, b.earliest[p], b.latest[p])
		if err != nil {
			return nil, fmt.Errorf("partition %d of %s: %w", p, topic, err)
		}
		lines = append(lines, seekLine{Topic: topic, Partition: p, New: s.from, End: b.latest[p]})
	}
	for _, p := range f.partitions {
		if err := checkPartition(b.topic, p); err != nil {
			return nil, err
		}
	}
	return lines, nil
}
