package aodi

import (
	"fmt"
	"syscall"
)

// View is a snapshot that somebody reads. It can be used from any goroutine, until it or the volume is closed.
type View struct {
	v    *Volume
	snap *snapshot
	name string
	cut  *snapshot // of a moment of the history: the cut before it
	done func()    // gives back what the moment holds
}

// OpenView opens a snapshot for reading. It cannot be deleted until the view is closed. Any goroutine. Errors: ErrNoSnapshot.
func (v *Volume) OpenView(name string) (*View, error) {
	v.mapMu.Lock()
	defer v.mapMu.Unlock()
	s := v.snapshotLocked(name)
	if s == nil {
		return nil, fmt.Errorf("%s@%s: %w", v.d.Name(), name, ErrNoSnapshot)
	}
	s.users++
	return &View{v: v, snap: s, name: name}, nil
}

// Close lets the snapshot be deleted.
func (w *View) Close() {
	if w.done != nil {
		w.done()
		return
	}
	w.v.mapMu.Lock()
	defer w.v.mapMu.Unlock()
	w.snap.users--
	w.v.segs.chance()
}

func (w *View) read(p []byte, off int64, wait bool) error { return w.v.read(w.snap, p, off, wait) }

// firstExtent is the first of the extents of a range.
func (w *View) firstExtent(off, end int64) (stop int64, flags uint32, err error) {
	stop = end
	err = w.v.extents(w.snap, off, end-off, func(n int64, f uint32) bool {
		stop, flags = off+n, f
		return false
	})
	return stop, flags, err
}

// Info tells which snapshot it is.
func (w *View) Info() SnapshotInfo {
	w.v.mapMu.RLock()
	defer w.v.mapMu.RUnlock()
	return w.snap.info()
}

// Size is the logical size in bytes, as it was.
func (w *View) Size() int64 { return w.snap.size }

// reaches tells whether a clone has a base in which a chunk lies: it can have grown beyond that.
func (w *View) reaches(lba uint64) bool { return w != nil && lba < uint64(w.Size()/chunkSize) }

// ReadAt is Volume.ReadAt on the snapshot.
func (w *View) ReadAt(p []byte, off int64) error { return w.read(p, off, true) }

// TryReadAt is Volume.TryReadAt on the snapshot.
func (w *View) TryReadAt(p []byte, off int64) error { return w.read(p, off, false) }

// Extents is Volume.Extents on the snapshot.
func (w *View) Extents(off, n int64, fn func(n int64, flags uint32) bool) error {
	return w.v.extents(w.snap, off, n, fn)
}

// TryWriteAt refuses.
func (w *View) TryWriteAt([]byte, int64) error { return w.readOnly() }

// WriteAt refuses.
func (w *View) WriteAt([]byte, int64, bool) error { return w.readOnly() }

// Trim refuses.
func (w *View) Trim(int64, int64, bool) error { return w.readOnly() }

// WriteZeroes refuses.
func (w *View) WriteZeroes(int64, int64, bool, bool) error { return w.readOnly() }

// Flush has nothing to do.
func (w *View) Flush() error { return nil }

func (w *View) readOnly() error {
	return fmt.Errorf("%s@%s: a snapshot is read-only: %w", w.v.d.Name(), w.name, syscall.EROFS)
}

// treeLocked is the map of a snapshot, or of the volume when it is nil.
func (v *Volume) treeLocked(at *snapshot) *tree {
	if at == nil {
		return &v.main.tree
	}
	return &at.tree
}
