package broker

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/flotilla-log/flotilla/internal/errcode"
	"github.com/flotilla-log/flotilla/internal/vfs"
	"github.com/flotilla-log/flotilla/log/batch"
	"github.com/flotilla-log/flotilla/partition"
	"github.com/flotilla-log/flotilla/partition/store"
	"github.com/flotilla-log/flotilla/replication/transport"
)

// poisons panics at appends of batches with a value, on some nodes, as long as there
// are tries left.
type poisons struct {
	mu    sync.Mutex
	nodes map[int32]int // tries left; below 0: always
	value string
	met   map[int32]int
}

func (p *poisons) tune(o *Options) {
	node := o.NodeID
	o.poison = func(e *partition.Effect) {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.nodes[node] != 0 && e.Kind == partition.EffectAppended && bytes.Contains(e.Batch, []byte(p.value)) {
			p.nodes[node]--
			p.met[node]++
			panic("cannot store " + p.value)
		}
	}
}

func (p *poisons) set(tries int, nodes ...int32) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.nodes = make(map[int32]int)
	for _, n := range nodes {
		p.nodes[n] = tries
	}
}

func (p *poisons) metBy(node int32) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.met[node]
}

// inPoisonedTrio gives a test three brokers of which some can be made to panic at the
// value "poison".
func inPoisonedTrio(t *testing.T, test func(t *testing.T, tr *trio, p *poisons)) {
	p := &poisons{value: "poison", met: make(map[int32]int)}
	inTunedTrio(t, p.tune, func(t *testing.T, tr *trio) { test(t, tr, p) })
}

// patient makes a topic, and returns it with the leader of its first partition and another
// replica of that, to be hurt.
func (tr *trio) patient(partitions int32) (topic Topic, lead, hurt *rig) {
	topic = tr.controller().create("orders", partitions, nil)
	tr.rest(10 * time.Second)
	lead = tr.leader(topic, 0)
	return topic, lead, tr.rigs[lead.NodeID()%3]
}

// write produces some values to a partition, each in a batch of its own, and retries as
// an idempotent producer does, wherever it is led.
func (tr *trio) write(topic Topic, index int32, values ...string) {
	tr.t.Helper()
	for _, v := range values {
		b := batchOf(tr.t, 7, tr.sequence, v)
		tr.sequence++
		for tries := 0; ; tries++ {
			res := tr.leader(topic, index).produce(topic, index, b)
			if res.Err == nil {
				break
			}
			if !res.Err.Code.Retriable() || tries > 100 {
				tr.t.Fatalf("%q: %v", v, res.Err)
			}
			tr.rest(200 * time.Millisecond)
		}
	}
}

// same checks that all brokers have the same bytes of a partition, and the same state
// of its shard, and that nothing is in quarantine.
func (tr *trio) same(topic Topic, index int32, want []string) {
	tr.t.Helper()
	shard := tr.leader(topic, index).dir.find(topic.ID, index).shard.id
	if err := tr.leader(topic, index).AskStateHash(tr.t.Context(), uint32(shard)); err != nil {
		tr.t.Fatal(err)
	}
	tr.rest(2 * time.Second)
	var first string
	var bytesOf []byte
	for _, r := range tr.rigs {
		p := r.dir.find(topic.ID, index)
		if p.quarantined() || p.shard.sound() != nil {
			tr.t.Errorf("node %d: quarantined %t, %v", r.NodeID(), p.quarantined(), p.shard.sound())
		}
		hash := "none"
		for _, h := range r.StateHashes() {
			if h.Shard == shard {
				hash = fmt.Sprintf("%d %s", h.Index, partition.Hash(h.Hash))
			}
		}
		got := r.batches(p)
		if first == "" {
			first, bytesOf = hash, got
		}
		if hash != first || hash == "none" || !bytes.Equal(got, bytesOf) {
			tr.t.Errorf("node %d: state %s and %d bytes, want %s and %d", r.NodeID(), hash, len(got), first, len(bytesOf))
		}
		select {
		case err := <-r.failed:
			tr.t.Errorf("node %d stops: %v", r.NodeID(), err)
		default:
		}
	}
	if d := cmp.Diff(want, tr.leader(topic, index).read(topic, index, 0)); d != "" {
		tr.t.Errorf("records (-want +got):\n%s", d)
	}
}

