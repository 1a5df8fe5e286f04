package cawrm_test

import (
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"cawrm/aodi"
	"cawrm/aodi/disk"
	recovery "cawrm/recover"
)

// onceBroken is a disk of which one I/O fails. Right before, it takes a picture of a power loss.
type onceBroken struct {
	*disk.Memory
	acked func() aodi.Position

	mu      sync.Mutex
	left    int
	hit     bool
	crashed *disk.Memory
	before  aodi.Position // acknowledged when it crashed
}

func (b *onceBroken) rule(disk.Op, int64, int) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.left--; b.left >= 0 || b.hit {
		return nil
	}
	b.hit, b.before, b.crashed = true, b.acked(), b.Crash(newRand(uint64(b.left)))
	return syscall.EIO
}

// TestEveryIOOfMirror ensures that whichever I/O of the mirror's site fails while it is fed, what the source was told is
// kept, also over a power loss at that moment, and that the mirror catches up when its volume is opened again.
func TestEveryIOOfMirror(t *testing.T) {
	n := 0
	for hit := true; hit; n++ {
		synctest.Test(t, func(t *testing.T) { hit = mirrorOnBrokenDisk(t, n) })
	}
	t.Logf("%d I/Os", n)
}

func mirrorOnBrokenDisk(t *testing.T, i int) (hit bool) {
	d := newDisk(t, aodi.CreateOptions{Mirror: true})
	b := &onceBroken{Memory: d, left: i, acked: func() aodi.Position { return 0 }}
	source := newSource(t, 64)
	v, err := aodi.OpenOn(&disk.Faulty{Disk: b, Rule: b.rule}, aodi.Options{DurableInterval: time.Hour})
	if err != nil {
		feedAgain(t, source, d, 0)
		return true
	}
	t.Cleanup(func() { v.Close() })
	n := newNetwork()
	s := newSite(t, n, v)
	m := startMirror(t, source, mirrorConfig(n))
	b.mu.Lock()
	b.acked = func() aodi.Position { return m.Status().SyncPtr }
	b.mu.Unlock()
	for round := range int64(4) {
		for lba := range int64(30) {
			write(t, source, (lba*7+round)%64, uint64(100*round+lba+1))
		}
		check(t, source.Flush())
		eventually(t, "synced, or failed", func() bool {
			st := m.Status()
			return st.State == "synced" && st.LagRecords == 0 || v.Status().Failed != nil
		}, func() any { return m.Status() })
	}
	acked := m.Status().SyncPtr
	m.Close()
	s.close(t)
	failed := v.Status().Failed
	if err := v.Close(); (err == nil) != (failed == nil) && !b.hit {
		t.Errorf("close: %v, the failure is %v", err, failed)
	}
	if b.crashed != nil {
		feedAgain(t, source, b.crashed, b.before)
		b.crashed.Free()
	}
	feedAgain(t, source, d, acked)
	return b.hit
}

// feedAgain opens a mirror's disk, which must hold what was acknowledged, and lets the source bring it up.
func feedAgain(t *testing.T, source *aodi.Volume, d *disk.Memory, acked aodi.Position) {
	t.Helper()
	r, err := recovery.Check(d, recovery.CheckOptions{})
	check(t, err)
	if !r.OK() {
		t.Fatalf("check: %v", r.Violations)
	}
	v, err := aodi.OpenOn(d, aodi.Options{})
	check(t, err)
	defer v.Close()
	if at, _ := v.Pointers(); at < acked {
		t.Fatalf("the mirror stands at %d, it had acknowledged %d", at, acked)
	}
	n := newNetwork()
	s := newSite(t, n, v)
	m := startMirror(t, source, mirrorConfig(n))
	write(t, source, 3, 77)
	synced(t, source, m)
	sameContent(t, source, v)
	m.Close()
	s.close(t)
}
