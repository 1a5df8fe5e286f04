package cawrm_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"cawrm/cawrm"
	"cawrm/cawrm/cert"
)

// authorities are made once: keys take time.
var authorities = sync.OnceValue(func() (all [2]*cert.Pair) {
	for i := range all {
		all[i] = must(cert.NewAuthority(fmt.Sprint("authority ", i), 24*time.Hour))
	}
	return all
})

func must[T any](x T, err error) T {
	if err != nil {
		panic(err)
	}
	return x
}

// issued is what somebody with a certificate of authority 0 or 1 trusts and shows.
func issued(authority int, name string, life time.Duration) *cawrm.Trust {
	a := authorities()[authority]
	return cawrm.CertificateTrust(must(a.Issue(name, nil, life)).TLS(), a.Pool())
}

var (
	sesame = sync.OnceValue(func() *cawrm.Trust { return must(cawrm.SecretTrust([]byte("open sesame, the first"))) })
	barley = sync.OnceValue(func() *cawrm.Trust { return must(cawrm.SecretTrust([]byte("open barley, the second"))) })
)

// trustedSite is a site whose peer wants proof.
func trustedSite(t *testing.T, n *network, cfg cawrm.PeerConfig) *site {
	t.Helper()
	v := newMirror(t)
	s := &site{net: n, v: v, logs: &logs{}, done: make(chan error, 1)}
	cfg.Name, cfg.Logger = "siteB", s.logs.logger()
	s.peer = cawrm.NewPeer(cfg)
	check(t, s.peer.AddVolume("vm", v))
	go func() { s.done <- s.peer.Serve(listener(n)) }()
	t.Cleanup(func() { s.close(t) })
	return s
}

// TestTrusted ensures that a mirror is fed by those who prove who they are, over links that are encrypted, that both sides say whom
// they talk to, and that what crosses the line is not what was written.
func TestTrusted(t *testing.T) {
	for _, tt := range []struct {
		name               string
		peer, source       *cawrm.Trust
		allow              []string
		isSource, isMirror string
	}{
		{"certificates", issued(0, "peer", time.Hour), issued(0, "paris", time.Hour), nil, "certificate paris", "certificate peer"},
		{"certificates, this one", issued(0, "peer", time.Hour), issued(0, "paris", time.Hour), []string{"rome", "paris"}, "certificate paris", "certificate peer"},
		{"secret", sesame(), must(cawrm.SecretTrust([]byte("open sesame, the first"))), nil, "secret", "secret"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			n := newNetwork()
			v := newSource(t, 2048)
			tt.peer.Only(tt.allow)
			s := trustedSite(t, n, cawrm.PeerConfig{Trust: tt.peer})
			for i := range int64(1500) {
				write(t, v, i, uint64(i)+1)
			}
			check(t, v.WriteAt(bytes.Repeat([]byte("a text that one could read. "), 147)[:chunk], 2000*chunk, false))
			cfg := uncompressed(mirrorConfig(nil))
			var line tap
			cfg.Dial, cfg.Trust = line.on(n.dial), tt.source
			m := startMirror(t, v, cfg)
			synced(t, v, m)
			write(t, v, 7, 7)
			synced(t, v, m)
			n.cut()
			write(t, v, 8, 8)
			synced(t, v, m)
			sameContent(t, v, s.v)
			st, feed := m.Status(), s.peer.Status()[0]
			if st.Identity != tt.isMirror || feed.Identity != tt.isSource {
				t.Errorf("the mirror is %q, its source %q; want %q, %q", st.Identity, feed.Identity, tt.isMirror, tt.isSource)
			}
			if bytes.Contains(line.bytes(), []byte("that one could read")) || bytes.Contains(line.bytes(), []byte("CWRM")) {
				t.Error("what was written can be read on the line")
			}
			if got := int64(len(line.bytes())); st.SentBytes != got {
				t.Errorf("sent_bytes %d, on the line %d", st.SentBytes, got)
			}
		})
	}
}

