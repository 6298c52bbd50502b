package sim

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io/fs"
	"path"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/flotilla-log/flotilla/internal/doctor"
	"github.com/flotilla-log/flotilla/internal/node"
	"github.com/flotilla-log/flotilla/internal/section"
	"github.com/flotilla-log/flotilla/internal/vfs"
)

// quarantineFile is a file as docs/formats.md has it, of which the first section
// says what the others are about.
func quarantineFile(t *testing.T, shard, number uint32, topic [16]byte, version uint16) []byte {
	t.Helper()
	le := binary.LittleEndian
	what := le.AppendUint32(nil, shard)
	what = le.AppendUint32(what, number)
	what = le.AppendUint64(what, 1)          // entry index
	what = le.AppendUint64(what, 1)          // entry term
	what = le.AppendUint64(what, 0)          // command and partition index
	what = append(what, topic[:]...)         //
	what = append(what, make([]byte, 32)...) // the entry's SHA-256
	what = append(what, 1)                   // kind
	var b bytes.Buffer
	w := section.NewWriter(&b)
	err := errors.Join(
		w.Write(section.Section{Kind: 1, Version: version, Mandatory: true, Payload: what}),
		w.Write(section.Section{Kind: 2, Version: 1, Payload: []byte("cannot store it")}),
		w.Close(),
	)
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestCheckQuarantine puts files into the quarantine folder: check names those
// that a start fails with as damage, those that keep a partition from being
// served likewise, and what nobody reads as a note.
func TestCheckQuarantine(t *testing.T) {
	t.Parallel()
	var disk *vfs.Mem
	var topic [16]byte
	problems, tr := run(t, 4, func(w *world) {
		if !w.mustStart() {
			return
		}
		p := w.hire()
		p.createTopic("orders", 4)
		d, err := p.c.Admin().DescribeTopic(context.Background(), "orders")
		if err != nil {
			w.problem("describe: %v", err)
		}
		topic = d.ID
		p.leave()
		w.stopNode()
		disk = w.disk
	})
	if len(problems) > 0 {
		t.Fatal(strings.Join(problems, "\n"), tr.save("check-quarantine"))
	}
	intact := quarantineFile(t, 1, 1, topic, 1)
	flipped := bytes.Clone(intact)
	flipped[30] ^= 4
	tests := []struct {
		name    string
		file    string
		content []byte // nil: a directory
		harmful bool
		refused bool // by a start
		want    string
	}{
		{"intact", "1-1.quarantine", intact, true, false, "orders-0 is in quarantine: handling entry 1 of shard 1 panicked"},
		{"flipped", "1-1.quarantine", flipped, true, true, "damaged"},
		{"cut off", "1-1.quarantine", intact[:40], true, true, "damaged"},
		{"empty", "1-1.quarantine", []byte{}, true, true, "damaged"},
		{"another's name", "1-2.quarantine", intact, true, true, "it is 1-1.quarantine"},
		{"newer", "1-1.quarantine", quarantineFile(t, 1, 1, topic, 9), true, true, "a newer version has written it"},
		{"cannot be read", "1-1.quarantine", nil, true, true, "1-1.quarantine"},
		{"a deleted partition's", "2-7.quarantine", quarantineFile(t, 2, 7, topic, 1), false, false, "is deleted"},
		{"another node's shard", "9-1.quarantine", flipped, false, false, "not a quarantine file of a shard that is here"},
		{"the metadata shard", "0-1.quarantine", flipped, false, false, "not a quarantine file of a shard that is here"},
		{"a stray file", "1-1.txt", flipped, false, false, "not a quarantine file of a shard that is here"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			hurt := disk.KillClone()
			dir := dataDir + "/" + node.QuarantineDir
			file := path.Join(dir, tt.file)
			err := vfs.MkdirAllSync(hurt, dir)
			if tt.content == nil {
				err = errors.Join(err, vfs.MkdirAllSync(hurt, file))
			} else {
				err = errors.Join(err, vfs.WriteFile(hurt, file, tt.content))
			}
			if err != nil {
				t.Fatal(err)
			}
			rep, err := doctor.Check(hurt, dataDir, doctor.Options{})
			if err != nil {
				t.Fatal(err)
			}
			i := slices.IndexFunc(rep.Findings, func(f doctor.Finding) bool { return f.File == node.QuarantineDir+"/"+tt.file })
			if i < 0 {
				t.Fatalf("the file is not named: %+v", rep.Findings)
			}
			if f := rep.Findings[i]; f.Harmful != tt.harmful || !strings.Contains(f.What, tt.want) || f.Advice == "" {
				t.Errorf("finding %+v, want harmful %t and %q", f, tt.harmful, tt.want)
			}
			_, err = doctor.Repair(hurt, dataDir, doctor.RepairOptions{Execute: true, AcceptLoss: true, Now: epoch})
			if errors.Is(err, doctor.ErrRefused) != tt.refused || !tt.refused && err != nil {
				t.Errorf("repair = %v, want it refused: %t", err, tt.refused)
			}
			before := contents(t, hurt)
			problems, tr := run(t, 5, func(w *world) {
				w.disk = hurt.KillClone()
				// Time for a replica that runs already to write something.
				w.onOp = func(op vfs.Op, ph vfs.Phase) {
					if op.Path == file && ph == vfs.Before {
						time.Sleep(time.Second)
					}
				}
				if err := w.start(); (err != nil) != tt.refused || err != nil && !strings.Contains(err.Error(), tt.file) {
					w.problem("start = %v, want it refused: %t", err, tt.refused)
				}
				if tt.refused {
					if d := differ(before, contents(t, w.disk)); d != "" {
						w.problem("the start changed %s before it was refused", d)
					}
				}
				if _, err := w.disk.Stat(file); tt.name == "a deleted partition's" && !errors.Is(err, fs.ErrNotExist) {
					w.problem("the start leaves the file: %v", err)
				}
			})
			if len(problems) > 0 {
				t.Error(strings.Join(problems, "\n"), tr.save("check-quarantine"))
			}
		})
	}
}
