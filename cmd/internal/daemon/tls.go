package daemon

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"sync/atomic"
)

// TLS says how NBD over TCP is encrypted. Unix sockets never are: their files' modes protect them, and the
// kernel's client, which speaks no TLS, can use them.
type TLS struct {
	Cert, Key string // PEM files; "": no TLS
	CA        string // PEM file: clients need a certificate that it signed; "": they need none
	Optional  bool   // clients may also stay without; else they must upgrade first
}

// certificates are the ones in use: each handshake asks, so that those of a reload are shown to the next client.
type certificates struct{ now atomic.Pointer[tls.Config] }

// start loads the files and returns what a server is given; nil when TLS is off.
func (c *certificates) start(t TLS) (*tls.Config, error) {
	loaded, err := t.load()
	if loaded == nil || err != nil {
		return nil, err
	}
	c.now.Store(loaded)
	return &tls.Config{
		MinVersion:         tls.VersionTLS12,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return c.now.Load(), nil },
	}, nil
}

// reload reads the files again.
func (c *certificates) reload(t TLS) error {
	loaded, err := t.load()
	if err == nil && loaded != nil {
		c.now.Store(loaded)
	}
	return err
}

// load reads the files. It returns nil when TLS is off.
func (t TLS) load() (*tls.Config, error) {
	if t.Cert == "" {
		return nil, nil
	}
	pair, err := tls.LoadX509KeyPair(t.Cert, t.Key)
	if err != nil {
		return nil, fmt.Errorf("TLS certificate %s with key %s: %w", t.Cert, t.Key, err)
	}
	c := &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}
	if t.CA == "" {
		return c, nil
	}
	pem, err := os.ReadFile(t.CA)
	if err != nil {
		return nil, fmt.Errorf("TLS authority: %w", err)
	}
	c.ClientCAs = x509.NewCertPool()
	if !c.ClientCAs.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("TLS authority %s: there is no certificate in it", t.CA)
	}
	c.ClientAuth = tls.RequireAndVerifyClientCert
	return c, nil
}
