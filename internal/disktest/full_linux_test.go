package disktest

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/flotilla-log/flotilla/client"
	"github.com/flotilla-log/flotilla/internal/errcode"
)

const (
	diskBytes   = 48 << 20
	recordBytes = 16 << 10

	// limit is for what never comes.
	limit = 2 * time.Minute
)

// user is a client that knows what was acknowledged to it.
type user struct {
	t     *testing.T
	c     *client.Client
	acked map[string][]string // values, by topic, in order
	n     int
}

func newUser(t *testing.T, s *server) *user {
	t.Helper()
	c, err := client.New(client.Config{Bootstrap: []string{s.addr}, ClientID: "disktest", RequestTimeout: 2 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return &user{t: t, c: c, acked: make(map[string][]string)}
}

// create creates a topic, or gives it up after a while.
func (u *user) create(topic string, while time.Duration) error {
	ctx, cancel := context.WithTimeout(u.t.Context(), while)
	defer cancel()
	_, err := u.c.Admin().CreateTopic(ctx, client.TopicSpec{Name: topic, Partitions: 1, Configs: map[string]string{"segment.bytes": "1048576"}})
	return err
}

// produce sends records until n are acknowledged, or one is not within the
// delivery timeout.
func (u *user) produce(topic string, n int, timeout time.Duration) error {
	u.t.Helper()
	p, err := u.c.NewProducer(client.ProducerConfig{DeliveryTimeout: timeout})
	if err != nil {
		u.t.Fatal(err)
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.Background(), limit)
		defer cancel()
		_ = p.Close(ctx)
	}()
	for range n {
		u.n++
		value := fmt.Sprintf("%08d %s", u.n, strings.Repeat("x", recordBytes))
		if _, err := p.SendSync(u.t.Context(), client.Record{Topic: topic, Value: []byte(value)}); err != nil {
			return err
		}
		u.acked[topic] = append(u.acked[topic], value)
	}
	return nil
}

// read reads a topic from its beginning, and compares it with what was
// acknowledged.
func (u *user) read(topic string) {
	u.t.Helper()
	ctx, cancel := context.WithTimeout(u.t.Context(), limit)
	defer cancel()
	co, err := u.c.NewConsumer(client.ConsumerConfig{Assignments: []client.Assignment{{Topic: topic, Offset: client.Beginning}}})
	if err != nil {
		u.t.Fatal(err)
	}
	defer co.Close()
	want := u.acked[topic]
	for got := 0; got < len(want); {
		fetched, err := co.Poll(ctx)
		if err != nil {
			u.t.Fatalf("%s: %d of %d records read: %v", topic, got, len(want), err)
		}
		for i := range fetched {
			if fetched[i].Err != nil {
				u.t.Fatalf("%s: %d of %d records read: %v", topic, got, len(want), fetched[i].Err)
			}
			for r, err := range fetched[i].Records() {
				if err != nil {
					u.t.Fatal(err)
				}
				// A record whose outcome was not known may be there too.
				if got < len(want) && string(r.Value) == want[got] {
					got++
				} else if got < len(want) && string(r.Value) > want[got] {
					u.t.Fatalf("%s: offset %d holds %.8s, and %.8s, which was acknowledged, is missing", topic, r.Offset, r.Value, want[got])
				}
			}
		}
	}
}

// held expects that a record waits, and then fails so that it can be sent again.
func (u *user) held(topic string) {
	u.t.Helper()
	err := u.produce(topic, 1, 6*time.Second)
	code, _ := client.CodeOf(err)
	if !errors.Is(err, client.ErrDeliveryTimeout) || code != errcode.KafkaStorageError || !code.Retriable() {
		u.t.Fatalf("a record on a full disk: %v (code %v), want a delivery timeout for KAFKA_STORAGE_ERROR", err, code)
	}
	for _, text := range []string{"nearly full", "bytes are free", "disk.reserve.bytes", "was not appended", "delete topics"} {
		if !strings.Contains(err.Error(), text) {
			u.t.Errorf("the error does not say %q: %v", text, err)
		}
	}
}

// fillUp produces until records are held. One that only took too long is another
// matter.
func (u *user) fillUp(topic string) {
	u.t.Helper()
	before := len(u.acked[topic])
	for code := errcode.None; code != errcode.KafkaStorageError; {
		err := u.produce(topic, 1000, 4*time.Second)
		if code, _ = client.CodeOf(err); err != nil && !errors.Is(err, client.ErrDeliveryTimeout) {
			u.t.Fatalf("a record while the disk fills up: %v", err)
		}
	}
	u.t.Logf("%d records of %d bytes were taken", len(u.acked[topic])-before, recordBytes)
	u.held(topic)
}

// full expects of a node whose disk is full that it takes nothing and reads all,
// also after a crash, and fills the disk to its last byte first.
func (u *user) full(s *server, b ballast, topics ...string) {
	u.t.Helper()
	b.fill(0)
	if n := free(u.t, filepath.Dir(b.name)); n >= 4096 {
		u.t.Fatalf("%d bytes are free", n)
	}
	for range 2 {
		for _, topic := range topics {
			u.read(topic)
		}
		u.held(topics[0])
		if err := u.create("another", 5*time.Second); err == nil || !strings.Contains(err.Error(), "disk.reserve.bytes") {
			u.t.Errorf("a topic on a full disk: %v", err)
		}
		s.kill()
		s.start()
		b.fill(0)
	}
}

// TestFullAndFreed fills the disk, and frees it from outside. The same process
// goes on.
func TestFullAndFreed(t *testing.T) {
	disk := mountDisk(t, diskBytes)
	s := newServer(t, filepath.Join(disk, "data"))
	u := newUser(t, s)
	if err := u.create("kept", limit); err != nil {
		t.Fatal(err)
	}
	b := ballast{t, filepath.Join(disk, "ballast")}
	b.fill(12 << 20)
	u.fillUp("kept")
	if n := s.said("the disk is nearly full"); n != 1 {
		t.Errorf("the log says %d times that the disk is nearly full, want once", n)
	}
	u.full(s, b, "kept")
	b.remove()
	if err := u.produce("kept", 20, limit); err != nil {
		t.Fatal("there is room again, and a record is not taken:", err)
	}
	if s.said("the disk has room again") != 1 {
		t.Error("the log does not say once that there is room again")
	}
	s.kill()
	s.start()
	u.read("kept")
}

// TestFullAndDeleted fills the disk to the last byte, and deletes a topic with
// the command line. Nobody else frees anything.
func TestFullAndDeleted(t *testing.T) {
	disk := mountDisk(t, diskBytes)
	s := newServer(t, filepath.Join(disk, "data"))
	u := newUser(t, s)
	for _, topic := range []string{"kept", "doomed"} {
		if err := u.create(topic, limit); err != nil {
			t.Fatal(err)
		}
	}
	if err := u.produce("doomed", 600, limit); err != nil {
		t.Fatal(err)
	}
	b := ballast{t, filepath.Join(disk, "ballast")}
	b.fill(8 << 20)
	u.fillUp("kept")
	u.full(s, b, "kept", "doomed")
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	if out, err := exec.CommandContext(ctx, program, "topic", "delete", "doomed", "--bootstrap", s.addr).CombinedOutput(); err != nil {
		t.Fatalf("flotilla topic delete doomed: %v\n%s", err, out)
	}
	if err := u.produce("kept", 20, limit); err != nil {
		t.Fatal("a topic was deleted, and a record is not taken:", err)
	}
	u.read("kept")
	s.kill()
	s.start()
	u.read("kept")
	if err := u.produce("kept", 20, limit); err != nil {
		t.Fatal(err)
	}
	u.read("kept")
	if strings.Contains(s.text(), "level=ERROR") {
		t.Error("the log has errors")
	}
}
