package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/flotilla-log/flotilla/client"
	"github.com/flotilla-log/flotilla/internal/errcode"
)

func groupCommand(conn *connection) *cobra.Command {
	c := &cobra.Command{
		Use:   "group",
		Short: "List, describe, move and delete consumer groups",
		Args:  noSuchCommand,
		RunE:  func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(groupListCommand(conn), groupDescribeCommand(conn), groupSeekCommand(conn), groupDeleteCommand(conn))
	return c
}

// groups wants the names of groups: exactly n, or, with 0, some.
func groups(n int) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		switch {
		case n > 0 && len(args) != n:
			return usagef("%s takes the name of one group, not %d arguments; see %q", c.CommandPath(), len(args), c.CommandPath()+" --help")
		case len(args) == 0:
			return usagef("%s needs the name of a group; see %q", c.CommandPath(), c.CommandPath()+" --help")
		}
		return nil
	}
}

// noGroup says that there is none of the name, if err is that.
func noGroup(name string, err error) error {
	if code, _ := client.CodeOf(err); code == errcode.GroupIDNotFound {
		return fmt.Errorf("there is no group %q; %q lists those that there are", name, "flotilla group list")
	}
	return err
}

// groupLine is one group of group list.
type groupLine struct {
	Group        string `json:"group"`
	Type         string `json:"type"`
	State        string `json:"state"`
	ProtocolType string `json:"protocol_type"`
}

func groupListCommand(conn *connection) *cobra.Command {
	var out outputFormat
	c := &cobra.Command{
		Use:     "list",
		Aliases: []string{"ls"},
		Short:   "List all consumer groups",
		Long: `List all consumer groups, by name, those of Kafka's clients among them. The
partitions of a group of type consumer are assigned by the server, those of a classic
one by one of its members. With -o json each group is one line.`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return conn.with(c.Context(), c.ErrOrStderr(), func(ctx context.Context, cl *client.Client) error {
				all, err := cl.Groups().List(ctx)
				if err == nil && len(all) == 0 && out == outputText {
					fmt.Fprintln(c.ErrOrStderr(), "no groups yet; \"flotilla consume TOPIC --group NAME\" makes one")
					return nil
				}
				// With an error those of the other nodes are worth seeing.
				return errors.Join(printGroups(c.OutOrStdout(), all, out), err)
			})
		},
	}
	out.add(c)
	return c
}

func printGroups(w io.Writer, all []client.GroupListing, out outputFormat) error {
	if out == outputJSON {
		for _, g := range all {
			if err := printJSON(w, groupLine{g.Group, g.Type, g.State, g.ProtocolType}); err != nil {
				return err
			}
		}
		return nil
	}
	if len(all) == 0 {
		return nil
	}
	tw := newTable(w)
	fmt.Fprintln(tw, "GROUP\tTYPE\tSTATE")
	for _, g := range all {
		fmt.Fprintf(tw, "%s\t%s\t%s\n", g.Group, g.Type, g.State)
	}
	return tw.Flush()
}

// groupDescription is what group describe prints as JSON. What is not known is null.
type groupDescription struct {
	groupLine
	Assignor   string           `json:"assignor"`
	Epoch      *int64           `json:"epoch"` // null: a classic group has none
	Lag        int64            `json:"lag"`   // of all partitions of which it is known
	Members    []groupMember    `json:"members"`
	Partitions []groupPartition `json:"partitions"`
}

type groupMember struct {
	ID         string   `json:"member_id"`
	InstanceID string   `json:"instance_id,omitempty"`
	ClientID   string   `json:"client_id"`
	Host       string   `json:"host"`
	Epoch      *int64   `json:"member_epoch"`
	Topics     []string `json:"topics"`
	Regex      string   `json:"regex,omitempty"`
	Partitions int      `json:"partitions"`
}

type groupPartition struct {
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
	Committed *int64 `json:"committed_offset"`
	End       *int64 `json:"end_offset"`
	Lag       *int64 `json:"lag"`
	Member    string `json:"member_id,omitempty"`
}

func groupDescribeCommand(conn *connection) *cobra.Command {
	var out outputFormat
	c := &cobra.Command{
		Use:               "describe GROUP",
		ValidArgsFunction: conn.groupNames(1),
		Short:             "Show a group's members, offsets and lag",
		Long: `Show a consumer group: its members, how far it has committed in each partition, and
how many records it is behind the end of it. Without a committed offset the lag is
that from the beginning.`,
		Args: groups(1),
		RunE: func(c *cobra.Command, args []string) error {
			return conn.with(c.Context(), c.ErrOrStderr(), func(ctx context.Context, cl *client.Client) error {
				d, err := cl.Groups().Describe(ctx, args[0])
				if err != nil {
					return noGroup(args[0], err)
				}
				lags, err := cl.Groups().Lag(ctx, d)
				if err != nil {
					return err
				}
				described := describeGroup(d, lags)
				if out == outputJSON {
					return printJSON(c.OutOrStdout(), described)
				}
				return described.print(c.OutOrStdout())
			})
		},
	}
	out.add(c)
	return c
}

