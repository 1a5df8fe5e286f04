package cawrm_test

import (
	"bytes"
	"testing"
	"testing/synctest"
	"time"

	"cawrm/aodi"
	"cawrm/cawrm"
)

// TestCutAtEveryByte cuts a short session after each of its bytes, in both directions: handshake, records, and what is
// answered. After each cut the link heals, and the mirror must hold what the source does, without a byte of what it
// had before being sent again.
func TestCutAtEveryByte(t *testing.T) {
	for _, way := range []struct {
		name string
		set  func(n *network, bytes int64)
		last int64
	}{
		{"forward", func(n *network, b int64) { n.forward = b }, 150 + 16 + 48 + 24 + chunk},
		{"back", func(n *network, b int64) { n.back = b }, 120 + 24},
	} {
		t.Run(way.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				step := int64(1)
				if testing.Short() {
					step = 13
				}
				n := newNetwork()
				v := newSource(t, 64)
				s := newSite(t, n, newMirror(t))
				for i := int64(0); i < way.last; i += step {
					n.set(func(n *network) { way.set(n, i) })
					m := startMirror(t, v, mirrorConfig(n))
					before := n.carried()
					write(t, v, i%64, uint64(i)<<8)
					check(t, v.Trim((i+7)%64*chunk, chunk, false))
					check(t, v.Flush())
					time.Sleep(10 * time.Millisecond)
					n.set(func(n *network) { n.forward, n.back = -1, -1 })
					synced(t, v, m)
					if sent := n.carried() - before; sent > 2*(chunk+500) {
						t.Fatalf("cut at %d: %d bytes went over the wire for one chunk", i, sent)
					}
					m.Close()
					for _, lba := range []int64{i % 64, (i + 7) % 64} {
						a, b := make([]byte, chunk), make([]byte, chunk)
						check(t, v.ReadAt(a, lba*chunk))
						check(t, s.v.ReadAt(b, lba*chunk))
						if !bytes.Equal(a, b) {
							t.Fatalf("cut at %d: chunk %d is %s, the mirror has %s", i, lba, stampOf(a), stampOf(b))
						}
					}
				}
				sameContent(t, v, s.v)
			})
		})
	}
}

// TestCutsInTransfer cuts a long transfer at random moments. What is sent twice is at most what was in flight.
func TestCutsInTransfer(t *testing.T) {
	rng := newRand(seedOf(t))
	n := newNetwork()
	v := newSource(t, 4096)
	s := newSite(t, n, newMirror(t))
	cfg := mirrorConfig(n)
	cfg.Window = 512 << 10
	m := startMirror(t, v, cfg)
	const records, cuts = 6000, 10
	for i := range int64(records) {
		write(t, v, rng.Int64N(4096), uint64(i))
		if i%(records/cuts) == records/cuts-1 {
			check(t, v.Flush())
			time.Sleep(time.Duration(rng.IntN(5000)) * time.Microsecond)
			n.cut()
		}
	}
	synced(t, v, m)
	sameContent(t, v, s.v)
	once := int64(records * (chunk + 40))
	if again := m.Status().SentBytes - once; again > cuts*(cfg.Window+2<<20) {
		t.Errorf("%d bytes were sent again after %d cuts with a window of %d", again, cuts, cfg.Window)
	}
	if st := m.Status(); st.LastError == "" || st.State != cawrm.StateSynced {
		t.Errorf("after the cuts: %+v", st)
	}
}

// TestStagedEpochsAreKept: whole epochs that had arrived when the link broke are committed, not asked for again.
func TestStagedEpochsAreKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		v := newSource(t, 64)
		var slow slowSync
		slow.Disk = newDisk(t, aodi.CreateOptions{Mirror: true})
		s := newSite(t, n, openVolume(t, &slow, aodi.Options{}))
		m := startMirror(t, v, mirrorConfig(n))
		write(t, v, 0, 1)
		synced(t, v, m)
		slow.wait.Store(int64(5 * time.Second))
		for i := range int64(20) { // each an epoch of its own
			write(t, v, i, uint64(i)+100)
			check(t, v.Flush())
			time.Sleep(time.Millisecond)
		}
		before := n.carried()
		n.cut()
		slow.wait.Store(0)
		synced(t, v, m)
		if again := n.carried() - before; again > chunk {
			t.Errorf("%d bytes were sent again of epochs that had arrived", again)
		}
		sameContent(t, v, s.v)
	})
}