// batches returns all of a partition, byte by byte.
func (r *rig) batches(p *placed) (all []byte) {
	r.t.Helper()
	at, end, err := p.shard.store.Bounds(uint32(p.number))
	for err == nil && at < end {
		var c *store.Chunk
		if c, err = p.shard.store.Read(uint32(p.number), at, 1<<20, true); err == nil {
			from := len(all)
			all, err = c.AppendTo(all)
			c.Release()
			for rest := all[from:]; err == nil && len(rest) > 0; {
				var h batch.Header
				if h, err = batch.ParseHeader(rest); err == nil {
					at, rest = h.BaseOffset+int64(h.LastOffsetDelta)+1, rest[h.Size():]
				}
			}
		}
	}
	if err != nil {
		r.t.Fatalf("node %d at offset %d: %v", r.NodeID(), at, err)
	}
	return all
}

// postpone has a shard not healed for a while. It is for before it has to be.
func (r *rig) postpone(s *dataShard, d time.Duration) {
	r.repairs.ill[s.id] = illness{until: time.Now().Add(d)}
}

func (r *rig) quarantineFiles() (names []string) {
	names, _ = vfs.ReadDirIfThere(r.fs, "quarantine")
	return names
}

// TestHeal: a command that panics on one replica, the leader or a follower, costs it
// the partition for a moment. Clients write on, the other replicas heal it, and it is
// as they are, after a power cut too.
func TestHeal(t *testing.T) {
	for _, leads := range []bool{true, false} {
		t.Run(fmt.Sprintf("leader=%t", leads), func(t *testing.T) {
			inPoisonedTrio(t, func(t *testing.T, tr *trio, p *poisons) {
				topic := tr.controller().create("orders", 1, nil)
				tr.rest(10 * time.Second)
				hurt := tr.leader(topic, 0)
				if !leads {
					hurt = tr.rigs[hurt.NodeID()%3]
				}
				want := []string{"0", "1"}
				tr.write(topic, 0, want...)
				p.set(-1, hurt.NodeID())
				tr.write(topic, 0, "poison", "2")
				want = append(want, "poison", "2")
				tr.rest(300 * time.Millisecond)
				if p.metBy(hurt.NodeID()) != 1 {
					t.Fatalf("the panic was met %d times, want once", p.metBy(hurt.NodeID()))
				}
				for i := range 20 { // while it is healed
					v := fmt.Sprint("more", i)
					tr.write(topic, 0, v)
					want = append(want, v)
					tr.rest(100 * time.Millisecond)
				}
				tr.rest(5 * time.Second)
				if leads && tr.leader(topic, 0) == hurt {
					t.Error("the replica that was in quarantine leads on")
				}
				if n := hurt.repairs.healed.Load(); n != 1 || hurt.Quarantined() != 1 {
					t.Errorf("%d partitions are healed of %d", n, hurt.Quarantined())
				}
				tr.same(topic, 0, want)
				if files := hurt.quarantineFiles(); len(files) > 0 {
					t.Errorf("files %v are left", files)
				}
				if p.metBy(hurt.NodeID()) != 1 {
					t.Errorf("the command was tried %d times", p.metBy(hurt.NodeID()))
				}
				i := int(hurt.NodeID() - 1)
				tr.start(i, tr.cutPower(i), p.tune)
				tr.rest(10 * time.Second)
				tr.write(topic, 0, "on")
				tr.same(topic, 0, append(want, "on"))
				if p.metBy(hurt.NodeID()) != 1 || tr.rigs[i].Quarantined() != 0 {
					t.Error("the command was tried again after the restart")
				}
			})
		})
	}
}

