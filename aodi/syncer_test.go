package aodi_test

import (
	"sync/atomic"
	"testing"

	"cawrm/aodi"
	"cawrm/aodi/disk"
	"cawrm/aodi/format"
)

// lossyDisk fails the sync of a flush that comes while a checkpoint has written its pages and not yet synced them.
type lossyDisk struct {
	*disk.Memory
	t     *testing.T
	v     *aodi.Volume
	armed atomic.Bool
	fail  atomic.Bool
}

func (d *lossyDisk) WriteCached(p []byte, off int64) error {
	err := d.Memory.WriteCached(p, off)
	if off >= format.DataStart*chunk && d.armed.CompareAndSwap(true, false) {
		d.fail.Store(true)
		if err := d.v.WriteAt(stamped(9), 0, true); err == nil {
			d.t.Error("a flush succeeded whose sync failed")
		}
	}
	return err
}

func (d *lossyDisk) Sync() error {
	if d.fail.CompareAndSwap(true, false) {
		return d.FailSync(newRand(1)) // what was written is lost, and the next sync succeeds, as on Linux
	}
	return d.Memory.Sync()
}

// TestFailedSyncOfFlushStopsCheckpoint ensures that a checkpoint does not become the newest when a flush's sync has lost its
// pages: the checkpoint's own sync would not be told.
func TestFailedSyncOfFlushStopsCheckpoint(t *testing.T) {
	d := &lossyDisk{Memory: newDisk(t, 1<<28), t: t}
	create(t, d, 1<<20, 32)
	d.v = open(t, d, quiet)
	if err := d.v.WriteAt(stamped(1), 0, true); err != nil {
		t.Fatal(err)
	}
	d.armed.Store(true)
	if err := d.v.Checkpoint(); err == nil {
		t.Error("a checkpoint succeeded that leads to pages which are lost")
	}
	_ = d.v.Close()
	d.DropCache()
	check(t, d)
	v := open(t, d, quiet)
	defer v.Close()
	p := make([]byte, chunk)
	if err := v.ReadAt(p, 0); err != nil || p[0] != stamped(1)[0] {
		t.Errorf("what was flushed reads as %d: %v", p[0], err)
	}
}
