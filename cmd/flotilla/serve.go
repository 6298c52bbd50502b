package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	mathrand "math/rand/v2"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/flotilla-log/flotilla/internal/config"
	"github.com/flotilla-log/flotilla/internal/node"
	"github.com/flotilla-log/flotilla/internal/vfs"
)

func serveCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "serve",
		Short: "Run a node",
		Long: `Run a node. Without flags it keeps its data in ./flotilla-data and listens on
127.0.0.1:9092, and on 127.0.0.1:9292 for metrics and health. Every acknowledged
record is on disk. SIGTERM and Ctrl-C stop it after what is under way was
answered; kill -9 loses nothing either. SIGUSR1 opens Go profiles on the admin
listener for ten minutes.

Each flag is a setting. It can be given as an environment variable too
(--journal.bytes as FLOTILLA_JOURNAL_BYTES), or in a YAML file (--config FILE);
the flag wins, then the variable. "flotilla config explain" says more of each.

The exit status is 0 after SIGTERM or Ctrl-C, 1 if the node cannot start as
asked, or stopped for damage that its next start has other nodes replace, 2 for a
wrong flag, variable or file, and 3 if its disk or its data failed: then a restart
will probably not help.`,
		Example: `  flotilla serve
  flotilla serve --data.dir /var/lib/flotilla --listen 0.0.0.0:9092 --advertise node1.example.com:9092
  flotilla serve --node.id 4 --join node1:9192,node2:9192 --node.listen node4:9192 --listen node4:9092`,
		Args: func(c *cobra.Command, args []string) error {
			for _, name := range []string{"bootstrap", "timeout"} {
				if c.Flags().Changed(name) {
					return usagef("flotilla serve takes no --%s, which is how the other commands find a node", name)
				}
			}
			return noArgs(c, args)
		},
		RunE: func(c *cobra.Command, _ []string) error {
			v, err := settings(c, os.Environ())
			if err != nil {
				return err
			}
			return serve(c.Context(), v, c.OutOrStdout(), c.ErrOrStderr())
		},
	}
	addSettings(c, false)
	hideConnectionFlags(c)
	return c
}

// logger returns the logger that the settings ask for.
func logger(v *config.Values, w io.Writer) *slog.Logger {
	var level slog.Level
	if err := level.UnmarshalText([]byte(v.Text("log.level"))); err != nil {
		panic("flotilla: a log level that slog does not know: " + err.Error()) // config knows them
	}
	opt := &slog.HandlerOptions{Level: level}
	if v.Text("log.format") == "json" {
		return slog.New(slog.NewJSONHandler(w, opt))
	}
	return slog.New(slog.NewTextHandler(w, opt))
}

// startError tells a disk or data that failed from a node that was asked for
// wrongly.
func startError(ctx context.Context, dir string, err error) error {
	if ctx.Err() != nil {
		return nil // stopped before it was ready, as asked
	}
	for _, asked := range []error{
		node.ErrInUse, node.ErrMembers, node.ErrRefused, node.ErrNotOurs, node.ErrWrongIdentity, node.ErrNewer, fs.ErrPermission, fs.ErrNotExist,
	} {
		if errors.Is(err, asked) {
			return err
		}
	}
	return stoppedError{fmt.Errorf("%w; \"flotilla check --data.dir %s\" says what is damaged, and \"flotilla repair\" what can be done", err, dir)}
}

// filesApart is how many open files are not planned with: connections of the
// admin listener, the journal's, the control logs', and what is for a moment.
const filesApart = 128

// idleFiles is how many segment files are kept open unused, of what connections
// leave of the open files.
func idleFiles(files, connections int64) int {
	return int(min(max((files-filesApart-connections)/4, 16), 1<<16))
}

// groupOptions are the options of consumer groups by a node's settings.
func groupOptions(v *config.Values) node.Groups {
	g := node.DefaultGroups()
	g.MaxGroupSize = int(v.Int("group.max.size"))
	g.MaxGroups, g.MaxOffsets = int(v.Int("offsets.partition.groups.max")), int(v.Int("offsets.partition.offsets.max"))
	g.MaxBytes = int(v.Bytes("offsets.partition.member.bytes.max"))
	g.MinSessionTimeout, g.MaxSessionTimeout = v.Duration("group.min.session.timeout"), v.Duration("group.max.session.timeout")
	g.InitialRebalanceDelay = v.Duration("group.initial.rebalance.delay")
	g.ConsumerHeartbeatIntervalMin = v.Duration("group.consumer.heartbeat.interval.min")
	g.ConsumerSessionTimeout, g.ConsumerHeartbeatInterval = v.Duration("group.consumer.session.timeout"), v.Duration("group.consumer.heartbeat.interval")
	g.Migration = node.MigrationPolicy(v.Text("group.consumer.migration.policy"))
	g.MaxOffsetMetadataBytes = int(v.Int("offset.metadata.max.bytes"))
	g.OffsetsRetention, g.RetentionCheck = v.Duration("offsets.retention"), v.Duration("offsets.retention.check.interval")
	return g
}