// TestHealEverywhere: a command that panics on all replicas leaves the partition in
// quarantine on all, and nothing else. Nothing is fetched, and the tries become rare.
func TestHealEverywhere(t *testing.T) {
	inPoisonedTrio(t, func(t *testing.T, tr *trio, p *poisons) {
		topic := tr.controller().create("orders", 4, nil)
		tr.rest(10 * time.Second)
		p.set(-1, 1, 2, 3)
		if res := tr.leader(topic, 0).produce(topic, 0, batchOf(t, 7, 0, "poison")); res.Err == nil || res.Err.Code != errcode.KafkaStorageError {
			t.Fatalf("the poison was answered with %+v", res)
		}
		tr.rest(4 * time.Minute)
		before := make(map[int32]uint64)
		for _, r := range tr.rigs {
			before[r.NodeID()] = r.repairs.unhealed.Load()
		}
		tr.rest(5 * time.Minute)
		led := 0
		for _, r := range tr.rigs {
			at := r.dir.find(topic.ID, 0)
			if !at.quarantined() || r.repairs.healed.Load() != 0 || p.metBy(r.NodeID()) != 1 {
				t.Errorf("node %d: quarantined %t, %d healed, met %d times", r.NodeID(), at.quarantined(), r.repairs.healed.Load(), p.metBy(r.NodeID()))
			}
			if at.shard.replica.Leading() != 0 {
				led++
			}
			// One of them leads, and asks nobody.
			if n := r.repairs.unhealed.Load() - before[r.NodeID()]; n > 3 {
				t.Errorf("node %d: %d tries in five minutes", r.NodeID(), n)
			}
			if sum := r.repairs.unhealed.Load(); sum > 12 {
				t.Errorf("node %d: %d tries in all", r.NodeID(), sum)
			}
		}
		if led != 1 {
			t.Errorf("%d replicas lead the shard", led)
		}
		for i := range int32(3) {
			tr.write(topic, i+1, "served")
			if got := tr.leader(topic, i+1).read(topic, i+1, 0); len(got) != 1 {
				t.Errorf("partition %d has %q", i+1, got)
			}
		}
	})
}

// TestHealAgain: a partition that panics anew each time is healed, with growing pauses.
func TestHealAgain(t *testing.T) {
	inPoisonedTrio(t, func(t *testing.T, tr *trio, p *poisons) {
		topic, _, hurt := tr.patient(1)
		p.set(-1, hurt.NodeID())
		var want []string
		for i := range 15 {
			v := fmt.Sprint("poison", i)
			tr.write(topic, 0, v)
			want = append(want, v)
			tr.rest(10 * time.Second)
		}
		if n := hurt.repairs.healed.Load(); n < 4 || n > 7 {
			t.Errorf("healed %d times in two and a half minutes", n)
		}
		p.set(0)
		tr.rest(3 * time.Minute)
		tr.same(topic, 0, want)
	})
}

