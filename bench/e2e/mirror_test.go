package e2e

import (
	"bytes"
	"context"
	"math/rand/v2"
	"net"
	"strings"
	"testing"
	"time"

	"cawrm/bench/internal/nbdclient"
	"cawrm/bench/internal/site"
	"cawrm/wan"
)

// frameShare bounds what the wire adds to data that does not compress:
// headers, checksums, and what the handshakes say. A sixteenth is generous.
const frameShare = 16

// A volume of 1 GiB with data, mirrored over a line that is cut ten times at
// random bytes, ends byte-identical, and nothing crosses the line twice but
// what was in flight at a cut.
func TestMirrorSurvivesTenCutsOfTheLink(t *testing.T) {
	const cuts, data = 10, 160 << 20
	s := seed(t)
	rng := rand.New(rand.NewPCG(s, 0))
	w := newPair(t, "1G", wan.Profile{Name: "cut", Delay: 5 * time.Millisecond, Rate: 40_000_000, Seed: s})
	w.synced(t)

	c := dial(t, w.source)
	blob := noise(data, s)
	next := int64(rng.IntN(data/cuts)) + 1
	w.link.CutAfter(wan.ToTarget, next)
	written := make(chan error, 1)
	go func() { written <- spread(c, blob) }()
	before := w.link.Counters()
	for i := range cuts {
		waitCuts(t, w.link, before.Cuts+int64(i)+1)
		time.Sleep(time.Duration(rng.IntN(100)) * time.Millisecond)
		w.link.Heal()
		if i+1 < cuts {
			next = int64(rng.IntN(data/cuts)) + 1
			w.link.CutAfter(wan.ToTarget, next)
		}
	}
	ok(t, <-written)
	ok(t, c.Flush())
	w.synced(t)
	w.identical(t)

	n := w.link.Counters()
	// In flight at a cut: what the line and its queue hold, and the socket
	// buffers on both sides of the relay.
	const inFlight = 4 << 20
	limit := int64(data + data/frameShare + cuts*inFlight)
	t.Logf("%d MiB of data, %d bytes crossed the line, %d cuts, %d connections", data>>20, n.ToTarget, n.Cuts, n.Connections)
	if n.ToTarget < data {
		t.Errorf("%d bytes crossed the line for %d of incompressible data: was it mirrored over it?", n.ToTarget, data)
	}
	if n.ToTarget > limit {
		t.Errorf("%d bytes crossed the line, want at most %d", n.ToTarget, limit)
	}
	w.closed(t)
}

// spread writes blob in pieces of 64 KiB all over the volume.
func spread(c *nbdclient.Client, blob []byte) error {
	const piece = 64 << 10
	pieces := len(blob) / piece
	stride := c.Size() / int64(pieces) / piece * piece
	done := make(chan *nbdclient.Request, pieces)
	var first error
	out := 0
	take := func() {
		if r := <-done; r.Err != nil && first == nil {
			first = r.Err
		}
		out--
	}
	for i := range pieces {
		for out >= 16 {
			take()
		}
		c.Start(&nbdclient.Request{Command: nbdclient.Write, Offset: int64(i) * stride, Data: blob[i*piece : (i+1)*piece], Done: done})
		out++
	}
	for out > 0 {
		take()
	}
	return first
}

func waitCuts(t *testing.T, l *wan.Link, n int64) {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); l.Counters().Cuts < n; {
		if time.Now().After(deadline) {
			t.Fatalf("cut %d did not happen, the line is at %+v: the source sends nothing", n, l.Counters())
		}
		time.Sleep(time.Millisecond)
	}
}

// Data that was there before the mirror comes over by the same loop.
func TestMirrorCatchesUpWithAnOldVolume(t *testing.T) {
	w := newPair(t, "64M", wan.Profile{})
	w.link.Cut()
	c := dial(t, w.source)
	ok(t, spread(c, noise(16<<20, 4)))
	ok(t, c.Trim(0, 1<<20, 0))
	ok(t, c.Flush())
	v, err := w.source.Status(t.Context())
	ok(t, err)
	if v.Synced() {
		t.Fatalf("the mirror is said to be synced over a line that is cut: %+v", v)
	}
	w.link.Heal()
	w.synced(t)
	w.identical(t)
	w.closed(t)
}

