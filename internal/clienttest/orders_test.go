package clienttest

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// What the order examples have in common.
const (
	ordersTopic      = "orders"
	ordersPartitions = 6
)

// orderEvents are what happens to each order, in their order.
var orderEvents = []string{"order.placed", "order.paid", "order.shipped"}

// orderLine is what an order example printed.
type orderLine struct {
	Step       string  `json:"step"`
	Topic      string  `json:"topic"`
	Group      string  `json:"group"`
	Event      string  `json:"event"`
	Order      string  `json:"order"`
	Key        string  `json:"key"`
	Partition  int32   `json:"partition"`
	Offset     int64   `json:"offset"`
	Partitions []int32 `json:"partitions"`
}

// worker is a member of a group: a process.
type worker struct {
	group string
	cmd   *exec.Cmd
	ended chan struct{} // closed when everything that it printed was read

	stderr bytes.Buffer // read it when ended is closed
	err    error        // likewise
}

// place is where a record lies.
type place struct {
	partition int32
	offset    int64
}

// told is a line with who printed it.
type told struct {
	by   *worker
	line orderLine
}

// shop is a server with one client's order example.
type shop struct {
	t       *testing.T
	dir     string
	command []string // HOST:PORT and what is to be done follow
	addr    string

	mu      sync.Mutex
	lines   []told        // of all workers, as they came
	workers []*worker     // that were not stopped
	changed chan struct{} // 1-buffered: there are more lines
}

// start starts a member of a group. It ends with the test at the latest.
func (s *shop) start(group string) *worker {
	s.t.Helper()
	w := &worker{group: group, ended: make(chan struct{})}
	w.cmd = s.process("work", group)
	w.cmd.Stderr = &w.stderr
	stdout, err := w.cmd.StdoutPipe()
	if err != nil {
		s.t.Fatal(err)
	}
	if err := w.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.mu.Lock()
	s.workers = append(s.workers, w)
	s.mu.Unlock()
	go func() {
		defer close(w.ended)
		w.err = s.listen(w, stdout)
		w.err = errors.Join(w.err, w.cmd.Wait())
		s.more()
	}()
	s.t.Cleanup(func() {
		_ = w.cmd.Process.Kill()
		<-w.ended
	})
	return w
}

func (s *shop) process(args ...string) *exec.Cmd {
	c := exec.Command(s.command[0], slices.Concat(s.command[1:], []string{s.addr}, args)...)
	c.Dir = s.dir
	return c
}

// listen takes what a worker prints, until it ends.
func (s *shop) listen(w *worker, stdout io.Reader) error {
	for lines := bufio.NewScanner(stdout); lines.Scan(); {
		l, err := parseOrderLine(lines.Bytes())
		if err != nil {
			return err
		}
		s.mu.Lock()
		s.lines = append(s.lines, told{w, l})
		s.mu.Unlock()
		s.more()
	}
	return nil
}

func parseOrderLine(printed []byte) (l orderLine, err error) {
	d := json.NewDecoder(bytes.NewReader(printed))
	d.DisallowUnknownFields()
	if err = d.Decode(&l); err != nil {
		err = fmt.Errorf("the line %q: %w", printed, err)
	}
	return l, err
}

func (s *shop) more() {
	select {
	case s.changed <- struct{}{}:
	default:
	}
}

// await returns when done says nothing any more of what is missing. done is called
// with mu held.
func (s *shop) await(done func() error) {
	s.t.Helper()
	limit := time.NewTimer(runLimit)
	defer limit.Stop()
	for {
		s.mu.Lock()
		missing := done()
		workers := slices.Clone(s.workers)
		s.mu.Unlock()
		if missing == nil {
			return
		}
		for _, w := range workers {
			select {
			case <-w.ended:
				s.t.Fatalf("a worker of %s has ended: %v: %s", w.group, w.err, w.stderr.String())
			default:
			}
		}
		select {
		case <-s.changed:
		case <-limit.C:
			s.t.Fatalf("waited for %v: %v", runLimit, missing)
		}
	}
}

// runLimit bounds a program that hangs. Each gives up by itself, well before; what
// it takes to start on a busy machine comes on top of what it waits.
const runLimit = 2 * time.Minute

