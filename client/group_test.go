package client

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/flotilla-log/flotilla/internal/errcode"
	"github.com/flotilla-log/flotilla/log/batch"
	"github.com/flotilla-log/flotilla/wire/pb"
)

// inGroups runs a test in a bubble, with a cluster of three nodes that has groups and
// a topic "a" of so many partitions with the values 0 to 99 each.
func inGroups(t *testing.T, partitions int, test func(t *testing.T, f *fakeCluster)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t, 3)
		f.coordinate(nil)
		f.createTopic("a", partitions)
		for p := range partitions {
			f.fill("a", p, 0, 100, 10, batch.None)
		}
		test(t, f)
	})
}

// ownership notes who has which partition, and fails when two have one.
type ownership struct {
	t  *testing.T
	mu sync.Mutex
	by map[TopicPartition]string
}

// worker is a member, with what it was told and has read.
type worker struct {
	*Group
	t      *testing.T
	name   string
	client *Client
	owners *ownership

	mu     sync.Mutex
	events []string
	read   map[int32][]int // values by partition, as they came
	runs   bool
	ended  chan struct{} // when run does
}

// works has a member of the group "g" join.
func (f *fakeCluster) works(t *testing.T, o *ownership, name string, edit ...func(*GroupConfig)) *worker {
	t.Helper()
	w := &worker{t: t, name: name, client: f.client(), owners: o, read: make(map[int32][]int), ended: make(chan struct{})}
	cfg := GroupConfig{
		Group: "g", Topics: []string{"a"},
		Assigned: w.note("assigned"), Revoked: w.note("revoked"), Lost: w.note("lost"),
	}
	for _, e := range edit {
		e(&cfg)
	}
	var err error
	if w.Group, err = w.client.JoinGroup(cfg); err != nil {
		t.Fatal(err)
	}
	return w
}

func newOwnership(t *testing.T) *ownership {
	return &ownership{t: t, by: make(map[TopicPartition]string)}
}

func (w *worker) note(what string) func([]TopicPartition) {
	return func(parts []TopicPartition) {
		w.mu.Lock()
		w.events = append(w.events, fmt.Sprint(what, len(parts)))
		w.mu.Unlock()
		o := w.owners
		o.mu.Lock()
		defer o.mu.Unlock()
		for _, p := range parts {
			switch by := o.by[p]; {
			case what == "assigned" && by != "":
				w.t.Errorf("%s was given %v, which %s has", w.name, p, by)
			case what == "assigned":
				o.by[p] = w.name
			case by == w.name:
				delete(o.by, p)
			}
		}
	}
}

func (w *worker) heard() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.events)
}

// run consumes until ctx ends, pace for each record.
func (w *worker) run(ctx context.Context, pace time.Duration) {
	w.runs = true
	go func() {
		defer close(w.ended)
		for r, err := range w.Records(ctx) {
			if ctx.Err() != nil || errors.Is(err, ErrClosed) {
				return
			}
			if err != nil {
				w.t.Errorf("%s: %v", w.name, err)
				return
			}
			w.take(r)
			time.Sleep(pace)
		}
	}()
}

func (w *worker) take(r Record) {
	v, _ := strconv.Atoi(string(r.Value))
	w.mu.Lock()
	w.read[r.Partition] = append(w.read[r.Partition], v)
	w.mu.Unlock()
}

// next reads n records and leaves the loop.
func (w *worker) next(n int) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), 5*time.Minute)
	defer cancel()
	for r, err := range w.Records(ctx) {
		if err != nil {
			w.t.Errorf("%s, with %d records to come: %v", w.name, n, err)
			return
		}
		w.take(r)
		if n--; n == 0 {
			return
		}
	}
}

// first is the first value that was read of partition 0, -1: none.
func (w *worker) first() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.read[0]) == 0 {
		return -1
	}
	return w.read[0][0]
}

// count is how many records were read.
func (w *worker) count() (n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, values := range w.read {
		n += len(values)
	}
	return n
}

// leaves closes the member, as a program that ends in good order.
func (w *worker) leaves() {
	w.t.Helper()
	if err := w.Close(w.t.Context()); err != nil {
		w.t.Errorf("%s leaves: %v", w.name, err)
	}
	w.client.Close()
	if w.runs {
		<-w.ended
	}
}

// crashes ends the member without a word.
func (w *worker) crashes() {
	w.client.Close()
	w.Group.cancel()
	w.Group.wg.Wait()
	if w.runs {
		<-w.ended
	}
	w.owners.mu.Lock()
	maps.DeleteFunc(w.owners.by, func(_ TopicPartition, by string) bool { return by == w.name })
	w.owners.mu.Unlock()
}