func TestLagGrowsWhileTheLinkIsDown(t *testing.T) {
	w := newPair(t, "64M", wan.Profile{})
	w.synced(t)
	w.link.Cut()
	c := dial(t, w.source)
	ok(t, c.Write(0, noise(1<<20, 5), nbdclient.FUA))
	var last float64
	for _, least := range []float64{0.05, 0.5} {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		err := w.source.Wait(ctx, "to lag", func(v site.Volume) bool {
			m := v.Mirrors[0]
			last = m.LagSeconds
			return m.State == "down" && m.LagSeconds >= least && m.LagBytes >= 1<<20 && m.LagRecords > 0 && m.LastError != ""
		})
		cancel()
		ok(t, err)
	}
	w.link.Heal()
	w.synced(t)
	v, err := w.source.Status(t.Context())
	ok(t, err)
	if m := v.Mirrors[0]; m.LagSeconds != 0 || m.LagBytes != 0 || m.LagRecords != 0 || v.DurablePtr != v.EndPtr {
		t.Errorf("synced, but the lag is %+v (it was %.2f s)", m, last)
	}
}

// A restart of either daemon or both sends again only what was in flight.
func TestRestartsNeverCopyAll(t *testing.T) {
	const data = 48 << 20
	w := newPair(t, "128M", wan.Profile{Delay: time.Millisecond, Rate: 100_000_000})
	ok(t, spread(dial(t, w.source), noise(data, 6)))
	ok(t, dial(t, w.source).Flush())
	w.synced(t)
	for _, c := range []struct {
		name    string
		restart func()
	}{
		{"the mirror is stopped and started", func() {
			ok(t, w.mirror.Stop())
			ok(t, w.mirror.Start(t.Context()))
		}},
		{"the mirror is killed and started", func() {
			w.mirror.Kill()
			ok(t, w.mirror.Start(t.Context()))
		}},
		{"the source is stopped and started", func() {
			ok(t, w.source.Stop())
			ok(t, w.source.Start(t.Context()))
		}},
		{"the source is killed and started", func() {
			w.source.Kill()
			ok(t, w.source.Start(t.Context()))
		}},
		{"both are killed and started", func() {
			w.source.Kill()
			w.mirror.Kill()
			ok(t, w.mirror.Start(t.Context()))
			ok(t, w.source.Start(t.Context()))
		}},
	} {
		before := w.link.Counters().ToTarget
		c.restart()
		const more = 1 << 20
		cl := dial(t, w.source)
		ok(t, cl.Write(int64(rand.IntN(100))<<20, noise(more, uint64(before)), nbdclient.FUA))
		w.synced(t)
		w.identical(t)
		if sent := w.link.Counters().ToTarget - before; sent < more || sent > more+8<<20 {
			t.Errorf("%s: %d bytes crossed the line for %d written", c.name, sent, more)
		}
	}
	w.closed(t)
}

// A stalled line keeps its connections open and says nothing: the source must
// notice by itself, and go on when the line does.
func TestStalledLinkIsNoticedAndRecovers(t *testing.T) {
	w := newPair(t, "64M", wan.Profile{Delay: time.Millisecond})
	w.synced(t)
	w.link.Stall(true)
	c := dial(t, w.source)
	ok(t, c.Write(0, noise(4<<20, 7), nbdclient.FUA))
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	ok(t, w.source.Wait(ctx, "to notice the stall", func(v site.Volume) bool {
		return v.Mirrors[0].State != "synced" && v.Mirrors[0].State != "syncing" && v.Mirrors[0].LastError != ""
	}))
	w.link.Stall(false)
	w.synced(t)
	w.identical(t)
}

func TestMirrorIsReadOnly(t *testing.T) {
	w := newPair(t, "16M", wan.Profile{})
	data := noise(1<<20, 8)
	ok(t, dial(t, w.source).Write(4096, data, nbdclient.FUA))
	w.synced(t)
	m := dial(t, w.mirror)
	if m.Flags()&nbdclient.ReadOnly == 0 {
		t.Error("the mirror's export is not said to be read-only")
	}
	for what, err := range map[string]error{
		"write":        m.Write(0, make([]byte, 4096), 0),
		"trim":         m.Trim(0, 4096, 0),
		"write zeroes": m.WriteZeroes(0, 4096, 0),
	} {
		if err != nbdclient.EPERM {
			t.Errorf("%s on the mirror: %v, want EPERM", what, err)
		}
	}
	got := make([]byte, len(data))
	ok(t, m.Read(4096, got))
	if !bytes.Equal(got, data) {
		t.Error("the mirror's content differs")
	}
}

