package cawrm_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"cawrm/aodi"
	"cawrm/cawrm"
)

func snapshot(t testing.TB, v *aodi.Volume, name string) aodi.SnapshotInfo {
	t.Helper()
	s, err := v.CreateSnapshot(name)
	check(t, err)
	return s
}

// snapContent is what a snapshot holds.
func snapContent(t testing.TB, v *aodi.Volume, name string) []byte {
	t.Helper()
	w, err := v.OpenView(name)
	check(t, err)
	defer w.Close()
	b := make([]byte, w.Size())
	check(t, w.ReadAt(b, 0))
	return b
}

func names(v *aodi.Volume) string {
	var all []string
	for _, s := range v.Snapshots() {
		all = append(all, s.Name)
	}
	return strings.Join(all, " ")
}

// sameSnapshots compares names, positions, times and content; the last names of the mirror come soon.
func sameSnapshots(t testing.TB, a, b *aodi.Volume) {
	t.Helper()
	eventually(t, "the same snapshots", func() bool { return names(a) == names(b) }, func() any { return names(a) + " / " + names(b) })
	sa, sb := a.Snapshots(), b.Snapshots()
	for i, s := range sa {
		if m := sb[i]; m.Position != s.Position || !m.Time.Equal(s.Time) || m.Size != s.Size || m.UsedBytes != s.UsedBytes {
			t.Fatalf("the source has %+v, the mirror %+v", s, m)
		}
		if !bytes.Equal(snapContent(t, a, s.Name), snapContent(t, b, s.Name)) {
			t.Fatalf("snapshot %s differs", s.Name)
		}
	}
}

// TestSnapshotsAreMirrored ensures that snapshots of the source come to a mirror, and to the mirror's mirror, by name, at the
// same cut: those that are made while the link is up, while it is down, and those that an empty mirror lacks.
func TestSnapshotsAreMirrored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rng := newRand(seedOf(t))
		n, far := newNetwork(), newNetwork()
		v := newSource(t, 512)
		snapshot(t, v, "empty")
		change := func(k int) {
			for range k {
				write(t, v, rng.Int64N(512), rng.Uint64())
				if rng.IntN(8) == 0 {
					check(t, v.Trim(rng.Int64N(500)*chunk, 12*chunk, false))
				}
			}
		}
		for i, k := range []int{700, 0, 10, 900, 100, 400} { // some more than a jump begins with, some less
			change(k)
			snapshot(t, v, fmt.Sprint("early", i))
		}
		change(500)
		b, c := newSite(t, n, newMirror(t)), newSite(t, far, newMirror(t))
		m := startMirror(t, v, mirrorConfig(n))
		startMirror(t, b.v, mirrorConfig(far))
		synced(t, v, m)
		sameSnapshots(t, v, b.v)
		for i := range 30 {
			change(rng.IntN(20))
			snapshot(t, v, fmt.Sprint("live", i))
			change(rng.IntN(20))
			switch rng.IntN(6) {
			case 0:
				n.cut()
			case 1:
				far.cut()
			case 2:
				time.Sleep(time.Second)
			}
		}
		synced(t, v, m)
		sameSnapshots(t, v, b.v)
		sameSnapshots(t, v, c.v)
		sameContent(t, v, c.v)
	})
}

// TestSnapshotsWithoutHistory ensures that a mirror gets the snapshots that lie below history_floor: each of them holds all
// that it needs.
func TestSnapshotsWithoutHistory(t *testing.T) {
	v := newSource(t, 64)
	for i := range 24 {
		for lba := range int64(64) {
			for k := range 6 {
				write(t, v, lba, uint64(i*1000+k*100)+uint64(lba))
			}
		}
		check(t, v.Checkpoint())
		if i%8 == 3 {
			snapshot(t, v, fmt.Sprint("s", i))
		}
	}
	check(t, v.Checkpoint())
	if v.HistoryFloor() <= v.Snapshots()[1].Position {
		t.Fatalf("history_floor is %d, not above %d", v.HistoryFloor(), v.Snapshots()[1].Position)
	}
	n := newNetwork()
	s := newSite(t, n, newMirror(t))
	synced(t, v, startMirror(t, v, mirrorConfig(n)))
	sameSnapshots(t, v, s.v)
	sameContent(t, v, s.v)
}

