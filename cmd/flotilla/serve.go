package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/flotilla-log/flotilla/internal/node"
	"github.com/flotilla-log/flotilla/internal/vfs"
)

// serveFlags are the settings of serve.
type serveFlags struct {
	dataDir, listen, advertise, clusterID string
	nodeID                                int32
	journalBytes, journalFileBytes        byteSize
	memoryBytes, diskReserveBytes         byteSize
	flushAge, drain                       time.Duration
	logLevel, logFormat                   string
}

func serveCommand() *cobra.Command {
	f := serveFlags{journalBytes: 1 << 30, journalFileBytes: 64 << 20, memoryBytes: 1 << 30}
	c := &cobra.Command{
		Use:   "serve",
		Short: "Run a node",
		Long: `Run a node. Without flags it keeps its data in ./flotilla-data and listens on
127.0.0.1:9092. Every acknowledged record is on disk. SIGTERM and Ctrl-C stop it
after what is under way was answered; kill -9 loses nothing either.

Each flag can be given as an environment variable too: --journal.bytes as
FLOTILLA_JOURNAL_BYTES. The flag wins.

The exit status is 0 after SIGTERM or Ctrl-C, 1 if the node cannot start as
asked, 2 for a wrong flag or variable, and 3 if its disk or its data failed: then
a restart will probably not help.`,
		Example: `  flotilla serve
  flotilla serve --data.dir /var/lib/flotilla --listen 0.0.0.0:9092 --advertise node1.example.com:9092`,
		Args: func(c *cobra.Command, args []string) error {
			for _, name := range []string{"bootstrap", "timeout"} {
				if c.Flags().Changed(name) {
					return usagef("flotilla serve takes no --%s, which is how the other commands find a node", name)
				}
			}
			return noArgs(c, args)
		},
		RunE: func(c *cobra.Command, _ []string) error {
			return serve(c.Context(), f, c.OutOrStdout(), c.ErrOrStderr())
		},
	}
	fl := c.Flags()
	fl.StringVar(&f.dataDir, "data.dir", "flotilla-data", "directory that holds everything")
	fl.StringVar(&f.listen, "listen", defaultBootstrap, "address for clients")
	fl.StringVar(&f.advertise, "advertise", "", "host:port that clients are told; default: the address listened on")
	fl.Int32Var(&f.nodeID, "node.id", 1, "this node's id, part of the directory's identity")
	fl.StringVar(&f.clusterID, "cluster.id", "", "refuse a directory of another cluster; a fresh one gets this id, or a random one")
	fl.Var(&f.journalBytes, "journal.bytes", "most that the commit journal takes on disk, at least four files")
	fl.Var(&f.journalFileBytes, "journal.file.bytes", "size of one journal file, when it is made; four times the largest record batch")
	fl.Var(&f.memoryBytes, "memory.bytes", "bound of records and requests in memory")
	fl.Var(&f.diskReserveBytes, "disk.reserve.bytes", "free space on the data directory's disk below which records wait; default: half of memory.bytes and a journal file, at most 5% of the disk")
	fl.DurationVar(&f.flushAge, "flush.age", 10*time.Second, "a partition's records go to its segment file after at most so long; they are in the journal at once")
	fl.DurationVar(&f.drain, "drain.timeout", 10*time.Second, "how long requests under way may take when the node is stopped")
	fl.StringVar(&f.logLevel, "log.level", "info", "debug, info, warn or error")
	fl.StringVar(&f.logFormat, "log.format", "text", "text or json")
	markSettings(fl)
	hideConnectionFlags(c)
	return c
}

// logger returns the logger that the flags ask for.
func (f *serveFlags) logger(w io.Writer) (*slog.Logger, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(f.logLevel)); err != nil {
		return nil, usagef("--log.level %q: give debug, info, warn or error", f.logLevel)
	}
	opt := &slog.HandlerOptions{Level: level}
	switch f.logFormat {
	case "text":
		return slog.New(slog.NewTextHandler(w, opt)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(w, opt)), nil
	}
	return nil, usagef("--log.format %q: give text or json", f.logFormat)
}

