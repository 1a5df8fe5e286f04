package cawrm_test

import (
	"bytes"
	"context"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"cawrm/aodi"
	"cawrm/aodi/disk"
	"cawrm/cawrm"
)

// TestGrowIsMirrored ensures that a mirror, and a mirror of that, become as large as the source, at the place in its log where that
// did: a snapshot from before has the old size at all of them. Once in the order of the log, once by a jump, as the mirror was away.
func TestGrowIsMirrored(t *testing.T) {
	n, n2 := newNetwork(), newNetwork()
	v, mirror, last := newSource(t, 64), newMirror(t), newMirror(t)
	newSite(t, n, mirror)
	newSite(t, n2, last)
	cfg := mirrorConfig(n)
	m := startMirror(t, v, cfg)
	synced(t, v, m) // else the mirror, which does not know itself yet, is asked again after some seconds
	m2 := startMirror(t, mirror, mirrorConfig(n2))
	all := func(size int64) {
		t.Helper()
		synced(t, v, m)
		end, _ := v.Pointers()
		eventually(t, "the last mirror has all", func() bool { at, _ := last.Pointers(); return at == end }, func() any { return m2.Status() })
		for _, x := range []*aodi.Volume{v, mirror, last} {
			if x.Size() != size*chunk {
				t.Fatalf("%d bytes, not %d chunks", x.Size(), size)
			}
		}
		sameContent(t, v, mirror)
		sameContent(t, v, last)
	}
	write(t, v, 1, 1)
	all(64)
	snapshot(t, v, "small")
	check(t, v.Resize(600*chunk))
	write(t, v, 599, 2)
	all(600)
	m.Close()
	write(t, v, 2, 3)
	snapshot(t, v, "between")
	check(t, v.Resize(900*chunk))
	for i := range int64(800) {
		write(t, v, 899-i, uint64(i+10)) // far more than what is sent in order
	}
	m = startMirror(t, v, cfg)
	all(900)
	result, err := m.Verify(context.Background(), false, func(int64, int64) {})
	check(t, err)
	if !result.OK() || result.Size != 900*chunk {
		t.Errorf("%+v", result)
	}
	for _, x := range []*aodi.Volume{v, mirror, last} {
		for i, s := range x.Snapshots() {
			if want := []int64{64, 600}[i] * chunk; s.Size != want {
				t.Errorf("snapshot %s has %d bytes, not %d", s.Name, s.Size, want)
			}
		}
		if len(x.Snapshots()) != 2 {
			t.Errorf("%d snapshots", len(x.Snapshots()))
		}
	}
}

// TestSizeThatIsLost ensures that an empty mirror does not take a size that its source can still lose, which would be refused ever after.
func TestSizeThatIsLost(t *testing.T) {
	n := newNetwork()
	d := newDisk(t, aodi.CreateOptions{Size: 64 * chunk})
	var failing atomic.Bool
	v := openVolume(t, &disk.Faulty{Disk: d, Rule: func(op disk.Op, _ int64, _ int) error {
		if op == disk.OpSync && failing.Load() {
			return syscall.EIO
		}
		return nil
	}}, aodi.Options{})
	mirror := newMirror(t)
	newSite(t, n, mirror)
	failing.Store(true)
	if err := v.Resize(600 * chunk); err == nil || v.Size() != 600*chunk {
		t.Fatalf("%v, and %d bytes: this test tries nothing", err, v.Size())
	}
	m := startMirror(t, v, mirrorConfig(n))
	eventually(t, "it says why it waits", func() bool { return strings.Contains(m.Status().Reason, "stable storage") }, func() any { return m.Status() })
	if mirror.Info().HasIdentity {
		t.Errorf("the mirror has taken %d bytes", mirror.Size())
	}
	m.Close()
	_ = v.Close()
	failing.Store(false)
	v = openVolume(t, d, aodi.Options{})
	m = startMirror(t, v, mirrorConfig(n))
	write(t, v, 1, 1)
	synced(t, v, m)
}

// TestGrowOfLooseTarget ensures that a plain server that is large enough goes on, and is zeroes where the volume has grown, whatever
// it held there; and that one that is too small is told to be.
func TestGrowOfLooseTarget(t *testing.T) {
	disk := newPlainDisk(300*chunk, 0xee)
	url, _ := servePlain(t, disk)
	v := newSource(t, 100)
	write(t, v, 1, 1)
	m := startMirror(t, v, cawrm.MirrorConfig{ID: "x", URL: url})
	synced(t, v, m)
	for _, size := range []int64{200, 250} {
		check(t, v.Resize(size*chunk))
		write(t, v, size-1, uint64(size))
		synced(t, v, m)
		if got := disk.at(); !bytes.Equal(got[:size*chunk], content(t, v)) || got[size*chunk] != 0xee {
			t.Fatalf("%d chunks: the target is not the source", size)
		}
		m.Close()
		m = startMirror(t, v, cawrm.MirrorConfig{ID: "x", URL: url})
		synced(t, v, m)
	}
	check(t, v.Resize(301*chunk))
	eventually(t, "refused", func() bool { return strings.Contains(m.Status().LastError, "enlarge it") }, func() any { return m.Status() })
}

// TestGrowInDelta ensures that a file from before the volume grew to after it brings a mirror the size.
func TestGrowInDelta(t *testing.T) {
	v, mirror := newSource(t, 64), newMirror(t)
	write(t, v, 1, 1)
	snapshot(t, v, "a")
	check(t, v.Resize(700*chunk))
	write(t, v, 699, 2)
	snapshot(t, v, "b")
	for _, s := range []cawrm.Send{{To: "a"}, {From: "a", To: "b"}} {
		_, err := receive(mirror, send(t, v, s))
		check(t, err)
	}
	sameContent(t, v, mirror)
	if s := mirror.Snapshots(); len(s) != 2 || s[0].Size != 64*chunk || s[1].Size != 700*chunk {
		t.Errorf("%+v", s)
	}
}
