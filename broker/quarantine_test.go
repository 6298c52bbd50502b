package broker

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/flotilla-log/flotilla/internal/errcode"
	"github.com/flotilla-log/flotilla/internal/section"
	"github.com/flotilla-log/flotilla/internal/vfs"
	"github.com/flotilla-log/flotilla/log/batch"
	"github.com/flotilla-log/flotilla/partition"
)

// poisonValue panics at an append of a batch that holds a value.
func poisonValue(value string) func(*Options) {
	return func(o *Options) {
		o.poison = func(e *partition.Effect) {
			if e.Kind == partition.EffectAppended && bytes.Contains(e.Batch, []byte(value)) {
				panic("cannot store " + value)
			}
		}
	}
}

// quarantined is a rig of a topic with four partitions, all with records "0" and
// "1", of which partition 0 met its poison.
func quarantined(t *testing.T, fsys *vfs.Mem, tune ...func(*Options)) (*rig, Topic) {
	t.Helper()
	r := startRig(t, fsys, append(tune, poisonValue("poison"))...)
	topic := r.create("orders", 4, nil)
	for p := range int32(4) {
		for seq := range int32(2) {
			if res := r.produce(topic, p, batchOf(t, 7, seq, fmt.Sprint(seq))); res.Err != nil {
				t.Fatal(res.Err)
			}
		}
	}
	if res := r.produce(topic, 0, batchOf(t, 7, 2, "poison")); res.Err == nil || res.Err.Code != errcode.KafkaStorageError {
		t.Fatalf("the poison was answered with %+v", res)
	}
	return r, topic
}

// refused checks that partition 0 of the topic is refused everywhere, with a text
// that says what, where and what to do, and that the others are served.
func (r *rig) refused(topic Topic) {
	r.t.Helper()
	p := r.dir.find(topic.ID, 0)
	file := fmt.Sprintf("quarantine/%d-%d.quarantine", p.shard.id, p.number)
	check := func(what string, err *errcode.Error) {
		r.t.Helper()
		if err == nil || err.Code != errcode.KafkaStorageError {
			r.t.Errorf("%s: %v, want KAFKA_STORAGE_ERROR", what, err)
			return
		}
		for _, want := range []string{"partition 0 of topic orders is in quarantine", fmt.Sprintf("entry %d of shard %d", p.quarantine, p.shard.id), file, "remove that file", "or delete the topic"} {
			if !strings.Contains(err.Detail, want) {
				r.t.Errorf("%s: %q does not say %q", what, err.Detail, want)
			}
		}
	}
	count := 0
	for _, s := range r.Stats().Shards {
		count += s.Quarantined
	}
	if count != 1 {
		r.t.Errorf("%d partitions are in quarantine by the metrics, want 1", count)
	}
	check("produce", r.produce(topic, 0, batchOf(r.t, 8, 0, "more")).Err)
	check("fetch", r.fetch(FetchRequest{MaxBytes: 1 << 20, Parts: []FetchPart{{Topic: topic.ID, Index: 0, MaxBytes: 1 << 20, Epoch: -1}}})[0].Err)
	check("offset", r.Offset(r.t.Context(), OffsetPart{Topic: topic.ID, Index: 0, Epoch: -1}).Err)
	for i := range int32(3) {
		if got := r.read(topic, i+1, 0); len(got) < 2 || got[0] != "0" || got[1] != "1" {
			r.t.Errorf("partition %d has %q", i+1, got)
		}
		if res := r.produce(topic, i+1, records(r.t, batch.NoProducer, "goes on")); res.Err != nil {
			r.t.Errorf("partition %d: %v", i+1, res.Err)
		}
	}
}

// TestQuarantine has one command panic: its partition is refused from then on,
// and the others are served, now and after restarts, with a checkpoint behind
// the entry and without one, in which the entry is not tried again.
func TestQuarantine(t *testing.T) {
	for _, checkpointed := range []bool{false, true} {
		t.Run(fmt.Sprintf("checkpointed=%t", checkpointed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				fsys := vfs.NewMem(1)
				r, topic := quarantined(t, fsys)
				if r.Quarantined() != 1 {
					t.Errorf("%d counted", r.Quarantined())
				}
				r.refused(topic)
				for range 3 {
					if checkpointed {
						r.Checkpoint()
						fsys = fsys.CrashClone(vfs.CrashOptions{Unsynced: vfs.Lose})
					}
					r.stop()
					r = startRig(t, fsys, func(o *Options) {
						o.poison = func(e *partition.Effect) {
							if bytes.Contains(e.Batch, []byte("poison")) {
								t.Error("the entry was tried again")
							}
						}
					})
					r.refused(topic)
				}
				if r.Quarantined() != 0 {
					t.Errorf("%d counted after a restart", r.Quarantined())
				}
				select {
				case err := <-r.failed:
					t.Errorf("the node was told to stop: %v", err)
				default:
				}
				r.stop()
			})
		})
	}
}