// TestNotTrusted ensures that nobody else feeds a mirror, nor is fed, and that both sides say what is wrong.
func TestNotTrusted(t *testing.T) {
	good := func() *cawrm.Trust { return issued(0, "peer", time.Hour) }
	expired := issued(0, "paris", time.Second)
	expiredPeer := issued(0, "peer", time.Second)
	time.Sleep(1100 * time.Millisecond)
	for _, tt := range []struct {
		name         string
		peer, source *cawrm.Trust
		allow        []string
		says         string // at the source
		peerSays     string
	}{
		{"source of another authority", good(), issued(1, "paris", time.Hour), nil, "the other side's certificate: x509: certificate signed by unknown authority", "tls: bad certificate"},
		{"peer of another authority", issued(1, "peer", time.Hour), issued(0, "paris", time.Hour), nil, "unknown authority", "bad certificate"},
		{"source trusts this one only", good(), cawrm.CertificateTrust(must(authorities()[1].Issue("paris", nil, time.Hour)).TLS(), authorities()[0].Pool()),
			nil, "refuses this side's certificate", "unknown authority"},
		{"peer of another name", issued(0, "tokyo", time.Hour), issued(0, "paris", time.Hour), nil, "valid for tokyo, not peer", "bad certificate"},
		{"expired source", good(), expired, nil, "refuses this side's certificate", "expired"},
		{"expired peer", expiredPeer, issued(0, "paris", time.Hour), nil, "expired", "bad certificate"},
		{"name that is not allowed", good(), issued(0, "paris", time.Hour), []string{"rome"}, "certificate paris may not feed volumes here", "may not feed"},
		{"source with another secret", sesame(), barley(), nil, "does not know the secret", "bad certificate"},
		{"secret to certificates", good(), sesame(), nil, "does not know the secret", "bad certificate"},
		{"certificate to a secret", sesame(), issued(0, "peer", time.Hour), nil, "x509", "bad certificate"},
		{"source without", good(), nil, nil, "it takes only sources with a certificate or the secret", "does not speak TLS"},
		{"peer without", nil, issued(0, "paris", time.Hour), nil, "does not speak TLS", "not a cawrm mirror stream"},
		{"peer without, secret", nil, sesame(), nil, "does not speak TLS", "not a cawrm mirror stream"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			n := newNetwork()
			v := newSource(t, 64)
			if tt.allow != nil {
				tt.peer.Only(tt.allow)
			}
			s := trustedSite(t, n, cawrm.PeerConfig{Trust: tt.peer})
			write(t, v, 1, 1)
			check(t, v.Flush())
			cfg := mirrorConfig(n)
			cfg.Trust = tt.source
			m := startMirror(t, v, cfg)
			stateIs(t, m, cawrm.StateDown, tt.says)
			eventually(t, "the peer says why", func() bool { return strings.Contains(s.logs.String(), tt.peerSays) }, func() any { return s.logs.String() })
			if p, _ := s.v.Pointers(); p > 0 || s.v.Info().HasIdentity {
				t.Errorf("the mirror has taken records up to %d", p)
			}
			if n.dialled() != 1 {
				t.Errorf("%d connections: what a person must mend is not tried in haste", n.dialled())
			}
		})
	}
	if _, err := cawrm.SecretTrust([]byte("short")); err == nil || !strings.Contains(err.Error(), "can be guessed") {
		t.Errorf("a short secret: %v", err)
	}
}

