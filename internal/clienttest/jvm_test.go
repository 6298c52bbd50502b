//go:build clients

package clienttest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
)

// runner runs a program against addr, and returns what it printed, also if it
// failed.
type runner func(ctx context.Context, addr, topic string) (output, error)

// javaClasses compiles what of testdata is Java with what the Java example was
// built with, once for all tests, and returns the class path to run it with.
var javaClasses = sync.OnceValues(func() (string, error) {
	if _, err := builds["java"](); err != nil {
		return "", err
	}
	target, classes := filepath.Join(buildDir, "java", "target"), filepath.Join(buildDir, "testdata")
	with := filepath.Join(target, "classes") + ":" + filepath.Join(target, "libs", "*")
	sources, err := filepath.Glob(filepath.Join("testdata", "*.java"))
	if err != nil {
		return "", err
	}
	return classes + ":" + with, execute(".", append([]string{"javac", "-cp", with, "-d", classes}, sources...)...)
})

// javaCommand returns the command that runs a class of testdata.
func javaCommand(class string) ([]string, error) {
	classes, err := javaClasses()
	return []string{"java", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-cp", classes, class}, err
}

// javaCases is a virtual machine that runs the Java example many times, and many
// at a time: see testdata/Cases.java.
type javaCases struct {
	stdin  io.WriteCloser
	stderr bytes.Buffer  // read it when ended is closed
	ended  chan struct{} // closed when the machine has

	mu      sync.Mutex
	waiting map[string]chan<- javaCase // by topic
}

// javaCase is how one run of the example ended.
type javaCase struct {
	Topic   string `json:"topic"`
	Printed string `json:"printed"`
	Error   string `json:"error"` // "": there was none
}

// startJavaCases starts a machine for the length of a test.
func startJavaCases(t *testing.T) *javaCases {
	t.Helper()
	command, err := javaCommand("Cases")
	if err != nil {
		t.Fatal(err)
	}
	j := &javaCases{ended: make(chan struct{}), waiting: make(map[string]chan<- javaCase)}
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Stderr = &j.stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if j.stdin, err = cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(j.ended)
		j.deliver(stdout)
		_ = cmd.Wait() // killed, or else its waiting cases say that it ended
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // with what a case that timed out has left
		<-j.ended
	})
	return j
}

// deliver hands each case that ends to who waits for it.
func (j *javaCases) deliver(stdout io.Reader) {
	for d := json.NewDecoder(stdout); ; {
		var c javaCase
		if d.Decode(&c) != nil {
			return
		}
		j.mu.Lock()
		done := j.waiting[c.Topic]
		delete(j.waiting, c.Topic)
		j.mu.Unlock()
		if done != nil {
			done <- c
		}
	}
}

// run is a runner.
func (j *javaCases) run(ctx context.Context, addr, topic string) (output, error) {
	ctx, cancel := context.WithTimeout(ctx, runLimit)
	defer cancel()
	done := make(chan javaCase, 1)
	j.mu.Lock()
	j.waiting[topic] = done
	_, err := fmt.Fprintf(j.stdin, "%s %s\n", addr, topic)
	j.mu.Unlock()
	if err != nil {
		return nil, fmt.Errorf("java: %w", err)
	}
	select {
	case c := <-done:
		out, err := parseOutput([]byte(c.Printed))
		if c.Error != "" {
			err = errors.New("java: " + c.Error)
		}
		return out, err
	case <-j.ended:
		return nil, fmt.Errorf("java: the machine has ended: %s", lastLines(j.stderr.String(), 15))
	case <-ctx.Done():
		return nil, fmt.Errorf("java: %w", ctx.Err())
	}
}