// committed returns the group's offsets, by partition of "a".
func (f *fakeCluster) committed(t *testing.T) map[int32]int64 {
	t.Helper()
	c := f.client()
	defer c.Close()
	offsets, err := c.Groups().Offsets(t.Context(), "g")
	if err != nil {
		t.Fatal(err)
	}
	out := make(map[int32]int64)
	for _, o := range offsets {
		out[o.Partition] = o.Offset
	}
	return out
}

// TestGroup: two members share the partitions, one leaves in good order, and the other
// goes on where it was: each record once.
func TestGroup(t *testing.T) {
	inGroups(t, 4, func(t *testing.T, f *fakeCluster) {
		o := newOwnership(t)
		a := f.works(t, o, "a")
		ctx, stop := context.WithCancel(t.Context())
		a.run(t.Context(), time.Second)
		time.Sleep(20 * time.Second)
		b := f.works(t, o, "b")
		b.run(ctx, time.Second)
		time.Sleep(40 * time.Second)
		if got := len(a.Assigned()); got != 2 {
			t.Errorf("a has %d partitions beside b, want 2", got)
		}
		if b.count() < 20 {
			t.Errorf("b has read %d records in 40 s", b.count())
		}
		stop()
		<-b.ended
		b.leaves()
		time.Sleep(10 * time.Minute)
		if got := len(a.Assigned()); got != 4 {
			t.Errorf("a has %d partitions without b, want 4", got)
		}
		for p := range int32(4) {
			all := slices.Concat(a.read[p], b.read[p])
			slices.Sort(all)
			if len(all) != 100 || len(slices.Compact(all)) != 100 {
				t.Errorf("partition %d: %d records were read, want each of 100 once", p, len(all))
			}
		}
		a.leaves()
		<-a.ended
		if got, want := f.committed(t), map[int32]int64{0: 100, 1: 100, 2: 100, 3: 100}; !maps.Equal(got, want) {
			t.Errorf("committed %v, want %v", got, want)
		}
		if got := b.heard(); !slices.Contains(got, "revoked2") || slices.Contains(got, "lost2") {
			t.Errorf("b heard %v, want that its two partitions were revoked", got)
		}
	})
}

// TestGroupCrash: what a crash between the reading of a record and the end of the work
// on it does, in both settings.
func TestGroupCrash(t *testing.T) {
	for _, tt := range []struct {
		delivery Delivery
		want     int // the first record that comes after 15 of batches of 10, the last one not worked off
		commits  time.Duration
	}{
		{AtLeastOnce, 14, 100 * time.Millisecond}, // the 15th comes again
		{AtLeastOnce, 0, time.Hour},               // nothing was committed
		{AtLeastOnce, 0, -1},                      // likewise
		{AtMostOnce, 20, 0},                       // the rest of its batch was committed before
	} {
		t.Run(fmt.Sprint(tt.delivery, tt.commits), func(t *testing.T) {
			inGroups(t, 1, func(t *testing.T, f *fakeCluster) {
				f.noStreams = true // a Fetch brings one batch
				o := newOwnership(t)
				set := func(cfg *GroupConfig) {
					cfg.Delivery, cfg.CommitInterval = tt.delivery, tt.commits
					cfg.Consumer.MaxPartitionBytes = 1
				}
				a := f.works(t, o, "a", set)
				ctx, cancel := context.WithCancel(t.Context())
				for r, err := range a.Records(ctx) {
					if err != nil {
						t.Fatal(err)
					}
					a.take(r)
					time.Sleep(200 * time.Millisecond)
					if a.count() == 15 {
						break
					}
				}
				cancel()
				a.crashes()
				b := f.works(t, o, "b", set)
				b.next(1)
				if got := b.first(); got != tt.want {
					t.Errorf("after the crash %d is the first, want %d", got, tt.want)
				}
				b.leaves()
			})
		})
	}
}

