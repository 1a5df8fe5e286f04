package cawrm_test

import (
	"sync/atomic"
	"syscall"
	"time"

	"cawrm/aodi/disk"
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
