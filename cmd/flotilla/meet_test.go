package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/flotilla-log/flotilla/internal/config"
)

// TestNodeTLS reads the certificates of nodes, and says which setting is wrong.
func TestNodeTLS(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := func(name, kind string, der []byte) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	who := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"node1"}, IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, who, who, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	cert, private := file("cert.pem", "CERTIFICATE", der), file("key.pem", "PRIVATE KEY", keyDER)
	for _, tt := range []struct{ cert, key, ca, err string }{
		{cert: cert, key: private, ca: cert},
		{},
		{cert: filepath.Join(dir, "none"), key: private, ca: cert, err: "--node.tls.cert"},
		{cert: cert, key: cert, ca: cert, err: "--node.tls.key"},
		{cert: cert, key: private, ca: filepath.Join(dir, "none"), err: "--node.tls.ca"},
		{cert: cert, key: private, ca: private, err: "holds no certificate in PEM"},
	} {
		flags := map[string]string{"cluster.id": "c", "cluster.nodes": "1@127.0.0.1:1", "node.tls.cert": tt.cert, "node.tls.key": tt.key, "node.tls.ca": tt.ca}
		v, err := config.Resolve(config.Sources{Flags: flags})
		if err != nil {
			t.Fatal(err)
		}
		c, err := nodeTLS(v)
		if tt.err != "" {
			if err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("%+v: %v, want %q", tt, err, tt.err)
			}
			continue
		}
		if err != nil || (c == nil) != (tt.cert == "") {
			t.Errorf("%+v: %v, %v", tt, c, err)
		}
		if c != nil && (c.MinVersion != tls.VersionTLS13 || c.RootCAs == nil || c.ClientCAs == nil || len(c.Certificates) != 1) {
			t.Errorf("%+v: %+v", tt, c)
		}
	}
}
