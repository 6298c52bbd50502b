//go:build clients

package killtest

import (
	"bufio"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/flotilla-log/flotilla/internal/history"
)

// javaProcess is the one that writes with Kafka's own Java client.
const javaProcess = 900

// startJava makes the loop of a Java producer to one partition of the stable topic,
// whose classes are in the directory that KILL_KAFKA names.
func (l *load) startJava(t *testing.T, partition int32) func() {
	jars := os.Getenv("KILL_KAFKA")
	if found, err := filepath.Glob(filepath.Join(jars, "kafka-clients-*.jar")); err != nil || len(found) == 0 {
		t.Fatalf("KILL_KAFKA=%q: no kafka-clients there; make kafka-jars fetches it into bin/kafka", jars)
	}
	c := exec.CommandContext(l.ctx, "java", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-cp", filepath.Join(jars, "*"),
		filepath.Join("testdata", "Steady.java"), l.addr, stable, strconv.Itoa(int(partition)))
	c.WaitDelay = time.Second
	stdin, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	log, err := os.Create(filepath.Join(t.TempDir(), "java.log"))
	if err != nil {
		t.Fatal(err)
	}
	c.Stderr = log
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(stdout)
	if !lines.Scan() {
		_ = c.Wait()
		said, _ := os.ReadFile(log.Name())
		t.Fatalf("Java: it ended at once: %s", said)
	}
	return func() {
		defer func() { _ = stdin.Close(); _ = c.Wait(); _ = log.Close() }()
		if err := l.produceJava(stdin, lines, partition); err != nil && l.ctx.Err() == nil {
			said, _ := os.ReadFile(log.Name())
			l.fail("process %d: Java: %w\n%s", javaProcess, err, said)
		}
	}
}

// produceJava sends bursts; each has been told of before the next.
func (l *load) produceJava(in io.Writer, out *bufio.Scanner, partition int32) error {
	chance := l.chance(javaProcess)
	key := history.Key{Topic: stable, Partition: partition}
	for n := int64(0); l.pace(chance, 20*time.Millisecond); {
		if !l.gate.enter(l.ctx) {
			return nil
		}
		err := l.burstJava(in, out, key, n, 1+chance.Int64N(20))
		l.gate.leave()
		if err != nil {
			return err
		}
		n += 20
	}
	return nil
}

func (l *load) burstJava(in io.Writer, out *bufio.Scanner, key history.Key, from, count int64) error {
	var ops []history.Op
	w := bufio.NewWriter(in)
	for n := from; n < from+count; n++ {
		value := int64(javaProcess)<<32 | n
		ops = append(ops, l.rec.Invoke(history.Op{Process: javaProcess, F: history.Send, Mops: []history.Mop{history.Values(key, value)}}))
		_, _ = fmt.Fprintln(w, base64.StdEncoding.EncodeToString(payload(value)))
	}
	err := w.Flush()
	for _, op := range ops {
		offset := int64(-1)
		switch {
		case err != nil:
		case !out.Scan():
			err = errors.Join(errors.New("it ended"), out.Err())
		default:
			if offset, err = strconv.ParseInt(out.Text(), 10, 64); err != nil {
				err = errors.New(out.Text())
			}
		}
		if err != nil {
			op.Err = err.Error()
			l.rec.Complete(op, history.Info)
			continue
		}
		op.Mops = []history.Mop{op.Mops[0].At(offset)}
		l.rec.Complete(op, history.OK)
		l.ack(op.Process)
	}
	return err
}
