package disk

import (
	"fmt"
	"maps"
	"slices"
	"sync"
	"syscall"

	"github.com/edsrzf/mmap-go"
)

// Overlay shows a disk with changes that it keeps in memory: the disk below is only read. What is written can be
// looked at, thrown away, or put on the disk below by Commit.
//
// A chunk that the disk below fails to read, or that lies beyond its end, reads as bytes of 0xEE, which match no
// checksum: so one bad place does not hide its neighbours, and it is never taken for data.
type Overlay struct {
	base Disk

	mu      sync.RWMutex
	size    int64
	changed map[int64][]byte // by offset, chunks of blockAlign; nil: zeroes
	mapped  map[int64][]byte // what Map gave out, by offset: private memory, which writes keep up to date
	bad     map[int64]error
}

// privateMapper is a disk that can be mapped so that changes stay in memory.
type privateMapper interface {
	mapPrivate(off int64, n int) (mmap.MMap, error)
}

// NewOverlay makes an overlay without changes. Close closes base.
func NewOverlay(base Disk) *Overlay {
	return &Overlay{base: base, size: base.Size(), changed: map[int64][]byte{}, mapped: map[int64][]byte{}, bad: map[int64]error{}}
}

// Name is the name of the disk below.
func (o *Overlay) Name() string { return o.base.Name() }

// Size is the size with what was grown.
func (o *Overlay) Size() int64 { o.mu.RLock(); defer o.mu.RUnlock(); return o.size }

// Fixed is that of the disk below: a repair must fit it.
func (o *Overlay) Fixed() bool { return o.base.Fixed() }

// Allocated is what the disk below holds.
func (o *Overlay) Allocated() int64 { return o.base.Allocated() }

// Direct is true: nothing is written through a page cache, since nothing is written.
func (o *Overlay) Direct() (bool, string) { return true, "" }

// Bad tells which chunks could not be read so far, by offset.
func (o *Overlay) Bad() map[int64]error {
	o.mu.RLock()
	defer o.mu.RUnlock()
	return maps.Clone(o.bad)
}

// ReadAt reads; errors of the disk below become bytes that match no checksum. Errors: beyond the end.
func (o *Overlay) ReadAt(p []byte, off int64) error {
	o.mu.RLock()
	end, touched := o.size, o.touchedLocked(off, len(p))
	o.mu.RUnlock()
	if off < 0 || off+int64(len(p)) > end {
		return fmt.Errorf("%s: read %d bytes at %d: the container ends at %d: %w", o.Name(), len(p), off, end, syscall.EIO)
	}
	if !touched && off+int64(len(p)) <= o.base.Size() && o.base.ReadAt(p, off) == nil {
		return nil
	}
	b := make([]byte, blockAlign)
	for len(p) > 0 {
		at, in := off&^(blockAlign-1), off&(blockAlign-1)
		o.readChunk(b, at)
		n := copy(p, b[in:])
		p, off = p[n:], off+int64(n)
	}
	return nil
}

// readChunk reads one chunk, whatever it takes.
func (o *Overlay) readChunk(b []byte, at int64) {
	o.mu.RLock()
	c, ok := o.changed[at]
	if c != nil {
		copy(b, c)
	}
	o.mu.RUnlock()
	switch {
	case ok && c == nil:
		clear(b)
	case ok:
	case at+blockAlign > o.base.Size():
		poison(b)
	default:
		if err := o.base.ReadAt(b, at); err != nil {
			poison(b)
			o.mu.Lock()
			o.bad[at] = err
			o.mu.Unlock()
		}
	}
}

func poison(b []byte) {
	for i := range b {
		b[i] = 0xEE
	}
}

func (o *Overlay) touchedLocked(off int64, n int) bool {
	for at := off &^ (blockAlign - 1); at < off+int64(n); at += blockAlign {
		if _, ok := o.changed[at]; ok {
			return true
		}
	}
	return false
}

