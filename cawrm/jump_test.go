package cawrm_test

import (
	"testing"
	"testing/synctest"

	"cawrm/aodi"
	"cawrm/cawrm"
)

// rewrite writes chunks [0, n) over and over, and lets the source forget what was superseded.
func rewrite(t testing.TB, v *aodi.Volume, n int64, times int) {
	t.Helper()
	for k := range times {
		for i := range n {
			write(t, v, i, uint64(k)<<32|uint64(i)+1)
		}
		check(t, v.Checkpoint())
	}
}

// TestOutageShipsEachChunkOnce ensures that what was rewritten 20 times while the link was down crosses it once.
func TestOutageShipsEachChunkOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		v := newSource(t, 4096)
		s := newSite(t, n, newMirror(t))
		m := startMirror(t, v, mirrorConfig(n))
		rewrite(t, v, 4096, 1)
		synced(t, v, m)
		n.set(func(n *network) { n.forward, n.back = 0, 0 })
		n.cut()
		const hot = 512
		rewrite(t, v, hot, 20)
		check(t, v.Flush())
		stateIs(t, m, cawrm.StateDown, "")
		before := n.carried()
		n.set(func(n *network) { n.forward, n.back = -1, -1 })
		synced(t, v, m)
		sameContent(t, v, s.v)
		if sent, most := n.carried()-before, int64(hot*chunk*102/100); sent > most {
			t.Errorf("%d bytes crossed the link, 1.02 of what is new are %d", sent, most)
		}
	})
}

// TestMirrorOfForgottenLog ensures that a mirror which comes when the log is not complete any more gets all of the content
// and nothing twice.
func TestMirrorOfForgottenLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		v := newSource(t, 1024)
		rewrite(t, v, 1024, 12)
		check(t, v.Trim(100*chunk, 300*chunk, true))
		if v.HistoryFloor() == 0 {
			t.Fatal("nothing was forgotten")
		}
		s := newSite(t, n, newMirror(t))
		m := startMirror(t, v, mirrorConfig(n))
		synced(t, v, m)
		sameContent(t, v, s.v)
		if sent, most := n.carried(), int64(724*chunk*102/100); sent > most {
			t.Errorf("%d bytes crossed the link, 1.02 of the content are %d", sent, most)
		}
		if a, b := v.Status().UsedBytes, s.v.Status().UsedBytes; a != b {
			t.Errorf("%d bytes used at the source, %d at the mirror", a, b)
		}
	})
}

// TestJumpGoesOnAfterCuts ensures that a jump epoch which is cut again and again goes on where it stopped, while the mirror
// keeps showing what it had, and while the source is written to.
func TestJumpGoesOnAfterCuts(t *testing.T) {
	rng := newRand(seedOf(t))
	n := newNetwork()
	v := newSource(t, 4096)
	s := newSite(t, n, newMirror(t))
	rewrite(t, v, 4096, 2)
	m := startMirror(t, v, mirrorConfig(n))
	written, cuts := int64(0), int64(0)
	for m.Status().LagRecords > 0 && cuts < 20 {
		target := n.carried() + rng.Int64N(3<<20)
		eventually(t, "bytes on the link", func() bool { return n.carried() >= target || m.Status().State == cawrm.StateSynced }, func() any { return m.Status() })
		n.cut()
		cuts++
		for range 8 {
			write(t, v, rng.Int64N(4096), uint64(cuts)<<40|uint64(written))
			written++
		}
		check(t, v.Flush())
	}
	synced(t, v, m)
	sameContent(t, v, s.v)
	const ahead = 4 << 20 // frames on their way, and their buffers
	if sent, most := n.carried(), 4096*chunk*102/100+2*written*chunk+cuts*ahead; sent > most {
		t.Errorf("%d bytes crossed the link in %d cuts, at most %d should", sent, cuts, most)
	}
	t.Logf("%d cuts, %d bytes for %d of content", cuts, n.carried(), 4096*chunk)
}
