package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/flotilla-log/flotilla/client"
	"github.com/flotilla-log/flotilla/internal/errcode"
)

func topicCommand(conn *connection) *cobra.Command {
	c := &cobra.Command{
		Use:   "topic",
		Short: "Create, list, describe, change and delete topics",
		Args:  noSuchCommand,
		RunE:  func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(
		topicCreateCommand(conn), topicListCommand(conn), topicDescribeCommand(conn), topicAlterCommand(conn),
		topicAddPartitionsCommand(conn), topicTrimCommand(conn), topicDeleteCommand(conn),
	)
	return c
}

// lookUp returns a topic, or an error that says how to create it.
func lookUp(ctx context.Context, admin *client.Admin, name string) (client.TopicDescription, error) {
	// The first question is answered at once, also with no; the second one is
	// repeated in case that the topic is being created.
	_, topics, err := admin.Metadata(ctx, name)
	if err != nil {
		return client.TopicDescription{}, err
	}
	if err := topics[0].Err; err != nil {
		return client.TopicDescription{}, noTopic(name, err)
	}
	return admin.DescribeTopic(ctx, name)
}

// noTopic says how to create a topic, if err is that there is none of the name.
func noTopic(name string, err error) error {
	if isNoTopic(err) {
		return fmt.Errorf("there is no topic %q; create it with %q", name, "flotilla topic create "+name)
	}
	return err
}

func isNoTopic(err error) bool {
	code, _ := client.CodeOf(err)
	return code == errcode.UnknownTopicOrPartition || code == errcode.UnknownTopicID
}

// createFlags are the settings of topic create.
type createFlags struct {
	partitions, replicas int32
	configs              []string
	ifNotExists, dryRun  bool
	out                  outputFormat
}

func topicCreateCommand(conn *connection) *cobra.Command {
	var f createFlags
	c := &cobra.Command{
		Use:   "create NAME",
		Short: "Create a topic",
		Long: `Create a topic. When the command returns, its partitions take records.

Configs are Kafka's: max.message.bytes is the largest record batch, and so
about the largest record, after compression; retention.ms and retention.bytes
say how long, and how much, is kept. "topic describe" lists them all.`,
		Example: `  flotilla topic create orders --partitions 3
  flotilla topic create photos --config max.message.bytes=8388608`,
		Args: oneTopic,
		RunE: func(c *cobra.Command, args []string) error {
			spec, err := f.spec(args[0])
			if err != nil {
				return err
			}
			return conn.with(c.Context(), c.ErrOrStderr(), func(ctx context.Context, cl *client.Client) error {
				return f.create(ctx, cl.Admin(), spec, c.OutOrStdout())
			})
		},
	}
	fl := c.Flags()
	fl.Int32VarP(&f.partitions, "partitions", "p", 0, "number of partitions; default: what the cluster says, usually 1")
	fl.Int32VarP(&f.replicas, "replication-factor", "r", 0, "nodes that hold each record; default: what the cluster says")
	fl.StringArrayVarP(&f.configs, "config", "c", nil, "NAME=VALUE, may be repeated")
	fl.BoolVar(&f.ifNotExists, "if-not-exists", false, "be content if there is a topic of the name, whatever its settings")
	fl.BoolVar(&f.dryRun, "dry-run", false, "check everything, create nothing")
	f.out.add(c)
	return c
}

func (f *createFlags) spec(name string) (client.TopicSpec, error) {
	spec := client.TopicSpec{
		Name: name, Partitions: f.partitions, ReplicationFactor: f.replicas,
		ValidateOnly: f.dryRun,
	}
	if f.partitions < 0 || f.replicas < 0 {
		return spec, usagef("--partitions and --replication-factor are at least 1")
	}
	var err error
	spec.Configs, err = parseConfigs(f.configs)
	return spec, err
}

func (f *createFlags) create(ctx context.Context, admin *client.Admin, spec client.TopicSpec, w io.Writer) error {
	id, err := admin.CreateTopic(ctx, spec)
	code, _ := client.CodeOf(err)
	exists := code == errcode.TopicAlreadyExists
	switch {
	case exists && !f.ifNotExists:
		return fmt.Errorf("there is a topic %q already; nothing was changed (--if-not-exists makes that a success)", spec.Name)
	case err != nil && !exists:
		return err
	}
	if f.out == outputJSON {
		result := struct {
			Topic   string `json:"topic"`
			ID      string `json:"topic_id,omitempty"`
			Created bool   `json:"created"`
		}{Topic: spec.Name, Created: !exists && !f.dryRun}
		if result.Created {
			result.ID = id.String()
		}
		return printJSON(w, result)
	}
	text := "created topic %s\n"
	switch {
	case exists:
		text = "topic %s exists already; nothing was changed\n"
	case f.dryRun:
		text = "topic %s could be created\n"
	}
	_, err = fmt.Fprintf(w, text, spec.Name)
	return err
}

// topicLine is one topic of topic list.
type topicLine struct {
	Topic      string `json:"topic"`
	ID         string `json:"topic_id"`
	Partitions int    `json:"partitions"`
	Leaderless int    `json:"leaderless_partitions"` // cannot be read or written now
}

func topicListCommand(conn *connection) *cobra.Command {
	var out outputFormat
	c := &cobra.Command{
		Use:     "list",
		Aliases: []string{"ls"},
		Short:   "List all topics",
		Long: `List all topics, by name. A partition without a leader can be neither read nor
written until it has one. With -o json each topic is one line.`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return conn.with(c.Context(), c.ErrOrStderr(), func(ctx context.Context, cl *client.Client) error {
				topics, err := cl.Admin().ListTopics(ctx)
				if err != nil {
					return err
				}
				if len(topics) == 0 && out == outputText {
					fmt.Fprintln(c.ErrOrStderr(), "no topics yet; create one with \"flotilla topic create NAME\"")
					return nil
				}
				return printTopics(c.OutOrStdout(), topics, out)
			})
		},
	}
	out.add(c)
	return c
}

