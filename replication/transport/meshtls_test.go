package transport

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"math/big"
	mathrand "math/rand/v2"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// authority vouches for nodes.
type authority struct {
	t    testing.TB
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
}

func newAuthority(t testing.TB) *authority {
	a := &authority{t: t}
	a.key = a.newKey()
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Unix(0, 0), NotAfter: time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC),
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &a.key.PublicKey, a.key)
	if err == nil {
		a.cert, err = x509.ParseCertificate(der)
	}
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func (a *authority) newKey() *ecdsa.PrivateKey {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	return key
}

// config is a node's, whose hosts are all that the tests use.
func (a *authority) config() *tls.Config {
	key := a.newKey()
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(2), DNSNames: []string{host(1), host(2), "localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: a.cert.NotBefore, NotAfter: a.cert.NotAfter,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, a.cert, &key.PublicKey, a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	return &tls.Config{RootCAs: pool, Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
}

// TestMeshTLS: both suites of what a mesh does hold over TLS, too.
func TestMeshTLS(t *testing.T) {
	ca := newAuthority(t)
	edit := func(opt *MeshOptions) { opt.TLS = ca.config() }
	t.Run("transports", func(t *testing.T) {
		conformance(t, func() network {
			ms := newMeshes(t, edit)
			ms.connect(ms.node(1), ms.node(2))
			return network{
				join:  func(s ShardID, id ReplicaID) Transport { return ms.nodes[id.Node].Join(s, id) },
				cut:   ms.cut,
				close: ms.close,
			}
		})
	})
	t.Run("peers", func(t *testing.T) {
		peersConformance(t, func() peerNetwork {
			ms := newMeshes(t, edit)
			return peerNetwork{node: func(id int32) closablePeers { return ms.node(id) }, cut: ms.cut}
		})
	})
}

// TestMeshTLSRefused: who has no TLS, no certificate or another authority's does
// not get in, and both ends say what is wrong.
func TestMeshTLSRefused(t *testing.T) {
	ours, theirs := newAuthority(t), newAuthority(t)
	for _, tt := range []struct {
		name   string
		caller *tls.Config
		callee *tls.Config
		want   []string // in the log, which both have
	}{
		{name: "a plain caller", callee: ours.config(), want: []string{
			"node=2 cause=\"cannot be dialled at node-2:9192: transport: no agreement between two nodes: the other end speaks TLS, and this one does not: set up TLS",
			"refused\" from=node-1:32768 cause=\"transport: no agreement between two nodes: this end speaks TLS, and the other does not: set up TLS",
		}},
		{name: "a plain callee", caller: ours.config(), want: []string{
			"node=2 cause=\"cannot be dialled at node-2:9192: transport: no agreement between two nodes: this end speaks TLS, and the other does not: set up TLS",
			"refused\" from=node-1:32768 cause=\"transport: no agreement between two nodes: the other end speaks TLS, and this one does not: set up TLS",
		}},
		{name: "another authority", caller: theirs.config(), callee: ours.config(), want: []string{
			"node=2 cause=\"cannot be dialled at node-2:9192: transport: no agreement between two nodes: TLS: tls: failed to verify certificate",
		}},
		{name: "a caller of another authority", caller: func() *tls.Config {
			c := theirs.config()
			c.RootCAs = ours.config().RootCAs
			c.ClientCAs = c.RootCAs
			return c
		}(), callee: ours.config(), want: []string{
			"refused\" from=node-1:32768 cause=\"transport: no agreement between two nodes: TLS: tls: failed to verify certificate",
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(opt *MeshOptions) {
				if opt.TLS = tt.callee; opt.Node == 1 {
					opt.TLS = tt.caller
				}
			}, func(t *testing.T, ms *meshes) {
				a := ms.node(1)
				ms.node(2).Serve(func(context.Context, int32, Method, []byte) ([]byte, error) { return nil, nil })
				if _, err := a.Call(t.Context(), 2, 0, nil); !errors.Is(err, ErrUnreachable) {
					t.Errorf("the call got through: %v", err)
				}
				for _, want := range tt.want {
					ms.wantLog(want)
				}
			})
		})
	}
	t.Run("no certificate", func(t *testing.T) {
		bubble(t, func(opt *MeshOptions) { opt.TLS = ours.config() }, func(t *testing.T, ms *meshes) {
			ms.node(2)
			w := ms.dial(1, 2)
			c := tls.Client(w.Conn, &tls.Config{RootCAs: ours.config().RootCAs, ServerName: host(2)})
			_, err := c.Write(helloOf(1, 2).append(nil))
			if err == nil {
				_, err = readWelcome(c)
			}
			if err == nil {
				t.Error("a caller without a certificate got in")
			}
			ms.wantLog("client didn't provide a certificate")
		})
	})
}

