package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/flotilla-log/flotilla/client"
	"github.com/flotilla-log/flotilla/log/batch"
)

// produceFlags are the settings of produce.
type produceFlags struct {
	delimiter, keyDelimiter string
	key                     string
	headers                 []string
	partition               int32
	compression, acks       string
	notIdempotent           bool
	whole, null, quiet      bool
	out                     outputFormat

	conn *connection
}

func produceCommand(conn *connection) *cobra.Command {
	f := produceFlags{conn: conn}
	c := &cobra.Command{
		Use:               "produce TOPIC [FILE...]",
		ValidArgsFunction: conn.topicNames(1, cobra.ShellCompDirectiveDefault),
		Short:             "Append records: the lines of standard input or of files",
		Long: `Append records to a topic: each line of standard input, or of the files, becomes
one, without its newline and otherwise byte for byte. An empty line is a record
with an empty value. "-" is standard input.

When the command returns, all records are on the disks of a majority of their
replicas, each once and in order. If a record is refused because it is too
large, the others go on; any other failure ends the reading. Both name the
lines concerned, and the exit status is 1.

Delimiters may hold \n \r \t \xHH and \0. With -o json the place of each record
is printed to standard output as it is acknowledged, one JSON object a line.`,
		Example: `  seq 10 | flotilla produce hello
  printf 'user1:login\nuser2:logout\n' | flotilla produce events --key-delimiter :
  flotilla produce photos --whole-files *.jpg`,
		Args: someTopics,
		RunE: func(c *cobra.Command, args []string) error { return f.run(c, args[0], args[1:]) },
	}
	fl := c.Flags()
	fl.StringVarP(&f.delimiter, "delimiter", "D", `\n`, "what ends a record")
	fl.BoolVar(&f.whole, "whole-files", false, "make each file one record")
	fl.StringVarP(&f.keyDelimiter, "key-delimiter", "K", "", "what separates the key from the value; without it a line has no key")
	fl.StringVarP(&f.key, "key", "k", "", "key of each record that brings none")
	fl.StringArrayVarP(&f.headers, "header", "H", nil, "NAME=VALUE, or NAME for a null value; may be repeated")
	fl.Int32VarP(&f.partition, "partition", "p", client.AnyPartition, "partition; -1: by the key, or any")
	fl.BoolVarP(&f.null, "null", "Z", false, "make empty values, and empty keys before a --key-delimiter, null")
	fl.StringVarP(&f.compression, "compression", "z", batch.None.String(), "none, gzip, snappy, lz4 or zstd")
	fl.StringVar(&f.acks, "acks", "all", "all, leader (served as all), or none: not to wait, and not to learn of failures")
	fl.BoolVar(&f.notIdempotent, "no-idempotence", false, "let a retry append twice; what --acks leader and none imply")
	fl.BoolVarP(&f.quiet, "quiet", "q", false, "print errors only")
	f.out.add(c)
	return c
}

func (f *produceFlags) run(c *cobra.Command, topic string, files []string) error {
	cfg, err := f.producer(topic)
	if err != nil {
		return err
	}
	s, err := f.shape(c.Flags().Changed("key"))
	if err != nil {
		return err
	}
	delimiter, err := unescape(f.delimiter)
	if err != nil || delimiter == "" {
		return usagef("--delimiter %q: give one or more characters; see --whole-files for none", f.delimiter)
	}
	// A file that is missing should be found out before the first record.
	for _, name := range files {
		if name == "-" {
			continue
		}
		if info, err := os.Stat(name); err != nil {
			return fmt.Errorf("%w; nothing was sent", err)
		} else if info.IsDir() {
			return fmt.Errorf("%s is a directory; nothing was sent", name)
		}
	}
	in := &input{files: files, stdin: c.InOrStdin(), delimiter: []byte(delimiter), whole: f.whole}
	return f.conn.with(c.Context(), c.ErrOrStderr(), func(ctx context.Context, cl *client.Client) error {
		d, err := lookUp(ctx, cl.Admin(), topic)
		if err != nil {
			return err
		}
		if err := checkPartition(d, f.partition); err != nil && f.partition != client.AnyPartition {
			return err
		}
		cfg.BatchBytes = batchBytes(d)
		p, err := cl.NewProducer(cfg)
		if err != nil {
			return usageError{err}
		}
		if len(files) == 0 && isTerminal(c.InOrStdin()) && !f.quiet {
			fmt.Fprintln(c.ErrOrStderr(), "Each line becomes a record. Ctrl-D ends.")
		}
		session := newProducing(p, s, in, f.report(c))
		return session.run(ctx, f.conn.timeout)
	})
}