// lastError waits until the mirror is down for a reason, and returns it.
func lastError(t *testing.T, s *site.Site) (reason string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	ok(t, s.Wait(ctx, "to be refused", func(v site.Volume) bool {
		reason = v.Mirrors[0].LastError
		return v.Mirrors[0].State != "synced" && reason != ""
	}))
	return reason
}

// A mirror that belongs to another volume keeps what it has, and both sides
// say why nothing comes.
func TestMirrorOfAnotherVolumeIsRefused(t *testing.T) {
	w := newPair(t, "16M", wan.Profile{})
	ok(t, dial(t, w.source).Write(0, noise(1<<20, 9), nbdclient.FUA))
	w.synced(t)
	want := checksum(t, w.mirror)
	w.link.Cut()

	other := newSite(t, "other source")
	other.Mirrors = []string{site.MirrorURL(w.mirror.Peer, "vol")}
	ok(t, other.Create("16M"))
	ok(t, other.Start(t.Context()))
	ok(t, dial(t, other).Write(0, noise(1<<20, 10), nbdclient.FUA))
	t.Logf("the other source says: %s", lastError(t, other))
	if got := checksum(t, w.mirror); got != want {
		t.Error("the mirror took data of another volume")
	}
	if log := w.mirror.Log(); !strings.Contains(log, "refus") && !strings.Contains(log, "another volume") {
		t.Errorf("the mirror's log does not say that it refused a source:\n%s", log)
	}
	w.link.Heal()
	w.synced(t)
	w.identical(t)
}

// Whatever else may listen where a mirror should be: a clear reason, and the
// volume goes on.
func TestGarbageInPlaceOfAPeer(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	ok(t, err)
	defer ln.Close()
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			c.Write([]byte("SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u3\r\n"))
			c.Read(make([]byte, 4096))
			c.Close()
		}
	}()
	s := newSite(t, "source")
	s.Mirrors = []string{site.MirrorURL(ln.Addr().String(), "vol")}
	ok(t, s.Create("16M"))
	ok(t, s.Start(t.Context()))
	t.Logf("the source says: %s", lastError(t, s))
	c := dial(t, s)
	ok(t, c.Write(0, noise(1<<20, 11), nbdclient.FUA))
}

// Whatever a stranger sends to a peer's port, the mirror goes on.
func TestGarbageFromASource(t *testing.T) {
	w := newPair(t, "16M", wan.Profile{})
	w.synced(t)
	for i, garbage := range [][]byte{[]byte("GET / HTTP/1.1\r\n\r\n"), noise(1<<20, 12), bytes.Repeat([]byte{0xff}, 64)} {
		c, err := net.Dial("tcp", w.mirror.Peer)
		ok(t, err)
		c.Write(garbage)
		c.(*net.TCPConn).CloseWrite()
		c.SetReadDeadline(time.Now().Add(time.Minute))
		for buf := make([]byte, 4096); ; {
			if _, err := c.Read(buf); err != nil {
				if e, isNet := err.(net.Error); isNet && e.Timeout() {
					t.Errorf("garbage %d: the peer neither answers nor hangs up", i)
				}
				break
			}
		}
		c.Close()
	}
	ok(t, dial(t, w.source).Write(0, noise(1<<20, 13), nbdclient.FUA))
	w.synced(t)
	w.identical(t)
}

func TestTwoDaemonsCannotOpenOneContainer(t *testing.T) {
	s := volume(t, "16M")
	other, err := site.New(bin, dir(t), "vol")
	ok(t, err)
	out, err := other.Run("serve", s.Path, "--name", "vol", "--nbd", other.NBD, "--control", other.Control)
	if err == nil || !strings.Contains(out, s.Path) {
		t.Errorf("a second daemon on one container: %v, want an error that names the file", err)
	}
	ok(t, dial(t, s).Flush())
}
