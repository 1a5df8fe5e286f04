package aodi

import (
	"errors"
	"os"

	"cawrm/aodi/disk"
	recovery "cawrm/recover"
)

// Rescue opens what is left of a damaged container, for reading. The container is opened read-only and nothing is
// written to it, so it may lie on a file system that is; it is held against being opened for writing meanwhile.
//
// What can be derived again is, in memory (recovery.Rescue); the code that then opens and reads is that of every
// volume. A range whose map page is lost, and a chunk whose data do not match their checksum, fail with EIO, and
// nothing else does. Writes would be kept in memory and lost by Close: who serves the volume refuses them.
//
// Errors: disk.ErrInUse; no checkpoint is valid, so nothing
// tells what the volume was.
func Rescue(path string, opt Options) (v *Volume, res recovery.Rescued, err error) {
	lock, err := disk.Share(path)
	if err != nil {
		return nil, res, err
	}
	f, err := disk.OpenFile(path, true)
	if err != nil {
		return nil, res, errors.Join(err, lock.Close())
	}
	d := &rescued{disk.NewOverlay(f), lock}
	if res, err = recovery.Rescue(d.Overlay); err == nil {
		v, err = OpenOn(d, opt)
	}
	if err != nil {
		return nil, res, errors.Join(err, d.Close())
	}
	return v, res, nil
}

// rescued is the disk of a rescued volume, with the lock that keeps others from writing to the container.
type rescued struct {
	*disk.Overlay
	lock *os.File
}

// Close gives up the lock last.
func (r *rescued) Close() error { return errors.Join(r.Overlay.Close(), r.lock.Close()) }