// TestHealFollows: entries that come while the other replica's state is fetched are
// followed; one of them that panics here keeps the partition in quarantine, and the
// next try begins behind it.
func TestHealFollows(t *testing.T) {
	inPoisonedTrio(t, func(t *testing.T, tr *trio, p *poisons) {
		topic, lead, hurt := tr.patient(1)
		tr.write(topic, 0, "0")
		s := hurt.dir.find(topic.ID, 0).shard
		m := s.machine
		hurt.postpone(s, time.Hour) // by hand
		p.set(-1, hurt.NodeID())
		tr.write(topic, 0, "poison", "1")
		tr.rest(time.Second)
		if !hurt.hurt(s.id) || s.sound() == nil {
			t.Error("fit to lead before it is healed")
		}
		{
			for _, tt := range []struct {
				meanwhile string
				want      error
			}{{"poison again", errPanicsHere}, {"harmless", nil}} {
				h := m.begin()
				if h == nil {
					t.Fatal("nothing is in quarantine")
				}
				state, _, err := hurt.repairs.fetchState(t.Context(), s.id, lead.NodeID(), h.from)
				if err != nil {
					t.Fatal(err)
				}
				tr.write(topic, 0, tt.meanwhile)
				tr.rest(time.Second)
				v, _ := state.Partition(h.numbers[0])
				if _, err := hurt.repairs.graft(t.Context(), s, h, lead.NodeID(), state.Index(), restoredPart(state, v)); err != nil {
					t.Fatal(err)
				}
				err = m.succeed(t.Context(), h, state)
				m.end()
				if fmt.Sprint(err == nil) != fmt.Sprint(tt.want == nil) || tt.want != nil && !strings.Contains(err.Error(), tt.want.Error()) {
					t.Errorf("%s: %v, want %v", tt.meanwhile, err, tt.want)
				}
			}
			if s.sound() == nil || s.soundAt(1<<62) == nil {
				t.Error("sound before a checkpoint has the state")
			}
			if files := hurt.quarantineFiles(); len(files) != 1 {
				t.Errorf("files %v before a checkpoint has the state", files)
			}
		}
		tr.rest(10 * time.Second)
		tr.same(topic, 0, []string{"0", "poison", "1", "poison again", "harmless"})
		if err := s.soundAt(s.soundFrom.Load() - 1); err == nil {
			t.Error("a checkpoint of before would be given away")
		}
	})
}

// TestHealMoved: what the other replicas have deleted meanwhile is not asked for.
func TestHealMoved(t *testing.T) {
	inPoisonedTrio(t, func(t *testing.T, tr *trio, p *poisons) {
		topic, lead, hurt := tr.patient(1)
		tr.write(topic, 0, "0", "1")
		hurt.postpone(hurt.dir.find(topic.ID, 0).shard, time.Minute)
		p.set(-1, hurt.NodeID())
		tr.write(topic, 0, "poison", "3", "4", "5")
		if res := lead.DeleteRecords(t.Context(), []DeletePart{{Topic: topic.ID, Index: 0, Before: 5}}); res[0].Err != nil {
			t.Fatal(res[0].Err)
		}
		tr.rest(2 * time.Minute)
		tr.write(topic, 0, "6")
		tr.rest(time.Second)
		for _, r := range tr.rigs {
			at := r.dir.find(topic.ID, 0)
			if start, end, err := at.shard.store.Bounds(uint32(at.number)); err != nil || start != 5 || end != 7 {
				t.Errorf("node %d: [%d, %d), %v", r.NodeID(), start, end, err)
			}
		}
		i := int(hurt.NodeID() - 1)
		tr.start(i, tr.cutPower(i), p.tune)
		tr.rest(10 * time.Second)
		if res := lead.produce(topic, 0, records(t, batch.NoProducer, "7")); res.Err != nil && !res.Err.Code.Retriable() {
			t.Error(res.Err)
		}
		if n, d := tr.rigs[i].damaged(); n > 0 || tr.rigs[i].Quarantined() > 0 {
			t.Errorf("after a power cut: %d damaged ranges, %+v", n, d)
		}
	})
}

// byHand heals a shard up to a stage: 1, the batches are here; 2, the state too, and in no
// checkpoint yet.
func (r *rig) byHand(s *dataShard, from int32, stage int) {
	r.t.Helper()
	h := s.machine.begin()
	if h == nil {
		r.t.Fatal("nothing is in quarantine")
	}
	defer s.machine.end()
	state, _, err := r.repairs.fetchState(r.t.Context(), s.id, from, h.from)
	if err != nil {
		r.t.Fatal(err)
	}
	v, _ := state.Partition(h.numbers[0])
	if _, err := r.repairs.graft(r.t.Context(), s, h, from, state.Index(), restoredPart(state, v)); err != nil {
		r.t.Fatal(err)
	}
	if stage < 2 {
		return
	}
	if err := s.machine.succeed(r.t.Context(), h, state); err != nil {
		r.t.Fatal(err)
	}
}