// stop interrupts a worker, and returns when it has left its group and ended.
func (s *shop) stop(w *worker) {
	s.t.Helper()
	s.mu.Lock()
	s.workers = slices.DeleteFunc(s.workers, func(other *worker) bool { return other == w })
	s.mu.Unlock()
	_ = w.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-w.ended:
	case <-time.After(runLimit):
		s.t.Fatalf("a worker of %s was interrupted %v ago", w.group, runLimit)
	}
	// A Java machine that a signal has ended says so with this code.
	if code := w.cmd.ProcessState.ExitCode(); w.err != nil && code != 128+int(syscall.SIGTERM) {
		s.t.Fatalf("a worker of %s: %v: %s", w.group, w.err, w.stderr.String())
	}
}

// do runs the example to its end, and returns what it printed.
func (s *shop) do(args ...string) (out []orderLine) {
	s.t.Helper()
	c := s.process(args...)
	var stdout, stderr bytes.Buffer
	c.Stdout, c.Stderr, c.WaitDelay = &stdout, &stderr, time.Second
	kill := time.AfterFunc(runLimit, func() { _ = c.Process.Kill() })
	defer kill.Stop()
	if err := c.Run(); err != nil {
		s.t.Fatalf("%q: %v: %s", args, err, stderr.String())
	}
	for lines := bufio.NewScanner(&stdout); lines.Scan(); {
		l, err := parseOrderLine(lines.Bytes())
		if err != nil {
			s.t.Fatal(err)
		}
		out = append(out, l)
	}
	return out
}

// shared: every worker of the group has partitions, and every partition a worker.
func (s *shop) shared(group string) func() error {
	return func() error {
		has := make(map[*worker][]int32)
		for _, l := range s.lines {
			if l.line.Step == "assigned" {
				has[l.by] = l.line.Partitions
			}
		}
		var all []int32
		for _, w := range s.workers {
			if w.group != group {
				continue
			}
			if len(has[w]) == 0 {
				return fmt.Errorf("a worker of %s has no partitions", group)
			}
			all = append(all, has[w]...)
		}
		slices.Sort(all)
		return same("partitions of "+group, all, []int32{0, 1, 2, 3, 4, 5})
	}
}

// handled: the group has handled so many events.
func (s *shop) handled(group string, want int) func() error {
	return func() error {
		if n := len(handledBy(s.lines, group)); n < want {
			return fmt.Errorf("%s has handled %d events, want %d", group, n, want)
		}
		return nil
	}
}

func handledBy(lines []told, group string) (out []told) {
	for _, l := range lines {
		if l.by.group == group && l.line.Step == "handled" {
			out = append(out, l)
		}
	}
	return out
}

// place has the events of some orders placed, and waits until each group has handled
// all so far.
func (s *shop) place(first, last int, want map[string]int) {
	s.t.Helper()
	placed := s.do("place", fmt.Sprint(first), fmt.Sprint(last))
	if n := len(orderEvents) * (last - first + 1); len(placed) != n {
		s.t.Fatalf("%d events placed, want %d", len(placed), n)
	}
	for group, n := range want {
		s.await(s.handled(group, n))
	}
}

// testOrders has three services work, and checks what each of them saw: all events
// (fan-out), each with one of the members (competing consumers), those of an order in
// their order, also when a member leaves, and all again after a rewind (replay).
func testOrders(t *testing.T, dir string, command ...string) {
	s := &shop{t: t, dir: dir, command: command, addr: startServer(t), changed: make(chan struct{}, 1)}
	groups := []string{"order-service", "billing", "analytics"}
	s.do("create")
	s.start("order-service")
	leaves, _, _ := s.start("billing"), s.start("billing"), s.start("billing")
	analytics := s.start("analytics")
	for _, group := range groups {
		s.await(s.shared(group))
	}
	s.place(1, 20, map[string]int{"order-service": 60, "billing": 60, "analytics": 60})

	s.stop(leaves)
	s.await(s.shared("billing"))
	s.place(21, 30, map[string]int{"order-service": 90, "billing": 90, "analytics": 90})

	s.stop(analytics)
	s.do("rewind", "analytics")
	s.start("analytics")
	s.await(s.handled("analytics", 180))
	for _, w := range slices.Clone(s.workers) {
		s.stop(w)
	}

	facts, err := gather(t.Context(), s.addr, ordersTopic)
	if err != nil {
		t.Fatal(err)
	}
	billing := make(map[*worker]bool)
	for _, l := range handledBy(s.lines, "billing") {
		billing[l.by] = true
	}
	if len(billing) != 3 {
		t.Errorf("%d workers of billing have handled events, want 3", len(billing))
	}
	for _, group := range groups {
		passes := 1
		if group == "analytics" {
			passes = 2
		}
		if err := checkHandled(facts.records, handledBy(s.lines, group), passes); err != nil {
			t.Errorf("%s: %v", group, err)
		}
		if err := checkCommitted(t, s.addr, group, facts); err != nil {
			t.Errorf("%s: %v", group, err)
		}
	}
}

