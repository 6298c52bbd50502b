package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/flotilla-log/flotilla/internal/config"
)

// noArgs refuses arguments, as a usage error.
func noArgs(c *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usagef("%s takes no argument %q; see %q", c.CommandPath(), args[0], c.CommandPath()+" --help")
	}
	return nil
}

// oneTopic wants the name of one topic and nothing else.
func oneTopic(c *cobra.Command, args []string) error {
	if len(args) == 1 {
		return nil
	}
	return usagef("%s takes the name of one topic, not %d arguments; see %q", c.CommandPath(), len(args), c.CommandPath()+" --help")
}

// someTopics wants at least one argument.
func someTopics(c *cobra.Command, args []string) error {
	if len(args) > 0 {
		return nil
	}
	return usagef("%s needs the name of a topic; see %q", c.CommandPath(), c.CommandPath()+" --help")
}

// noSuchCommand is for a command that only has subcommands: an argument is a
// misspelt one.
func noSuchCommand(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	var names []string
	for _, sub := range c.Commands() {
		if sub.IsAvailableCommand() {
			names = append(names, sub.Name())
		}
	}
	hint := fmt.Sprintf("see %q", c.CommandPath()+" --help")
	if near := config.Nearest(args[0], names); near != "" {
		hint = fmt.Sprintf("did you mean %q?", c.CommandPath()+" "+near)
	}
	return usagef("unknown command %q; %s", c.CommandPath()+" "+args[0], hint)
}

// flagError makes a wrong flag a usage error, and suggests the one that was
// meant.
func flagError(c *cobra.Command, err error) error {
	var unknown *pflag.NotExistError
	if errors.As(err, &unknown) && unknown.GetSpecifiedShortnames() == "" {
		var names []string
		c.Flags().VisitAll(func(f *pflag.Flag) { names = append(names, f.Name) })
		if near := config.Nearest(unknown.GetSpecifiedName(), names); near != "" {
			return usagef("%w; did you mean --%s?", err, near)
		}
	}
	return usagef("%w; see %q", err, c.CommandPath()+" --help")
}
