package aodi_test

import (
	"errors"
	"sync"
	"sync/atomic"
	"testing"

	"cawrm/aodi"
	"cawrm/aodi/disk"
	"cawrm/aodi/format"
)

// TestCleanedSegmentIsNotUsedAgain ensures that a segment which dies while it is cleaned is not given to the log before that is over:
// the log could put the same logical chunk at the same place, and cleaning would take what was there before for what is there
// now, and move that.
func TestCleanedSegmentIsNotUsedAgain(t *testing.T) {
	const segment = 256
	m := newDisk(t, 1<<26)
	d := &disk.Faulty{Disk: m}
	if err := aodi.CreateOn(d, aodi.CreateOptions{Size: 1024 * chunk, SegmentChunks: segment, Capacity: (format.DataStart + 15*segment) * chunk}); err != nil {
		t.Fatal(err)
	}
	victim, used, goOn := atomic.Int64{}, make(chan struct{}), make(chan struct{})
	victim.Store(-1)
	once := sync.OnceFunc(func() { close(used) })
	d.Rule = func(op disk.Op, off int64, n int) error {
		if at := off/chunk - format.DataStart; op == disk.OpWrite && at >= 0 && at/segment == victim.Load() {
			once()
			<-goOn // what the log puts there is accepted, and not on the disk
		}
		return nil
	}
	v := open(t, d, quiet)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	slots := int(v.Space().SegmentChunks)
	full := slots - (slots+format.MaxEntries)/(format.MaxEntries+1) // what fills a segment of the log, at the same places each time
	stamp := uint64(0)
	now := make(shadow, 2*full)
	round := func(first int) {
		for c := first; c < first+full; c++ {
			stamp++
			must(v.WriteAt(stamped(stamp), int64(c)*chunk, false))
			now[c] = stamp
		}
	}
	round(0)
	round(full)
	must(v.Checkpoint())
	must(v.Checkpoint())
	all := victims(t, v)
	if len(all) == 0 {
		t.Fatal("no segment can be cleaned")
	}
	victim.Store(int64(all[0]))
	steps := 0
	_, err := v.Relocate(all[0], func() error {
		if steps++; steps > 1 {
			return nil
		}
		for range 20 {
			round(0)
			done := make(chan error, 1)
			go func() { done <- v.Checkpoint() }() // waits for what the log has put there
			select {
			case <-used:
				return nil
			case err := <-done:
				must(err)
			}
		}
		return nil
	})
	if steps < 2 {
		t.Fatal("it was moved in one step")
	}
	if err != nil && !errors.Is(err, aodi.ErrNotCleanable) {
		t.Errorf("cleaning: %v", err)
	}
	close(goOn)
	must(v.Flush())
	now.check(t, "the volume", v)
	must(v.Checkpoint())
	must(v.Close())
	check(t, m)
	v = open(t, m, quiet)
	now.check(t, "opened again", v)
	must(v.Close())
}