// testOrdersKilled ends the server with kill -9 while a group consumes, and starts it
// again: nothing is lost, events of an order come in their order, for the first time
// at least, and what the group has committed never goes back.
func testOrdersKilled(t *testing.T, dir string, command ...string) {
	node := newServer(t)
	s := &shop{t: t, dir: dir, command: command, addr: node.Addr, changed: make(chan struct{}, 1)}
	s.do("create")
	s.start("billing")
	s.start("billing")
	s.await(s.shared("billing"))
	committed := make(map[int32]int64)
	const orders, kills = 100, 3
	for round := range kills + 1 { // no kill in the last one
		before := round * orders * len(orderEvents)
		s.do("place", fmt.Sprint(1+round*orders), fmt.Sprint((round+1)*orders))
		if round < kills {
			s.await(s.first("billing", before+1)) // in the middle, or just begun
			s.forward(committed)
			node.restart()
			s.forward(committed)
		}
		s.await(s.first("billing", before+orders*len(orderEvents)))
	}
	facts, err := gather(t.Context(), s.addr, ordersTopic)
	if err != nil {
		t.Fatal(err)
	}
	// What was handled when the node went may be committed with what comes next only, as
	// by kafkajs; and who is interrupted while it joins again leaves it to the next one.
	s.awaitCommitted("billing", facts)
	for _, w := range slices.Clone(s.workers) {
		s.stop(w)
	}
	s.forward(committed)
	if err := checkHandled(facts.records, firstOf(handledBy(s.lines, "billing")), 1); err != nil {
		t.Error(err)
	}
}

// awaitCommitted returns when a group has committed all that there is.
func (s *shop) awaitCommitted(group string, facts *facts) {
	s.t.Helper()
	limit, again := time.NewTimer(runLimit), time.NewTicker(100*time.Millisecond)
	defer limit.Stop()
	defer again.Stop()
	for {
		err := checkCommitted(s.t, s.addr, group, facts)
		if err == nil {
			return
		}
		select {
		case <-again.C:
		case <-limit.C:
			s.t.Fatalf("%s has not committed all in %v: %v", group, runLimit, err)
		}
	}
}

// first: the group has handled so many different events.
func (s *shop) first(group string, want int) func() error {
	return func() error {
		if n := len(firstOf(handledBy(s.lines, group))); n < want {
			return fmt.Errorf("%s has handled %d different events, want %d", group, n, want)
		}
		return nil
	}
}

// firstOf leaves out what was handled before.
func firstOf(handled []told) (out []told) {
	seen := make(map[place]bool)
	for _, h := range handled {
		at := place{h.line.Partition, h.line.Offset}
		if !seen[at] {
			seen[at] = true
			out = append(out, h)
		}
	}
	return out
}

// forward checks that nothing that billing has committed went back since the last
// time, and remembers it.
func (s *shop) forward(committed map[int32]int64) {
	s.t.Helper()
	offsets, err := committedOffsets(s.t.Context(), s.addr, "billing")
	if err != nil {
		s.t.Fatal(err)
	}
	for p, was := range committed {
		if is, ok := offsets[p]; !ok || is < was {
			s.t.Errorf("partition %d was committed at %d, and is at %d", p, was, is)
		}
	}
	maps.Copy(committed, offsets)
}

// checkHandled checks that a group has handled every record once in each pass, those
// of each key in their order.
func checkHandled(records map[int32][]*kgo.Record, handled []told, passes int) error {
	left := make(map[place]*kgo.Record)
	for pass := range passes {
		for p, of := range records {
			for _, r := range of {
				left[place{p, r.Offset}] = r
			}
		}
		if pass > 0 && len(handled) < len(left) {
			return fmt.Errorf("%d events handled in pass %d, want %d", len(handled), pass+1, len(left))
		}
		events := make(map[string][]string) // by key
		n := min(len(left), len(handled))
		for _, h := range handled[:n] {
			l := h.line
			at := place{l.Partition, l.Offset}
			r := left[at]
			if r == nil {
				return fmt.Errorf("%s of %s at %v was handled twice, or was never there", l.Event, l.Order, at)
			}
			delete(left, at)
			var value orderLine
			if err := json.Unmarshal(r.Value, &value); err != nil {
				return err
			}
			if l.Key != string(r.Key) || l.Order != l.Key || l.Event != value.Event || l.Order != value.Order {
				return fmt.Errorf("at %v %+v was handled, and %s=%s is there", at, l, r.Key, r.Value)
			}
			events[l.Key] = append(events[l.Key], l.Event)
		}
		for at, r := range left {
			return fmt.Errorf("%s of %s at %v was not handled in pass %d", r.Value, r.Key, at, pass+1)
		}
		for key, have := range events {
			if !slices.Equal(have, orderEvents) {
				return fmt.Errorf("of %s were handled: %q", key, have)
			}
		}
		handled = handled[n:]
	}
	if len(handled) > 0 {
		return fmt.Errorf("%d events were handled after all, the first %+v", len(handled), handled[0].line)
	}
	return nil
}