// TestReplay ensures that what was recorded of a good link, said again, is worth nothing: of either side.
func TestReplay(t *testing.T) {
	for name, trust := range map[string][2]*cawrm.Trust{
		"certificates": {issued(0, "peer", time.Hour), issued(0, "paris", time.Hour)},
		"secret":       {sesame(), sesame()},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNetwork()
			v := newSource(t, 64)
			s := trustedSite(t, n, cawrm.PeerConfig{Trust: trust[0]})
			var line tap
			cfg := mirrorConfig(nil)
			cfg.Dial, cfg.Trust = line.on(n.dial), trust[1]
			m := startMirror(t, v, cfg)
			for i := range int64(20) {
				write(t, v, i, uint64(i)+1)
				check(t, v.Flush())
			}
			synced(t, v, m)
			m.Close()
			gone := func() bool { return !s.peer.Status()[0].Connected }
			eventually(t, "the peer notices", gone, func() any { return s.peer.Status() })
			before, _ := s.v.Pointers()
			sameContent(t, v, s.v)

			c := must(n.dial(context.Background(), "peer"))
			defer c.Close()
			_, _ = c.Write(line.bytes())
			check(t, c.SetReadDeadline(time.Now().Add(5*time.Second)))
			_, _ = io.Copy(io.Discard, c)
			if p, _ := s.v.Pointers(); p != before || !gone() {
				t.Errorf("the mirror went from %d to %d", before, p)
			}
			if !strings.Contains(s.logs.String(), "connection refused") {
				t.Errorf("the peer took it:\n%s", s.logs)
			}
			sameContent(t, v, s.v)
		})
	}
}

// TestTrustIsReplaced ensures that new certificates serve new connections, and that those of an authority which is not trusted any more do not.
func TestTrustIsReplaced(t *testing.T) {
	n := newNetwork()
	v := newSource(t, 64)
	peer := issued(0, "peer", time.Hour)
	trustedSite(t, n, cawrm.PeerConfig{Trust: peer})
	cfg := mirrorConfig(n)
	source := issued(0, "paris", time.Hour)
	cfg.Trust = source
	m := startMirror(t, v, cfg)
	write(t, v, 1, 1)
	synced(t, v, m)
	peer.Replace(issued(1, "peer", time.Hour))
	write(t, v, 2, 2)
	synced(t, v, m) // the link that is there stays
	n.cut()
	stateIs(t, m, cawrm.StateDown, "unknown authority")
	source.Replace(issued(1, "paris", time.Hour))
	m.Close()
	m = startMirror(t, v, cfg)
	write(t, v, 3, 3)
	synced(t, v, m)
}

// TestOtherProtocol ensures that a certificate of the authority which speaks something else is sent away.
func TestOtherProtocol(t *testing.T) {
	n := newNetwork()
	s := trustedSite(t, n, cawrm.PeerConfig{Trust: issued(0, "peer", time.Hour)})
	a := authorities()[0]
	for _, protos := range [][]string{nil, {"h2"}} {
		c := tls.Client(must(n.dial(context.Background(), "peer")), &tls.Config{RootCAs: a.Pool(), ServerName: "peer",
			Certificates: []tls.Certificate{must(a.Issue("web", nil, time.Hour)).TLS()}, NextProtos: protos})
		_ = c.SetDeadline(time.Now().Add(5 * time.Second))
		_, err := c.Read(make([]byte, 1))
		if err == nil {
			t.Errorf("%v: the peer speaks", protos)
		}
		c.Close()
	}
	eventually(t, "the peer says why", func() bool { return strings.Count(s.logs.String(), "refused") == 2 }, func() any { return s.logs.String() })
}

// tap writes down what dialled connections send.
type tap struct {
	mu  sync.Mutex
	all []byte
}

func (l *tap) bytes() []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	return bytes.Clone(l.all)
}

func (l *tap) on(dial cawrm.DialFunc) cawrm.DialFunc {
	return func(ctx context.Context, addr string) (net.Conn, error) {
		c, err := dial(ctx, addr)
		return &tapped{c, l}, err
	}
}

type tapped struct {
	net.Conn
	line *tap
}

func (c *tapped) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.line.mu.Lock()
	defer c.line.mu.Unlock()
	c.line.all = append(c.line.all, p[:n]...)
	return n, err
}