// TestQuarantineWithoutFile crashes before the file is written: the entry is
// tried again, and leads to the same quarantine.
func TestQuarantineWithoutFile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fsys := vfs.NewMem(1)
		fsys.SetInjector(func(op vfs.Op) vfs.Fault {
			if strings.HasPrefix(op.Path, "quarantine") && op.Kind == vfs.OpCreate {
				return vfs.Fault{Full: true, Err: syscall.ENOSPC}
			}
			return vfs.Fault{}
		})
		r, topic := quarantined(t, fsys)
		r.Checkpoint() // fails: it may not become durable before the file is
		if s := r.dir.find(topic.ID, 0).shard; s.replica.Checkpointed() != 0 {
			t.Errorf("a checkpoint at %d without the file", s.replica.Checkpointed())
		}
		r.stop()
		fsys.SetInjector(nil)
		r = startRig(t, fsys, poisonValue("poison"))
		defer func() { r.stop() }()
		if r.Quarantined() != 1 {
			t.Errorf("%d counted", r.Quarantined())
		}
		r.refused(topic)
		r.Checkpoint()
		if s := r.dir.find(topic.ID, 0).shard; s.replica.Checkpointed() == 0 {
			t.Error("no checkpoint with the file")
		}
	})
}

// TestQuarantineEnds tries the two remedies.
func TestQuarantineEnds(t *testing.T) {
	t.Run("repaired", func(t *testing.T) {
		for _, checkpointed := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) {
				fsys := vfs.NewMem(1)
				r, topic := quarantined(t, fsys)
				if checkpointed {
					r.Checkpoint()
				}
				p := r.dir.find(topic.ID, 0)
				file := r.quarantines.path(p.shard.id, p.number)
				r.stop()
				if err := fsys.Remove(file); err != nil {
					t.Fatal(err)
				}
				r = startRig(t, fsys) // a version that does not panic
				defer r.stop()
				want := []string{"0", "1"}
				if !checkpointed { // the journal still has it: it was in doubt, and is there
					want = append(want, "poison")
				}
				if d := cmp.Diff(want, r.read(topic, 0, 0)); d != "" {
					t.Errorf("checkpointed %t: records (-want +got):\n%s", checkpointed, d)
				}
				if res := r.produce(topic, 0, records(t, batch.NoProducer, "on")); res.Err != nil || res.BaseOffset != int64(len(want)) {
					t.Errorf("produce: %+v", res)
				}
			})
		}
	})
	t.Run("deleted", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			fsys := vfs.NewMem(1)
			r, topic := quarantined(t, fsys)
			p := r.dir.find(topic.ID, 0)
			file := r.quarantines.path(p.shard.id, p.number)
			r.stop()
			r = startRig(t, fsys)
			if err := r.DeleteTopic(t.Context(), topic.ID); err != nil {
				t.Fatal(err)
			}
			r.create("orders", 4, nil)
			for _, s := range r.Stats().Shards {
				if s.Quarantined != 0 {
					t.Errorf("shard %d: %d in quarantine after the deletion", s.ID, s.Quarantined)
				}
			}
			r.Checkpoint()
			r.stop()
			r = startRig(t, fsys)
			defer r.stop()
			if _, err := vfs.ReadFile(fsys, file); err == nil {
				t.Error("the file is still there")
			}
			topic, missing := r.TopicByName("orders")
			if missing != nil {
				t.Fatal(missing)
			}
			for i := range int32(4) {
				if res := r.produce(topic, i, records(t, batch.NoProducer, "new")); res.Err != nil || res.BaseOffset != 0 {
					t.Errorf("partition %d: %+v", i, res)
				}
			}
		})
	})
}

