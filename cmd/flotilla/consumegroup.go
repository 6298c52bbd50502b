package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/flotilla-log/flotilla/client"
)

// runGroup consumes as a member of a group.
func (f *consumeFlags) runGroup(c *cobra.Command, topic string, from offsetFlag, print func(io.Writer, *client.Record) error) error {
	switch {
	case f.group == "":
		return usagef("--group is empty: give the name of a group")
	case len(f.partitions) > 0 || f.until != "":
		return usagef("--group excludes --partition and --until: the group shares the partitions, and goes on")
	case !from.named:
		return usagef("--from %q: a group begins at the beginning or the end, and then where it was; \"flotilla group seek\" moves it", f.from)
	}
	start := client.Beginning
	if from.at == client.Latest {
		start = client.End
	}
	return f.conn.with(c.Context(), c.ErrOrStderr(), func(ctx context.Context, cl *client.Client) error {
		if _, err := lookUp(ctx, cl.Admin(), topic); err != nil {
			return err
		}
		cfg := client.GroupConfig{Group: f.group, Topics: []string{topic}, Start: start}
		if !f.quiet {
			say := func(what string) func([]client.TopicPartition) {
				return func(parts []client.TopicPartition) {
					for _, p := range parts {
						fmt.Fprintf(c.ErrOrStderr(), "%% %s %s [%d]\n", what, p.Topic, p.Partition)
					}
				}
			}
			cfg.Assigned, cfg.Revoked, cfg.Lost = say("Assigned"), say("Revoked"), say("Lost")
		}
		g, err := cl.JoinGroup(cfg)
		if err != nil {
			return err
		}
		out := bufio.NewWriterSize(c.OutOrStdout(), 64<<10)
		err = f.consume(ctx, g, out, print)
		// Ctrl-C has ended ctx: what was printed is committed all the same.
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), f.conn.timeout)
		defer cancel()
		if err == nil {
			err = g.Commit(grace)
		}
		if closeErr := g.Close(grace); err == nil {
			err = closeErr
		}
		return err
	})
}

// consume prints records until there are enough or ctx ends. What was printed, and no
// more, has been handed out when it returns nil.
func (f *consumeFlags) consume(ctx context.Context, g *client.Group, out *bufio.Writer, print func(io.Writer, *client.Record) error) error {
	for left := f.count; ; {
		fetched, err := g.Poll(ctx)
		switch {
		case ctx.Err() != nil && !errors.Is(err, client.ErrClosed):
			return nil
		case err != nil:
			return err
		case fetched.Err != nil:
			return fetched.Err
		}
		for rec, err := range fetched.Records() {
			if err == nil {
				err = print(out, &rec)
			}
			if err != nil {
				return err
			}
			if left--; left == 0 {
				if err := out.Flush(); err != nil {
					return err
				}
				return g.Seek(rec.Topic, rec.Partition, rec.Offset+1)
			}
		}
		if err := out.Flush(); err != nil {
			return err
		}
	}
}
