// Command flotilla is the server and its tools in one binary.
//
// Data goes to standard output, everything about it to standard error. The
// exit status is
//
//	0  done; also consume after Ctrl-C, or when nobody reads its output any more
//	1  the command could not do what was asked; check, dump: something is damaged;
//	   repair: something is to be done, and was not
//	2  the command line, a FLOTILLA_ variable or the settings file was wrong; nothing was done
//	3  serve: the disk or the data failed; a restart will probably not help
//	4  cluster status: something is wrong with the cluster
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/flotilla-log/flotilla/internal/config"
)

// version and commit name the build. The Makefile sets commit.
var (
	version = "0.1.0"
	commit  = "unknown"
)

// Exit statuses.
const (
	exitOK      = 0
	exitFailed  = 1
	exitUsage   = 2
	exitStopped = 3

	exitDegraded = 4
)

// exitStatuses is what they mean, as every reader of --help wants to know.
const exitStatuses = `Exit status:
  0  done; also consume after Ctrl-C, or when nobody reads its output any more
  1  the command could not do what was asked; check, dump: something is damaged; repair: something is to be done, and was not
  2  the command line, a FLOTILLA_ variable or the settings file was wrong; nothing was done
  3  serve: the disk or the data failed; a restart will probably not help
  4  cluster status: something is wrong with the cluster`

// usageError is a wrong command line or environment.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// stoppedError is a node that could not start, or stopped by itself, because of
// its disk or its data.
type stoppedError struct{ error }

func (e stoppedError) Unwrap() error { return e.error }

func main() { os.Exit(run()) }

func run() int {
	// A closed pipe is an error of Write, not the end of the process: a server
	// outlives whoever read its log.
	signal.Ignore(syscall.SIGPIPE)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	root := rootCommand()
	root.SetOut(stdout{os.Stdout})
	err := root.ExecuteContext(ctx)
	if err == nil || errors.Is(err, errNoReader) {
		return exitOK
	}
	for _, line := range messages(err) {
		fmt.Fprintln(os.Stderr, "flotilla:", line)
	}
	var usage usageError
	var stopped stoppedError
	var degraded degradedError
	switch {
	case errors.As(err, &usage):
		return exitUsage
	case errors.As(err, &stopped):
		return exitStopped
	case errors.As(err, &degraded):
		return exitDegraded
	}
	return exitFailed
}

// messages are the lines of an error: one, or one for each setting that is
// wrong.
func messages(err error) []string {
	var wrong *config.Error
	if errors.As(err, &wrong) {
		return wrong.Problems
	}
	return []string{message(err)}
}

// message is an error in one line, without the name of the package that every
// error of a command but serve comes from.
func message(err error) string {
	text := strings.ReplaceAll(err.Error(), "\n", ": ") // errors.Join's
	return strings.TrimPrefix(text, "client: ")
}

func rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "flotilla",
		Short: "A commit-log server: topics, replicated by Raft, on disk before they are acknowledged",
		Long: `A commit-log server: topics, replicated by Raft, on disk before they are
acknowledged. "flotilla serve" runs a node; the other commands talk to one.

` + exitStatuses,
		SilenceErrors:     true,
		SilenceUsage:      true,
		Args:              noSuchCommand,
		RunE:              func(c *cobra.Command, _ []string) error { return c.Help() },
		PersistentPreRunE: func(c *cobra.Command, _ []string) error { return applyEnvironment(c, os.Environ()) },
	}
	root.SetFlagErrorFunc(flagError)
	conn := addConnectionFlags(root.PersistentFlags())
	root.AddCommand(serveCommand(), devCommand(), configCommand(), checkCommand(), repairCommand(), dumpCommand(), topicCommand(conn), groupCommand(conn), clusterCommand(conn), featuresCommand(conn), produceCommand(conn), consumeCommand(conn), benchCommand(conn), versionCommand())
	addCompletion(root)
	return root
}

func versionCommand() *cobra.Command {
	var out outputFormat
	c := &cobra.Command{
		Use:   "version",
		Short: "Print the version and the commit it was built from",
		Args:  noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if out == outputJSON {
				return printJSON(c.OutOrStdout(), struct {
					Version string `json:"version"`
					Commit  string `json:"commit"`
				}{version, commit})
			}
			_, err := fmt.Fprintf(c.OutOrStdout(), "flotilla %s (commit %s)\n", version, commit)
			return err
		},
	}
	out.add(c)
	hideConnectionFlags(c)
	return c
}

// errNoReader reports that the reader of standard output has gone: the rest of
// the output is of no use to anybody.
var errNoReader = errors.New("nobody reads the output")

// stdout turns a broken pipe, of standard output and of nothing else, into
// errNoReader.
type stdout struct{ w io.Writer }

func (o stdout) Write(b []byte) (int, error) {
	n, err := o.w.Write(b)
	if errors.Is(err, syscall.EPIPE) {
		err = errNoReader
	}
	return n, err
}