// TestQuarantineReport reads what is kept: the log line names it, and a state
// made from the file takes the entry to the same panic.
func TestQuarantineReport(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fsys := vfs.NewMem(1)
		var log bytes.Buffer
		r, topic := quarantined(t, fsys, func(o *Options) { o.Log = slog.New(slog.NewJSONHandler(&log, nil)) })
		p := r.dir.find(topic.ID, 0)
		if err := r.AskStateHash(t.Context(), uint32(p.shard.id)); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		for _, h := range r.StateHashes() {
			if h.Shard == p.shard.id {
				t.Errorf("a replica with a quarantine made the hash %+v", h)
			}
		}
		r.stop()
		for _, want := range []string{
			`"msg":"handling a command panicked`, `"panic":"cannot store poison\n`, `"kind":"Produce"`, `"entry_sha256":"`,
			`"kept_in":"` + r.quarantines.path(p.shard.id, p.number), `"topic_id":"` + topic.ID.String(), fmt.Sprintf(`"index":%d`, p.quarantine),
			"no state hash",
		} {
			if !strings.Contains(log.String(), want) {
				t.Errorf("the log does not say %s:\n%s", want, log.String())
			}
		}
		b, err := vfs.ReadFile(fsys, r.quarantines.path(p.shard.id, p.number))
		if err != nil {
			t.Fatal(err)
		}
		shard, q, err := decodeQuarantine(b)
		if err != nil || shard != p.shard.id || q.Number != p.number || q.TopicID != topic.ID || q.EntryIndex != p.quarantine || q.Kind != partition.KindProduce {
			t.Fatalf("shard %d, %+v, %v", shard, q, err)
		}
		parts := make(map[section.Kind][]byte)
		for sr := section.NewReader(bytes.NewReader(b)); ; {
			s, err := sr.Next()
			if err != nil {
				break
			}
			parts[s.Kind] = bytes.Clone(s.Payload)
		}
		state, err := partition.Restore(bytes.NewReader(parts[sectionBefore]))
		if err != nil {
			t.Fatal(err)
		}
		out := partition.Outcome{Follow: func(e *partition.Effect) { panic("cannot store it again") }}
		if err := state.Apply(q.EntryIndex, q.EntryTerm, parts[sectionEntry], &out); err != nil || len(out.Quarantines) != 1 {
			t.Errorf("again: %v, %+v", err, out.Quarantines)
		}
		if !bytes.Contains(parts[sectionPanic], []byte("cannot store poison\n")) || !bytes.Contains(parts[sectionPanic], []byte("goroutine")) {
			t.Errorf("the panic is kept as %q", parts[sectionPanic])
		}
	})
}

// A file that cannot be read stops the start, and says which.
func TestQuarantineFileRefused(t *testing.T) {
	seal := func(s section.Section) []byte {
		var b bytes.Buffer
		w := section.NewWriter(&b)
		if err := errors.Join(w.Write(s), w.Close()); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
	for name, b := range map[string][]byte{
		"damaged": []byte("damaged"),
		"empty":   {},
		"newer":   seal(section.Section{Kind: sectionWhat, Version: quarantineVersion + 1, Mandatory: true, Payload: make([]byte, whatBytes)}),
		"short":   seal(section.Section{Kind: sectionWhat, Version: quarantineVersion, Mandatory: true, Payload: make([]byte, 5)}),
		"another": encodeQuarantine(1, &partition.Quarantine{Number: 9}, nil),
		"nothing": seal(section.Section{Kind: sectionPanic, Version: quarantineVersion}),
	} {
		synctest.Test(t, func(t *testing.T) {
			fsys := vfs.NewMem(1)
			r := startRig(t, fsys)
			r.stop()
			if err := errors.Join(vfs.MkdirAllSync(fsys, "quarantine"), vfs.WriteFile(fsys, "quarantine/1-7.quarantine", b)); err != nil {
				t.Fatal(err)
			}
			r, err := tryRig(t, fsys)
			r.stop()
			if !errors.Is(err, errQuarantineFile) || !strings.Contains(err.Error(), "quarantine/1-7.quarantine") {
				t.Errorf("%s: error = %v", name, err)
			}
		})
	}
}

// What is not one partition's stops the replica, and the node is told why.
func TestPanicStops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fsys := vfs.NewMem(1)
		r := startRig(t, fsys, func(o *Options) {
			o.poison = func(e *partition.Effect) {
				if e.Kind == partition.EffectCreated {
					panic("cannot create")
				}
			}
		})
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if _, err := r.CreateTopic(ctx, TopicSpec{Name: "t"}); err == nil {
			t.Error("the topic was created")
		}
		select {
		case err := <-r.failed:
			if !errors.Is(err, partition.ErrBroken) || !strings.Contains(err.Error(), "command 0 (CreatePartition): cannot create") {
				t.Errorf("told: %v", err)
			}
		default:
			t.Error("nobody was told")
		}
		r.stop()
	})
}