// TestGroupMovesCoordinator: another node looks after the group. Nobody hears of it but
// the client, whatever the first node says, or does not say.
func TestGroupMovesCoordinator(t *testing.T) {
	for name, leave := range map[string]func(f *fakeCluster){
		"it says so": func(*fakeCluster) {},
		"it is down": func(f *fakeCluster) { f.setDown("node0:9092", true) },
		"it is silent": func(f *fakeCluster) {
			f.hook(func() {
				f.groups.onGroup = func(node int32, req proto.Message) fault {
					if node == 0 {
						return hang
					}
					return noFault
				}
			})
		},
	} {
		t.Run(name, func(t *testing.T) {
			inGroups(t, 3, func(t *testing.T, f *fakeCluster) {
				o := newOwnership(t)
				a := f.works(t, o, "a", func(cfg *GroupConfig) { cfg.Start = End })
				a.run(t.Context(), 0)
				time.Sleep(10 * time.Second)
				for p := range 3 {
					f.move("a", p, 1)
				}
				leave(f) // before anything can be asked of it that another node looks after
				f.moveGroups(2)
				for p := range 3 {
					f.fill("a", p, 100, 110, 10, batch.None)
				}
				time.Sleep(30 * time.Second)
				if got := a.heard(); !slices.Equal(got, []string{"assigned3"}) {
					t.Errorf("the program heard %v", got)
				}
				if a.count() != 30 {
					t.Errorf("%d records were read, want 30", a.count())
				}
				r := f.groups.DescribeConsumerGroup(t.Context(), "g")
				if len(r.Members) != 1 || r.Members[0].Epoch != 1 {
					t.Errorf("the group has %+v, want the member at its first epoch", r.Members)
				}
				for p := range 3 {
					if got := committedOf(f, p); got != 110 {
						t.Errorf("partition %d is committed at %d by the new coordinator, want 110", p, got)
					}
				}
				a.leaves()
			})
		})
	}
}

// committedOf asks the coordinator itself.
func committedOf(f *fakeCluster, partition int) int64 {
	f.mu.Lock()
	id := f.topics["a"].id
	f.mu.Unlock()
	resp := (&fakeConn{f: f, id: f.groups.node}).fetchOffsets(&pb.FetchOffsetsRequest{
		Group: "g", Partitions: []*pb.PartitionRef{{TopicId: id[:], Partition: int32(partition)}}})
	return resp.(*pb.FetchOffsetsResponse).Offsets[0].Offset
}

// TestGroupRepeatsCommits: a commit whose answer is lost is sent again, and none that
// was sent before another takes effect after it.
func TestGroupRepeatsCommits(t *testing.T) {
	inGroups(t, 1, func(t *testing.T, f *fakeCluster) {
		o := newOwnership(t)
		a := f.works(t, o, "a", func(cfg *GroupConfig) { cfg.CommitInterval = 50 * time.Millisecond })
		n, last := 0, int64(0)
		f.hook(func() {
			f.groups.onGroup = func(_ int32, req proto.Message) fault {
				m, ok := req.(*pb.CommitOffsetsRequest)
				if !ok {
					return noFault
				}
				if m.Offsets[0].Offset < last {
					t.Errorf("offset %d is committed after %d", m.Offsets[0].Offset, last)
				}
				last = m.Offsets[0].Offset
				n++
				return []fault{noFault, loseRequest, loseResponse}[n%3]
			}
		})
		ctx, cancel := context.WithCancel(t.Context())
		a.run(ctx, 20*time.Millisecond)
		time.Sleep(time.Minute)
		cancel()
		<-a.ended
		a.leaves()
		if got := f.committed(t)[0]; got != 100 || n < 10 {
			t.Errorf("committed %d with %d requests, want 100", got, n)
		}
	})
}

// TestGroupTakesTooLong: a program that works for too long on what it has leaves the
// group, and comes back when it polls.
func TestGroupTakesTooLong(t *testing.T) {
	inGroups(t, 1, func(t *testing.T, f *fakeCluster) {
		o := newOwnership(t)
		a := f.works(t, o, "a", func(cfg *GroupConfig) { cfg.MaxPollInterval = time.Minute })
		a.next(1)
		time.Sleep(50 * time.Second)
		a.next(1)
		time.Sleep(70 * time.Second)
		o.mu.Lock()
		clear(o.by) // a hears of it when it polls
		o.mu.Unlock()
		b := f.works(t, o, "b")
		b.next(1)
		if got := b.first(); got < 0 || got > 1 {
			t.Errorf("b begins at %d, want no later than where a was", got)
		}
		b.leaves()
		a.next(1)
		if got := a.heard(); !slices.Equal(got, []string{"assigned1", "lost1", "assigned1"}) {
			t.Errorf("a heard %v", got)
		}
		a.leaves()
	})
}

