//go:build clients

package killtest

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"regexp"
	"strconv"
	"testing"
	"time"

	"github.com/flotilla-log/flotilla/internal/history"
)

// kcatProcess is the first of those that write with kcat.
const kcatProcess = 800

// kcats is how many kcats write at a time, each to a partition of its own.
const kcats = 2

// recordEnd separates records on kcat's standard input. No payload holds it.
const recordEnd = "<end of one record>"

// delivered is what kcat says of a record, in the order of sending.
var delivered = regexp.MustCompile(`Message delivered to partition (\d+) \(offset (\d+)\)`)

// TestKillKcat kills the server while kcat writes to it too, with librdkafka's
// idempotent producer: one kcat after the other, as a script would. Each must
// end well, however often the server dies meanwhile.
//
// No kill is aimed at a segment roll, as TestKill's are: it is over so soon that
// most of the kills would go into it, and to a producer it is a flush.
func TestKillKcat(t *testing.T) {
	if _, err := exec.LookPath("kcat"); err != nil {
		t.Fatalf("%v: apt-get install kcat", err)
	}
	b := newBench(t)
	defer func() { t.Logf("%s", b.tally) }()
	set := rounds[0]
	var acked int
	set.more = func(l *load) (loops []func()) {
		for i := range int32(kcats) {
			loops = append(loops, func() { l.produceKcat(kcatProcess+i, i) })
		}
		return loops
	}
	b.round(0, set, func(ctx context.Context, r *round) error {
		for _, target := range []string{appending, flush, checkpoint, appending, recovery, flush, ringReuse, appending} {
			if err := b.hit(ctx, r, target); err != nil {
				return err
			}
		}
		for _, op := range r.load.rec.History() {
			if op.Process >= kcatProcess && op.Type == history.OK {
				acked++
			}
		}
		return nil
	})
	if acked < 100 {
		t.Errorf("%d records of kcat's were acknowledged, want 100 at least", acked)
	}
	t.Logf("%d records of kcat's were acknowledged", acked)
}

// produceKcat starts one kcat after the other.
func (l *load) produceKcat(process, partition int32) {
	chance := l.chance(process)
	for n := int64(0); l.pace(chance, 50*time.Millisecond); {
		if !l.gate.enter(l.ctx) {
			return
		}
		count := 1 + chance.Int64N(200)
		err := l.kcat(process, partition, n, count)
		l.gate.leave()
		if err != nil && l.ctx.Err() == nil {
			l.fail("process %d: %w", process, err)
			return
		}
		n += count
	}
}

// kcat sends the process's values from n on with one kcat, and waits until it
// has ended. What it has not told of then stays unknown.
func (l *load) kcat(process, partition int32, n, count int64) error {
	c := exec.CommandContext(l.ctx, "kcat", "-P", "-E", "-vv", "-b", l.addr, "-t", stable, "-p", strconv.Itoa(int(partition)),
		"-D", recordEnd, "-X", "enable.idempotence=true", "-X", fmt.Sprint("batch.size=", maxBatchBytes/2),
		"-X", "reconnect.backoff.ms=10", "-X", "reconnect.backoff.max.ms=100", "-X", "retry.backoff.ms=20")
	c.WaitDelay = time.Second
	stdin, err := c.StdinPipe()
	if err != nil {
		return err
	}
	stderr, err := c.StderrPipe()
	if err != nil {
		return err
	}
	if err := c.Start(); err != nil {
		return err
	}
	ops := make([]history.Op, count)
	for i := range ops {
		value := int64(process)<<32 | (n + int64(i))
		mop := history.Values(history.Key{Topic: stable, Partition: partition}, value)
		ops[i] = l.rec.Invoke(history.Op{Process: process, F: history.Send, Mops: []history.Mop{mop}})
	}
	written := make(chan error, 1)
	go func() { written <- writeValues(stdin, process, n, count) }()
	acked, said := l.acknowledged(stderr, ops)
	err = errors.Join(<-written, c.Wait())
	for _, op := range ops[acked:] {
		op.Err = "kcat has not told"
		l.rec.Complete(op, history.Info)
	}
	if err == nil && int64(acked) < count {
		err = errors.New("it ended well")
	}
	if err != nil {
		err = fmt.Errorf("kcat told of %d of %d records: %w: %s", acked, count, err, said)
	}
	return err
}

// writeValues writes what kcat is to send, and closes in.
func writeValues(in io.WriteCloser, process int32, n, count int64) error {
	w := bufio.NewWriter(in)
	for i := range count {
		_, _ = w.Write(payload(int64(process)<<32 | (n + i)))
		_, _ = w.WriteString(recordEnd)
	}
	return errors.Join(w.Flush(), in.Close())
}

// acknowledged completes the operations as kcat tells of them, up to its end. It
// returns how many, and what else kcat said.
func (l *load) acknowledged(stderr io.Reader, ops []history.Op) (acked int, said string) {
	var other bytes.Buffer
	for lines := bufio.NewScanner(stderr); lines.Scan(); {
		m := delivered.FindStringSubmatch(lines.Text())
		if m == nil || acked == len(ops) {
			other.WriteString(lines.Text() + "; ")
			continue
		}
		offset, err := strconv.ParseInt(m[2], 10, 64)
		if err != nil {
			other.WriteString(lines.Text() + "; ")
			continue
		}
		op := ops[acked]
		op.Mops = []history.Mop{op.Mops[0].At(offset)}
		l.rec.Complete(op, history.OK)
		l.ack(op.Process)
		acked++
	}
	return acked, other.String()
}
