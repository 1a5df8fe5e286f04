package aodi

import (
	"errors"
	"fmt"
	"syscall"

	"cawrm/aodi/disk"
	"cawrm/aodi/format"
)

const chunkSize = format.ChunkSize

var errChanged = errors.New("the chunk was written meanwhile")

// WriteAt writes p at byte off; any alignment. It returns when the records are accepted: they are readable,
// in the order of the log, and durable after the next Flush, or at once with fua. Any goroutine.
// Errors: EINVAL out of range, ENOSPC (nothing was accepted from there on), EROFS on a mirror, EIO when the volume failed.
func (v *Volume) WriteAt(p []byte, off int64, fua bool) error {
	if err := v.checkWrite(off, int64(len(p))); err != nil {
		return err
	}
	if err := v.throttle(); err != nil {
		return err
	}
	for len(p) > 0 {
		lba, in := uint64(off/chunkSize), int(off%chunkSize)
		n := len(p) &^ (chunkSize - 1)
		var err error
		if in != 0 || n == 0 {
			n = min(len(p), chunkSize-in)
			err = v.patchChunk(lba, in, p[:n])
		} else {
			err = v.putChunks(lba, p[:n], nil)
		}
		if err != nil {
			return err
		}
		p, off = p[n:], off+int64(n)
	}
	if fua {
		return v.flush()
	}
	return nil
}

// tryChunks bounds what TryWriteAt takes: 256 KiB.
const tryChunks = 64

// TryWriteAt is WriteAt without fua when it need not wait for the disk, for a buffer, or for a read; else
// disk.ErrWouldBlock, and nothing was written.
func (v *Volume) TryWriteAt(p []byte, off int64) error {
	if off%chunkSize != 0 || len(p)%chunkSize != 0 || len(p) > tryChunks*chunkSize || len(p) == 0 {
		return disk.ErrWouldBlock
	}
	if err := v.checkWrite(off, int64(len(p))); err != nil {
		return err
	}
	lba, n := uint64(off/chunkSize), len(p)/chunkSize
	var sums [tryChunks]uint32
	sumChunks(p, sums[:n])
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.failure() != nil || v.held || !v.canAppendLocked(n) || v.mapTooLarge() || v.warm(lba, n, false) != nil {
		return disk.ErrWouldBlock
	}
	for done := 0; done < n; {
		k, err := v.putLocked(lba+uint64(done), p[done*chunkSize:], sums[done:n], nil)
		if err != nil {
			return err
		}
		done += k
	}
	return nil
}

func (v *Volume) checkWrite(off, n int64) error {
	if v.Role() == RoleMirror {
		return v.readOnly()
	}
	if err := v.checkRange(off, n); err != nil {
		return err
	}
	return v.failure()
}

func (v *Volume) readOnly() error {
	return fmt.Errorf("%s: a mirror is read-only: %w", v.d.Name(), syscall.EROFS)
}

// writeBatchLocked is openBatchLocked for a client's record. It waits while writes are held: the role may be another then.
func (v *Volume) writeBatchLocked(frees bool) (*batch, error) {
	for v.Role() == RolePrimary {
		if v.held && v.failure() == nil {
			v.room.Wait()
			continue
		}
		if v.leftover {
			return nil, fmt.Errorf("%s: what a rollback has brought in vain is there still: %w", v.d.Name(), syscall.ENOSPC)
		}
		b, err := v.openBatchLocked(frees)
		if v.leftover {
			continue
		}
		if err != nil || v.Role() == RolePrimary && !v.held {
			return b, err
		}
	}
	return nil, v.readOnly()
}

func (v *Volume) checkRange(off, n int64) error {
	return v.checkRangeOf(nil, off, n)
}

func (v *Volume) checkRangeOf(at *snapshot, off, n int64) error {
	size := v.Size()
	if at != nil {
		size = at.size
	}
	if off < 0 || n < 0 || off > size || n > size-off {
		return fmt.Errorf("%s: %d bytes at %d lie outside the volume of %d bytes: %w", v.d.Name(), n, off, size, syscall.EINVAL)
	}
	return nil
}

func sumChunks(p []byte, sums []uint32) {
	for i := range sums {
		sums[i] = format.Sum(p[i*chunkSize : (i+1)*chunkSize])
	}
}

// putChunks appends whole chunks. With only, the record is accepted only if the (single) chunk's reference still
// is *only, else errChanged: what a read-modify-write needs.
func (v *Volume) putChunks(lba uint64, p []byte, only *ref) error {
	var sums [format.MaxEntries]uint32
	for len(p) > 0 {
		n := min(len(p)/chunkSize, format.MaxEntries)
		sumChunks(p, sums[:n])
		if err := v.warm(lba, n, true); err != nil {
			return err
		}
		for done := 0; done < n; {
			v.mu.Lock()
			k, err := v.putLocked(lba, p, sums[done:n], only)
			v.mu.Unlock()
			if err != nil {
				return err
			}
			done, lba, p = done+k, lba+uint64(k), p[k*chunkSize:]
		}
	}
	return nil
}