// TestSnapshotDeletedAtSource ensures that deleting at the source leaves the mirror's, and that the mirror's own stay.
func TestSnapshotDeletedAtSource(t *testing.T) {
	n := newNetwork()
	v := newSource(t, 64)
	s := newSite(t, n, newMirror(t))
	cfg, said := mirrorConfig(n), &logs{}
	cfg.Logger = said.logger()
	m := startMirror(t, v, cfg)
	write(t, v, 1, 1)
	snapshot(t, v, "a")
	synced(t, v, m)
	sameSnapshots(t, v, s.v)
	snapshot(t, s.v, "local")
	check(t, v.DeleteSnapshot("a"))
	write(t, v, 2, 2)
	snapshot(t, v, "b")
	synced(t, v, m)
	eventually(t, "b is there", func() bool { return strings.Contains(said.String(), "snapshot=b") }, func() any { return names(s.v) })
	if got := names(s.v); got != "a local b" {
		t.Fatalf("the mirror has %s", got)
	}

	// One that was deleted on the mirror is not made again because the link came back.
	check(t, s.v.DeleteSnapshot("b"))
	n.cut()
	stateIs(t, m, cawrm.StateSynced, "")
	write(t, v, 3, 3)
	synced(t, v, m)
	if got := names(s.v); got != "a local" {
		t.Fatalf("the mirror has %s", got)
	}
}

// TestSnapshotNameTaken ensures that a name which the mirror has given itself is left alone, said, and that mirroring goes on.
func TestSnapshotNameTaken(t *testing.T) {
	n := newNetwork()
	v := newSource(t, 64)
	s := newSite(t, n, newMirror(t))
	m := startMirror(t, v, mirrorConfig(n))
	write(t, v, 1, 1)
	synced(t, v, m)
	mine := snapshot(t, s.v, "monday")
	write(t, v, 2, 2)
	snapshot(t, v, "monday")
	write(t, v, 3, 3)
	synced(t, v, m)
	if got := s.v.Snapshots(); len(got) != 1 || got[0].Position != mine.Position {
		t.Fatalf("the mirror has %+v", got)
	}
	if st := m.Status(); !strings.Contains(st.Declined, "@monday") || !strings.Contains(st.Declined, "there is a snapshot of that name") {
		t.Fatalf("the status says %q", st.Declined)
	}
	sameContent(t, v, s.v)
	snapshot(t, v, "tuesday")
	eventually(t, "tuesday", func() bool { return names(s.v) == "monday tuesday" }, func() any { return names(s.v) })
	eventually(t, "the status is well again", func() bool { return m.Status().Declined == "" }, func() any { return m.Status() })
}

// TestSnapshotCutAtEveryByte cuts the link after each byte in which a snapshot comes over. It must be there afterwards, once,
// at its position.
func TestSnapshotCutAtEveryByte(t *testing.T) {
	for _, way := range []struct {
		name string
		set  func(n *network, bytes int64)
		last int64
	}{
		{"forward", func(n *network, b int64) { n.forward = b }, 16 + 24 + 8 + 16 + 32 + 24 + chunk + 20},
		{"back", func(n *network, b int64) { n.back = b }, 100},
	} {
		t.Run(way.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newNetwork()
				v := newSource(t, 64)
				s := newSite(t, n, newMirror(t))
				m := startMirror(t, v, mirrorConfig(n))
				write(t, v, 0, 1)
				synced(t, v, m)
				step := int64(1)
				if testing.Short() || way.name == "forward" {
					step = 29
				}
				for i := int64(0); i < way.last; i += step {
					n.set(func(n *network) { way.set(n, i) })
					write(t, v, i%64, uint64(i)<<8)
					snapshot(t, v, fmt.Sprint(way.name, i))
					write(t, v, (i+1)%64, uint64(i)<<8+1)
					check(t, v.Flush())
					time.Sleep(10 * time.Millisecond)
					n.set(func(n *network) { n.forward, n.back = -1, -1 })
					synced(t, v, m)
				}
				sameSnapshots(t, v, s.v)
			})
		})
	}
}

// TestSnapshotsSurviveRestarts restarts either side between snapshots: each comes once, none is missing.
func TestSnapshotsSurviveRestarts(t *testing.T) {
	rng := newRand(seedOf(t))
	n := newNetwork()
	dv, dm := newDisk(t, aodi.CreateOptions{Size: 256 * chunk}), newDisk(t, aodi.CreateOptions{Mirror: true})
	v, mv := openVolume(t, dv, aodi.Options{}), openVolume(t, dm, aodi.Options{})
	s, m := newSite(t, n, mv), startMirror(t, v, mirrorConfig(n))
	for i := range 40 {
		write(t, v, rng.Int64N(256), rng.Uint64())
		snapshot(t, v, fmt.Sprint("s", i))
		time.Sleep(time.Duration(rng.IntN(3000)) * time.Microsecond)
		switch rng.IntN(4) {
		case 0:
			m.Close()
			check(t, v.Close())
			v = openVolume(t, dv, aodi.Options{})
			m = startMirror(t, v, mirrorConfig(n))
		case 1:
			s.close(t)
			check(t, mv.Close())
			mv = openVolume(t, dm, aodi.Options{})
			s = newSite(t, n, mv)
		}
	}
	synced(t, v, m)
	sameSnapshots(t, v, mv)
}
