package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
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
	if near := nearest(args[0], names); near != "" {
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
		if near := nearest(unknown.GetSpecifiedName(), names); near != "" {
			return usagef("%w; did you mean --%s?", err, near)
		}
	}
	return usagef("%w; see %q", err, c.CommandPath()+" --help")
}

// nearest returns the name that got was probably meant to be, "" if none is
// near.
func nearest(got string, names []string) string {
	got = plain(got)
	best, bestDistance := "", 1+max(1, len(got)/3)
	for _, name := range names {
		p := plain(name)
		d := distance(got, p)
		if strings.HasPrefix(p, got) && got != "" {
			d = min(d, 1)
		}
		if d < bestDistance {
			best, bestDistance = name, d
		}
	}
	return best
}

// plain takes away what people mix up: case, and the characters between words.
func plain(s string) string {
	return strings.NewReplacer("-", "", "_", "", ".", "").Replace(strings.ToLower(s))
}

// distance is how many letters have to be added, removed or replaced, or
// swapped with their neighbour, to turn a into b.
func distance(a, b string) int {
	before, row := make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		next := make([]int, len(b)+1)
		next[0] = i + 1
		for j := range len(b) {
			replace := row[j]
			if a[i] != b[j] {
				replace++
			}
			next[j+1] = min(replace, row[j+1]+1, next[j]+1)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				next[j+1] = min(next[j+1], before[j-1]+1)
			}
		}
		before, row = row, next
	}
	return row[len(b)]
}
