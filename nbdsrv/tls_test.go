package nbdsrv_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"cawrm/nbdsrv"
)

// identity is a certificate authority that has signed one certificate for "localhost".
type identity struct {
	pool *x509.CertPool
	cert tls.Certificate
	dir  string // ca-cert.pem, server-cert.pem, server-key.pem, client-cert.pem, client-key.pem
}

func newIdentity(t testing.TB) *identity {
	t.Helper()
	must := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(err)
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test authority"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	caDER, err := x509.CreateCertificate(rand.Reader, ca, ca, &caKey.PublicKey, caKey)
	must(err)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(err)
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "localhost"}, DNSNames: []string{"localhost"},
		NotBefore: ca.NotBefore, NotAfter: ca.NotAfter, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, leaf, ca, &key.PublicKey, caKey)
	must(err)
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	must(err)
	id := &identity{pool: x509.NewCertPool(), dir: t.TempDir()}
	id.cert = tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
	parsed, err := x509.ParseCertificate(caDER)
	must(err)
	id.pool.AddCert(parsed)
	for name, b := range map[string]*pem.Block{
		"ca-cert":     {Type: "CERTIFICATE", Bytes: caDER},
		"server-cert": {Type: "CERTIFICATE", Bytes: der}, "server-key": {Type: "PRIVATE KEY", Bytes: keyDER},
		"client-cert": {Type: "CERTIFICATE", Bytes: der}, "client-key": {Type: "PRIVATE KEY", Bytes: keyDER},
	} {
		must(os.WriteFile(filepath.Join(id.dir, name+".pem"), pem.EncodeToMemory(b), 0o600))
	}
	return id
}

func (id *identity) server() *tls.Config {
	return &tls.Config{Certificates: []tls.Certificate{id.cert}}
}

// upgrade is STARTTLS with success.
func (c *client) upgrade(cfg *tls.Config) {
	c.t.Helper()
	c.ack(optStartTLS, nil)
	s := tls.Client(c.nc, cfg)
	if err := s.Handshake(); err != nil {
		c.t.Fatal(err)
	}
	c.nc = s
}

func TestTLSOff(t *testing.T) { // 12
	c := serve(t, nbdsrv.Config{}, two()...).connect(3)
	if r := c.option(optStartTLS, nil); r[0].typ != errPolicy {
		t.Fatalf("%x", r)
	}
	c.refused(errInvalid, optStartTLS, []byte{1})
	c.enter("alpha")
}

func TestTLSOn(t *testing.T) { // 12
	id := newIdentity(t)
	h := serve(t, nbdsrv.Config{TLS: id.server()}, two()...)
	h.openExport(structured, "alpha") // at the client's option
	for _, v := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		c := h.connect(3)
		c.refused(errInvalid, optStartTLS, []byte("data"))
		c.ack(optExtended, nil)
		c.upgrade(&tls.Config{RootCAs: id.pool, ServerName: "localhost", MinVersion: v, MaxVersion: v})
		c.refused(errInvalid, optStartTLS, nil)
		// What was settled in the clear is forgotten: structured replies can be asked for alone.
		c.ack(optStructured, nil)
		c.refused(errInvalid, optStructured, []byte{1})
		c.negotiate(structured, "alpha")
		p := pattern(int(v), 300<<10)
		c.write(10, p, 0)
		if !bytes.Equal(c.read(10, len(p)), p) {
			t.Fatal("read back")
		}
		c.write(0, []byte("small"), fFUA)
		c.send(c.header(req{typ: cmdDisc}))
		c.closed()
	}
}

func TestTLSForgetsContexts(t *testing.T) { // 12
	id := newIdentity(t)
	c := serve(t, nbdsrv.Config{TLS: id.server()}, two()...).connect(3)
	c.ack(optStructured, nil)
	c.option(optSetMeta, metaQuery("alpha", "base:allocation"))
	c.upgrade(&tls.Config{RootCAs: id.pool, ServerName: "localhost"})
	c.ack(optStructured, nil)
	c.mode = structured
	c.enter("alpha")
	c.must(einval, req{typ: cmdStatus, length: 4096})
}

func TestTLSRequired(t *testing.T) { // 13
	id := newIdentity(t)
	h := serve(t, nbdsrv.Config{TLS: id.server(), RequireTLS: true}, two()...)
	c := h.connect(3)
	for _, id := range []uint32{optList, optInfo, optGo, optStructured, optExtended, optListMeta, optSetMeta, 77} {
		c.refused(errTLSReqd, id, nil)
		c.refused(errTLSReqd, id, make([]byte, 100<<10))
	}
	c.upgrade(&tls.Config{RootCAs: id.pool, ServerName: "localhost"})
	c.negotiate(extended, "alpha")
	c.write(0, []byte("secret"), 0)

	c = h.connect(3)
	c.send(optionBytes(optExportName, []byte("alpha")))
	c.closed()
	c = h.connect(0) // cannot be told
	c.send(optionBytes(optList, nil))
	c.closed()
	c = h.connect(3)
	c.ack(optAbort, nil)
}

func TestTLSVersions(t *testing.T) { // 13
	id := newIdentity(t)
	h := serve(t, nbdsrv.Config{TLS: id.server()}, two()...)
	c := h.connect(3)
	c.ack(optStartTLS, nil)
	s := tls.Client(c.nc, &tls.Config{RootCAs: id.pool, ServerName: "localhost", MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11})
	if s.Handshake() == nil {
		t.Fatal("TLS 1.1 accepted")
	}
}

func TestTLSClientCertificate(t *testing.T) { // 13
	id := newIdentity(t)
	cfg := id.server()
	cfg.ClientAuth, cfg.ClientCAs = tls.RequireAndVerifyClientCert, id.pool
	h := serve(t, nbdsrv.Config{TLS: cfg, RequireTLS: true}, two()...)
	good := &tls.Config{RootCAs: id.pool, ServerName: "localhost", Certificates: []tls.Certificate{id.cert}}
	c := h.connect(3)
	c.upgrade(good)
	c.negotiate(compact, "alpha")
	for _, certs := range [][]tls.Certificate{nil, {newIdentity(t).cert}} {
		c := h.connect(3)
		c.ack(optStartTLS, nil)
		s := tls.Client(c.nc, &tls.Config{RootCAs: id.pool, ServerName: "localhost", Certificates: certs})
		if err := s.Handshake(); err == nil {
			if _, err = s.Read(make([]byte, 1)); err == nil {
				t.Fatal("let in")
			}
		}
	}
}

// TestTLSInjection sends an option in the clear together with STARTTLS: it must not be heard.
func TestTLSInjection(t *testing.T) { // 12, 40
	id := newIdentity(t)
	c := serve(t, nbdsrv.Config{TLS: id.server()}, two()...).connect(3)
	c.send(append(optionBytes(optStartTLS, nil), optionBytes(optList, nil)...))
	c.closed()
}

func TestTLSHandshakeStalls(t *testing.T) { // 18, 40
	id := newIdentity(t)
	h := serve(t, nbdsrv.Config{TLS: id.server(), HandshakeTimeout: 100 * time.Millisecond}, two()...)
	c := h.connect(3)
	c.ack(optStartTLS, nil)
	c.closed()
	c = h.connect(3)
	c.ack(optStartTLS, nil)
	c.send([]byte("this is not TLS at all, is it?"))
	c.nc.(*net.UnixConn).CloseWrite()
	eventually(t, "both are gone", func() bool { return h.s.Stats().Connections == 0 })
}