// putLocked appends as many of the chunks as the open batch takes, and maps them: from here on they are read. Only who
// holds mu changes what the map says, so the copy can be made before the map is locked, and readers do not wait for it.
func (v *Volume) putLocked(lba uint64, p []byte, sums []uint32, only *ref) (int, error) {
	b, err := v.writeBatchLocked(false)
	if err != nil {
		return 0, err
	}
	if only != nil {
		v.mapMu.RLock()
		now, err := v.refAtLocked(lba)
		v.mapMu.RUnlock()
		if err != nil || now != *only {
			return 0, errors.Join(err, errChanged)
		}
	}
	n := min(len(sums), b.dataRoom())
	first := b.phys + format.Phys(b.hdr.Data) + 1
	for i := range n {
		e := format.Entry{Birth: v.logEnd, LBA: lba + uint64(i), Kind: format.KindData, Count: 1, CRC: sums[i]}
		v.addDataLocked(b, e, p[i*chunkSize:(i+1)*chunkSize])
		v.logEnd++
	}
	if err := v.showLocked(b.segment, lba, first, sums[:n]); err != nil {
		return 0, v.fail(err)
	}
	if b.full() {
		v.closeBatchLocked(true)
	}
	return n, nil
}

// showLocked maps what was appended.
func (v *Volume) showLocked(seg uint32, lba uint64, first format.Phys, sums []uint32) error {
	v.mapMu.Lock()
	defer v.mapMu.Unlock()
	if err := v.enterLocked(seg); err != nil {
		return err
	}
	if err := v.mapChunksLocked(v.main, lba, first, sums); err != nil {
		return err
	}
	v.setShown(v.logEnd)
	return nil
}

// patchChunk writes part of one chunk: read, modify, append, and again if someone else wrote the chunk meanwhile.
func (v *Volume) patchChunk(lba uint64, in int, p []byte) error {
	buf := chunkPool.Get().(*[]byte)
	defer chunkPool.Put(buf)
	for {
		v.mapMu.RLock()
		r, err := v.refAtLocked(lba)
		v.mapMu.RUnlock()
		if err != nil {
			return err
		}
		if err := v.readChunk(lba, r, *buf); err != nil {
			if errors.Is(err, errChanged) {
				continue
			}
			return err
		}
		copy((*buf)[in:], p)
		if err := v.putChunks(lba, *buf, &r); !errors.Is(err, errChanged) {
			return err
		}
	}
}

// Trim discards a range: a hint, so it is rounded inwards to whole chunks. They read as zeroes and hold no space.
// Any goroutine. Errors as WriteAt.
func (v *Volume) Trim(off, n int64, fua bool) error {
	if err := v.checkWrite(off, n); err != nil {
		return err
	}
	first := (off + chunkSize - 1) / chunkSize
	if err := v.putRange(uint64(first), max(0, (off+n)/chunkSize-first), format.KindDiscard); err != nil {
		return err
	}
	if fua {
		return v.flush()
	}
	return nil
}

// WriteZeroes makes a range read as zeroes; any alignment. With noHole it is not a hole afterwards (it takes no
// space all the same). Any goroutine. Errors as WriteAt.
func (v *Volume) WriteZeroes(off, n int64, noHole, fua bool) error {
	if err := v.checkWrite(off, n); err != nil {
		return err
	}
	kind := format.KindDiscard
	if noHole {
		kind = format.KindZero
	}
	var zero [chunkSize]byte
	end := off + n
	if in := off % chunkSize; n > 0 && in != 0 {
		k := min(n, chunkSize-in)
		if err := v.patchChunk(uint64(off/chunkSize), int(in), zero[:k]); err != nil {
			return err
		}
		off += k
	}
	if in := end % chunkSize; off < end && in != 0 {
		if err := v.patchChunk(uint64(end/chunkSize), 0, zero[:in]); err != nil {
			return err
		}
		end -= in
	}
	if err := v.putRange(uint64(off/chunkSize), (end-off)/chunkSize, kind); err != nil {
		return err
	}
	if fua {
		return v.flush()
	}
	return nil
}

// rangeStep bounds how many chunks one record of a range may change, and so how long the map is locked.
const rangeStep = 16384

// putRange appends discard or zero records for count chunks. Where a discard finds nothing to discard there is
// nothing to record.
func (v *Volume) putRange(lba uint64, count int64, kind format.Kind) error {
	end := lba + uint64(max(0, count))
	for lba < end {
		if err := v.throttle(); err != nil {
			return err
		}
		next, err := v.putRangeStep(lba, end, kind)
		if err != nil {
			return err
		}
		lba = next
	}
	return nil
}

func (v *Volume) putRangeStep(lba, end uint64, kind format.Kind) (uint64, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	b, err := v.writeBatchLocked(true)
	if err != nil {
		return lba, err
	}
	v.mapMu.Lock()
	defer v.mapMu.Unlock()
	if err := v.enterLocked(b.segment); err != nil {
		return lba, v.fail(err)
	}
	first, last, next, err := v.mapRangeLocked(v.main, lba, min(end, lba+1<<32-1), kind, rangeStep)
	if err != nil && first < last {
		return lba, v.fail(err)
	} else if err != nil {
		return lba, err // a map page cannot be read; nothing has changed
	}
	if first < last {
		b.hdr.Entries = append(b.hdr.Entries, format.Entry{Birth: v.logEnd, LBA: first, Kind: kind, Count: uint32(last - first)})
		v.logEnd++
		v.setShown(v.logEnd)
		if b.full() {
			v.closeBatchLocked(true)
		}
	}
	return next, nil
}
