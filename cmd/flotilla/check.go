package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/flotilla-log/flotilla/internal/doctor"
	"github.com/flotilla-log/flotilla/internal/node"
	"github.com/flotilla-log/flotilla/internal/vfs"
)

// errDamage is the answer of check and repair to a directory that needs help.
var errDamage = errors.New("the data directory is damaged")

func addDataDir(fl *pflag.FlagSet, dir *string) {
	fl.StringVar(dir, "data.dir", "flotilla-data", "the node's data directory; the node is stopped")
	markSettings(fl)
}

func checkCommand() *cobra.Command {
	var dir string
	var out outputFormat
	c := &cobra.Command{
		Use:   "check",
		Short: "Examine a data directory, with its node stopped",
		Long: `Examine a data directory whose node is stopped: read every record of the journal,
the control logs, the checkpoints, the segments and the quarantine files by their
checksums, and hold them against each other. Nothing is changed. A partition in
quarantine is reported as damage too: it is not served.

The exit status is 0 if nothing is damaged, 1 if something is or cannot be read,
and 2 for a wrong command line. What is only good to know, such as an index that
the next start makes again, is printed and does not count.`,
		Example: `  flotilla check
  flotilla check --data.dir /var/lib/flotilla -o json`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			rep, err := doctor.Check(vfs.OS, filepath.Clean(dir), doctor.Options{Progress: tellReading(c.ErrOrStderr())})
			if err != nil {
				return offlineError(dir, err)
			}
			return printReport(c.OutOrStdout(), out, dir, rep)
		},
	}
	addDataDir(c.Flags(), &dir)
	out.add(c)
	hideConnectionFlags(c)
	return c
}

// offlineError says what to do about a directory that cannot be looked at.
func offlineError(dir string, err error) error {
	if errors.Is(err, fs.ErrNotExist) && !errors.Is(err, node.ErrNotOurs) {
		return fmt.Errorf("%w; give the node's directory with --data.dir", err)
	}
	return err
}

// progressEvery is how often a terminal is told of what is being read.
const progressEvery = 500 * time.Millisecond

// tellReading returns a func that tells a terminal what is being read, and nobody
// else.
func tellReading(stderr io.Writer) func(file string) {
	if !isTerminal(stderr) {
		return nil
	}
	last := time.Now()
	return func(file string) {
		if now := time.Now(); now.Sub(last) >= progressEvery {
			last = now
			fmt.Fprintf(stderr, "reading %s\n", file)
		}
	}
}

func printReport(w io.Writer, out outputFormat, dir string, rep *doctor.Report) error {
	if out == outputJSON {
		for _, f := range rep.Findings {
			if err := printJSON(w, f); err != nil {
				return err
			}
		}
		if err := printJSON(w, rep.Summary); err != nil {
			return err
		}
	} else {
		for _, f := range rep.Findings {
			if err := printFinding(w, f); err != nil {
				return err
			}
		}
		s := rep.Summary
		if _, err := fmt.Fprintf(w, "%s: %d files, %s: %d journal records, %d control records, %d checkpoints, %d batches of %d partitions\n",
			dir, s.Files, formatBytes(s.Bytes), s.JournalRecords, s.ControlRecords, s.Checkpoints, s.Batches, s.Partitions); err != nil {
			return err
		}
	}
	if rep.Harmed() {
		return errDamage
	}
	return nil
}

func printFinding(w io.Writer, f doctor.Finding) error {
	word := "note"
	if f.Harmful {
		word = "DAMAGE"
	}
	at := ""
	if f.Offset >= 0 {
		at = fmt.Sprintf(", byte %d", f.Offset)
	}
	_, err := fmt.Fprintf(w, "%s %s%s: %s\n", word, f.File, at, f.What)
	for _, line := range []struct{ name, text string }{{"cause", f.Cause}, {"loss", f.Loss}, {"remedy", f.Advice}} {
		if line.text != "" && err == nil {
			_, err = fmt.Fprintf(w, "  %-7s %s\n", line.name, line.text)
		}
	}
	return err
}