// checkCommitted checks that a group is at the end of every partition.
func checkCommitted(t *testing.T, addr, group string, facts *facts) error {
	offsets, err := committedOffsets(t.Context(), addr, group)
	if err != nil {
		return err
	}
	for p := range int32(ordersPartitions) {
		at, ok := offsets[p]
		if end := facts.end(p); !ok && end > 0 || ok && at != end {
			return fmt.Errorf("partition %d is committed at %d, and ends at %d", p, at, end)
		}
	}
	return nil
}

// committedOffsets returns what a group has committed, by partition. While nobody
// coordinates the group, as when the server has just been started, it asks again:
// kadm leaves that to its caller.
func committedOffsets(ctx context.Context, addr, group string) (map[int32]int64, error) {
	ctx, cancel := context.WithTimeout(ctx, runLimit)
	defer cancel()
	cl, err := kgo.NewClient(kgo.SeedBrokers(addr))
	if err != nil {
		return nil, err
	}
	defer cl.Close()
	again := time.NewTicker(100 * time.Millisecond)
	defer again.Stop()
	offsets, err := kadm.NewClient(cl).FetchOffsets(ctx, group)
	for kerr.IsRetriable(err) && ctx.Err() == nil {
		<-again.C
		offsets, err = kadm.NewClient(cl).FetchOffsets(ctx, group)
	}
	if err != nil {
		return nil, err
	}
	out := make(map[int32]int64)
	offsets.Each(func(o kadm.OffsetResponse) { out[o.Partition] = o.At })
	return out, offsets.Error()
}

// TestOrdersNative: see testOrders and testOrdersKilled.
func TestOrdersNative(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("starts servers and members of groups")
	}
	dir, err := filepath.Abs(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	binary := filepath.Join(dir, "orders")
	if out, err := exec.Command("go", "build", "-o", binary, "github.com/flotilla-log/flotilla/examples/native/orders").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	t.Run("groups", func(t *testing.T) { t.Parallel(); testOrders(t, dir, binary) })
	t.Run("killed", func(t *testing.T) { t.Parallel(); testOrdersKilled(t, dir, binary) })
}

// TestCheckHandled: what a group must not do is found.
func TestCheckHandled(t *testing.T) {
	t.Parallel()
	records := make(map[int32][]*kgo.Record)
	var right []told
	for i := range 6 {
		p, event := int32(i%2), orderEvents[i/2]
		key := fmt.Sprintf("order-%d", p)
		value, err := json.Marshal(map[string]string{"event": event, "order": key})
		if err != nil {
			t.Fatal(err)
		}
		r := &kgo.Record{Key: []byte(key), Value: value, Partition: p, Offset: int64(i / 2)}
		records[p] = append(records[p], r)
		right = append(right, told{line: orderLine{Key: key, Order: key, Event: event, Partition: p, Offset: r.Offset}})
	}
	other := slices.Clone(right)
	other[3].line.Key = "order-0"
	swapped := slices.Clone(right)
	swapped[0], swapped[2] = swapped[2], swapped[0]
	twice := slices.Concat(right, right)
	for name, tc := range map[string]struct {
		handled []told
		passes  int
		ok      bool
	}{
		"all, once":                 {right, 1, true},
		"all, twice":                {twice, 2, true},
		"nothing":                   {nil, 1, false},
		"not the last":              {right[:5], 1, false},
		"not the first":             {right[1:], 1, false},
		"one twice":                 {slices.Concat(right[:1], right), 1, false},
		"one again at the end":      {slices.Concat(right, right[:1]), 1, false},
		"no replay":                 {right, 2, false},
		"a part of a replay":        {twice[:11], 2, false},
		"another order":             {other, 1, false},
		"an order's events swapped": {swapped, 1, false},
	} {
		if err := checkHandled(records, tc.handled, tc.passes); (err == nil) != tc.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}
