package transport

import (
	"crypto/tls"
	"errors"
	"fmt"
)

// mutual returns a configuration for both ends, in which both have to show a
// certificate.
func mutual(c *tls.Config) (*tls.Config, error) {
	if c == nil {
		return nil, nil
	}
	c = c.Clone()
	if len(c.Certificates) == 0 && (c.GetCertificate == nil || c.GetClientCertificate == nil) {
		return nil, errors.New("transport: TLS between nodes needs a certificate, which both ends show")
	}
	if c.RootCAs == nil {
		c.RootCAs = c.ClientCAs
	}
	if c.ClientCAs == nil {
		c.ClientCAs = c.RootCAs
	}
	if c.RootCAs == nil {
		return nil, errors.New("transport: TLS between nodes needs the certificates of who vouches for nodes: those of the machine would let anybody in")
	}
	c.ClientAuth = tls.RequireAndVerifyClientCert
	return c, nil
}

// errPlain is what an end with TLS sees of one without.
var errPlain = fmt.Errorf("%w: this end speaks TLS, and the other does not: set up TLS between nodes on both, or on neither", ErrHandshake)

// tlsAlert says "unexpected message" in TLS.
var tlsAlert = []byte{0x15, 3, 1, 0, 2, 2, 10}

// explainTLS says what an error of a TLS handshake most likely means.
func explainTLS(err error) error {
	var record tls.RecordHeaderError
	if errors.As(err, &record) {
		return fmt.Errorf("%w: %w", errPlain, err)
	}
	return fmt.Errorf("%w: TLS: %w", ErrHandshake, err)
}
