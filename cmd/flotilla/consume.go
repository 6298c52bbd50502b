package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"

	"github.com/spf13/cobra"

	"github.com/flotilla-log/flotilla/client"
)

// consumeFlags are the settings of consume.
type consumeFlags struct {
	partitions  []int32
	group       string
	from, until string
	count       int64
	format      string
	null, quiet bool
	out         outputFormat

	conn *connection
}

func consumeCommand(conn *connection) *cobra.Command {
	f := consumeFlags{conn: conn}
	c := &cobra.Command{
		Use:               "consume TOPIC",
		ValidArgsFunction: conn.topicNames(1, cobra.ShellCompDirectiveNoFileComp),
		Short:             "Print records, and wait for more",
		Long: `Print the records of a topic, by default from the beginning, and then each as it
arrives, until Ctrl-C. Records of one partition are in order; partitions are
mixed as they come. Without --group nothing is committed: each run decides where to
start. With --group the command is a member of a consumer group: the members share
the partitions, what is printed is committed, and the next run goes on after it;
--from, beginning or end, is for partitions of which nothing is committed yet.

--until end stops where the partitions ended when the command started.

Formats are kcat's; the default is '%s\n':
` + formatHelp + `
With -o json a record is one line, with the fields topic, partition, offset,
timestamp, key, value and headers. A key or value that is not UTF-8 is in base64,
and "key_encoding" or "value_encoding" is "base64".`,
		Example: `  flotilla consume hello --until end
  flotilla consume hello --from -1 --format '%p:%o %T %k=%s\n'
  flotilla consume hello --from -15m
  flotilla consume hello --from end -o json | jq .value
  flotilla consume hello --group billing`,
		Args: oneTopic,
		RunE: func(c *cobra.Command, args []string) error { return f.run(c, args[0]) },
	}
	fl := c.Flags()
	fl.Int32SliceVarP(&f.partitions, "partition", "p", nil, "partition, may be repeated; default: all")
	fl.StringVar(&f.from, "from", "beginning", "beginning, end, an offset, -N: the last N of each partition, a time (RFC 3339), or how long ago, as -15m")
	fl.StringVarP(&f.group, "group", "g", "", "consumer group to take part in")
	fl.StringVar(&f.until, "until", "", "end, or the offset to stop before; default: wait for more")
	fl.Int64VarP(&f.count, "count", "c", 0, "stop after so many records; 0: do not")
	fl.StringVarP(&f.format, "format", "f", `%s\n`, "what to print for a record")
	fl.BoolVarP(&f.null, "null", "Z", false, "print NULL for null keys and values, instead of nothing")
	fl.BoolVarP(&f.quiet, "quiet", "q", false, "do not say when the end of a partition is reached")
	f.out.add(c)
	return c
}

func (f *consumeFlags) run(c *cobra.Command, topic string) error {
	from, err := parseFrom(f.from)
	if err != nil {
		return err
	}
	until, err := parseUntil(f.until)
	if err != nil {
		return err
	}
	if f.count < 0 {
		return usagef("--count %d: give a number of records", f.count)
	}
	print, err := f.printer(c.Flags().Changed("format"))
	if err != nil {
		return err
	}
	if c.Flags().Changed("group") {
		return f.runGroup(c, topic, from, print)
	}
	return f.conn.with(c.Context(), c.ErrOrStderr(), func(ctx context.Context, cl *client.Client) error {
		r, err := f.open(ctx, cl.Admin(), topic, from, until)
		if err != nil {
			return err
		}
		r.print, r.out = print, bufio.NewWriterSize(c.OutOrStdout(), 64<<10)
		if !f.quiet {
			r.notices = c.ErrOrStderr()
		}
		return r.run(ctx, cl)
	})
}

// printer returns what writes one record.
func (f *consumeFlags) printer(formatted bool) (func(io.Writer, *client.Record) error, error) {
	if f.out == outputJSON {
		if formatted {
			return nil, usagef("--format and --output json exclude each other")
		}
		return func(w io.Writer, r *client.Record) error { return printJSON(w, toJSON(r)) }, nil
	}
	format, err := parseFormat(f.format)
	if err != nil {
		return nil, usagef("--format %q: %w", f.format, err)
	}
	if f.null {
		format.null = "NULL"
	}
	var buf []byte
	return func(w io.Writer, r *client.Record) error {
		buf = format.append(buf[:0], r)
		_, err := w.Write(buf)
		return err
	}, nil
}

