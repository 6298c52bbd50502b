package peer

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
)

// Cluster is the nodes of one server, which start and stop together.
type Cluster struct {
	Name  string // of the server
	Nodes []*Server
}

// PortsPerNode is how many ports each node of a cluster is given.
const PortsPerNode = 2

// FlotillaCluster returns nodes of the binary that have not been started: as
// many as ports has pairs, a node's for clients and for the other nodes. Their
// directories are below data.
func FlotillaCluster(binary, data string, ports []int, flags ...string) *Cluster {
	var founders []string
	for i := range nodesOf(ports) {
		founders = append(founders, fmt.Sprintf("%d@%s", i+1, Address(ports[PortsPerNode*i+1])))
	}
	c := &Cluster{Name: "flotilla"}
	id := randomID()
	for i := range founders {
		own := []string{
			"--node.id", strconv.Itoa(i + 1), "--cluster.id", id, "--cluster.nodes", strings.Join(founders, ","),
			"--node.listen", Address(ports[PortsPerNode*i+1]),
		}
		s := Flotilla(binary, filepath.Join(data, strconv.Itoa(i+1)), ports[PortsPerNode*i], append(own, flags...)...)
		s.Name = fmt.Sprintf("flotilla%d", i+1)
		c.Nodes = append(c.Nodes, s)
	}
	return c
}

// KafkaCluster returns nodes of Apache Kafka that have not been started, each of
// them broker and controller, as many as ports has pairs: a node's for clients
// and for its controller. Topics have a replica on each node, and a record is
// acknowledged when a majority has it. script and jars are as in Kafka.
func KafkaCluster(script, jars, data string, ports []int) *Cluster {
	var controllers []string
	for i := range nodesOf(ports) {
		controllers = append(controllers, strconv.Itoa(ports[PortsPerNode*i+1]))
	}
	c := &Cluster{Name: "kafka"}
	id := randomID()
	for i := range controllers {
		s := Kafka(script, jars, filepath.Join(data, strconv.Itoa(i+1)), ports[PortsPerNode*i])
		s.Name = fmt.Sprintf("kafka%d", i+1)
		s.Args = append(s.Args, strconv.Itoa(i+1), id, strings.Join(controllers, ","))
		c.Nodes = append(c.Nodes, s)
	}
	return c
}

func nodesOf(ports []int) int { return len(ports) / PortsPerNode }

// randomID returns a cluster id: 16 bytes in base64, without a leading '-',
// which a command would take for a flag.
func randomID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // it never fails
	b[0] &= 0x7f
	return base64.RawURLEncoding.EncodeToString(b[:])
}

// Start starts all nodes, each as Server.Start does, at the same time: those of
// Kafka do not listen before a majority of them runs. After an error none runs.
func (c *Cluster) Start(ctx context.Context, dir string) error {
	errs := make([]error, len(c.Nodes))
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var starting sync.WaitGroup
	for i, s := range c.Nodes {
		starting.Go(func() {
			if errs[i] = s.Start(ctx, dir); errs[i] != nil {
				cancel() // the others need not wait for it
			}
		})
	}
	starting.Wait()
	return c.unlessAll(errs)
}

// unlessAll returns what kept nodes from starting, one error each or nil, and if
// there is any, the others do not run any more.
func (c *Cluster) unlessAll(errs []error) error {
	err := errors.Join(errs...)
	for i, s := range c.Nodes {
		if err != nil && errs[i] == nil {
			err = errors.Join(err, s.Stop())
		}
	}
	return err
}

// Stop stops all nodes as Server.Stop does.
func (c *Cluster) Stop() error {
	var errs []error
	for _, s := range c.Nodes {
		errs = append(errs, s.Stop())
	}
	return errors.Join(errs...)
}

// Bootstrap returns the addresses for clients, with commas between them.
func (c *Cluster) Bootstrap() string { return c.list(func(s *Server) string { return s.Addr }) }

// PIDs returns the processes whose CPU time counts, with commas between them.
func (c *Cluster) PIDs() string { return c.list((*Server).PID) }

func (c *Cluster) list(of func(*Server) string) string {
	var all []string
	for _, s := range c.Nodes {
		all = append(all, of(s))
	}
	return strings.Join(all, ",")
}
