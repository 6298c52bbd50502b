package proctest

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestStart runs programs that print an address, and end as they are told, or too early.
func TestStart(t *testing.T) {
	t.Parallel()
	at := regexp.MustCompile(`^at (\S+)$`)
	log := filepath.Join(t.TempDir(), "log")
	for i := range 2 { // one after the other, with the same log
		p, err := Start("/bin/sh", log, at, "-c", "trap 'exit 0' TERM; echo first; echo complained >&2; echo at here; while :; do sleep 0.01; done")
		if err != nil {
			t.Fatal(err)
		}
		if p.Addr != "here" {
			t.Errorf("serves at %q", p.Addr)
		}
		if i == 0 {
			p.Kill()
			if err := p.Stop(); err == nil || !strings.Contains(err.Error(), "killed") {
				t.Errorf("stopped after kill -9: %v", err)
			}
		} else if err := p.Stop(); err != nil {
			t.Error(err)
		}
	}
	if got, want := Tail(log), "complained\ncomplained\n"; got != want {
		t.Errorf("the log is %q, want %q", got, want)
	}
	if _, err := Start("/bin/sh", log, at, "-c", "echo too early >&2; exit 3"); err == nil || !strings.Contains(err.Error(), "exit status 3") || !strings.Contains(err.Error(), "too early") {
		t.Errorf("one that ended: %v", err)
	}
	if _, err := Start("/no/such/program", log, at); err == nil {
		t.Error("a program that is not there was started")
	}
}

func TestComplaint(t *testing.T) {
	t.Parallel()
	log := filepath.Join(t.TempDir(), "log")
	for text, wrong := range map[string]bool{
		"time=x level=INFO msg=fine\n":                             false,
		"time=x level=INFO msg=fine\ntime=y level=ERROR msg=bad\n": true,
		"panic: oh\n": true,
	} {
		if err := os.WriteFile(log, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := Complaint(log); err != nil != wrong {
			t.Errorf("%q: %v", text, err)
		}
	}
	if Complaint(filepath.Join(t.TempDir(), "none")) == nil {
		t.Error("no log is no complaint")
	}
}
