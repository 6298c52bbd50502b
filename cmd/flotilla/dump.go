package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/flotilla-log/flotilla/internal/doctor"
	"github.com/flotilla-log/flotilla/internal/vfs"
)

func dumpCommand() *cobra.Command {
	var opt doctor.DumpOptions
	var out outputFormat
	kinds := strings.Join(doctor.DumpKinds(), ", ")
	c := &cobra.Command{
		Use:   "dump KIND PATH",
		Short: "Show what a file of a data directory holds",
		Long: `Show what a file of a data directory holds, one thing a line, and change nothing.
KIND is one of ` + kinds + `.
PATH is a file, or for journal, control and votes their folder. Stop the node, or
look at a copy.

Where the file is damaged a line says so, and the rest is shown where it can be
found; the exit status is 1 then.`,
		Example: `  flotilla dump segment flotilla-data/partitions/TOPIC_ID-0/00000000000000000000.seg --records
  flotilla dump journal flotilla-data/journal --from 1000 --limit 10
  flotilla dump control flotilla-data/metadata --records -o json`,
		Args: func(c *cobra.Command, args []string) error {
			if len(args) != 2 {
				return usagef("%s takes a kind (%s) and a path; see %q", c.CommandPath(), kinds, c.CommandPath()+" --help")
			}
			if !slices.Contains(doctor.DumpKinds(), args[0]) {
				return usagef("%s: there is no kind %q; give one of %s", c.CommandPath(), args[0], kinds)
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			if opt.From < 0 || opt.Limit < 0 {
				return usagef("--from %d, --limit %d: give 0 or more", opt.From, opt.Limit)
			}
			w := c.OutOrStdout()
			err := doctor.Dump(vfs.OS, args[0], args[1], opt, func(l doctor.Line) error {
				if out == outputJSON {
					return printJSON(w, l)
				}
				_, err := fmt.Fprintln(w, l)
				return err
			})
			if errors.Is(err, doctor.ErrDamaged) {
				return fmt.Errorf("%s is damaged; see the lines that begin with damage", args[1])
			}
			return err
		},
	}
	c.Flags().Int64Var(&opt.From, "from", 0, "begin at this offset of a segment, LSN of a journal, or record of a control log")
	c.Flags().IntVar(&opt.Limit, "limit", 0, "show at most so many lines; 0: all")
	c.Flags().BoolVar(&opt.Records, "records", false, "show what records, entries and checkpoints hold as well")
	out.add(c)
	hideConnectionFlags(c)
	return c
}
