package e2e

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"cawrm/bench/internal/build"
	"cawrm/bench/internal/nbdclient"
	"cawrm/bench/internal/site"
	"cawrm/wan"
)

// bin is the binary under test.
var bin string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "cawrm-e2e")
	if err == nil {
		bin, err = build.Binary(dir)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	// The distribution's programs first: nbdsh asks for any python3, and only
	// the distribution's has its module.
	os.Setenv("PATH", "/usr/bin:/bin:/usr/sbin:/sbin:"+os.Getenv("PATH"))
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

// need skips the test where a program is not installed.
func need(t *testing.T, programs ...string) {
	t.Helper()
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			t.Skipf("SKIPPED: %s is not installed (make test installs it as root with apt-get)", p)
		}
	}
}

// seed returns the seed of a random test and prints it.
func seed(t *testing.T) uint64 {
	t.Helper()
	s := uint64(time.Now().UnixNano())
	if env := os.Getenv("CAWRM_SEED"); env != "" {
		n, err := strconv.ParseUint(env, 10, 64)
		if err != nil {
			t.Fatalf("CAWRM_SEED: %v", err)
		}
		s = n
	}
	t.Logf("repeat with CAWRM_SEED=%d", s)
	return s
}

// noise returns n bytes that do not compress, the same for the same seed.
func noise(n int, seed uint64) []byte {
	var key [32]byte
	for i := range 8 {
		key[i] = byte(seed >> (8 * i))
	}
	b := make([]byte, n)
	rand.NewChaCha8(key).Read(b)
	return b
}

// dir is a directory of its own for a site, on the file system of the work
// tree if CAWRM_TEST_DIR says so: temporary directories may be a tmpfs, which
// accepts what disks refuse.
func dir(t *testing.T) string {
	t.Helper()
	d, err := os.MkdirTemp(os.Getenv("CAWRM_TEST_DIR"), "cawrm")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(d) })
	return d
}

// newSite lays out a site; its daemon is killed with the test, and its log
// shown if the test failed.
func newSite(t *testing.T, what string) *site.Site {
	t.Helper()
	s, err := site.New(bin, dir(t), "vol")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.Kill()
		// CAWRM_BIN may be a binary built with -race.
		if strings.Contains(s.Log(), "DATA RACE") {
			t.Errorf("the %s has a data race", what)
		}
		if t.Failed() {
			t.Logf("log of the %s:\n%s", what, s.Log())
		}
	})
	return s
}

// volume starts a site with a volume of that size and no mirror.
func volume(t *testing.T, size string) *site.Site {
	t.Helper()
	s := newSite(t, "daemon")
	ok(t, s.Create(size))
	ok(t, s.Start(t.Context()))
	return s
}

// pair is a source, its mirror, and the line between them.
type pair struct {
	source, mirror *site.Site
	link           *wan.Link
}

// newPair makes both containers and the line, and starts both daemons.
func newPair(t *testing.T, size string, p wan.Profile) *pair {
	t.Helper()
	w := &pair{source: newSite(t, "source"), mirror: newSite(t, "mirror")}
	peer, err := site.FreeAddr()
	ok(t, err)
	w.mirror.Peer = peer
	w.link, err = wan.Listen(context.Background(), "127.0.0.1:0", peer, p)
	ok(t, err)
	t.Cleanup(func() { w.link.Close() })
	w.source.Mirrors = []string{site.MirrorURL(w.link.Addr(), "vol")}
	ok(t, w.mirror.CreateMirror())
	ok(t, w.source.Create(size))
	ok(t, w.mirror.Start(t.Context()))
	ok(t, w.source.Start(t.Context()))
	return w
}

// synced waits until the mirror holds all of the source.
func (w *pair) synced(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	ok(t, w.source.WaitSynced(ctx))
}

// identical compares both sites byte by byte through NBD.
func (w *pair) identical(t *testing.T) {
	t.Helper()
	if a, b := checksum(t, w.source), checksum(t, w.mirror); a != b {
		t.Fatalf("the mirror differs: sha256 %s, the source %s", b, a)
	}
}

// closed stops both daemons in order and checks both containers.
func (w *pair) closed(t *testing.T) {
	t.Helper()
	for _, s := range []*site.Site{w.source, w.mirror} {
		ok(t, s.Stop())
		ok(t, s.Check())
	}
}

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// dial opens a connection that is closed with the test.
func dial(t *testing.T, s *site.Site) *nbdclient.Client {
	t.Helper()
	c, err := s.Dial(t.Context())
	ok(t, err)
	t.Cleanup(func() { c.Close() })
	return c
}

// checksum is the sha256 of the site's whole export.
func checksum(t *testing.T, s *site.Site) string {
	t.Helper()
	c := dial(t, s)
	defer c.Close()
	h := sha256.New()
	ok(t, c.Sum(h))
	return hex.EncodeToString(h.Sum(nil))
}

// run runs a third-party program, bounded in time, and returns its output.
func run(t *testing.T, program string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	out, err := site.Run(ctx, program, args...)
	ok(t, err)
	return out
}

// file writes data to a file of that name in a directory of the test's.
func file(t *testing.T, name string, data []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	ok(t, os.WriteFile(path, data, 0o600))
	return path
}

// sameFile compares a file with data.
func sameFile(t *testing.T, path string, data []byte) {
	t.Helper()
	got, err := os.ReadFile(path)
	ok(t, err)
	if !bytes.Equal(got, data) {
		t.Errorf("%s came back changed", path)
	}
}
