package cawrm

import (
	"context"
	"crypto/ed25519"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"net"
	"slices"
	"sync/atomic"
	"time"
)

// Trust is how the two ends of a link prove to each other who they are: TLS 1.3 with a certificate on either side. Nothing is resumed, so
// each connection proves it anew, and what was recorded of one proves nothing.
//
// With CertificateTrust an authority has signed both, and a source asks for the host of the mirror's URL in the peer's. With
// SecretTrust no authority is needed: the keys of both sides follow from a secret that both know, and each takes only the
// other's. The secret itself never goes over the link, nor anything that it could be read from; but who can ask a peer for its certificate
// can try secrets against it, so it must not be one that can be guessed.
type Trust struct{ now atomic.Pointer[trust] }

// trust is what is in force.
type trust struct {
	source, peer tls.Certificate // what this side shows in either role
	roots        *x509.CertPool  // that sign the other side's; nil: keys are compared
	sourceKey    ed25519.PublicKey
	peerKey      ed25519.PublicKey
	allow        []string // names of certificates of sources; nil: all
}

// MinSecret is how many bytes a secret must have.
const MinSecret = 16

// secretRounds makes trying out secrets dear: about 50 ms each.
const secretRounds = 300_000

// protocol keeps a link of mirrors apart from whatever else speaks TLS with the same certificates.
const protocol = "cawrm/2"

// CertificateTrust trusts whom an authority of roots has given a certificate, and shows cert.
func CertificateTrust(cert tls.Certificate, roots *x509.CertPool) *Trust {
	t := &Trust{}
	t.now.Store(&trust{source: cert, peer: cert, roots: roots})
	return t
}

// SecretTrust trusts who knows the secret. Errors: one that is too short.
func SecretTrust(secret []byte) (*Trust, error) {
	if len(secret) < MinSecret {
		return nil, fmt.Errorf("a secret of %d bytes can be guessed; give at least %d, or make one with `cawrm cert secret FILE`", len(secret), MinSecret)
	}
	seeds, err := pbkdf2.Key(sha256.New, string(secret), []byte("cawrm peer link 1"), secretRounds, 2*ed25519.SeedSize)
	if err != nil {
		return nil, err
	}
	var in trust
	if in.source, in.sourceKey, err = derived(seeds[:ed25519.SeedSize]); err == nil {
		in.peer, in.peerKey, err = derived(seeds[ed25519.SeedSize:])
	}
	if err != nil {
		return nil, err
	}
	t := &Trust{}
	t.now.Store(&in)
	return t, nil
}

// derived makes a certificate of a key that follows from a secret. Nothing in it counts but the key.
func derived(seed []byte) (tls.Certificate, ed25519.PublicKey, error) {
	key := ed25519.NewKeyFromSeed(seed)
	public := key.Public().(ed25519.PublicKey)
	form := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "cawrm"}, NotBefore: time.Unix(0, 0), NotAfter: time.Unix(1<<32, 0)}
	der, err := x509.CreateCertificate(rand.Reader, form, form, public, key)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, public, err
}

// Only lets a peer take sources with one of these names alone; nil: all. It returns t.
func (t *Trust) Only(names []string) *Trust {
	in := *t.now.Load()
	in.allow = names
	t.now.Store(&in)
	return t
}

// Replace puts by in force for the connections to come.
func (t *Trust) Replace(by *Trust) { t.now.Store(by.now.Load()) }

func (in *trust) config() *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS13, NextProtos: []string{protocol}, SessionTicketsDisabled: true, DynamicRecordSizingDisabled: true}
}

// client is for a source that dials host.
func (in *trust) client(host string) *tls.Config {
	c := in.config()
	c.RootCAs, c.ServerName = in.roots, host
	// Shown whatever authority the peer asks for: it can say best what is wrong with it.
	c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &in.source, nil }
	if in.roots == nil {
		c.InsecureSkipVerify, c.VerifyConnection = true, knows(in.peerKey) // what is verified is the key
	}
	return c
}

// server is for a peer.
func (in *trust) server() *tls.Config {
	c := in.config()
	c.Certificates, c.ClientCAs, c.ClientAuth = []tls.Certificate{in.peer}, in.roots, tls.RequireAndVerifyClientCert
	if in.roots == nil {
		c.ClientAuth, c.VerifyConnection = tls.RequireAnyClientCert, knows(in.sourceKey)
	}
	return c
}

var errSecret = errors.New("the other side does not know the secret")

// knows takes only the one key: TLS has proved that the other side holds it.
func knows(key ed25519.PublicKey) func(tls.ConnectionState) error {
	return func(s tls.ConnectionState) error {
		if len(s.PeerCertificates) == 0 || !key.Equal(s.PeerCertificates[0].PublicKey) {
			return errSecret
		}
		return nil
	}
}

// secured is a link that is encrypted, with the other side's names.
type secured struct {
	*tls.Conn
	names []string // of its certificate, none when it knows the secret
}

// dial proves both sides to each other on a link to host.
func (t *Trust) dial(ctx context.Context, l *link, host string) error {
	in := t.now.Load()
	return in.shake(ctx, l, tls.Client(l, in.client(host)))
}

// accept does so on the peer's side.
func (t *Trust) accept(ctx context.Context, l *link) error {
	in := t.now.Load()
	if err := in.shake(ctx, l, tls.Server(l, in.server())); err != nil {
		return err
	}
	if in.allow != nil && !slices.ContainsFunc(l.secure.names, func(n string) bool { return slices.Contains(in.allow, n) }) {
		return fmt.Errorf("%w: %s may not feed volumes here", errTrust, l.identity())
	}
	return nil
}

func (in *trust) shake(ctx context.Context, l *link, c *tls.Conn) error {
	if err := c.HandshakeContext(ctx); err != nil {
		return explain(err)
	}
	s := &secured{Conn: c}
	state := c.ConnectionState()
	if state.NegotiatedProtocol != protocol {
		return fmt.Errorf("%w: it speaks TLS, but not %s", errTrust, protocol)
	}
	if in.roots != nil {
		s.names = certificateNames(state.PeerCertificates[0])
	}
	l.secure = s
	return nil
}

// certificateNames are all that a certificate stands for.
func certificateNames(c *x509.Certificate) []string {
	names := append([]string{c.Subject.CommonName}, c.DNSNames...)
	for _, ip := range c.IPAddresses {
		names = append(names, ip.String())
	}
	slices.Sort(names)
	names = slices.Compact(names)
	return slices.DeleteFunc(names, func(n string) bool { return n == "" })
}

// Read says of a failure what it means. A source hears only by its first read that the peer refuses it.
func (s *secured) Read(p []byte) (int, error) {
	n, err := s.Conn.Read(p)
	if err != nil {
		err = explain(err)
	}
	return n, err
}

// errTrust marks what a person must mend: certificates or secrets that do not fit.
var errTrust = errors.New("not trusted")

// explain turns an error of TLS into words; others stay.
func explain(err error) error {
	var verify *tls.CertificateVerificationError
	var record tls.RecordHeaderError
	var op *net.OpError
	switch {
	case errors.Is(err, errSecret):
		return fmt.Errorf("%w: %w", errTrust, err)
	case errors.As(err, &verify):
		return fmt.Errorf("%w: the other side's certificate: %w", errTrust, verify.Err)
	case errors.As(err, &record):
		return fmt.Errorf("%w: the other side does not speak TLS: it has neither certificates nor a secret (%w)", errTrust, record)
	case errors.As(err, &op) && op.Op == "remote error":
		return fmt.Errorf("%w: the other side refuses this side's certificate or secret: %w", errTrust, op.Err)
	}
	return err
}
