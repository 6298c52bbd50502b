// Command demo sends every line of a file tree through a real server, kills the
// server twice with SIGKILL on the way, reads everything back, and compares it
// with the files: what `make run` does.
//
// It exits with 0 if the verdict is PASS, 1 if it is FAIL, and 2 if it could
// not be run.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func main() { os.Exit(run()) }

func run() int {
	opt := options{out: os.Stdout}
	flag.StringVar(&opt.binary, "binary", "bin/flotilla", "the server's `path`")
	flag.StringVar(&opt.file, "file", "", "the file or directory to send")
	flag.StringVar(&opt.dataDir, "data", "", "data `directory`, which must not exist; default: a temporary one, removed when all is well")
	flag.IntVar(&opt.partitions, "partitions", 16, "partitions of the topic")
	flag.BoolVar(&opt.tamper, "tamper", false, "change one stored record behind the server's back before reading: the verdict must be FAIL")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := demo(ctx, &opt)
	var bad verdictError
	switch {
	case err == nil:
		fmt.Fprintln(opt.out, "\nVERDICT: PASS")
		fmt.Fprint(opt.out, opt.nextSteps())
		return 0
	case errors.As(err, &bad):
		fmt.Fprintf(opt.out, "\nVERDICT: FAIL: %v\n", err)
		return 1
	default:
		fmt.Fprintln(os.Stderr, "demo:", err)
		return 2
	}
}
