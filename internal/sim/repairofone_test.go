package sim

import (
	"errors"
	"maps"
	"strings"
	"testing"

	"github.com/flotilla-log/flotilla/internal/doctor"
	"github.com/flotilla-log/flotilla/internal/history"
	"github.com/flotilla-log/flotilla/internal/node"
	"github.com/flotilla-log/flotilla/internal/vfs"
)

// TestRepairOfOneOfSeveral damages files of a node that has just founded a cluster with two
// others, so that no checkpoint tells of them: a repair must forget nothing that the
// others count on, and leaves the directory to them.
func TestRepairOfOneOfSeveral(t *testing.T) {
	t.Parallel()
	var disk, stopped *vfs.Mem
	problems, tr, _ := runFleet(t, 1, func(fl *fleet) {
		key, _, b, c, ok := fl.stage("counted0")
		if !ok {
			return
		}
		fl.kill(b)
		disk = b.disk.KillClone()
		if !fl.start(b) {
			return
		}
		fl.flood([]history.Key{key}, 150)
		fl.stopNode(c)
		stopped = c.disk.KillClone()
	})
	report(t, 1, problems, tr)
	if stopped == nil {
		return
	}
	if rep, err := doctor.Check(disk, dataDir, doctor.Options{}); err != nil || rep.Harmed() || rep.Summary.Checkpoints > 0 {
		t.Fatalf("before anything is damaged: %+v, %v", rep, err)
	}
	for _, part := range []string{node.IdentityName, node.JournalDir, node.VotesDir, node.MetadataDir, node.PartitionsDir} {
		t.Run(part, func(t *testing.T) {
			hurt := disk.KillClone()
			if part == node.PartitionsDir {
				hurt = stopped.KillClone()
			}
			for _, file := range everyFile(t, hurt, dataDir) {
				if !strings.HasPrefix(file, dataDir+"/"+part) || strings.HasSuffix(file, node.GenerationName) || kindOf(file) == "index" {
					continue
				}
				b, err := vfs.ReadFile(hurt, file)
				if err != nil {
					t.Fatal(err)
				}
				if part == node.PartitionsDir {
					b[len(b)/2] ^= 1
				} else {
					clear(b[:min(len(b), 64)])
				}
				if err := vfs.WriteFile(hurt, file, b); err != nil {
					t.Fatal(err)
				}
			}
			rep, err := doctor.Check(hurt, dataDir, doctor.Options{})
			if err != nil || !rep.Harmed() {
				t.Fatalf("check: %+v, %v", rep, err)
			}
			for _, f := range rep.Findings {
				if f.Harmful && f.Remedy != doctor.RemedyStart {
					t.Errorf("check says of %s, which the others make good: %s, %s", f.File, f.Remedy, f.Advice)
				}
			}
			before := contents(t, hurt)
			done, err := doctor.Repair(hurt, dataDir, doctor.RepairOptions{Execute: true, AcceptLoss: true})
			if !maps.Equal(before, contents(t, hurt)) {
				t.Error("a repair changed the directory")
			}
			if part == node.PartitionsDir { // served around, and fetched from the others
				if err != nil || len(done.Left) == 0 {
					t.Errorf("repair = %+v, %v", done, err)
				}
				return
			}
			if !errors.Is(err, doctor.ErrRefused) {
				t.Fatalf("a repair was not refused: %v", err)
			}
			for _, r := range done.Plan.Refused {
				if !strings.Contains(r.Why, "made new from the others") {
					t.Errorf("refused for %s: %s", r.File, r.Why)
				}
			}
		})
	}
}
