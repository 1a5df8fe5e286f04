package aodi

import (
	"errors"
	"fmt"
	"syscall"

	"cawrm/aodi/format"
)

// The logical size is a record of the log, like what is written: from that record on the volume is so large. So the order is
// the log's, and with that all the rest:
//
//	crash     what is written beyond the old end stands behind the record. A crash leaves a prefix of the log: with such a
//	          write it has the record, too, and without the record nothing that would lie outside the volume
//	checkpoint  the size in the meta chunk is the one at its position, since both change under the locks under which the
//	          position is taken; rolling forward, also from the checkpoint before, comes by the record again
//	mirror    it gets the record in order, and has the size when the epoch is shown. An empty one takes its source's size before any
//	          record, so a source says it when it is durable: it could be lost, and a mirror that is larger be refused for ever. A jump epoch begins with the size at its
//	          end, which holds for the coming map at once (its records may lie there) and for the volume when that takes its place
//	snapshots, and moments of the history, have the size that the volume had then
//
// The map can become higher: a page is put over its root, whose first slot leads to what there was. Maps that share pages
// with it, of snapshots, keep their height. A volume is never made smaller.

// ErrShrink is why a size is refused.
var ErrShrink = errors.New("a volume is not made smaller")

// Resize makes the volume larger, durably; what is new reads as zeroes. It is used meanwhile. Any goroutine. Errors: ErrShrink;
// EINVAL for what is no size; EROFS on a mirror; ENOSPC; the volume's failure.
func (v *Volume) Resize(size int64) error {
	switch had := v.Size(); {
	case size <= 0 || size > format.MaxLogicalSize || size%chunkSize != 0:
		return fmt.Errorf("%s: size %d: must be a multiple of 4096 bytes, at most 16 TiB: %w", v.d.Name(), size, syscall.EINVAL)
	case v.Role() == RoleMirror:
		return fmt.Errorf("%s: a mirror takes its size from its source: %w", v.d.Name(), syscall.EROFS)
	case size < had:
		return fmt.Errorf("%s: %w: it has %d bytes, not %d", v.d.Name(), ErrShrink, had, size)
	}
	if err := v.throttle(); err != nil {
		return err
	}
	if err := v.putSize(size); err != nil {
		return err
	}
	return v.flush()
}

func (v *Volume) putSize(size int64) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	b, err := v.writeBatchLocked(true)
	if err != nil || size <= v.Size() { // somebody was faster
		return err
	}
	return v.putSizeLocked(b, size, v.Size())
}

// putSizeLocked adds the record that the volume, which had one size, has another.
func (v *Volume) putSizeLocked(b *batch, size, had int64) error {
	v.mapMu.Lock()
	defer v.mapMu.Unlock()
	if err := v.enterLocked(b.segment); err != nil {
		return v.fail(err)
	}
	grows := size > v.Size()
	if err := v.growLocked(v.main, size); err != nil {
		return v.fail(err)
	}
	b.hdr.Entries = append(b.hdr.Entries, format.Entry{Birth: v.logEnd, LBA: uint64(had / chunkSize), Kind: format.KindSize, Count: uint32((size - had) / chunkSize)})
	v.logEnd++
	if grows {
		v.grownTo = v.logEnd
	}
	v.setShown(v.logEnd)
	if b.full() {
		v.closeBatchLocked(true)
	}
	return nil
}

// sizeIn is the logical size that a record says.
func sizeIn(e *format.Entry) int64 { return int64(e.LBA+uint64(e.Count)) * chunkSize }

// sizeAfter is the logical size after some records.
func sizeAfter(size int64, entries []format.Entry) int64 {
	for i := range entries {
		if entries[i].Kind == format.KindSize {
			size = max(size, sizeIn(&entries[i]))
		}
	}
	return size
}

// growLocked gives the volume, or what is coming, a size. A smaller one it has already: an empty mirror takes its source's
// newest, before the record comes that says so.
func (v *Volume) growLocked(to *head, size int64) error {
	if c := v.coming; c != nil && to == &c.head {
		c.size = max(c.size, size)
		return c.tree.raise(uint64(c.size / chunkSize))
	}
	if size <= v.Size() {
		return nil
	}
	if err := to.tree.raise(uint64(size / chunkSize)); err != nil {
		return err
	}
	v.size.Store(size)
	return nil
}