// TestHealCut: a power cut before the first checkpoint that has the other replica's
// state takes it all back; then it is healed again. What a cut leaves is drawn: several.
func TestHealCut(t *testing.T) {
	for n := range 16 {
		stage, checkpoint := 1+n%2, n/2%2 == 1
		t.Run(fmt.Sprintf("%d/stage=%d/checkpoint=%t", n, stage, checkpoint), func(t *testing.T) {
			inPoisonedTrio(t, func(t *testing.T, tr *trio, p *poisons) {
				topic, lead, hurt := tr.patient(2)
				s := hurt.dir.find(topic.ID, 0).shard
				want := []string{"0"}
				tr.write(topic, 0, want...)
				tr.rest(time.Second)
				hurt.postpone(s, time.Hour)
				p.set(-1, hurt.NodeID())
				for i := range 5 {
					v := fmt.Sprintf("%d poison %s", i, strings.Repeat("x", 9000))
					tr.write(topic, 0, v)
					want = append(want, v)
				}
				tr.rest(time.Second)
				if checkpoint {
					hurt.Checkpoint() // at the very index
				}
				hurt.byHand(s, lead.NodeID(), stage)
				if checkpoint {
					hurt.Checkpoint()
				}
				p.set(0)
				i := int(hurt.NodeID() - 1)
				tr.start(i, tr.cutPower(i), p.tune)
				tr.rest(15 * time.Second)
				tr.write(topic, 0, "on")
				tr.same(topic, 0, append(want, "on"))
				if files := tr.rigs[i].quarantineFiles(); len(files) > 0 {
					t.Errorf("files %v are left", files)
				}
			})
		})
	}
}

// TestHealByCatchUp: a replica with a partition in quarantine that falls behind its
// leader's log gets the leader's checkpoint, which ends the quarantine too.
func TestHealByCatchUp(t *testing.T) {
	inPoisonedTrio(t, func(t *testing.T, tr *trio, p *poisons) {
		topic, _, hurt := tr.patient(1)
		s := hurt.dir.find(topic.ID, 0).shard
		hurt.postpone(s, time.Hour)
		p.set(-1, hurt.NodeID())
		want := []string{"0", "poison"}
		tr.write(topic, 0, want...)
		tr.rest(time.Second)
		tr.cutOff(hurt, true)
		for i := range 60 {
			v := fmt.Sprintf("%d %s", i, strings.Repeat("x", 50_000))
			tr.write(topic, 0, v)
			want = append(want, v)
		}
		tr.rest(5 * time.Second)
		tr.cutOff(hurt, false)
		tr.rest(20 * time.Second)
		if s.catchUp.bytes.Load() == 0 || hurt.repairs.healed.Load() != 0 {
			t.Fatalf("%d bytes were pulled by a catch-up, %d partitions healed without", s.catchUp.bytes.Load(), hurt.repairs.healed.Load())
		}
		tr.same(topic, 0, want)
		if files := hurt.quarantineFiles(); len(files) > 0 {
			t.Errorf("files %v are left", files)
		}
		i := int(hurt.NodeID() - 1)
		tr.start(i, tr.cutPower(i), p.tune)
		tr.rest(10 * time.Second)
		tr.same(topic, 0, want)
	})
}

// TestHealIdle: a shard of which a checkpoint covers everything is healed, and gets the
// entry that the next checkpoint needs.
func TestHealIdle(t *testing.T) {
	inPoisonedTrio(t, func(t *testing.T, tr *trio, p *poisons) {
		topic, _, hurt := tr.patient(1)
		s := hurt.dir.find(topic.ID, 0).shard
		hurt.postpone(s, 10*time.Second)
		p.set(-1, hurt.NodeID())
		tr.write(topic, 0, "poison")
		tr.rest(5 * time.Second)
		hurt.Checkpoint()
		tr.rest(20 * time.Second)
		if files := hurt.quarantineFiles(); s.sound() != nil || len(files) > 0 {
			t.Errorf("%v, files %v", s.sound(), files)
		}
		tr.same(topic, 0, []string{"poison"})
	})
}