func printTopics(w io.Writer, topics []client.Topic, out outputFormat) error {
	tw := newTable(w)
	fmt.Fprintln(tw, "TOPIC\tPARTITIONS\tLEADERLESS\tID")
	for _, t := range topics {
		line := topicLine{Topic: t.Name, ID: t.ID.String(), Partitions: len(t.Leaders)}
		for _, leader := range t.Leaders {
			if leader < 0 {
				line.Leaderless++
			}
		}
		if out == outputJSON {
			if err := printJSON(w, line); err != nil {
				return err
			}
			continue
		}
		fmt.Fprintf(tw, "%s\t%d\t%d\t%s\n", line.Topic, line.Partitions, line.Leaderless, line.ID)
	}
	if out == outputJSON {
		return nil
	}
	return tw.Flush()
}

func newTable(w io.Writer) *tabwriter.Writer { return tabwriter.NewWriter(w, 0, 0, 2, ' ', 0) }

func topicDeleteCommand(conn *connection) *cobra.Command {
	var (
		out      outputFormat
		ifExists bool
	)
	c := &cobra.Command{
		Use:               "delete NAME...",
		ValidArgsFunction: conn.topicNames(0, cobra.ShellCompDirectiveNoFileComp),
		Short:             "Delete topics, with all their records",
		Long: `Delete topics, with all their records, without asking, and print each that was
deleted. If one of the names is of no topic, nothing is deleted. Names are taken
literally: there are no patterns.`,
		Args: someTopics,
		RunE: func(c *cobra.Command, args []string) error {
			return conn.with(c.Context(), c.ErrOrStderr(), func(ctx context.Context, cl *client.Client) error {
				return deleteTopics(ctx, cl.Admin(), args, ifExists, out, c.OutOrStdout())
			})
		},
	}
	c.Flags().BoolVar(&ifExists, "if-exists", false, "be content with names of no topic")
	out.add(c)
	return c
}

// deleteTopics deletes all topics of the names, or none if one of them is
// missing.
func deleteTopics(ctx context.Context, admin *client.Admin, names []string, ifExists bool, out outputFormat, w io.Writer) error {
	names = slices.Clone(names)
	slices.Sort(names)
	names = slices.Compact(names)
	_, topics, err := admin.Metadata(ctx, names...)
	if err != nil {
		return err
	}
	for i, t := range topics {
		switch {
		case isNoTopic(t.Err) && !ifExists:
			return fmt.Errorf("there is no topic %q; nothing was deleted", names[i])
		case t.Err != nil && !isNoTopic(t.Err):
			return fmt.Errorf("nothing was deleted: %w", t.Err)
		}
	}
	var errs []error
	for i, t := range topics {
		t.Name = names[i]
		if t.Err == nil {
			t.Err = admin.DeleteTopic(ctx, t.Name)
		}
		if t.Err != nil && !(ifExists && isNoTopic(t.Err)) {
			errs = append(errs, t.Err)
			continue
		}
		if err := printDeleted(w, t, out); err != nil {
			return err
		}
	}
	return errors.Join(errs...)
}

// printDeleted prints what became of a topic: deleted, or not there.
func printDeleted(w io.Writer, t client.Topic, out outputFormat) error {
	if out == outputJSON {
		return printJSON(w, struct {
			Topic   string `json:"topic"`
			Deleted bool   `json:"deleted"`
		}{t.Name, t.Err == nil})
	}
	text := "deleted topic %s\n"
	if t.Err != nil {
		text = "there is no topic %s\n"
	}
	_, err := fmt.Fprintf(w, text, t.Name)
	return err
}
