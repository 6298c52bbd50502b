package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/flotilla-log/flotilla/bench"
	"github.com/flotilla-log/flotilla/client"
	"github.com/flotilla-log/flotilla/internal/vfs"
	"github.com/flotilla-log/flotilla/log/batch"
)

func benchCommand(conn *connection) *cobra.Command {
	c := &cobra.Command{
		Use:   "bench",
		Short: "Put load on a cluster and measure",
		Long: `Put load on a cluster and measure rates, latencies, and what they cost the
servers. docs/benchmarks.md says how to read the figures.

With --protocol kafka the same load is put on it in Kafka's protocol, through
franz-go; then the cluster may be another maker's.`,
		Args: noSuchCommand,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(benchProduceCommand(conn), benchConsumeCommand(conn), benchLatencyCommand(conn))
	return c
}

// benchFlags are the settings that every bench command has.
type benchFlags struct {
	topic      string
	protocol   string
	serverPIDs []int
	serverDisk string
	quiet      bool
	out        outputFormat

	conn *connection
}

func (f *benchFlags) add(c *cobra.Command) {
	fl := c.Flags()
	fl.StringVar(&f.protocol, "protocol", protocolNative, "native or kafka")
	fl.StringVar(&f.serverDisk, "server-disk", "", "directory on the servers' disk, on this machine: report what that disk wrote and read (Linux); default: that of --yardstick")
	fl.IntSliceVar(&f.serverPIDs, "server-pids", nil, "process ids of servers on this machine: report their CPU, memory and disk writes (Linux)")
	fl.BoolVarP(&f.quiet, "quiet", "q", false, "no progress line every second")
	f.out.add(c)
}

// bench is one run of a bench command.
type benching struct {
	*benchFlags
	c      *cobra.Command
	proc   bench.Proc
	report bench.Report
}

// start returns a run of the command.
func (f *benchFlags) start(c *cobra.Command, kind string, setup map[string]any) (*benching, error) {
	b := &benching{benchFlags: f, c: c, proc: bench.Proc{FS: os.DirFS("/proc")}}
	if setup["protocol"] = f.protocol; f.protocol == protocolKafka {
		setup["client"] = bench.KafkaClient()
	}
	b.report = bench.Report{
		Kind: kind, Command: strings.Join(append([]string{"flotilla"}, os.Args[1:]...), " "),
		Version: version, Commit: commit, Started: time.Now().UTC(), Machine: b.proc.Machine(), Setup: setup,
	}
	for _, pid := range f.serverPIDs {
		if _, err := b.proc.Usage(pid); err != nil {
			return nil, usagef("--server-pids %d: %w", pid, err)
		}
	}
	return b, b.findDisk()
}

// findDisk finds out which device's traffic to report.
func (b *benching) findDisk() error {
	if b.serverDisk == "" {
		return nil
	}
	dir, err := filepath.Abs(b.serverDisk)
	if err == nil {
		dir, err = filepath.EvalSymlinks(dir)
	}
	if err == nil {
		b.proc.Device, err = b.proc.DeviceOf(dir)
	}
	if err != nil && b.c.Flags().Changed("server-disk") {
		return usagef("--server-disk %s: %w", b.serverDisk, err)
	}
	return nil // the yardstick itself needs no device
}

// sampled reports whether this machine has a /proc to sample.
func (b *benching) sampled() bool {
	_, err := b.proc.Sample(os.Getpid(), b.serverPIDs)
	return err == nil
}

// watch returns how the run is observed.
func (b *benching) watch() bench.Watch {
	w := bench.Watch{Now: time.Now}
	if b.sampled() {
		w.Sample = func() (bench.Sample, error) { return b.proc.Sample(os.Getpid(), b.serverPIDs) }
	}
	if !b.quiet {
		w.Progress = func(p bench.Progress) { fmt.Fprintln(b.c.ErrOrStderr(), p.Line()) }
	}
	return w
}

// result adds what was measured to the report.
func (b *benching) result(r bench.Result, warmup time.Duration) {
	b.report.WarmupSeconds = warmup.Seconds()
	b.report.SetResult(r, len(b.serverPIDs), b.sampled())
	b.report.SetDevice(b.proc.Device, r)
}

// print writes the report.
func (b *benching) print() error {
	if b.out == outputJSON {
		return b.report.JSON(b.c.OutOrStdout())
	}
	return b.report.Text(b.c.OutOrStdout())
}

// yardstickFlags are the settings of what a run is compared with.
type yardstickFlags struct {
	dir         string
	commitBytes []string
	fileBytes   byteSize
	duration    time.Duration
}

func (y *yardstickFlags) add(c *cobra.Command, commits ...string) {
	y.fileBytes = 64 << 20
	fl := c.Flags()
	fl.StringVar(&y.dir, "yardstick", "", "directory on the servers' disk: after the run, time bare write+fdatasync there")
	fl.StringSliceVar(&y.commitBytes, "commit-bytes", commits, "sizes of the yardstick's writes")
	fl.Var(&y.fileBytes, "yardstick-file", "size of the yardstick's file, which is written over and over")
	fl.DurationVar(&y.duration, "yardstick-duration", 2*time.Second, "how long to time each size")
}

// plan returns what to measure.
func (y *yardstickFlags) plan() (bench.Yardstick, error) {
	p := bench.Yardstick{FileBytes: int64(y.fileBytes), Duration: y.duration, Seed: rand.Uint64()}
	for _, text := range y.commitBytes {
		var n byteSize
		if err := n.Set(text); err != nil {
			return p, usagef("--commit-bytes: %w", err)
		}
		if n > y.fileBytes {
			return p, usagef("--commit-bytes %s: more than --yardstick-file %s", n, y.fileBytes)
		}
		p.CommitBytes = append(p.CommitBytes, int(n))
	}
	if y.duration <= 0 || len(p.CommitBytes) == 0 {
		return p, usagef("--yardstick-duration %s, --commit-bytes %q: give a duration and a size", y.duration, y.commitBytes)
	}
	if info, err := os.Stat(y.dir); y.dir != "" && (err != nil || !info.IsDir()) {
		return p, usagef("--yardstick %s: is not a directory", y.dir)
	}
	return p, nil
}

// yardstick measures, if the flags ask for it, and adds that to the report.
func (b *benching) yardstick(ctx context.Context, dir string, plan bench.Yardstick) (err error) {
	if dir == "" {
		return nil
	}
	if !b.quiet {
		fmt.Fprintf(b.c.ErrOrStderr(), "%% yardstick: %d times %s of write+fdatasync\n", len(plan.CommitBytes), plan.Duration)
	}
	name := filepath.Join(dir, "flotilla-yardstick-"+strconv.FormatUint(rand.Uint64(), 16))
	file, err := vfs.OS.Create(name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close(), vfs.OS.Remove(name)) }()
	results, err := plan.Run(ctx, time.Now, file)
	b.report.SetYardstick(results)
	return err
}

