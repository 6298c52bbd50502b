package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"log/slog"
	"net"
	"path/filepath"
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
	memoryBytes                           byteSize
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
after what is under way was answered; kill -9 loses nothing either.`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error { return serve(c.Context(), f, c.OutOrStdout(), c.ErrOrStderr()) },
	}
	fl := c.Flags()
	fl.StringVar(&f.dataDir, "data.dir", "flotilla-data", "directory that holds everything")
	fl.StringVar(&f.listen, "listen", "127.0.0.1:9092", "address for clients")
	fl.StringVar(&f.advertise, "advertise", "", "host:port that clients are told; default: the address listened on")
	fl.Int32Var(&f.nodeID, "node.id", 1, "this node's id, part of the directory's identity")
	fl.StringVar(&f.clusterID, "cluster.id", "", "refuse a directory of another cluster; a fresh one gets this id, or a random one")
	fl.Var(&f.journalBytes, "journal.bytes", "most that the commit journal takes on disk, at least four files")
	fl.Var(&f.journalFileBytes, "journal.file.bytes", "size of one journal file, when it is made; four times the largest record batch")
	fl.Var(&f.memoryBytes, "memory.bytes", "bound of records and requests in memory")
	fl.DurationVar(&f.flushAge, "flush.age", 10*time.Second, "a partition's records go to its segment file after at most so long; they are in the journal at once")
	fl.DurationVar(&f.drain, "drain.timeout", 10*time.Second, "how long requests under way may take when the node is stopped")
	fl.StringVar(&f.logLevel, "log.level", "info", "debug, info, warn or error")
	fl.StringVar(&f.logFormat, "log.format", "text", "text or json")
	return c
}

// logger returns the logger that the flags ask for.
func (f *serveFlags) logger(w io.Writer) (*slog.Logger, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(f.logLevel)); err != nil {
		return nil, usageError{fmt.Errorf("--log.level %q: give debug, info, warn or error", f.logLevel)}
	}
	opt := &slog.HandlerOptions{Level: level}
	switch f.logFormat {
	case "text":
		return slog.New(slog.NewTextHandler(w, opt)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(w, opt)), nil
	}
	return nil, usageError{fmt.Errorf("--log.format %q: give text or json", f.logFormat)}
}

func serve(ctx context.Context, f serveFlags, stdout, stderr io.Writer) error {
	log, err := f.logger(stderr)
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", f.listen)
	if err != nil {
		return fmt.Errorf("listen: %w; choose another address with --listen", err)
	}
	if host, _, err := net.SplitHostPort(l.Addr().String()); err == nil && !net.ParseIP(host).IsLoopback() {
		log.Warn("clients beyond this machine can connect, and there is no authentication yet", "listen", l.Addr().String())
	}
	start := time.Now()
	n, err := node.Start(ctx, node.Options{
		FS: vfs.OS, Dir: filepath.Clean(f.dataDir), NodeID: f.nodeID, ClusterID: f.clusterID, Version: version,
		Listener: l, Advertise: f.advertise,
		JournalBytes: int64(f.journalBytes), JournalFileBytes: int64(f.journalFileBytes),
		MemoryBytes: int64(f.memoryBytes), FlushAge: f.flushAge,
		Now: time.Now, Rand: rand.Reader, Log: log,
	})
	if err != nil {
		_ = l.Close()
		return err
	}
	printReady(stdout, n, f, time.Since(start))
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

func printReady(w io.Writer, n *node.Node, f serveFlags, took time.Duration) {
	addr := n.Advertised()
	at := ""
	if addr != "127.0.0.1:9092" {
		at = " --bootstrap " + addr
	}
	abs, err := filepath.Abs(f.dataDir)
	if err != nil {
		abs = f.dataDir
	}
	fmt.Fprintf(w, `flotilla %s serves cluster %s, node %d
  clients  %s (native protocol)
  data     %s (recovered in %s)
Try:
%s
`, version, n.ClusterID(), f.nodeID, addr, abs, took.Round(time.Millisecond), indent(
		"flotilla topic create hello --partitions 3"+at,
		"seq 10 | flotilla produce hello"+at,
		"flotilla consume hello --from beginning --until end"+at,
	))
}

func indent(lines ...string) string { return "  " + strings.Join(lines, "\n  ") }
