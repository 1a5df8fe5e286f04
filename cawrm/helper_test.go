package cawrm_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"cawrm/aodi"
	"cawrm/aodi/disk"
	"cawrm/aodi/format"
	"cawrm/cawrm"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	chunk     = 4096
	diskLimit = 64 << 20
)

// seedOf is SEED, or the clock; it is printed when the test fails.
func seedOf(t *testing.T) uint64 {
	seed := uint64(time.Now().UnixNano())
	if s, err := strconv.ParseUint(os.Getenv("SEED"), 10, 64); err == nil {
		seed = s
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("to replay: SEED=%d", seed)
		}
	})
	return seed
}

func newRand(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 1)) }

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func newDisk(t testing.TB, opt aodi.CreateOptions) *disk.Memory {
	t.Helper()
	d := disk.NewMemory(diskLimit)
	t.Cleanup(d.Free)
	opt.SegmentChunks = 256
	check(t, aodi.CreateOn(d, opt))
	return d
}

func openVolume(t testing.TB, d disk.Disk, opt aodi.Options) *aodi.Volume {
	t.Helper()
	v, err := aodi.OpenOn(d, opt)
	check(t, err)
	t.Cleanup(func() { v.Close() })
	return v
}

func newSource(t testing.TB, chunks int64) *aodi.Volume {
	t.Helper()
	return openVolume(t, newDisk(t, aodi.CreateOptions{Size: chunks * chunk}), aodi.Options{})
}

func newMirror(t testing.TB) *aodi.Volume {
	t.Helper()
	return openVolume(t, newDisk(t, aodi.CreateOptions{Mirror: true}), aodi.Options{})
}

// logs collects log lines, for the messages.
type logs struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logs) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

func (l *logs) logger() *slog.Logger {
	var w io.Writer = l
	if os.Getenv("VERBOSE") != "" {
		w = io.MultiWriter(l, os.Stderr)
	}
	return slog.New(slog.NewTextHandler(w, nil))
}

// site is a peer with one volume, "vm", behind a network.
type site struct {
	net  *network
	peer *cawrm.Peer
	v    *aodi.Volume
	logs *logs
	done chan error
}

func newSite(t testing.TB, n *network, v *aodi.Volume) *site {
	t.Helper()
	s := &site{net: n, v: v, logs: &logs{}, done: make(chan error, 1)}
	s.peer = cawrm.NewPeer(cawrm.PeerConfig{Name: "siteB", Logger: s.logs.logger()})
	check(t, s.peer.AddVolume("vm", v))
	go func() { s.done <- s.peer.Serve(listener(n)) }()
	t.Cleanup(func() { s.close(t) })
	return s
}

// listener is a net.Listener that can be closed apart from the network.
func listener(n *network) net.Listener { return &memListener{n: n, closed: make(chan struct{})} }

type memListener struct {
	n      *network
	once   sync.Once
	closed chan struct{}
}

func (l *memListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.n.arrive:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}
func (l *memListener) Close() error   { l.once.Do(func() { close(l.closed) }); return nil }
func (l *memListener) Addr() net.Addr { return memAddr("peer") }

func (s *site) close(t testing.TB) {
	if s.done == nil {
		return
	}
	s.peer.Close()
	check(t, <-s.done)
	s.done = nil
}

func mirrorConfig(n *network) cawrm.MirrorConfig {
	return cawrm.MirrorConfig{ID: "b", URL: "cawrm://peer/vm", Dial: n.dial}
}

// uncompressed is for tests that count bytes on the wire.
func uncompressed(cfg cawrm.MirrorConfig) cawrm.MirrorConfig {
	cfg.URL += "?compress=off"
	return cfg
}

func startMirror(t testing.TB, v *aodi.Volume, cfg cawrm.MirrorConfig) *cawrm.Mirror {
	t.Helper()
	if cfg.Logger == nil {
		cfg.Logger = (&logs{}).logger()
	}
	m, err := cawrm.Start(v, cfg)
	check(t, err)
	t.Cleanup(m.Close)
	return m
}

const patience = 30 * time.Second

// eventually waits for a condition, in virtual or real time.
func eventually(t testing.TB, what string, cond func() bool, state func() any) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for wait := 100 * time.Microsecond; !cond(); wait = min(2*wait, 20*time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %v; now %+v", what, patience, state())
		}
		time.Sleep(wait)
	}
}

// synced waits until the mirror lacks nothing.
func synced(t testing.TB, v *aodi.Volume, m *cawrm.Mirror) {
	t.Helper()
	check(t, v.Flush())
	eventually(t, "synced", func() bool {
		st := m.Status()
		return st.State == cawrm.StateSynced && st.LagRecords == 0
	}, func() any { return m.Status() })
}

func stateIs(t testing.TB, m *cawrm.Mirror, want cawrm.State, reason string) {
	t.Helper()
	eventually(t, fmt.Sprintf("%s because of %q", want, reason), func() bool {
		st := m.Status()
		return st.State == want && strings.Contains(st.Reason, reason)
	}, func() any { return m.Status() })
}

func content(t testing.TB, v *aodi.Volume) []byte {
	t.Helper()
	b := make([]byte, v.Size())
	check(t, v.ReadAt(b, 0))
	return b
}

// sameContent compares two volumes byte by byte.
func sameContent(t testing.TB, a, b *aodi.Volume) {
	t.Helper()
	x, y := content(t, a), content(t, b)
	if len(x) != len(y) {
		t.Fatalf("the source has %d bytes, the mirror %d", len(x), len(y))
	}
	for i := 0; i < len(x); i += chunk {
		if !bytes.Equal(x[i:i+chunk], y[i:i+chunk]) {
			t.Fatalf("chunk %d differs: source %s, mirror %s", i/chunk, stampOf(x[i:]), stampOf(y[i:]))
		}
	}
}

// stamped is a chunk that says who it is, in each of its sectors.
func stamped(stamp uint64) []byte {
	b := make([]byte, chunk)
	for i := 0; i < chunk; i += 8 {
		binary.LittleEndian.PutUint64(b[i:], stamp)
	}
	return b
}

func stampOf(b []byte) string { return fmt.Sprintf("%#x", binary.LittleEndian.Uint64(b)) }

func write(t testing.TB, v *aodi.Volume, lba int64, stamp uint64) {
	t.Helper()
	check(t, v.WriteAt(stamped(stamp), lba*chunk, false))
}

func uuid(b byte) (u format.UUID) { u[0] = b; return u }