// open finds out what to read.
func (f *consumeFlags) open(ctx context.Context, admin *client.Admin, topic string, from, until offsetFlag) (*reading, error) {
	b, err := lookUpBounds(ctx, admin, topic, from)
	if err != nil {
		return nil, err
	}
	partitions := f.partitions
	if len(partitions) == 0 {
		for p := range b.topic.Partitions {
			partitions = append(partitions, int32(p))
		}
	}
	r := &reading{topic: topic, count: f.count, spans: make(map[int32]*progress)}
	for _, p := range partitions {
		if err := checkPartition(b.topic, p); err != nil {
			return nil, err
		}
		s, err := newSpan(b.place(p), until, b.earliest[p], b.latest[p])
		if err != nil {
			return nil, fmt.Errorf("partition %d of %s: %w", p, topic, err)
		}
		r.spans[p] = &progress{span: s, end: b.latest[p], noticed: -1}
	}
	return r, nil
}

// reading is one run of consume.
type reading struct {
	topic   string
	spans   map[int32]*progress
	count   int64 // of records still to print; 0: no limit
	print   func(io.Writer, *client.Record) error
	out     *bufio.Writer
	notices io.Writer // nil: none

	left int // partitions still to be read
}

// progress is how far a partition has been read.
type progress struct {
	span
	done    bool
	end     int64 // high watermark, as last heard of
	noticed int64 // end that the user was told has been reached; -1: none
}

// errEnough ends a reading that has printed all that was asked for.
var errEnough = errors.New("enough records")

// run prints records until all that was asked for is printed or ctx ends.
// Whatever the result, what was read is printed.
func (r *reading) run(ctx context.Context, cl *client.Client) error {
	var assigned []client.Assignment
	for _, p := range slices.Sorted(maps.Keys(r.spans)) {
		s := r.spans[p]
		if !s.empty() {
			assigned = append(assigned, client.Assignment{Topic: r.topic, Partition: p, Offset: s.from})
		}
		r.reached(p, s, s.from)
	}
	r.left = len(assigned)
	if r.left == 0 {
		return nil
	}
	co, err := cl.NewConsumer(client.ConsumerConfig{Assignments: assigned})
	if err != nil {
		return err
	}
	defer co.Close()
	for r.left > 0 {
		fetched, err := co.Poll(ctx)
		if ctx.Err() != nil {
			return nil // Ctrl-C
		}
		if err == nil {
			err = r.take(co, fetched)
		}
		// Poll has returned everything there was: nothing is held back from
		// whoever reads the output while more is waited for.
		if flushErr := r.out.Flush(); flushErr != nil {
			return flushErr
		}
		if errors.Is(err, errEnough) {
			return nil
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// take prints what was fetched.
func (r *reading) take(co *client.Consumer, fetched []client.Fetched) error {
	for i := range fetched {
		if err := r.printRecords(&fetched[i]); err != nil {
			return err
		}
	}
	for i := range fetched {
		p := fetched[i].Partition
		position, err := co.Position(r.topic, p)
		if err != nil {
			return err
		}
		s := r.spans[p]
		s.end = max(s.end, fetched[i].HighWatermark)
		if !s.done && position >= s.until {
			s.done = true
			r.left--
		}
		r.reached(p, s, position)
	}
	return nil
}

func (r *reading) printRecords(f *client.Fetched) error {
	if f.Err != nil {
		return f.Err
	}
	until := r.spans[f.Partition].until
	for rec, err := range f.Records() {
		if err != nil {
			return err
		}
		if rec.Offset >= until {
			return nil
		}
		if err := r.print(r.out, &rec); err != nil {
			return err
		}
		if r.count--; r.count == 0 {
			return errEnough
		}
	}
	return nil
}

// reached tells the user, once, that there is nothing more to print of a
// partition now.
func (r *reading) reached(partition int32, s *progress, position int64) {
	stop := ""
	if position >= s.until {
		position, stop = s.until, ": exiting"
	} else if position < s.end {
		return
	}
	if r.notices == nil || s.noticed == position {
		return
	}
	s.noticed = position
	// What is printed comes before what is said about it.
	_ = r.out.Flush() // the error stays, for the next Flush
	fmt.Fprintf(r.notices, "%% Reached end of topic %s [%d] at offset %d%s\n", r.topic, partition, position, stop)
}
