package client

import (
	"fmt"
	"iter"
	"slices"
	"time"

	"github.com/flotilla-log/flotilla/log/batch"
)

// Fetched is what came of one partition at once: whole batches, or an error
// that stopped the partition until Seek. Its records may be used for as long as
// it is kept.
type Fetched struct {
	Topic          string
	Partition      int32
	HighWatermark  int64 // end of the partition when the server answered; -1: unknown
	LogStartOffset int64 // -1: unknown

	// Err is a *PartitionError, and then there are no records: the server's
	// code, ErrCorrupt, ErrNoPartition, or ErrRecreated.
	Err error

	from    int64  // records below were not asked for
	data    []byte // whole batches, their checksums right
	maxSize int    // of a batch, decompressed
	records int    // that the batches hold, those below from too
	cur     *cursor
	st      *stream // that delivered it, nil: none
	epoch   int     // of the cursor that asked
	told    bool    // the hooks know of it
	next    int64   // offset after the last batch
}

// Records yields the records in order, or an error that ends them. A record's
// bytes are valid until the next one is asked for, if its batch is compressed,
// and else for as long as f is kept. Its Headers are allocated.
func (f *Fetched) Records() iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		var it batch.Iterator
		for rest := f.data; len(rest) > 0; {
			var b []byte
			var err error
			b, rest, err = batch.Split(rest)
			if err == nil {
				err = it.Reset(b, f.maxSize)
			}
			if err != nil {
				yield(Record{}, f.corrupt(f.from, err))
				return
			}
			if it.Header().Attributes.Control() {
				continue
			}
			last := it.Header().BaseOffset
			for r, ok := it.Next(); ok; r, ok = it.Next() {
				last = r.Offset
				if r.Offset < f.from {
					continue
				}
				if !yield(f.record(r), nil) {
					return
				}
			}
			if err := it.Err(); err != nil {
				yield(Record{}, f.corrupt(last, err))
				return
			}
		}
	}
}

func (f *Fetched) record(r batch.Record) Record {
	rec := Record{
		Topic: f.Topic, Partition: f.Partition, Offset: r.Offset,
		Timestamp: time.UnixMilli(r.Timestamp), Key: r.Key, Value: r.Value,
	}
	if r.Headers.Len() > 0 {
		rec.Headers = slices.AppendSeq(make([]Header, 0, r.Headers.Len()), r.Headers.All())
	}
	return rec
}

func (f *Fetched) corrupt(offset int64, err error) error {
	return &PartitionError{Topic: f.Topic, Partition: f.Partition, Offset: offset, Err: fmt.Errorf("%w: %w", ErrCorrupt, err)}
}
