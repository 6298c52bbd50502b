package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// process is a server under comparison, with files of its own.
type process struct {
	addr string
	cmd  *exec.Cmd
	log  string
}

// stop ends the process and waits until it has ended.
func (p *process) stop() {
	p.cmd.Cancel()
	p.cmd.Wait()
}

// startKafka starts one fresh node of Apache Kafka from the jars in a folder,
// with its files in dir. The caller stops it.
func startKafka(ctx context.Context, jars, dir string) (*process, error) {
	if found, _ := filepath.Glob(filepath.Join(jars, "kafka_2.13-"+kafkaVersion+".jar")); len(found) == 0 {
		return nil, fmt.Errorf("kafkadiff: no kafka_2.13-%s.jar in %s; make kafka-jars KAFKA=%s fetches it", kafkaVersion, jars, jars)
	}
	ports, err := freePorts(2)
	if err != nil {
		return nil, err
	}
	addr := fmt.Sprintf("127.0.0.1:%d", ports[0])
	properties := filepath.Join(dir, "server.properties")
	text := strings.NewReplacer("ADDR", addr, "CONTROL", fmt.Sprintf("127.0.0.1:%d", ports[1]), "DIR", dir).Replace(serverProperties)
	if err := os.WriteFile(properties, []byte(text), 0o644); err != nil {
		return nil, fmt.Errorf("kafkadiff: %w", err)
	}
	classpath := filepath.Join(jars, "*")
	format := exec.CommandContext(ctx, "java", "-cp", classpath, "kafka.tools.StorageTool", "format", "-t", clusterID, "-c", properties)
	if out, err := format.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("kafkadiff: format Kafka's storage: %w\n%s", err, out)
	}
	return start(ctx, addr, filepath.Join(dir, "kafka.log"), "java", "-Xms512m", "-Xmx512m", "-cp", classpath, "kafka.Kafka", properties)
}

// clusterID is that of the node that answers are recorded of.
const clusterID = "a2Fma2FkaWZmLXJlY29yZA"

// serverProperties are Kafka's defaults, on one node that is both broker and
// controller, and what one node cannot do without.
const serverProperties = `process.roles=broker,controller
node.id=1
controller.quorum.voters=1@CONTROL
listeners=PLAINTEXT://ADDR,CONTROLLER://CONTROL
advertised.listeners=PLAINTEXT://ADDR
controller.listener.names=CONTROLLER
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT
log.dirs=DIR/data
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
`

// startFlotilla starts the binary on a fresh directory. The caller stops it.
func startFlotilla(ctx context.Context, binary, dir string) (*process, error) {
	ports, err := freePorts(1)
	if err != nil {
		return nil, err
	}
	addr := fmt.Sprintf("127.0.0.1:%d", ports[0])
	return start(ctx, addr, filepath.Join(dir, "flotilla.log"), binary,
		"serve", "--listen", addr, "--node.id", "1", "--data.dir", filepath.Join(dir, "data"), "--admin.listen", "127.0.0.1:0")
}

// start starts a command and returns when addr answers Kafka's ApiVersions.
func start(ctx context.Context, addr, log, name string, args ...string) (*process, error) {
	out, err := os.Create(log)
	if err != nil {
		return nil, fmt.Errorf("kafkadiff: %w", err)
	}
	defer out.Close()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 30 * time.Second
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("kafkadiff: %w", err)
	}
	p := &process{addr: addr, cmd: cmd, log: log}
	if err := p.awaitReady(ctx); err != nil {
		p.stop()
		said, _ := os.ReadFile(log)
		return nil, fmt.Errorf("kafkadiff: %s: %w\n%s", name, err, said)
	}
	return p, nil
}

// readyTimeout is long, as Kafka is slow to start on a busy machine.
const readyTimeout = 5 * time.Minute

func (p *process) awaitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, readyTimeout, fmt.Errorf("not ready within %v", readyTimeout))
	defer cancel()
	for {
		_, err := ready(p.addr)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", context.Cause(ctx), err)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// freePorts returns ports of the loopback that nobody listens on.
func freePorts(n int) ([]int, error) {
	var ports []int
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, fmt.Errorf("kafkadiff: %w", err)
		}
		defer l.Close()
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
	}
	return ports, nil
}
