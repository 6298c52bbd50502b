//go:build cluster && clients

package killtest

import (
	"fmt"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// rolls is how often each node of a cluster is restarted in TestClusterRestart.
const rolls = 3

// TestClusterRestart restarts the nodes of a cluster one after the other, as an
// upgrade does, while our client, franz-go, kcat and the Java client write and
// read. Their own retries hide it all: no record is given up, and no reader is told
// of an error.
func TestClusterRestart(t *testing.T) {
	b := newBench(t)
	n := newNetwork(t)
	ps := &processes{t: t}
	for i := range ps.nodes {
		ps.host[i], ps.data[i] = hostOf(i), filepath.Join(b.dir, fmt.Sprint("node-", i+1))
		ps.run[i] = append(n.in(i), b.binary)
	}
	ps.found(b.dir)
	l, err := startLoad(t.Context(), ps.addr(0), b.seed, func(l *load) (loops []func()) {
		for i := range int32(kcats) {
			loops = append(loops, func() { l.produceKcat(kcatProcess+i, i) })
		}
		return append(loops, l.startJava(t, kcats))
	})
	if err != nil {
		t.Fatal(err)
	}
	c := &chaos{t: t, ps: ps, load: l}
	defer func() {
		l.stop()
		if b.keep() {
			b.save(b.dir, l)
		}
	}()
	c.progress("at first", 500)
	for range rolls {
		for i := range ps.nodes {
			s := ps.nodes[i]
			began := time.Now()
			s.signal(syscall.SIGTERM)
			<-s.gone
			if s.err != nil {
				t.Fatalf("node %d: %v", i+1, s.died(s.err.Error()))
			}
			if err := s.complaint(); err != nil {
				t.Errorf("node %d, as it stopped: %v", i+1, err)
			}
			ps.nodes[i] = nil
			stopped := time.Since(began)
			c.progress(fmt.Sprintf("without node %d", i+1), 300)
			ps.start(i)
			ps.serving(i)
			for _, of := range []int32{producerProcess, kafkaProcess, kcatProcess, javaProcess} {
				c.progressOf(&l.kinds[of/100], fmt.Sprintf("with node %d again, processes from %d on", i+1, of), 10)
			}
			t.Logf("node %d stopped in %v and is back", i+1, stopped.Round(time.Millisecond))
			ps.check()
		}
	}
	c.finish(b)
	for of, name := range map[int32]string{producerProcess: "our client", kafkaProcess: "franz-go", kcatProcess: "kcat", javaProcess: "the Java client"} {
		t.Logf("%s: %d records acknowledged", name, l.kinds[of/100].Load())
	}
}
