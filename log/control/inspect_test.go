package control

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/flotilla-log/flotilla/internal/vfs"
)

// TestInspect flips a bit in each byte of a log, cuts it off and zeroes parts of
// it, and compares what Inspect says with what OpenLog does. It changes nothing,
// and finds the records around the damage.
func TestInspect(t *testing.T) {
	t.Parallel()
	mem := vfs.NewMem(1)
	log, err := OpenLog(mem, "log", Options{})
	if err != nil {
		t.Fatal(err)
	}
	const records = 5
	for i := range uint64(records) {
		if err := log.Append([]Entry{{Index: i + 1, Term: 3, Data: bytes.Repeat([]byte{byte(i + 1)}, 300)}}); err != nil {
			t.Fatal(err)
		}
	}
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}
	file := "log/" + segmentName(1)
	good, err := vfs.ReadFile(mem, file)
	if err != nil {
		t.Fatal(err)
	}
	look := func(what string, hurt []byte, most int) {
		t.Helper()
		mem := mem.KillClone()
		if err := vfs.WriteFile(mem, file, hurt); err != nil {
			t.Fatal(err)
		}
		seen := uint64(0)
		in, err := Inspect(mem, "log", func(f *Found) error {
			if f.Kind != "entry" || f.Index <= seen || f.Index > records || f.Entry.Data[0] != byte(f.Index) {
				return fmt.Errorf("record %+v after %d", f, seen)
			}
			seen = f.Index
			return nil
		})
		if err != nil {
			t.Fatalf("%s: Inspect = %v", what, err)
		}
		if got, err := vfs.ReadFile(mem, file); err != nil || !bytes.Equal(got, hurt) {
			t.Fatalf("%s: Inspect changed the log, %v", what, err)
		}
		harm := false
		for _, d := range in.Damage {
			harm = harm || !d.Torn
		}
		if in.Records < records-most {
			t.Fatalf("%s: %d records found", what, in.Records)
		}
		log, err := OpenLog(mem, "log", Options{})
		if (err != nil) != harm {
			t.Fatalf("%s: OpenLog = %v, Inspect says %+v", what, err, in.Damage)
		}
		if err == nil {
			_ = log.Close()
		}
	}
	look("sound", good, 0)
	for i := range good {
		hurt := bytes.Clone(good)
		hurt[i] ^= 1 << (i % 8)
		look(fmt.Sprintf("flip at %d", i), hurt, 1)
		look(fmt.Sprintf("cut at %d", i), good[:i], records)
		hurt = bytes.Clone(good)
		clear(hurt[i:min(len(hurt), i+100)])
		look(fmt.Sprintf("zeros at %d", i), hurt, 2)
	}
}
