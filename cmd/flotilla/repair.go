package main

import (
	"errors"
	"fmt"
	"io"
	"path"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/flotilla-log/flotilla/internal/doctor"
	"github.com/flotilla-log/flotilla/internal/vfs"
)

func repairCommand() *cobra.Command {
	var dir string
	var execute, acceptLoss bool
	var out outputFormat
	c := &cobra.Command{
		Use:   "repair",
		Short: "Repair a data directory, with its node stopped",
		Long: `Repair a data directory whose node is stopped. Without --execute it only prints
what it would do, and what would be lost. What is replaced or removed is kept in
repair-TIME in the data directory; remove that once the node serves.

A plan that gives up acknowledged records, or may, needs --accept-loss too. After
it, offsets of lost records are given again; the leader epochs of all partitions
rise, so that a consumer that asks for the end of its epoch learns of it. If
there is a copy of the directory, put that back instead.

A repair that was cut short is finished by running it again; until then the node
refuses to start. The exit status is 0 if nothing needs repair or all was done,
1 if something needs repair and was not, and 2 for a wrong command line.`,
		Example: `  flotilla repair
  flotilla repair --data.dir /var/lib/flotilla --execute
  flotilla repair --data.dir /var/lib/flotilla --execute --accept-loss`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if acceptLoss && !execute {
				return usagef("--accept-loss does nothing without --execute; look at the plan first")
			}
			done, err := doctor.Repair(vfs.OS, filepath.Clean(dir), doctor.RepairOptions{
				Options: doctor.Options{Progress: tellReading(c.ErrOrStderr())}, Execute: execute, AcceptLoss: acceptLoss, Now: time.Now(),
			})
			if done == nil {
				return offlineError(dir, err)
			}
			if perr := printRepair(c.OutOrStdout(), out, done, execute && err == nil); perr != nil {
				return perr
			}
			if errors.Is(err, doctor.ErrRefused) {
				return fmt.Errorf("%w; nothing was changed", err)
			}
			if err == nil && !execute && len(done.Plan.Actions) > 0 {
				return errPlanned
			}
			return err
		},
	}
	addDataDir(c.Flags(), &dir)
	c.Flags().BoolVar(&execute, "execute", false, "do what the plan says")
	c.Flags().BoolVar(&acceptLoss, "accept-loss", false, "also if acknowledged records are given up")
	out.add(c)
	hideConnectionFlags(c)
	return c
}

// errPlanned is the answer of a dry run that found something to do.
var errPlanned = errors.New("nothing was changed; give --execute to do this")

func printRepair(w io.Writer, out outputFormat, done *doctor.Repaired, executed bool) error {
	if out == outputJSON {
		return printJSON(w, struct {
			*doctor.Plan
			Lossy    bool     `json:"lossy"`
			Executed bool     `json:"executed"`
			Kept     string   `json:"kept,omitempty"`
			Finished string   `json:"finished,omitempty"`
			Left     []string `json:"left,omitempty"`
		}{done.Plan, done.Plan.Lossy(), executed, done.Kept, done.Finished, done.Left})
	}
	var lines []string
	if done.Finished != "" {
		lines = append(lines, "finished the repair of "+path.Base(done.Finished))
	}
	for _, a := range done.Plan.Actions {
		lines = append(lines, a.What)
		for _, f := range a.Files {
			lines = append(lines, "  replaces "+f)
		}
		for _, l := range a.Loss {
			lines = append(lines, "  LOSES "+l)
		}
	}
	for _, r := range done.Plan.Refused {
		lines = append(lines, fmt.Sprintf("cannot repair %s: %s", r.File, r.Why))
	}
	switch {
	case done.Kept != "":
		lines = append(lines, "done; what was replaced is in "+done.Kept)
	case len(lines) == 0 && len(done.Left) == 0:
		lines = append(lines, "nothing to repair")
	}
	for _, l := range done.Left {
		lines = append(lines, "still damaged: "+l)
	}
	for _, line := range lines {
		if _, err := fmt.Fprintln(w, line); err != nil {
			return err
		}
	}
	return nil
}
