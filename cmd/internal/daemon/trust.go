package daemon

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"os"

	"cawrm/cawrm"
	"cawrm/cawrm/cert"
	"cawrm/cmd/internal/value"
)

// PeerTrust says how sources and mirrors prove to each other who they are: by certificates, by a secret, or not at all.
type PeerTrust struct {
	Cert, Key, CA string   // PEM files; "": none
	Secret        string   // file
	Allow         []string // names of certificates of sources; nil: all that CA has signed
	Insecure      bool     // sources may come from other machines though nobody proves anything
}

// On tells whether anything is proved.
func (t PeerTrust) On() bool { return t.Cert != "" || t.Secret != "" }

// load reads the files; nil when nothing is proved.
func (t PeerTrust) load() (*cawrm.Trust, error) {
	switch {
	case t.Secret != "":
		b, err := os.ReadFile(t.Secret)
		if err != nil {
			return nil, fmt.Errorf("--peer-secret: %w", err)
		}
		trust, err := cawrm.SecretTrust(bytes.TrimSpace(b))
		if err != nil {
			return nil, fmt.Errorf("--peer-secret %s: %w", t.Secret, err)
		}
		return trust, nil
	case t.Cert == "":
		return nil, nil
	}
	pair, err := tls.LoadX509KeyPair(t.Cert, t.Key)
	if err != nil {
		return nil, fmt.Errorf("--peer-cert %s with --peer-key %s: %w", t.Cert, t.Key, err)
	}
	pool, err := cert.LoadPool(t.CA)
	if err != nil {
		return nil, fmt.Errorf("--peer-ca: %w", err)
	}
	return cawrm.CertificateTrust(pair, pool).Only(t.Allow), nil
}

// Exposed finds a peer address that others than this machine reach while nobody proves who they are.
func (t PeerTrust) Exposed(addrs ...value.Addr) error {
	if t.On() || t.Insecure {
		return nil
	}
	for _, a := range addrs {
		if !a.IsLocal() {
			return fmt.Errorf("--peer %s: whoever reaches it could write into the mirrors here; give --peer-cert, --peer-key and --peer-ca (`cawrm cert` makes them), or --peer-secret, or say --insecure", a)
		}
	}
	return nil
}

// exposed is Exposed for what systemd holds.
func (s *sockets) exposed(t PeerTrust) error {
	var errs []error
	for _, l := range s.peer {
		errs = append(errs, t.Exposed(l.addr))
	}
	return errors.Join(errs...)
}

// retrust puts fresh in force for connections to come.
func (d *daemon) retrust(fresh *cawrm.Trust) {
	if d.trust != nil && fresh != nil {
		d.trust.Replace(fresh)
	}
}
