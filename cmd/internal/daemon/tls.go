package daemon

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
)

// TLS says how NBD over TCP is encrypted. Unix sockets never are: their files' modes protect them, and the
// kernel's client, which speaks no TLS, can use them.
type TLS struct {
	Cert, Key string // PEM files; "": no TLS
	CA        string // PEM file: clients need a certificate that it signed; "": they need none
	Optional  bool   // clients may also stay without; else they must upgrade first
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