// producer returns the configuration that the flags ask for.
func (f *produceFlags) producer(topic string) (client.ProducerConfig, error) {
	cfg := client.ProducerConfig{Topic: topic, NotIdempotent: f.notIdempotent, DeliveryTimeout: 4 * f.conn.timeout}
	var err error
	if cfg.Compression, err = batch.ParseCodec(f.compression); err != nil {
		return cfg, usagef("--compression %q: give none, gzip, snappy, lz4 or zstd", f.compression)
	}
	switch f.acks {
	case "all", "-1":
		cfg.Acks = client.AcksAll
	case "leader", "1":
		cfg.Acks, cfg.NotIdempotent = client.AcksLeader, true
	case "none", "0":
		cfg.Acks, cfg.NotIdempotent = client.AcksNone, true
	default:
		return cfg, usagef("--acks %q: give all, leader or none", f.acks)
	}
	return cfg, nil
}

func (f *produceFlags) shape(withKey bool) (*shape, error) {
	s := &shape{partition: f.partition, emptyIsNull: f.null}
	if f.partition < client.AnyPartition {
		return nil, usagef("--partition %d: give a partition, or -1 for any", f.partition)
	}
	if withKey {
		s.key = []byte(f.key)
	}
	sep, err := unescape(f.keyDelimiter)
	if err != nil {
		return nil, usagef("--key-delimiter %q: %w", f.keyDelimiter, err)
	}
	s.keyDelimiter = []byte(sep)
	for _, h := range f.headers {
		name, value, ok := strings.Cut(h, "=")
		if name == "" {
			return nil, usagef("--header %q: give NAME=VALUE", h)
		}
		header := client.Header{Key: []byte(name)}
		if ok {
			header.Value = []byte(value)
		}
		s.headers = append(s.headers, header)
	}
	return s, nil
}

// report returns where to say what becomes of the records.
func (f *produceFlags) report(c *cobra.Command) report {
	r := report{stderr: c.ErrOrStderr(), quiet: f.quiet, now: time.Now}
	if f.out == outputJSON {
		r.stdout = c.OutOrStdout()
	}
	r.progress = !f.quiet && isTerminal(c.ErrOrStderr()) && !isTerminal(c.InOrStdin())
	return r
}

// checkPartition returns an error that names the partitions that there are.
func checkPartition(d client.TopicDescription, partition int32) error {
	if n := int32(len(d.Partitions)); partition < 0 || partition >= n {
		return fmt.Errorf("topic %s has no partition %d, only 0 to %d", d.Name, partition, n-1)
	}
	return nil
}

// batchBytes is how large a batch may grow: a topic that takes only small ones
// would refuse many small records in one.
func batchBytes(d client.TopicDescription) int {
	if limit, err := strconv.Atoi(d.Configs["max.message.bytes"]); err == nil && limit > 0 {
		return min(limit, client.DefaultBatchBytes)
	}
	return client.DefaultBatchBytes
}

// report is where the outcome of a produce goes.
type report struct {
	stdout   io.Writer // gets each record's place; nil: nothing
	stderr   io.Writer
	quiet    bool
	progress bool // show it while it goes on
	now      func() time.Time
}