func describeGroup(d client.GroupDescription, lags []client.GroupLag) groupDescription {
	out := groupDescription{
		groupLine: groupLine{d.Group, d.Type, d.State, d.ProtocolType}, Assignor: d.Assignor, Epoch: known(int64(d.Epoch)),
		Members: []groupMember{}, Partitions: []groupPartition{},
	}
	for _, m := range d.Members {
		out.Members = append(out.Members, groupMember{
			ID: m.ID, InstanceID: m.InstanceID, ClientID: m.ClientID, Host: strings.TrimPrefix(m.ClientHost, "/"), Epoch: known(int64(m.Epoch)),
			Topics: append([]string{}, m.Topics...), Regex: m.Regex, Partitions: len(m.Assigned),
		})
	}
	for _, l := range lags {
		out.Lag += max(l.Lag, 0)
		out.Partitions = append(out.Partitions, groupPartition{
			Topic: l.Topic, Partition: l.Partition, Committed: known(l.Offset), End: known(l.End), Lag: known(l.Lag), Member: l.Member,
		})
	}
	return out
}

func (d groupDescription) print(w io.Writer) error {
	fmt.Fprintf(w, "group     %s\ntype      %s\nstate     %s\n", d.Group, d.Type, d.State)
	if d.Assignor != "" {
		fmt.Fprintf(w, "assignor  %s\n", d.Assignor)
	}
	fmt.Fprintf(w, "lag       %d\n", d.Lag)
	if len(d.Members) > 0 {
		tw := newTable(w)
		fmt.Fprintln(tw, "\nMEMBER\tINSTANCE\tCLIENT\tHOST\tPARTITIONS")
		for _, m := range d.Members {
			instance := m.InstanceID
			if instance == "" {
				instance = "-"
			}
			fmt.Fprintf(tw, "%s\t%s\t%s\t%s\t%d\n", m.ID, instance, m.ClientID, m.Host, m.Partitions)
		}
		if err := tw.Flush(); err != nil {
			return err
		}
	}
	if len(d.Partitions) == 0 {
		return nil
	}
	tw := newTable(w)
	fmt.Fprintln(tw, "\nTOPIC\tPARTITION\tCOMMITTED\tEND\tLAG\tMEMBER")
	for _, p := range d.Partitions {
		member := p.Member
		if member == "" {
			member = "-"
		}
		fmt.Fprintf(tw, "%s\t%d\t%s\t%s\t%s\t%s\n", p.Topic, p.Partition, orDash(p.Committed), orDash(p.End), orDash(p.Lag), member)
	}
	return tw.Flush()
}

func groupDeleteCommand(conn *connection) *cobra.Command {
	var (
		out      outputFormat
		ifExists bool
	)
	c := &cobra.Command{
		Use:               "delete GROUP...",
		ValidArgsFunction: conn.groupNames(0),
		Short:             "Delete groups without members, with their offsets",
		Long: `Delete consumer groups, with the offsets that they have committed, without asking,
and print each that was deleted. A group that has members is not deleted.`,
		Args: groups(0),
		RunE: func(c *cobra.Command, args []string) error {
			return conn.with(c.Context(), c.ErrOrStderr(), func(ctx context.Context, cl *client.Client) error {
				return deleteGroups(ctx, cl.Groups(), args, ifExists, out, c.OutOrStdout())
			})
		},
	}
	c.Flags().BoolVar(&ifExists, "if-exists", false, "be content with names of no group")
	out.add(c)
	return c
}

func deleteGroups(ctx context.Context, gs *client.Groups, names []string, ifExists bool, out outputFormat, w io.Writer) error {
	names = slices.Clone(names)
	slices.Sort(names)
	var errs []error
	for _, name := range slices.Compact(names) {
		err := gs.Delete(ctx, name)
		code, _ := client.CodeOf(err)
		gone := ifExists && code == errcode.GroupIDNotFound
		switch {
		case code == errcode.NonEmptyGroup:
			errs = append(errs, fmt.Errorf("group %q has members; stop them first", name))
			continue
		case err != nil && !gone:
			errs = append(errs, noGroup(name, err))
			continue
		}
		text := "deleted group %s\n"
		if gone {
			text = "there is no group %s\n"
		}
		if out == outputJSON {
			err = printJSON(w, struct {
				Group   string `json:"group"`
				Deleted bool   `json:"deleted"`
			}{name, !gone})
		} else {
			_, err = fmt.Fprintf(w, text, name)
		}
		if err != nil {
			return err
		}
	}
	return errors.Join(errs...)
}
