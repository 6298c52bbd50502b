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

// completionTimeout is how long a shell waits for the names of topics.
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
			topics, err := cl.Admin().ListTopics(ctx)
			for _, t := range topics {
				if strings.HasPrefix(t.Name, begun) && !slices.Contains(args, t.Name) {
					names = append(names, t.Name)
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