// TestGroupStatic: a static member that is restarted has its partitions again, and the
// other one hears nothing.
func TestGroupStatic(t *testing.T) {
	inGroups(t, 4, func(t *testing.T, f *fakeCluster) {
		o := newOwnership(t)
		instance := func(id string) func(*GroupConfig) { return func(cfg *GroupConfig) { cfg.InstanceID = id } }
		a, b := f.works(t, o, "a", instance("1")), f.works(t, o, "b", instance("2"))
		ctx, cancel := context.WithCancel(t.Context())
		a.run(ctx, 0)
		b.run(t.Context(), 0)
		time.Sleep(30 * time.Second)
		had, heard := a.Assigned(), b.heard()
		cancel()
		<-a.ended
		a.leaves()
		time.Sleep(20 * time.Second)
		again := f.works(t, o, "again", instance("1"))
		again.run(t.Context(), 0)
		time.Sleep(20 * time.Second)
		same := slices.EqualFunc(had, again.Assigned(), func(x, y Assignment) bool { return x.Partition == y.Partition })
		if len(had) != 2 || !same || !slices.Equal(heard, b.heard()) {
			t.Errorf("the member had %v and has %v, and the other one heard %v", had, again.Assigned(), b.heard())
		}
		// One that has crashed holds its place until its session is over.
		again.crashes()
		third := f.works(t, o, "third", instance("1"))
		third.run(t.Context(), 0)
		time.Sleep(2 * time.Minute)
		if len(third.Assigned()) != 2 {
			t.Errorf("the member has %v after a crash", third.Assigned())
		}
		third.leaves()
		b.leaves()
	})
}

// TestGroupTopicsChange: topics that are made later, grow, and go.
func TestGroupTopicsChange(t *testing.T) {
	inGroups(t, 1, func(t *testing.T, f *fakeCluster) {
		a := f.works(t, newOwnership(t), "a", func(cfg *GroupConfig) { cfg.Topics, cfg.Regex = nil, "a|b.*" })
		a.run(t.Context(), 0)
		time.Sleep(10 * time.Second)
		f.createTopic("b1", 2)
		f.createTopic("c", 1)
		f.addPartitions("a", 2)
		f.fill("a", 1, 0, 5, 5, batch.None)
		f.fill("b1", 1, 0, 5, 5, batch.None)
		time.Sleep(30 * time.Second)
		if got := len(a.Assigned()); got != 4 || a.count() != 110 {
			t.Errorf("has %d partitions and has read %d records, want 4 and 110", got, a.count())
		}
		f.hook(func() { delete(f.topics, "a") })
		f.createTopic("a", 1)
		f.fill("a", 0, 0, 7, 7, batch.None)
		time.Sleep(time.Minute)
		if got := len(a.Assigned()); got != 3 || a.count() != 117 {
			t.Errorf("has %d partitions and has read %d records, want 3 and 117, with those of the new topic", got, a.count())
		}
		a.leaves()
	})
}

// TestGroupRefused: what cannot be, and a cluster that does not know of groups.
func TestGroupRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t, 1)
		c := f.client()
		defer c.Close()
		for _, cfg := range []GroupConfig{
			{}, {Group: "g"}, {Topics: []string{"a"}}, {Group: "g", Regex: "a", Start: 3}, {Group: "g", Regex: "a", Delivery: 2},
			{Group: "g", Regex: "a", MaxPollInterval: -1}, {Group: "g", Regex: "a", Consumer: ConsumerConfig{Assignments: []Assignment{{Topic: "a"}}}},
		} {
			if _, err := c.JoinGroup(cfg); err == nil {
				t.Errorf("%+v is taken", cfg)
			}
		}
		g, err := c.JoinGroup(GroupConfig{Group: "g", Regex: "a"})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := g.Poll(t.Context()); !errors.Is(err, ErrNoGroups) {
			t.Errorf("Poll = %v, want that there are no groups", err)
		}
		if err := g.Close(t.Context()); err != nil {
			t.Errorf("Close = %v", err)
		}
		if _, err := g.Poll(t.Context()); err == nil {
			t.Error("Poll of a closed Group succeeds")
		}
	})
	inGroups(t, 1, func(t *testing.T, f *fakeCluster) {
		c := f.client()
		defer c.Close()
		g, err := c.JoinGroup(GroupConfig{Group: "g", Regex: "("})
		if err != nil {
			t.Fatal(err)
		}
		_, err = g.Poll(t.Context())
		if code, _ := CodeOf(err); code != errcode.InvalidRegularExpression {
			t.Errorf("Poll = %v, want INVALID_REGULAR_EXPRESSION", err)
		}
		if err := g.Close(t.Context()); err != nil {
			t.Errorf("Close = %v", err)
		}
	})
}
