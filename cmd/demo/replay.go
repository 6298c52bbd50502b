package main

import (
	"context"
	"crypto/sha256"
	"hash"
	"time"

	"github.com/flotilla-log/flotilla/client"
)

// replay starts the server once more, reads every partition from the beginning
// to its end, and compares with the files and with what was acknowledged.
func replay(ctx context.Context, opt *options, c *corpus, sent *sender) error {
	srv, err := opt.start(ctx, "")
	if err != nil {
		return err
	}
	defer srv.kill()
	cl, err := client.New(client.Config{Bootstrap: []string{srv.addr}, ClientID: "demo"})
	if err != nil {
		return err
	}
	defer cl.Close()
	opt.printf("server is back; reading everything from the beginning")

	v := newVerifier(c, sent, opt.partitions)
	cfg := client.ConsumerConfig{}
	for i := range opt.partitions {
		cfg.Assignments = append(cfg.Assignments, client.Assignment{Topic: topic, Partition: int32(i), Offset: client.Beginning})
	}
	co, err := cl.NewConsumer(cfg)
	if err != nil {
		return err
	}
	defer co.Close()
	started := time.Now()
	for v.ended < opt.partitions {
		fetched, err := co.Poll(ctx)
		if err != nil {
			return err
		}
		for i := range fetched {
			if err := v.take(&fetched[i]); err != nil {
				return err
			}
		}
	}
	took := time.Since(started)
	opt.printf("  %d records in %.1f s: %.0f records/s, %.1f MB/s", v.records, took.Seconds(),
		float64(v.records)/took.Seconds(), mb(v.bytes)/took.Seconds())
	return v.verdict(opt)
}

// reader follows the replay of one file's records.
type reader struct {
	file  *file
	lines int
	sum   hash.Hash
}

// verifier holds what was read against the files and the acknowledgements.
type verifier struct {
	c       *corpus
	sent    *sender
	readers map[string]*reader
	next    []int64 // by partition: the offset that must come
	at      map[string]int32
	done    []bool
	ended   int
	records int
	bytes   int64
}

func newVerifier(c *corpus, sent *sender, partitions int) *verifier {
	v := &verifier{
		c: c, sent: sent,
		readers: make(map[string]*reader, len(c.files)),
		next:    make([]int64, partitions),
		at:      make(map[string]int32),
		done:    make([]bool, partitions),
	}
	for i := range c.files {
		f := &c.files[i]
		v.readers[f.key] = &reader{file: f, sum: sha256.New()}
	}
	return v
}

// take checks one answer: offsets without gap or repetition, each record the
// next of its file, in the partition of its file, at the offset that was
// acknowledged.
func (v *verifier) take(f *client.Fetched) error {
	if f.Err != nil {
		return wrong("reading partition %d: %w", f.Partition, f.Err)
	}
	p := f.Partition
	for r, err := range f.Records() {
		if err != nil {
			return wrong("reading partition %d: %w", p, err)
		}
		if r.Offset != v.next[p] {
			return wrong("partition %d: offset %d where %d must come", p, r.Offset, v.next[p])
		}
		v.next[p]++
		rd := v.readers[string(r.Key)]
		if rd == nil {
			return wrong("partition %d offset %d: a record of %q, which is no file that was sent", p, r.Offset, r.Key)
		}
		if rd.lines == rd.file.lines {
			return wrong("partition %d offset %d: one line more of %s than its %d", p, r.Offset, rd.file.key, rd.file.lines)
		}
		if at, ok := v.at[rd.file.key]; ok && at != p {
			return wrong("%s is in partitions %d and %d", rd.file.key, at, p)
		}
		v.at[rd.file.key] = p
		if acked := v.sent.offsets[rd.file.first+rd.lines].Load() - 1; acked != r.Offset {
			return wrong("line %d of %s is at offset %d of partition %d and was acknowledged at %d", rd.lines+1, rd.file.key, r.Offset, p, acked)
		}
		rd.lines++
		rd.sum.Write(r.Value)
		v.records++
		v.bytes += int64(len(r.Value))
	}
	if v.next[p] >= f.HighWatermark && !v.done[p] {
		v.done[p] = true
		v.ended++
	}
	return nil
}

// verdict compares the totals and every file's content.
func (v *verifier) verdict(opt *options) error {
	for _, rd := range v.readers {
		if rd.lines != rd.file.lines {
			return wrong("%s: %d lines came back of %d", rd.file.key, rd.lines, rd.file.lines)
		}
		if [sha256.Size]byte(rd.sum.Sum(nil)) != rd.file.hash {
			return wrong("%s: the content that came back is not the file's", rd.file.key)
		}
	}
	if v.records != v.c.lines || v.bytes != v.c.bytes {
		return wrong("%d records, %d bytes came back of %d, %d", v.records, v.bytes, v.c.lines, v.c.bytes)
	}
	opt.printf("  counts: %d records of %d lines", v.records, v.c.lines)
	opt.printf("  order and content: SHA-256 of all %d files, each rebuilt from its records, equal", len(v.readers))
	opt.printf("  offsets: without a gap in %d partitions, each record where it was acknowledged", len(v.next))
	return nil
}
