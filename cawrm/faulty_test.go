package cawrm_test

import (
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"cawrm/aodi"
	"cawrm/aodi/disk"
	"cawrm/cawrm"
)

// slowSync is a disk on which a sync takes as long as it is told to.
type slowSync struct {
	disk.Disk
	wait atomic.Int64
}

func (d *slowSync) Sync() error {
	time.Sleep(time.Duration(d.wait.Load()))
	return d.Disk.Sync()
}

// failingDisk is a disk of which the syncs fail from some moment on.
type failingDisk struct {
	disk.Disk
	fail atomic.Bool
}

func (d *failingDisk) Sync() error {
	if d.fail.Load() {
		return syscall.EIO
	}
	return d.Disk.Sync()
}

// TestCommitAfterFailedRead ensures that an epoch which arrived, and could not be committed because the mirror's disk failed a
// read, does not keep the mirror from going on once the disk is well: it is committed before the mirror says where it stands.
func TestCommitAfterFailedRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		v, d := newSource(t, 64), newDisk(t, aodi.CreateOptions{Mirror: true})
		s := newSite(t, n, openVolume(t, d, aodi.Options{}))
		m := startMirror(t, v, mirrorConfig(n))
		write(t, v, 1, 1)
		synced(t, v, m)
		s.close(t)
		check(t, s.v.Close())
		var fail atomic.Bool
		mv := openVolume(t, &disk.Faulty{Disk: d, Rule: func(op disk.Op, _ int64, _ int) error {
			if op == disk.OpRead && fail.Load() {
				return syscall.EIO
			}
			return nil
		}}, aodi.Options{})
		fail.Store(true) // no page of the map was read yet
		newSite(t, n, mv)
		write(t, v, 2, 2)
		stateIs(t, m, cawrm.StateDown, "input/output error")
		fail.Store(false)
		synced(t, v, m)
		sameContent(t, v, mv)
	})
}
