//go:build clients

package clienttest

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// run runs a program against addr. Its own failure is an error, and what it has
// printed until then is returned all the same.
func (p program) run(ctx context.Context, addr, topic string) (output, error) {
	command, err := builds[p.name]()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, runLimit)
	defer cancel()
	c := exec.CommandContext(ctx, command[0], append(command[1:len(command):len(command)], addr, topic)...)
	c.Dir, c.WaitDelay = filepath.Join(buildDir, p.name), time.Second
	var stdout, stderr bytes.Buffer
	c.Stdout, c.Stderr = &stdout, &stderr
	err = c.Run()
	out, bad := parseOutput(stdout.Bytes())
	if err != nil {
		err = fmt.Errorf("%s: %w: %s", p.name, err, lastLines(stderr.String(), 15))
	} else if bad != nil {
		err = fmt.Errorf("%s: %w", p.name, bad)
	}
	return out, err
}

func lastLines(text string, n int) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// topicName returns a name that no other run has.
func topicName(p program, parts ...any) string {
	return fmt.Sprintf("%s-%d%s", p.name, time.Now().UnixNano(), strings.ReplaceAll(fmt.Sprint(parts...), " ", "-"))
}

// TestClients runs each program against the server, and checks all that it saw.
func TestClients(t *testing.T) {
	// At the same time, since some wait for downloads while others compile. Who
	// needs one that cannot be made says why.
	var building sync.WaitGroup
	for _, p := range programs {
		building.Go(func() { _, _ = builds[p.name]() })
	}
	building.Wait()
	addr := startServer(t)
	if err := spendProducerID(t.Context(), addr); err != nil {
		t.Fatal(err)
	}
	for _, p := range programs {
		t.Run(p.name, func(t *testing.T) {
			topic := topicName(p)
			if p.topicMade {
				if err := makeTopic(t.Context(), addr, topic); err != nil {
					t.Fatal(err)
				}
			}
			out, err := p.run(t.Context(), addr, topic)
			if err != nil {
				t.Error(err)
			}
			facts, err := gather(t.Context(), addr, topic)
			if err != nil {
				t.Fatal(err)
			}
			r := &result{topic: topic, addr: facts.broker, out: out, facts: facts}
			for _, f := range p.features() {
				if err := f.check(r); err != nil {
					t.Errorf("%s: %v", f.name, err)
				}
			}
			for _, f := range p.failing() {
				if err := f.check(r); err == nil {
					t.Errorf("%s is right now: take it out of the program's fails", f.name)
				}
			}
		})
	}
}

// cell is one run of a program with one request answered without content.
type cell struct {
	program  program
	run      runner
	key      kmsg.Key
	content  content
	features []feature // that count on key
}

// cells returns all of them.
func cells() (out []cell) {
	for _, p := range programs {
		byKey := make(map[kmsg.Key][]feature)
		for _, f := range p.features() {
			byKey[f.key] = append(byKey[f.key], f)
		}
		for _, key := range slices.Sorted(maps.Keys(byKey)) {
			for _, c := range []content{empty, echoed} {
				out = append(out, cell{program: p, run: p.run, key: key, content: c, features: byKey[key]})
			}
		}
	}
	return out
}

// TestBlankAnswers runs each program with each request of its features answered
// without content: what is checked of that request must turn red.
func TestBlankAnswers(t *testing.T) {
	addr := startServer(t)
	if err := spendProducerID(t.Context(), addr); err != nil {
		t.Fatal(err)
	}
	java := startJavaCases(t)
	for _, c := range cells() {
		if c.program.name == "java" {
			c.run = java.run
		}
		t.Run(fmt.Sprintf("%s/%s/%s", c.program.name, c.key.Name(), c.content), func(t *testing.T) {
			t.Parallel()
			c.mustTurnRed(t, addr)
		})
	}
}

// mustTurnRed reports the features that are checked in vain.
func (c cell) mustTurnRed(t *testing.T, addr string) {
	t.Helper()
	b, err := startBlank(addr, c.content, int16(c.key))
	if err != nil {
		t.Fatal(err)
	}
	topic := topicName(c.program, "-", int16(c.key), "-", c.content)
	if c.program.topicMade {
		if err := makeTopic(t.Context(), addr, topic); err != nil {
			t.Fatal(err)
		}
	}
	start := time.Now()
	out, failed := c.run(t.Context(), b.addr(), topic)
	took := time.Since(start)
	for _, err := range b.close() {
		t.Errorf("a request to a server that answers %s with nothing: %v", c.key.Name(), err)
	}
	if b.requests(int16(c.key)) == 0 {
		t.Errorf("%s was not sent; the program: %v", c.key.Name(), failed)
	}
	facts, err := gather(t.Context(), addr, topic)
	if err != nil {
		t.Fatal(err)
	}
	r := &result{topic: topic, addr: b.addr(), out: out, facts: facts}
	for _, f := range c.features {
		if err := f.check(r); err != nil {
			t.Logf("red: %s: %v (%.1f s; the program: %v)", f.name, err, took.Seconds(), failed)
		} else {
			t.Errorf("%s is found right; the program: %v", f.name, failed)
		}
	}
}

// TestBlankServer runs each program against a server that answers every request
// without content, but for the versions that it has.
func TestBlankServer(t *testing.T) {
	java := startJavaCases(t)
	var group sync.WaitGroup
	defer group.Wait()
	for _, p := range programs {
		run := p.run
		if p.name == "java" {
			run = java.run
		}
		for _, c := range []content{empty, echoed} {
			group.Go(func() {
				b, err := startBlank("", c)
				if err != nil {
					t.Error(err)
					return
				}
				topic := topicName(p, "-", c)
				out, failed := run(t.Context(), b.addr(), topic)
				for _, err := range b.close() {
					t.Errorf("%s: %v", p.name, err)
				}
				if b.requests(int16(kmsg.ApiVersions)) == 0 {
					t.Errorf("%s has sent nothing: %v", p.name, failed)
				}
				r := &result{topic: topic, addr: b.addr(), out: out, facts: &facts{broker: b.addr()}}
				for _, f := range p.features() {
					if err := f.check(r); err == nil {
						t.Errorf("%s: %s is found right in %s answers; the program: %v", p.name, f.name, c, failed)
					}
				}
			})
		}
	}
}