// nodeOptions are a node's options by its settings.
func nodeOptions(v *config.Values, files int64) node.Options {
	nodes, _ := config.ClusterNodes(v.Text("cluster.nodes")) // it was looked at
	return node.Options{
		FS: vfs.OS, Dir: filepath.Clean(v.Text("data.dir")), NodeID: int32(v.Int("node.id")), ClusterID: v.Text("cluster.id"),
		Version: version, Commit: commit, Shards: uint32(v.Int("shards.per.node")) * uint32(max(len(nodes), 1)), Rack: v.Text("rack"),
		JournalBytes: v.Bytes("journal.bytes"), JournalFileBytes: v.Bytes("journal.file.bytes"),
		MemoryBytes: v.Bytes("memory.bytes"), FlushAge: v.Duration("flush.age"), DiskReserveBytes: v.Bytes("disk.reserve.bytes"),
		ProducerExpiry: v.Duration("producer.id.expiration"), HashInterval: v.Duration("hash.interval"), ReplicaLag: v.Duration("replica.lag.time.max"),
		RackAware:         v.Text("replica.selector.class") == config.RackAwareSelector,
		SessionTimeout:    v.Duration("broker.session.timeout"),
		RetentionInterval: v.Duration("retention.check.interval"), BalanceInterval: v.Duration("leader.balance.interval"),
		CatchUpRate: v.Bytes("catch.up.bytes.per.second"),
		ScrubRate:   v.Bytes("scrub.bytes.per.second"), ScrubInterval: v.Duration("scrub.interval"),
		DefaultPartitions: int32(v.Int("num.partitions")), DefaultReplication: int32(v.Int("default.replication.factor")), Settings: v.Kafka(),
		OffsetsPartitions: int32(v.Int("offsets.topic.num.partitions")), OffsetsReplication: int32(v.Int("offsets.topic.replication.factor")),
		Groups:       groupOptions(v),
		LagInterval:  cmp.Or(v.Duration("group.lag.interval"), -1),
		RefuseDamage: v.Text("damage.policy") == "refuse",
		IdleFiles:    idleFiles(files, v.Int("connections.max")),
		Profiles:     v.Bool("admin.pprof"), CommitMax: v.Duration("ready.commit.max"),
		NoAutoCreateTopics: !v.Bool("auto.create.topics.enable"),
		Limits: node.Limits{
			BatchBytes: int(v.Bytes("batch.bytes.max")), Partitions: int(v.Int("partitions.max")),
			TopicPartitions: int(v.Int("topics.partitions.max")), Producers: int(v.Int("producers.max")),
			MetricTopics: cmp.Or(int(v.Int("metrics.topics.max")), -1), MetricGroups: cmp.Or(int(v.Int("metrics.groups.max")), -1),
		},
		Clients: node.ClientLimits{
			Connections: int(v.Int("connections.max")), ConnectionsPerIP: int(v.Int("connections.max.per.ip")),
			InFlight: int(v.Int("inflight.requests.max")), InFlightBytes: v.Bytes("inflight.bytes.max"),
			RequestBytes: int(v.Bytes("request.bytes.max")), IdleTimeout: v.Duration("connections.idle.timeout"),
			FetchSessions: cmp.Or(int(v.Int("fetch.sessions.max")), -1),
		},
		Now: time.Now, Rand: rand.Reader,
	}
}

// listenAll opens the clients' listeners.
func listenAll(v *config.Values, opt *node.Options) error {
	all, err := config.Listeners(v.Text("listen"), v.Text("advertise"))
	if err != nil {
		return usagef("%v", err)
	}
	for i, l := range all {
		nl, err := listen(l.Listen, "listen", "clients can connect from", opt.Log)
		if err != nil {
			closeAll(opt)
			return err
		}
		if i == 0 {
			opt.Listener, opt.Advertise = nl, l.Advertise
			continue
		}
		opt.MoreListeners = append(opt.MoreListeners, node.Listener{Listener: nl, Name: l.Name, Advertise: l.Advertise})
	}
	return nil
}

// closeAll closes the clients' listeners of a node that did not start.
func closeAll(opt *node.Options) {
	if opt.Listener != nil {
		_ = opt.Listener.Close()
	}
	for _, l := range opt.MoreListeners {
		_ = l.Close()
	}
}

// listen opens a listener of a setting. danger is what somebody beyond this
// machine could do.
func listen(addr, key, danger string, log *slog.Logger) (net.Listener, error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("%w; choose another address with --%s", err, key)
	}
	if !isLoopback(l.Addr()) {
		log.Warn(danger+" beyond this machine, and there is no authentication yet", key, l.Addr().String())
	}
	return l, nil
}

