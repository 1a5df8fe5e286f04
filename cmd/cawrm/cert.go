package main

import (
	"crypto/rand"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"cawrm/cawrm/cert"
)

func newCert() *cobra.Command {
	c := &cobra.Command{
		Use:   "cert",
		Short: "Make an authority, certificates and secrets",
		Long: `Make what sources, mirrors and NBD clients need to prove who they are, for people without an authority of their own.

An authority is made once, on a machine that is looked after: its key signs certificates, its certificate goes to everyone. Each machine
gets a certificate with its own key. A certificate is good for both ends of a connection, and for NBD as well as for
the link between a source and its mirrors. A mirror's must be issued for the host in the URL that its source dials.

Where that is too much, a secret that both sites have does for the link between a source and its mirrors.`,
		Example: `  cawrm cert ca --dir /etc/cawrm
  cawrm cert issue berlin --host berlin.example.org --host 10.0.0.2 --dir /etc/cawrm
  cawrm cert show /etc/cawrm/berlin-cert.pem
  cawrm cert secret /etc/cawrm/peer.secret`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return fmt.Errorf("cert: unknown command %q", args[0])
			}
			return fmt.Errorf("cert: a command is missing: ca, issue, show or secret")
		},
		RunE: func(*cobra.Command, []string) error { return nil },
	}
	c.AddCommand(newCertCA(), newCertIssue(), newCertShow(), newCertSecret())
	return c
}

type certFlags struct {
	dir  string
	days int
	json jsonFlag
}

func (f *certFlags) add(c *cobra.Command, life time.Duration) {
	c.Flags().StringVar(&f.dir, "dir", ".", "`directory` of the files")
	c.Flags().IntVar(&f.days, "days", int(life/(24*time.Hour)), "how long it is good")
	f.json.add(c)
}

func (f *certFlags) life() (time.Duration, error) {
	if f.days < 1 || f.days > 36500 {
		return 0, usagef("--days %d: give 1 to 36500", f.days)
	}
	return time.Duration(f.days) * 24 * time.Hour, nil
}

// authorityStem begins the names of the authority's files.
const authorityStem = "ca"

func newCertCA() *cobra.Command {
	var f certFlags
	var name string
	c := &cobra.Command{
		Use:     "ca",
		Short:   "Make an authority: ca-cert.pem and ca-key.pem",
		Long:    "Make an authority: ca-cert.pem, which everyone gets, and ca-key.pem, which stays where certificates are issued.",
		Example: "  cawrm cert ca --dir /etc/cawrm",
		Args:    maxArgs(0),
		RunE: func(c *cobra.Command, _ []string) error {
			life, err := f.life()
			if err != nil {
				return err
			}
			a, err := cert.NewAuthority(name, life)
			if err != nil {
				return err
			}
			return f.save(c, a, authorityStem)
		},
	}
	f.add(c, cert.DefaultAuthorityLife)
	c.Flags().StringVar(&name, "name", "cawrm authority", "what it is called in certificates")
	return c
}

func newCertIssue() *cobra.Command {
	var f certFlags
	var hosts []string
	c := &cobra.Command{
		Use:   "issue NAME",
		Short: "Make a certificate: NAME-cert.pem and NAME-key.pem",
		Long: `Make a certificate, signed by the authority in the directory: NAME-cert.pem and NAME-key.pem. NAME is what rules (--allow cert=NAME,
--peer-allow) know it by. A host that others dial must be among --host, or be NAME.

qemu, nbdkit and libnbd look for server-cert.pem, client-cert.pem and so on in one directory: the names server and client make it one.`,
		Example: "  cawrm cert issue berlin --host berlin.example.org --host 10.0.0.2 --dir /etc/cawrm",
		Args:    exactArgs("NAME"),
		RunE: func(c *cobra.Command, args []string) error {
			life, err := f.life()
			if err != nil {
				return err
			}
			if args[0] == authorityStem {
				return usagef("NAME %s is the authority's", authorityStem)
			}
			a, err := cert.Load(f.dir, authorityStem)
			if errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("%w; make an authority with `cawrm cert ca --dir %s`", err, f.dir)
			}
			if err != nil {
				return err
			}
			p, err := a.Issue(args[0], hosts, life)
			if err != nil {
				return usageError{err}
			}
			return f.save(c, p, args[0])
		},
	}
	f.add(c, cert.DefaultLife)
	c.Flags().StringArrayVar(&hosts, "host", nil, "`name` or IP address that it is good for, beside NAME; repeatable")
	return c
}

