package main

import (
	"context"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/flotilla-log/flotilla/client"
)

// completionTimeout is how long a shell waits for the names of topics and groups.
const completionTimeout = time.Second

// addCompletion adds cobra's completion commands, with this program's errors.
func addCompletion(root *cobra.Command) {
	root.InitDefaultCompletionCmd()
	for _, c := range root.Commands() {
		if c.Name() != "completion" {
			continue
		}
		c.Args = noSuchCommand
		c.RunE = func(c *cobra.Command, _ []string) error { return c.Help() }
		hideConnectionFlags(c)
		for _, sub := range c.Commands() {
			sub.Args = noArgs
			hideConnectionFlags(sub)
		}
	}
}

type completer = func(*cobra.Command, []string, string) ([]cobra.Completion, cobra.ShellCompDirective)

// topicNames completes the names of topics, at most most of them, by asking the
// server that the command would talk to. Without an answer there is nothing to
// complete: a shell has no use for an error.
func (conn *connection) topicNames(most int, rest cobra.ShellCompDirective) completer {
	return conn.names(most, rest, func(ctx context.Context, cl *client.Client) (names []string, err error) {
		topics, err := cl.Admin().ListTopics(ctx)
		for _, t := range topics {
			names = append(names, t.Name)
		}
		return names, err
	})
}

// groupNames is topicNames for consumer groups.
func (conn *connection) groupNames(most int) completer {
	return conn.names(most, cobra.ShellCompDirectiveNoFileComp, func(ctx context.Context, cl *client.Client) (names []string, err error) {
		groups, err := cl.Groups().List(ctx)
		for _, g := range groups {
			names = append(names, g.Group)
		}
		return names, err
	})
}

// names completes names that list returns.
func (conn *connection) names(most int, rest cobra.ShellCompDirective, list func(context.Context, *client.Client) ([]string, error)) completer {
	return func(c *cobra.Command, args []string, begun string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if most > 0 && len(args) >= most {
			return nil, rest
		}
		if applyEnvironment(c, os.Environ()) != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		ask := *conn
		ask.timeout = min(conn.timeout, completionTimeout)
		ctx, cancel := context.WithTimeout(context.Background(), completionTimeout)
		defer cancel()
		var names []cobra.Completion
		err := ask.with(ctx, io.Discard, func(ctx context.Context, cl *client.Client) error {
			all, err := list(ctx, cl)
			for _, name := range all {
				if strings.HasPrefix(name, begun) && !slices.Contains(args, name) {
					names = append(names, name)
				}
			}
			return err
		})
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return names, cobra.ShellCompDirectiveNoFileComp
	}
}
