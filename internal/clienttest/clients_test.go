//go:build clients

package clienttest

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// runLimit bounds a program that hangs. Each gives up by itself, well before; what
// it takes to start on a busy machine comes on top of what it waits.
const runLimit = 2 * time.Minute

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

// TestBlankAnswers runs each program with each request of its features answered
// without content: what is checked of that request must turn red.
func TestBlankAnswers(t *testing.T) {
	addr := startServer(t)
	if err := spendProducerID(t.Context(), addr); err != nil {
		t.Fatal(err)
	}
	var keys []kmsg.Key
	for _, f := range features {
		if !slices.Contains(keys, f.key) {
			keys = append(keys, f.key)
		}
	}
	// By key and not by program, so that those that take long to start are spread
	// among those that wait.
	for _, key := range keys {
		for _, p := range programs {
			var fs []feature
			for _, f := range p.features() {
				if f.key == key {
					fs = append(fs, f)
				}
			}
			if len(fs) == 0 {
				continue
			}
			for _, c := range []content{empty, echoed} {
				t.Run(fmt.Sprintf("%s/%s/%s", p.name, key.Name(), c), func(t *testing.T) {
					t.Parallel()
					p.mustTurnRed(t, addr, c, int16(key), fs)
				})
			}
		}
	}
}

// mustTurnRed reports the features that are checked in vain.
func (p program) mustTurnRed(t *testing.T, addr string, c content, key int16, fs []feature) {
	t.Helper()
	b, err := startBlank(addr, c, key)
	if err != nil {
		t.Fatal(err)
	}
	topic := topicName(p, "-", key, "-", c)
	if p.topicMade {
		if err := makeTopic(t.Context(), addr, topic); err != nil {
			t.Fatal(err)
		}
	}
	start := time.Now()
	out, failed := p.run(t.Context(), b.addr(), topic)
	took := time.Since(start)
	for _, err := range b.close() {
		t.Errorf("%s with %s answers to key %d: %v", p.name, c, key, err)
	}
	if b.requests(key) == 0 {
		t.Errorf("%s has not sent key %d", p.name, key)
	}
	facts, err := gather(t.Context(), addr, topic)
	if err != nil {
		t.Fatal(err)
	}
	r := &result{topic: topic, addr: b.addr(), out: out, facts: facts}
	for _, f := range fs {
		if err := f.check(r); err != nil {
			t.Logf("red with %s answers: %s: %v (%.1f s; the program: %v)", c, f.name, err, took.Seconds(), failed)
		} else {
			t.Errorf("%s is found right in %s answers to key %d; the program: %v", f.name, c, key, failed)
		}
	}
}

// TestBlankServer runs each program against a server that answers every request
// without content, but for the versions that it has.
func TestBlankServer(t *testing.T) {
	var group sync.WaitGroup
	defer group.Wait()
	for _, p := range programs {
		for _, c := range []content{empty, echoed} {
			group.Go(func() {
				b, err := startBlank("", c)
				if err != nil {
					t.Error(err)
					return
				}
				topic := topicName(p, "-", c)
				out, failed := p.run(t.Context(), b.addr(), topic)
				for _, err := range b.close() {
					t.Errorf("%s: %v", p.name, err)
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