// recordFlags are the settings of what is produced.
type recordFlags struct {
	partitions  int32
	keep        bool
	recordBytes byteSize
	keys        string
	keyCount    uint64
	values      string
	acks        string
	compression string
	seed        uint64
}

func (r *recordFlags) add(c *cobra.Command, partitions int32, recordBytes byteSize) {
	r.recordBytes = recordBytes
	fl := c.Flags()
	fl.Int32VarP(&r.partitions, "partitions", "p", partitions, "partitions of the topic that is created")
	fl.BoolVar(&r.keep, "keep", false, "do not delete the topic that was created")
	fl.Var(&r.recordBytes, "record-bytes", "size of a value")
	fl.StringVar(&r.keys, "key-distribution", string(bench.KeysNone), "none: a batch to one partition, the next to another; even: each record to the next partition; random or zipf: by key")
	fl.Uint64Var(&r.keyCount, "keys", 1_000_000, "number of different keys, of random and zipf")
	fl.StringVar(&r.values, "values", string(bench.ValuesRandom), "random: incompressible; zero")
	fl.StringVar(&r.acks, "acks", "all", "all, leader (served as all) or none")
	fl.StringVarP(&r.compression, "compression", "z", batch.None.String(), "none, gzip, snappy, lz4 or zstd")
	fl.Uint64Var(&r.seed, "seed", 0, "of keys and values; 0: another one each time")
}

// shape returns what the records look like.
func (r *recordFlags) shape() (bench.Shape, error) {
	s := bench.Shape{
		ValueBytes: int(r.recordBytes), Values: bench.Values(r.values), Keys: bench.Keys(r.keys), KeyCount: r.keyCount, Partitions: max(1, r.partitions),
	}
	if r.partitions < 1 {
		return s, usagef("--partitions %d: give at least 1", r.partitions)
	}
	if err := s.Check(); err != nil {
		return s, usageError{err}
	}
	if r.seed == 0 {
		r.seed = rand.Uint64()
	}
	return s, nil
}

// producer returns the configuration of a producer.
func (r *recordFlags) producer(topic string, linger, timeout time.Duration) (client.ProducerConfig, error) {
	f := produceFlags{compression: r.compression, acks: r.acks, conn: &connection{timeout: timeout}}
	cfg, err := f.producer(topic)
	if cfg.Linger = linger; linger == 0 {
		cfg.Linger = -1
	}
	return cfg, err
}

// setup describes the flags.
func (r *recordFlags) setup(into map[string]any) map[string]any {
	into["record_bytes"], into["key_distribution"], into["values"] = int64(r.recordBytes), r.keys, r.values
	into["acks"], into["compression"], into["seed"] = r.acks, r.compression, r.seed
	if r.keys == string(bench.KeysRandom) || r.keys == string(bench.KeysZipf) {
		into["keys"] = r.keyCount
	}
	return into
}
