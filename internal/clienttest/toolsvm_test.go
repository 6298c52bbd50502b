//go:build clients

package clienttest

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// toolClasses are the main classes behind the scripts of Kafka's bin folder.
var toolClasses = map[string]string{
	"kafka-topics":           "org.apache.kafka.tools.TopicCommand",
	"kafka-console-producer": "org.apache.kafka.tools.ConsoleProducer",
	"kafka-console-consumer": "org.apache.kafka.tools.consumer.ConsoleConsumer",
	"kafka-consumer-groups":  "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand",
	"kafka-get-offsets":      "org.apache.kafka.tools.GetOffsetShell",
	"kafka-configs":          "kafka.admin.ConfigCommand",
	"kafka-leader-election":  "org.apache.kafka.tools.LeaderElectionCommand",
}

// kafkaJars returns the folder with Kafka's jars: CLIENTS_KAFKA, or where make
// kafka-jars puts them.
func kafkaJars() (string, error) {
	dir, err := filepath.Abs(cmp.Or(os.Getenv("CLIENTS_KAFKA"), filepath.Join(root, "bin", "kafka")))
	if err != nil {
		return "", err
	}
	if found, err := filepath.Glob(filepath.Join(dir, "kafka-tools-4.3.1.jar")); err != nil || len(found) == 0 {
		return "", fmt.Errorf("no Kafka tools of 4.3.1 in %s: make kafka-jars fetches them, and CLIENTS_KAFKA names another folder", dir)
	}
	return dir, nil
}

// toolsVM is a virtual machine that runs Kafka's tools: see testdata/Tools.java.
type toolsVM struct {
	addr   string // of the server that they are given
	stdin  io.WriteCloser
	stderr bytes.Buffer  // read it when ended is closed
	ended  chan struct{} // closed when the machine has

	mu      sync.Mutex
	last    int                    // id of a run
	waiting map[int]chan<- toolEnd // by id
}

// toolStart is a run as the machine is told of it.
type toolStart struct {
	ID    int      `json:"id"`
	Class string   `json:"class"`
	Args  []string `json:"args"`
	Stdin *string  `json:"stdin"` // null: none is read
}

// toolEnd is how a run ended.
type toolEnd struct {
	ID   int    `json:"id"`
	Code int    `json:"code"`
	Out  string `json:"out"`
	Err  string `json:"err"`
}

// startTools starts a machine for the length of a test.
func startTools(t *testing.T, addr string) *toolsVM {
	t.Helper()
	classes, err := javaClasses()
	if err != nil {
		t.Fatal(err)
	}
	jars, err := kafkaJars()
	if err != nil {
		t.Fatal(err)
	}
	compiled, _, _ := strings.Cut(classes, ":")
	vm := &toolsVM{addr: addr, ended: make(chan struct{}), waiting: make(map[int]chan<- toolEnd)}
	cmd := exec.Command("java", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC",
		"-Dlog4j2.configurationFile="+filepath.Join("testdata", "tools-log4j2.properties"), "-cp", compiled+":"+filepath.Join(jars, "*"), "Tools")
	cmd.Stderr = &vm.stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if vm.stdin, err = cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(vm.ended)
		vm.deliver(stdout)
		_ = cmd.Wait() // killed, or else its waiting runs say that it ended
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // with what a run that timed out has left
		<-vm.ended
	})
	return vm
}

// deliver hands each run that ends to who waits for it.
func (vm *toolsVM) deliver(stdout io.Reader) {
	for d := json.NewDecoder(stdout); ; {
		var end toolEnd
		if d.Decode(&end) != nil {
			return
		}
		vm.mu.Lock()
		done := vm.waiting[end.ID]
		delete(vm.waiting, end.ID)
		vm.mu.Unlock()
		if done != nil {
			done <- end
		}
	}
}

// start starts a tool with the server's address and more arguments, and returns
// what waits for its end.
func (vm *toolsVM) start(tool string, stdin *string, args ...string) (wait func(context.Context) (toolEnd, error), err error) {
	class, ok := toolClasses[tool]
	if !ok {
		return nil, fmt.Errorf("no tool %s", tool)
	}
	done := make(chan toolEnd, 1)
	vm.mu.Lock()
	defer vm.mu.Unlock()
	vm.last++
	vm.waiting[vm.last] = done
	line, err := json.Marshal(toolStart{ID: vm.last, Class: class, Args: append([]string{"--bootstrap-server", vm.addr}, args...), Stdin: stdin})
	if err != nil {
		return nil, err
	}
	if _, err := vm.stdin.Write(append(line, '\n')); err != nil {
		return nil, fmt.Errorf("%s: %w", tool, err)
	}
	return func(ctx context.Context) (toolEnd, error) {
		ctx, cancel := context.WithTimeout(ctx, runLimit)
		defer cancel()
		select {
		case end := <-done:
			return end, nil
		case <-vm.ended:
			return toolEnd{}, errors.New(tool + ": the machine has ended: " + lastLines(vm.stderr.String(), 15))
		case <-ctx.Done():
			return toolEnd{}, fmt.Errorf("%s: %w", tool, ctx.Err())
		}
	}, nil
}
