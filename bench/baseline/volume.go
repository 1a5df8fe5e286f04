package baseline

import (
	"fmt"
	"sync"

	"github.com/ncw/directio"

	"cawrm/aodi"
	"cawrm/aodi/disk"
)

// Chunk is the unit of the bitmap and of the hash table; writes are whole chunks.
const Chunk = 4096

// Volume is what the remote module stands on, and what it looks like from above. Any goroutine may call it.
type Volume interface {
	ReadAt(p []byte, off int64) error
	WriteAt(p []byte, off int64) error
	Flush() error
	Size() int64
}

// InPlace is a volume of the traditional kind: a chunk has one place. A write is answered when the disk has it, as a
// device without a cache does it.
type InPlace struct {
	d    disk.Disk
	size int64
}

// NewInPlace takes the disk as a volume of that size and allocates all of it.
func NewInPlace(d disk.Disk, size int64) (*InPlace, error) {
	if d.Size() < size {
		if err := d.Grow(size); err != nil {
			return nil, err
		}
	}
	return &InPlace{d, size}, d.Reserve(0, size)
}

func (v *InPlace) ReadAt(p []byte, off int64) error { return v.d.ReadAt(p, off) }

// WriteAt goes past the page cache, through a buffer that is aligned for it.
func (v *InPlace) WriteAt(p []byte, off int64) error {
	for len(p) > 0 {
		buf := aligned.Get().(*[]byte)
		n := copy(*buf, p)
		err := v.d.WriteAt((*buf)[:n], off)
		aligned.Put(buf)
		if err != nil {
			return err
		}
		p, off = p[n:], off+int64(n)
	}
	return nil
}

var aligned = sync.Pool{New: func() any { b := directio.AlignedBlock(256 << 10); return &b }}

func (v *InPlace) Flush() error { return v.d.Sync() }
func (v *InPlace) Size() int64  { return v.size }

// Log is a volume of ours as one.
type Log struct{ *aodi.Volume }

// WriteAt is an ordinary write.
func (v Log) WriteAt(p []byte, off int64) error { return v.Volume.WriteAt(p, off, false) }

// check finds what is no write of whole chunks of the volume.
func check(v Volume, p []byte, off int64) error {
	if off < 0 || off%Chunk != 0 || len(p) == 0 || len(p)%Chunk != 0 || off+int64(len(p)) > v.Size() {
		return fmt.Errorf("a write of %d bytes at %d is not of whole chunks of a volume of %d bytes", len(p), off, v.Size())
	}
	return nil
}