// TestHealRefuses: a state that does not have the hash that is given with it is not
// taken, nor one that is given by nobody.
func TestHealRefuses(t *testing.T) {
	inPoisonedTrio(t, func(t *testing.T, tr *trio, p *poisons) {
		topic, _, hurt := tr.patient(1)
		s := hurt.dir.find(topic.ID, 0).shard
		var wrong atomic.Bool
		wrong.Store(true)
		for i, r := range tr.rigs {
			if r == hurt {
				continue
			}
			tr.peers[i].Serve(func(ctx context.Context, from int32, m transport.Method, payload []byte) ([]byte, error) {
				b, err := r.Answer(ctx, from, m, payload)
				if m == methodState && err == nil && wrong.Load() {
					b[24] ^= 1 // the hash
				}
				return b, err
			})
		}
		p.set(-1, hurt.NodeID())
		tr.write(topic, 0, "poison")
		tr.rest(10 * time.Second)
		if s.sound() == nil || hurt.repairs.healed.Load() != 0 || hurt.repairs.unhealed.Load() == 0 {
			t.Errorf("a state of another hash is taken: %v", s.sound())
		}
		wrong.Store(false)
		tr.rest(20 * time.Second)
		tr.same(topic, 0, []string{"poison"})
	})
}

// TestSuccessionBounds: what is kept while a state comes is bounded.
func TestSuccessionBounds(t *testing.T) {
	t.Parallel()
	m := &machine{state: partition.New()}
	h := &succession{of: m.state}
	entry := make([]byte, maxSuccessionBytes/4)
	for i := range uint64(4) {
		h.keep(i+1, 1, entry)
	}
	if err := h.holdsLocked(m); err != nil || len(h.kept) != 4 {
		t.Errorf("%d entries are kept: %v", len(h.kept), err)
	}
	h.keep(5, 1, entry[:1])
	h.keep(6, 1, nil)
	if err := h.holdsLocked(m); !errors.Is(err, errOvertaken) || len(h.kept) != 0 {
		t.Errorf("above the bound %d entries are kept: %v", len(h.kept), err)
	}
	m.state = partition.New()
	h.over = false
	if err := h.holdsLocked(m); !errors.Is(err, errOvertaken) {
		t.Errorf("another state: %v", err)
	}
}

// TestStateCall: requests and answers are read as they are written, and others refused.
func TestStateCall(t *testing.T) {
	t.Parallel()
	r := stateRequest{what: stateContent, shard: 3, index: 7, at: 9, offset: 1 << 20}
	if got, err := decodeStateRequest(r.encode()); err != nil || got != r {
		t.Errorf("%+v, %v", got, err)
	}
	a := stateAnswer{index: 9, total: 5, hash: partition.Hash{1, 2}, bytes: []byte("state")}
	if got, err := decodeStateAnswer(a.encode()); err != nil || got.index != 9 || got.total != 5 || got.hash != a.hash || string(got.bytes) != "state" {
		t.Errorf("%+v, %v", got, err)
	}
	other := stateRequest{what: 3, shard: 3}
	early := stateRequest{what: stateContent, offset: 1}
	for _, b := range [][]byte{nil, {2}, r.encode()[:31], other.encode(), early.encode(), append([]byte{1, 1, 1}, r.encode()[3:]...)} {
		if _, err := decodeStateRequest(b); !errors.Is(err, errStateCall) {
			t.Errorf("request %x: %v", b, err)
		}
	}
	a.total = 4
	long := stateAnswer{total: maxStateBytes + 1}
	for _, b := range [][]byte{nil, a.encode()[:55], a.encode(), long.encode()} {
		if _, err := decodeStateAnswer(b); !errors.Is(err, errStateCall) {
			t.Errorf("answer %x: %v", b, err)
		}
	}
}
