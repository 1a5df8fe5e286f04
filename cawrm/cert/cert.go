// Package cert makes an authority and certificates for people who have none: for the link between a source and its mirrors, and for NBD
// clients. The files are what qemu, nbdkit and libnbd look for in a directory of TLS credentials:
//
//	ca-cert.pem    ca-key.pem       the authority: the key stays where certificates are issued, the certificate goes to everyone
//	NAME-cert.pem  NAME-key.pem     whoever is called NAME: both go to that machine, the key to nobody else
//
// Keys are ECDSA on P-256. A certificate serves both ends of a connection. Its name is its common name; that, and the hosts it
// is issued for, are the names by which it is known.
//
// Absences: no revocation. Certificates live for a year unless they are told otherwise; an authority that signed one for somebody who is not
// trusted any more is replaced.
package cert

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// How long they live unless they are told otherwise.
const (
	DefaultAuthorityLife = 10 * 365 * 24 * time.Hour
	DefaultLife          = 365 * 24 * time.Hour
)

// backdate makes a certificate good on machines whose clocks are behind.
const backdate = 5 * time.Minute

// Pair is a certificate with its key.
type Pair struct {
	Cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// NewAuthority makes an authority that signs itself.
func NewAuthority(name string, life time.Duration) (*Pair, error) {
	form, key, err := begin(name, life)
	if err != nil {
		return nil, err
	}
	form.IsCA, form.BasicConstraintsValid, form.MaxPathLenZero = true, true, true
	form.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	return sign(form, form, key, key)
}

// Issue makes a certificate for name, which is known as each of hosts, IP addresses among them, too.
func (a *Pair) Issue(name string, hosts []string, life time.Duration) (*Pair, error) {
	form, key, err := begin(name, life)
	if err != nil {
		return nil, err
	}
	if !a.Cert.IsCA {
		return nil, fmt.Errorf("%s is no authority", a.Cert.Subject.CommonName)
	}
	if form.NotAfter.After(a.Cert.NotAfter) {
		return nil, fmt.Errorf("the authority is good until %s only: give a shorter life, or make a new authority", a.Cert.NotAfter.Format(time.DateOnly))
	}
	form.KeyUsage = x509.KeyUsageDigitalSignature
	form.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	for _, h := range append([]string{name}, hosts...) {
		if ip := net.ParseIP(h); ip != nil {
			form.IPAddresses = append(form.IPAddresses, ip)
		} else if isHost(h) {
			form.DNSNames = append(form.DNSNames, h)
		} else if h != name {
			return nil, fmt.Errorf("%q is neither a host's name nor an IP address", h)
		}
	}
	return sign(form, a.Cert, key, a.key)
}

func begin(name string, life time.Duration) (*x509.Certificate, *ecdsa.PrivateKey, error) {
	if name == "" || len(name) > 64 || strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r == '/' }) {
		return nil, nil, fmt.Errorf("%q: a name has 1 to 64 bytes, and no slash in it", name)
	}
	if life < time.Second {
		return nil, nil, fmt.Errorf("a life of %v is too short", life)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, nil, err
	}
	now := time.Now()
	return &x509.Certificate{SerialNumber: serial, Subject: pkix.Name{CommonName: name}, NotBefore: now.Add(-backdate), NotAfter: now.Add(life)}, key, nil
}

func sign(form, by *x509.Certificate, key, byKey *ecdsa.PrivateKey) (*Pair, error) {
	der, err := x509.CreateCertificate(rand.Reader, form, by, &key.PublicKey, byKey)
	if err != nil {
		return nil, err
	}
	c, err := x509.ParseCertificate(der)
	return &Pair{c, key}, err
}

// isHost tells what can stand in a certificate as the name of a host.
func isHost(s string) bool {
	return s != "" && len(s) <= 253 && !strings.ContainsFunc(s, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '.' || r == '*')
	})
}

// TLS is the pair as crypto/tls takes it.
func (p *Pair) TLS() tls.Certificate {
	return tls.Certificate{Certificate: [][]byte{p.Cert.Raw}, PrivateKey: p.key, Leaf: p.Cert}
}

// Pool is the authority as crypto/tls takes it.
func (p *Pair) Pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(p.Cert)
	return pool
}

// Files are the names of a pair's two files.
func Files(dir, name string) (cert, key string) {
	return filepath.Join(dir, name+"-cert.pem"), filepath.Join(dir, name+"-key.pem")
}

// Save writes both files into dir, the key for its owner alone. Files that are there already are not overwritten.
func (p *Pair) Save(dir, name string) (certFile, keyFile string, err error) {
	certFile, keyFile = Files(dir, name)
	key, err := x509.MarshalPKCS8PrivateKey(p.key)
	if err != nil {
		return "", "", err
	}
	if err := WriteNew(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}), 0o600); err != nil {
		return "", "", err
	}
	if err := WriteNew(certFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: p.Cert.Raw}), 0o644); err != nil {
		_ = os.Remove(keyFile) // of no use alone
		return "", "", err
	}
	return certFile, keyFile, nil
}

// WriteNew writes a file that is not there yet, durably enough for a key that cannot be made again.
func WriteNew(path string, b []byte, mode os.FileMode) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}

// Load reads a pair that Save has written.
func Load(dir, name string) (*Pair, error) {
	certFile, keyFile := Files(dir, name)
	pair, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		return nil, err
	}
	key, ok := pair.PrivateKey.(*ecdsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("%s: the key is none of ECDSA", keyFile)
	}
	c, err := x509.ParseCertificate(pair.Certificate[0])
	return &Pair{c, key}, err
}

// LoadPool reads a file of authorities' certificates.
func LoadPool(path string) (*x509.CertPool, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(b) {
		return nil, fmt.Errorf("%s: there is no certificate in it", path)
	}
	return pool, nil
}

// Read reads the first certificate of a PEM file.
func Read(path string) (*x509.Certificate, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	for block, rest := pem.Decode(b); block != nil; block, rest = pem.Decode(rest) {
		if block.Type == "CERTIFICATE" {
			return x509.ParseCertificate(block.Bytes)
		}
	}
	return nil, fmt.Errorf("%s: there is no certificate in it", path)
}