func TestMeshOptions(t *testing.T) {
	good := MeshOptions{
		ClusterID: "c", Node: 1, Rand: mathrand.New(mathrand.NewPCG(1, 2)),
		Dial:    func(context.Context, string) (net.Conn, error) { return nil, io.EOF },
		Address: func(int32) (string, bool) { return "", false },
	}
	ca := newAuthority(t)
	for _, tt := range []struct {
		edit func(o *MeshOptions)
		want string
	}{
		{func(o *MeshOptions) { o.ClusterID = "" }, "cluster id"},
		{func(o *MeshOptions) { o.ClusterID = strings.Repeat("c", maxClusterBytes+1) }, "cluster id"},
		{func(o *MeshOptions) { o.Listener = nil }, "needs a listener"},
		{func(o *MeshOptions) { o.TLS = &tls.Config{RootCAs: ca.config().RootCAs} }, "needs a certificate"},
		{func(o *MeshOptions) { o.TLS = &tls.Config{Certificates: ca.config().Certificates} }, "would let anybody in"},
	} {
		o := good
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		o.Listener = l
		tt.edit(&o)
		if m, err := NewMesh(o); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("NewMesh = %v, %v, want %q", m, err, tt.want)
		}
		_ = l.Close()
	}
}

// overTCP makes nodes 1 and 2 on the loopback interface.
func overTCP(t testing.TB, edit func(*MeshOptions)) map[int32]*Mesh {
	addrs := make(map[int32]string)
	listeners := make(map[int32]net.Listener)
	nodes := make(map[int32]*Mesh)
	for id := range int32(2) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		listeners[id+1], addrs[id+1] = l, l.Addr().String()
	}
	for id, l := range listeners {
		opt := MeshOptions{
			ClusterID: testCluster, Node: id, Listener: l, Dial: func(ctx context.Context, to string) (net.Conn, error) {
				return new(net.Dialer).DialContext(ctx, "tcp", to)
			},
			Address: func(node int32) (string, bool) { return addrs[node], addrs[node] != "" },
			Rand:    mathrand.New(mathrand.NewPCG(uint64(id), 0)),
			Timeout: time.Minute, // the machine's affair
		}
		if edit != nil {
			edit(&opt)
		}
		m, err := NewMesh(opt)
		if err != nil {
			t.Fatal(err)
		}
		nodes[id] = m
		t.Cleanup(func() {
			if err := m.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	return nodes
}

// taking has a replica answer what comes until it is closed.
func taking(m *Member) {
	m.group.Go(func() {
		for {
			select {
			case rpc := <-m.Consumer():
				rpc.Respond(yes(rpc))
			case <-m.closed:
				return
			}
		}
	})
}

// TestMeshTCP makes every call over connections of the kernel's, with TLS and
// without.
func TestMeshTCP(t *testing.T) {
	ca := newAuthority(t)
	for _, edit := range []func(*MeshOptions){nil, func(o *MeshOptions) { o.TLS = ca.config() }} {
		t.Run(fmt.Sprintf("tls=%t", edit != nil), func(t *testing.T) {
			t.Parallel()
			down := make(chan struct{})
			nodes := overTCP(t, func(o *MeshOptions) {
				if edit != nil {
					edit(o)
				}
				if o.Node == 1 {
					o.OnState = func(_ int32, connected bool) {
						if !connected {
							close(down)
						}
					}
				}
			})
			a, b := nodes[1].Join(1, one), nodes[2].Join(1, two)
			b.Handle(Handler{Probed: func() uint64 { return 41 }})
			taking(b)
			for call, err := range everyCall(a, two) {
				if err != nil {
					t.Errorf("%s: %v", call, err)
				}
			}
			pipe, err := a.AppendEntriesPipeline(name(two), "")
			if err != nil {
				t.Fatal(err)
			}
			const n = 40
			go func() {
				for i := range uint64(n) {
					if _, err := pipe.AppendEntries(appendOf(i+1, 1<<20), new(raft.AppendEntriesResponse)); err != nil {
						t.Error(err)
					}
				}
			}()
			for i := range uint64(n) {
				if f := <-pipe.Consumer(); f.Error() != nil || f.Response().LastLog != i+1 {
					t.Fatalf("answer %d: %+v, %v", i, f.Response(), f.Error())
				}
			}
			nodes[2].Serve(func(_ context.Context, _ int32, _ Method, p []byte) ([]byte, error) { return p, nil })
			if got, err := nodes[1].Call(t.Context(), 2, 1, make([]byte, MaxCallBytes)); err != nil || len(got) != MaxCallBytes {
				t.Errorf("%d bytes, %v", len(got), err)
			}
			if err := nodes[2].Close(); err != nil {
				t.Error(err)
			}
			<-down
			closeAll(t, []*Member{a, b})
		})
	}
}