// TryReadAt asks the disk below for what is unchanged. What goes wrong there is ReadAt's to find.
func (o *Overlay) TryReadAt(p []byte, off int64) error {
	o.mu.RLock()
	touched := o.touchedLocked(off, len(p))
	o.mu.RUnlock()
	if touched || o.base.TryReadAt(p, off) != nil {
		return ErrWouldBlock
	}
	return nil
}

// WriteAt is WriteCached.
func (o *Overlay) WriteAt(p []byte, off int64) error { return o.WriteCached(p, off) }

// WriteCached keeps p. Both ends must be those of chunks.
func (o *Overlay) WriteCached(p []byte, off int64) error {
	if off%blockAlign != 0 || len(p)%blockAlign != 0 {
		return fmt.Errorf("%s: write %d bytes at %d: %w", o.Name(), len(p), off, syscall.EINVAL)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	for i := 0; i < len(p); i += blockAlign {
		o.putLocked(off+int64(i), slices.Clone(p[i:i+blockAlign]))
	}
	return nil
}

// putLocked notes one chunk, nil for zeroes, and shows it in the mappings that hold it.
func (o *Overlay) putLocked(at int64, c []byte) {
	for start, m := range o.mapped {
		if at < start || at >= start+int64(len(m)) {
			continue
		}
		if to := m[at-start:][:blockAlign]; c == nil {
			clear(to)
		} else {
			copy(to, c)
		}
	}
	o.changed[at] = c
	o.size = max(o.size, at+blockAlign)
}

// Sync does nothing: nothing here is ever durable.
func (o *Overlay) Sync() error { return nil }

// Map maps the range of the disk below, privately where that can be and nothing in it is changed, else shows memory.
func (o *Overlay) Map(off int64, n int) ([]byte, func() error, error) {
	b, err := o.memory(off, n)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: map %d bytes at %d: %w", o.Name(), n, off, err)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.mapped[off] = b
	return b, func() error {
		o.mu.Lock()
		delete(o.mapped, off)
		o.mu.Unlock()
		return b.Unmap()
	}, nil
}

func (o *Overlay) memory(off int64, n int) (mmap.MMap, error) {
	o.mu.RLock()
	touched := o.touchedLocked(off, n)
	o.mu.RUnlock()
	if p, ok := o.base.(privateMapper); ok && !touched && off+int64(n) <= o.base.Size() {
		return p.mapPrivate(off, n)
	}
	b, err := mmap.MapRegion(nil, n, mmap.RDWR, mmap.ANON, 0)
	for at := 0; at < n && err == nil; at += blockAlign {
		o.readChunk(b[at:at+blockAlign], off+int64(at))
	}
	return b, err
}

// Grow makes the size at least n; a disk of a fixed size below stays as it is.
func (o *Overlay) Grow(n int64) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.size = max(o.size, n)
	return nil
}

// Reserve is Grow to the end of the range.
func (o *Overlay) Reserve(off, n int64) error { return o.Grow(off + n) }

// Zero makes a range zeroes, which takes no memory.
func (o *Overlay) Zero(off, n int64) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	for at := off; at < off+n; at += blockAlign {
		o.putLocked(at, nil)
	}
	return nil
}

// Punch does nothing: the disk below keeps what it has.
func (o *Overlay) Punch(int64, int64) error { return nil }

// Close forgets the changes and closes the disk below.
func (o *Overlay) Close() error { return o.base.Close() }

// Commit puts the changes on the disk below: first all at or above byte first, which is made durable, then the rest.
func (o *Overlay) Commit(first int64) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if err := o.base.Grow(o.size); err != nil {
		return err
	}
	offs := slices.Sorted(maps.Keys(o.changed))
	cut, _ := slices.BinarySearch(offs, first)
	for _, part := range [][]int64{offs[cut:], offs[:cut]} {
		for _, at := range part {
			c := o.changed[at]
			if c == nil {
				c = make([]byte, blockAlign)
			}
			if err := o.base.WriteCached(c, at); err != nil {
				return err
			}
		}
		if err := o.base.Sync(); err != nil {
			return err
		}
	}
	clear(o.changed)
	return nil
}