// save writes a pair and says where.
func (f *certFlags) save(c *cobra.Command, p *cert.Pair, stem string) error {
	certFile, keyFile, err := p.Save(f.dir, stem)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%w; it is left as it is: remove it, or give another --dir", err)
	}
	if err == nil && !p.Cert.IsCA { // the authority's key is for nobody who only serves
		err = errors.Join(giveAway(keyFile), giveAway(certFile))
	}
	if err != nil {
		return err
	}
	return printCert(c, f.json, shown{Cert: certFile, Key: keyFile}.of(p.Cert))
}

// shown is a certificate as people and programs see it.
type shown struct {
	Cert      string   `json:"cert"`
	Key       string   `json:"key,omitempty"`
	Name      string   `json:"name"`
	Hosts     []string `json:"hosts"`
	Authority bool     `json:"authority"`
	Issuer    string   `json:"issuer"`
	NotBefore string   `json:"not_before"` // RFC 3339
	NotAfter  string   `json:"not_after"`
	Expired   bool     `json:"expired"`
}

func (s shown) of(c *x509.Certificate) shown {
	s.Name, s.Issuer, s.Authority, s.Hosts = c.Subject.CommonName, c.Issuer.CommonName, c.IsCA, []string{}
	s.Hosts = append(s.Hosts, c.DNSNames...)
	for _, ip := range c.IPAddresses {
		s.Hosts = append(s.Hosts, ip.String())
	}
	s.NotBefore, s.NotAfter = c.NotBefore.UTC().Format(time.RFC3339), c.NotAfter.UTC().Format(time.RFC3339)
	s.Expired = time.Now().After(c.NotAfter)
	return s
}

func printCert(c *cobra.Command, asJSON jsonFlag, s shown) error {
	out := c.OutOrStdout()
	if asJSON {
		return printJSON(c, s)
	}
	kind := "certificate"
	if s.Authority {
		kind = "authority"
	}
	fmt.Fprintf(out, "%s %q, good until %s", kind, s.Name, s.NotAfter[:len(time.DateOnly)])
	if s.Expired {
		fmt.Fprint(out, ": EXPIRED")
	}
	if len(s.Hosts) > 0 {
		fmt.Fprintf(out, "\n  hosts   %s", strings.Join(s.Hosts, ", "))
	}
	if !s.Authority {
		fmt.Fprintf(out, "\n  issuer  %s", s.Issuer)
	}
	fmt.Fprintf(out, "\n  cert    %s\n", s.Cert)
	if s.Key != "" {
		fmt.Fprintf(out, "  key     %s\n", s.Key)
	}
	return nil
}

func newCertShow() *cobra.Command {
	var asJSON jsonFlag
	c := &cobra.Command{
		Use:     "show FILE",
		Short:   "Say whose a certificate is and how long it is good",
		Example: "  cawrm cert show berlin-cert.pem",
		Args:    exactArgs("FILE"),
		RunE: func(c *cobra.Command, args []string) error {
			x, err := cert.Read(args[0])
			if err != nil {
				return err
			}
			return printCert(c, asJSON, shown{Cert: args[0]}.of(x))
		},
	}
	asJSON.add(c)
	return c
}

func newCertSecret() *cobra.Command {
	var asJSON jsonFlag
	c := &cobra.Command{
		Use:     "secret FILE",
		Short:   "Make a secret for --peer-secret",
		Long:    "Make a secret of 256 random bits for --peer-secret, in a file for its owner alone. The same file goes to both sites, by a way that\nnobody listens to.",
		Example: "  cawrm cert secret /etc/cawrm/peer.secret",
		Args:    exactArgs("FILE"),
		RunE: func(c *cobra.Command, args []string) error {
			b := make([]byte, 32)
			_, _ = rand.Read(b) // does not fail
			err := cert.WriteNew(args[0], []byte(hex.EncodeToString(b)+"\n"), 0o600)
			if errors.Is(err, os.ErrExist) {
				return fmt.Errorf("%w; it is left as it is", err)
			}
			if err == nil {
				err = giveAway(args[0])
			}
			if err != nil {
				return err
			}
			return asJSON.say(c, struct {
				Secret string `json:"secret"`
			}{args[0]}, "secret %s\n", args[0])
		},
	}
	asJSON.add(c)
	return c
}
