package peer

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
)

// Options are the command line of a program that runs servers to measure them.
type Options interface {
	// Run runs it until it is done, or ctx ends.
	Run(ctx context.Context, stdout, stderr io.Writer) error
}

// Main is a whole program: it runs what parse makes of the arguments, until the
// process is interrupted. With an error it says so, and ends with status 1.
func Main[O Options](parse func(args []string, output io.Writer) (O, error)) {
	o, err := parse(os.Args[1:], os.Stderr)
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err == nil {
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
		defer stop()
		err = o.Run(ctx, os.Stdout, os.Stderr)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// InDirectory calls do with a new directory below parent, by default the system's
// for such, and removes it afterwards. prefix begins its name.
func InDirectory(parent, prefix string, do func(dir string) error) (err error) {
	if parent == "" {
		parent = os.TempDir()
	}
	dir, err := os.MkdirTemp(parent, prefix)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	return do(dir)
}

// SaveJSON writes v to a file, as JSON to be read by people too; name "" is no file.
func SaveJSON(name string, v any) (err error) {
	if name == "" {
		return nil
	}
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	e := json.NewEncoder(f)
	e.SetEscapeHTML(false)
	e.SetIndent("", " ")
	return e.Encode(v)
}