// check refuses what cannot work, before anything is opened.
func (f *serveFlags) check() error {
	host, _, err := net.SplitHostPort(f.listen)
	if err != nil {
		return usagef("--listen %q: give HOST:PORT, such as 127.0.0.1:9092", f.listen)
	}
	// Clients connect to what they are told; "any address" is none.
	if ip := net.ParseIP(host); f.advertise == "" && (host == "" || ip != nil && ip.IsUnspecified()) {
		return usagef("--listen %s takes connections to any address; say with --advertise HOST:PORT which one to tell clients", f.listen)
	}
	if f.advertise != "" {
		host, port, err := net.SplitHostPort(f.advertise)
		n, badPort := strconv.ParseUint(port, 10, 16)
		if err != nil || host == "" || badPort != nil || n == 0 {
			return usagef("--advertise %q: give the HOST:PORT that clients connect to", f.advertise)
		}
	}
	if f.nodeID < 0 {
		return usagef("--node.id %d: give 0 or more", f.nodeID)
	}
	if f.flushAge <= 0 || f.drain < 0 {
		return usagef("--flush.age %s, --drain.timeout %s: give positive durations, such as 10s", f.flushAge, f.drain)
	}
	if info, err := os.Stat(f.dataDir); err == nil && !info.IsDir() {
		return usagef("--data.dir %s is not a directory", f.dataDir)
	}
	const filesAtLeast, smallest, largest, multiple = 4, 32 << 10, 4 << 30, 4096
	if n := f.journalFileBytes; n < smallest || n > largest || n%multiple != 0 {
		return usagef("--journal.file.bytes %s: give a multiple of 4KiB from 32KiB to 4GiB", &n)
	}
	if f.journalBytes < filesAtLeast*f.journalFileBytes {
		return usagef("--journal.bytes %s is less than %d files of --journal.file.bytes %s", &f.journalBytes, filesAtLeast, &f.journalFileBytes)
	}
	return nil
}

// startError tells a disk or data that failed from a node that was asked for
// wrongly.
func startError(ctx context.Context, dir string, err error) error {
	if ctx.Err() != nil {
		return nil // stopped before it was ready, as asked
	}
	for _, asked := range []error{
		node.ErrInUse, node.ErrNotOurs, node.ErrWrongIdentity, node.ErrNewer, fs.ErrPermission, fs.ErrNotExist,
	} {
		if errors.Is(err, asked) {
			return err
		}
	}
	return stoppedError{fmt.Errorf("%w; \"flotilla check --data.dir %s\" says what is damaged, and \"flotilla repair\" what can be done", err, dir)}
}

func serve(ctx context.Context, f serveFlags, stdout, stderr io.Writer) error {
	log, err := f.logger(stderr)
	if err != nil {
		return err
	}
	if err := f.check(); err != nil {
		return err
	}
	l, err := net.Listen("tcp", f.listen)
	if err != nil {
		return fmt.Errorf("%w; choose another address with --listen", err)
	}
	if host, _, err := net.SplitHostPort(l.Addr().String()); err == nil && !net.ParseIP(host).IsLoopback() {
		log.Warn("clients beyond this machine can connect, and there is no authentication yet", "listen", l.Addr().String())
	}
	start := time.Now()
	n, err := node.Start(ctx, node.Options{
		FS: vfs.OS, Dir: filepath.Clean(f.dataDir), NodeID: f.nodeID, ClusterID: f.clusterID, Version: version,
		Listener: l, Advertise: f.advertise,
		JournalBytes: int64(f.journalBytes), JournalFileBytes: int64(f.journalFileBytes),
		MemoryBytes: int64(f.memoryBytes), FlushAge: f.flushAge, DiskReserveBytes: int64(f.diskReserveBytes),
		Now: time.Now, Rand: rand.Reader, Log: log,
	})
	if err != nil {
		_ = l.Close()
		return startError(ctx, f.dataDir, err)
	}
	printReady(stdout, n, l, f, time.Since(start))
	var failed error
	select {
	case <-ctx.Done():
		log.Info("stopping")
	case failed = <-n.Failed():
		log.Error("the node stops: it cannot keep its promises any more", "err", failed)
	}
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), f.drain)
	defer cancel()
	err = n.Close(drain)
	if failed != nil {
		return stoppedError{failed}
	}
	return err
}

func printReady(w io.Writer, n *node.Node, l net.Listener, f serveFlags, took time.Duration) {
	addr := n.Advertised()
	at := ""
	if addr != defaultBootstrap {
		at = " --bootstrap " + addr
	}
	abs, err := filepath.Abs(f.dataDir)
	if err != nil {
		abs = f.dataDir
	}
	listening := ""
	if l.Addr().String() != addr {
		listening = ", listening on " + l.Addr().String()
	}
	fmt.Fprintf(w, `flotilla %s serves cluster %s, node %d
  clients  %s (native protocol%s)
  data     %s (recovered in %s)
Try:
%s
`, version, n.ClusterID(), f.nodeID, addr, listening, abs, took.Round(time.Millisecond), indent(
		"flotilla topic create hello --partitions 3"+at,
		"seq 10 | flotilla produce hello"+at,
		"flotilla consume hello --from beginning --until end"+at,
	))
}

func indent(lines ...string) string { return "  " + strings.Join(lines, "\n  ") }