// start opens the listeners and starts the node. Unless it returns no node, end is
// to be called after the node's Close.
func start(ctx context.Context, v *config.Values, log *slog.Logger) (n *node.Node, opt node.Options, end func(), err error) {
	dir := v.Of("data.dir")
	if info, err := os.Stat(dir.Text); err == nil && !info.IsDir() {
		return nil, opt, nil, usagef("%s %s is not a directory", dir.Name(), dir.Text)
	}
	files, err := raiseFiles(v.Int("files.max"))
	if err != nil {
		files = v.Int("files.max")
		log.Warn("the limit of open files stays as it is", "err", err)
	}
	log.Debug("open files", "limit", files)
	opt = nodeOptions(v, min(files, v.Int("files.max")))
	opt.Log = log
	if err := listenAll(v, &opt); err != nil {
		return nil, opt, nil, err
	}
	if !config.AdminOff(v.Text("admin.listen")) {
		if opt.Admin, err = listen(v.Text("admin.listen"), "admin.listen", "metrics can be read from", log); err != nil {
			closeAll(&opt)
			return nil, opt, nil, fmt.Errorf("%w, or none with --admin.listen off", err)
		}
	}
	if end, err = meet(v, &opt); err != nil {
		closeAll(&opt)
		if opt.Admin != nil {
			_ = opt.Admin.Close()
		}
		return nil, opt, nil, err
	}
	node.LimitMemory(opt.MemoryBytes, int(v.Int("connections.max")), mathrand.Float64())
	if n, err = node.Start(ctx, opt); err != nil {
		end()
		closeAll(&opt)
		return nil, opt, nil, startError(ctx, opt.Dir, err)
	}
	return n, opt, end, nil
}

func serve(ctx context.Context, v *config.Values, stdout, stderr io.Writer) error {
	log := logger(v, stderr)
	began := time.Now()
	n, opt, end, err := start(ctx, v, log)
	if n == nil {
		return err
	}
	defer end()
	profiles := make(chan os.Signal, 1)
	signal.Notify(profiles, syscall.SIGUSR1)
	defer signal.Stop(profiles)
	printReady(stdout, v, n, opt, time.Since(began))
	var failed error
	for running := true; running; {
		select {
		case <-ctx.Done():
			running = false
			log.Info("stopping")
		case failed = <-n.Failed():
			running = false
			log.Error("the node stops: it cannot keep its promises any more", "err", failed)
		case <-profiles:
			log.Info("profiles asked for", "allowed", n.AllowProfiles(), "for", node.ProfilesFor)
		}
	}
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), v.Duration("drain.timeout"))
	defer cancel()
	err = n.Close(drain)
	switch {
	case failed == nil:
		return err
	case opt.Heals(failed):
		return fmt.Errorf("%w; start the node again: the other nodes replace what is damaged", failed)
	}
	return stoppedError{failed}
}

func printReady(w io.Writer, v *config.Values, n *node.Node, opt node.Options, took time.Duration) {
	addr := n.Advertised()
	at := ""
	if addr != defaultBootstrap {
		at = " --bootstrap " + addr
	}
	abs, err := filepath.Abs(opt.Dir)
	if err != nil {
		abs = opt.Dir
	}
	listening := ""
	if l := opt.Listener.Addr().String(); l != addr {
		listening = ", listening on " + l
	}
	more := ""
	for _, l := range opt.MoreListeners {
		advertise := l.Advertise
		if advertise == "" {
			advertise = l.Addr().String()
		}
		more += fmt.Sprintf("           %s (%s, listening on %s)\n", advertise, l.Name, l.Addr())
	}
	metrics := "off"
	if opt.Admin != nil {
		metrics = "http://" + opt.Admin.Addr().String() + "/metrics (and /healthz, /readyz)"
	}
	switch {
	case opt.Join != nil:
		more += fmt.Sprintf("  nodes    it has joined those that were there (and listens for them on %s)\n", opt.Join.Listener.Addr())
	case opt.Cluster != nil:
		more += fmt.Sprintf("  nodes    %v (this one listens for the others on %s)\n", opt.Cluster.Nodes, v.Text("node.listen"))
	}
	fmt.Fprintf(w, `flotilla %s serves cluster %s, node %d
  clients  %s (native protocol and Kafka's%s)
%s  metrics  %s
  data     %s (recovered in %s)
Try:
%s
`, version, n.ClusterID(), opt.NodeID, addr, listening, more, metrics, abs, took.Round(time.Millisecond), indent(
		"flotilla topic create hello --partitions 3"+at,
		"seq 10 | flotilla produce hello"+at,
		"flotilla consume hello --from beginning --until end"+at,
	))
}

func indent(lines ...string) string { return "  " + strings.Join(lines, "\n  ") }
