package aodi

import (
	"fmt"
	"sync"
	"syscall"

	"cawrm/aodi/disk"
	"cawrm/aodi/format"

	"github.com/ncw/directio"
)

// chunkPool holds aligned chunk-sized scratch buffers.
var chunkPool = sync.Pool{New: func() any { b := directio.AlignedBlock(chunkSize); return &b }}

// CorruptError says that what is on the disk is not what was written there.
type CorruptError struct {
	Disk   string
	What   string // "chunk" or "map page"
	LBA    uint64 // logical chunk, where What is chunk
	Offset int64  // bytes, in the container
}

func (e *CorruptError) Error() string {
	if e.What == "chunk" {
		return fmt.Sprintf("%s: logical chunk %d, at byte %d of the container: checksum does not match", e.Disk, e.LBA, e.Offset)
	}
	return fmt.Sprintf("%s: %s at byte %d of the container: checksum does not match", e.Disk, e.What, e.Offset)
}

// Unwrap makes it an input/output error for clients.
func (e *CorruptError) Unwrap() error { return syscall.EIO }

// readStep is how many chunks are looked up under one lock.
const readStep = 64

// ReadAt fills p from byte off; any alignment. Every chunk is verified. Any goroutine.
// Errors: EINVAL out of range, *CorruptError (EIO), the disk's. It works on a volume that failed, too, unless it is a mirror
// that failed in the middle of showing an epoch.
func (v *Volume) ReadAt(p []byte, off int64) error { return v.read(nil, p, off, true) }

// TryReadAt is ReadAt when all of it is in memory, else disk.ErrWouldBlock with p undefined.
func (v *Volume) TryReadAt(p []byte, off int64) error { return v.read(nil, p, off, false) }

// read reads a snapshot, or the volume when at is nil; so do the functions below.
func (v *Volume) read(at *snapshot, p []byte, off int64, wait bool) error {
	if err := v.checkRangeOf(at, off, int64(len(p))); err != nil {
		return err
	}
	if v.isClosed() {
		return ErrClosed
	}
	for len(p) > 0 {
		lba, in := uint64(off/chunkSize), int(off%chunkSize)
		n := min(len(p)&^(chunkSize-1), readStep*chunkSize)
		var err error
		if in != 0 || n == 0 {
			n = min(len(p), chunkSize-in)
			err = v.readPart(at, lba, in, p[:n], wait)
		} else {
			err = v.readChunks(at, lba, p[:n], wait)
		}
		if err != nil {
			return err
		}
		p, off = p[n:], off+int64(n)
	}
	return nil
}

func (v *Volume) readPart(at *snapshot, lba uint64, in int, p []byte, wait bool) error {
	buf := chunkPool.Get().(*[]byte)
	defer chunkPool.Put(buf)
	err := v.readChunks(at, lba, *buf, wait)
	copy(p, (*buf)[in:])
	return err
}

// readChunks reads up to readStep whole chunks. When a segment was given out again meanwhile it could be one of those that
// were read: then all is read once more, so that it does not hang on 24 bits of checksum whether that is noticed.
func (v *Volume) readChunks(at *snapshot, lba uint64, p []byte, wait bool) error {
	for {
		before := v.segs.reuses.Load()
		if err := v.readChunksOnce(at, lba, p, wait); err != nil || v.segs.reuses.Load() == before {
			return err
		}
	}
}

// readChunksOnce looks a chunk whose checksum does not match up again: if it moved meanwhile, the read was of a place that
// had been given to something else.
func (v *Volume) readChunksOnce(at *snapshot, lba uint64, p []byte, wait bool) error {
	var refs [readStep]ref
	n := len(p) / chunkSize
	if err := v.lookUp(at, lba, p, refs[:n], wait); err != nil {
		return err
	}
	for i := 0; i < n; {
		if refs[i] == inBase {
			run := 1
			for i+run < n && refs[i+run] == inBase {
				run++
			}
			if err := v.base.read(p[i*chunkSize:(i+run)*chunkSize], int64(lba+uint64(i))*chunkSize, wait); err != nil {
				return err
			}
			i += run
			continue
		}
		if !refs[i].HasData() {
			i++ // resident, hole or zero: lookUp has filled it in
			continue
		}
		run := 1
		for i+run < n && refs[i+run].Phys() == refs[i].Phys()+format.Phys(run) {
			run++
		}
		b := p[i*chunkSize : (i+run)*chunkSize]
		if err := v.readRun(at, lba+uint64(i), refs[i:i+run], b, wait); err != nil {
			return err
		}
		i += run
	}
	return nil
}

// lookUp finds the references of len(refs) chunks, fills in those that need no disk, and marks them Unmapped.
func (v *Volume) lookUp(of *snapshot, lba uint64, p []byte, refs []ref, wait bool) error {
	v.mapMu.RLock()
	defer v.mapMu.RUnlock()
	if err := v.tornLocked(of); err != nil {
		return err
	}
	var leaf []byte
	for i := range refs {
		at := lba + uint64(i)
		if slot := at % format.RefsPerPage; i == 0 || slot == 0 {
			var err error
			if leaf, err = v.treeLocked(of).leaf(at/format.RefsPerPage, wait); err != nil {
				return err
			}
		}
		r := format.Unmapped
		if leaf != nil {
			r = refAt(leaf, at%format.RefsPerPage)
		}
		to := p[i*chunkSize : (i+1)*chunkSize]
		if r == format.Unmapped && v.base.reaches(at) {
			r = inBase
		} else if !r.HasData() {
			clear(to)
			r = format.Unmapped
		} else if b := v.residentLocked(r.Phys()); b != nil {
			copy(to, b.data(r.Phys()))
			r = format.Unmapped
		}
		refs[i] = r
	}
	return nil
}

// tornLocked is an error when what is read is the volume and a part of an epoch is in its map. It is asked with each look into the
// map: who waits for that lock while an epoch is shown must not go on when that has failed.
func (v *Volume) tornLocked(of *snapshot) error {
	if of == nil && v.torn {
		return v.failure()
	}
	return nil
}

// residentLocked returns the batch in memory that holds a physical chunk, newest first, or nil.
func (v *Volume) residentLocked(p format.Phys) *batch {
	for i := len(v.resident) - 1; i >= 0; i-- {
		if b := v.resident[i]; b.holds(p) {
			return b
		}
	}
	return nil
}

// readRun reads chunks that lie one after the other with one request, and verifies each.
func (v *Volume) readRun(at *snapshot, lba uint64, refs []ref, p []byte, wait bool) error {
	off := int64(refs[0].Phys()) * chunkSize
	if !wait {
		if err := v.d.TryReadAt(p, off); err != nil {
			return err
		}
	} else if err := v.d.ReadAt(p, off); err != nil {
		return err
	}
	for i, r := range refs {
		b := p[i*chunkSize : (i+1)*chunkSize]
		if r.Matches(format.Sum(b)) {
			continue
		}
		if !wait {
			return disk.ErrWouldBlock // the slow path tells why
		}
		if err := v.reread(at, lba+uint64(i), r, b); err != nil {
			return err
		}
	}
	return nil
}

// reread decides about a chunk that did not match. Its segment can have been freed and used again while it was read, even so that the
// map leads to the same place again: so it counts only when the place does not match while no segment is given out.
func (v *Volume) reread(at *snapshot, lba uint64, r ref, p []byte) error {
	for again := true; again; {
		before := v.segs.reuses.Load()
		v.mapMu.RLock()
		now, err := v.treeLocked(at).refAt(lba)
		moved := now != r || v.residentLocked(r.Phys()) != nil
		v.mapMu.RUnlock()
		if err != nil {
			return err
		}
		if moved {
			return v.readChunks(at, lba, p, true)
		}
		if err := v.d.ReadAt(p, int64(r.Phys())*chunkSize); err != nil || r.Matches(format.Sum(p)) {
			return err
		}
		again = v.segs.reuses.Load() != before
	}
	v.corrupt.Add(1)
	err := &CorruptError{Disk: v.d.Name(), What: "chunk", LBA: lba, Offset: int64(r.Phys()) * chunkSize}
	v.log.Error("read refused", "err", err)
	return err
}

// readChunk reads the chunk that r leads to, or errChanged if lba leads elsewhere by now.
func (v *Volume) readChunk(lba uint64, r ref, p []byte) error {
	// Reference and content under one lock: references without a place can come back (written and zeroed meanwhile), so
	// that putLocked compares again is not enough.
	v.mapMu.RLock()
	now, err := v.refAtLocked(lba)
	switch b := v.residentLocked(r.Phys()); {
	case err != nil || now != r:
		v.mapMu.RUnlock()
		if err == nil {
			err = errChanged
		}
		return err
	case r == format.Unmapped && v.base.reaches(lba):
		v.mapMu.RUnlock()
		return v.base.read(p, int64(lba)*chunkSize, true)
	case !r.HasData():
		clear(p)
	case b != nil:
		copy(p, b.data(r.Phys()))
	default:
		v.mapMu.RUnlock()
		return v.readRun(nil, lba, []ref{r}, p, true)
	}
	v.mapMu.RUnlock()
	return nil
}

// Flags of an extent: the bits of NBD's base:allocation.
const (
	ExtentHole uint32 = 1 << 0
	ExtentZero uint32 = 1 << 1
)

// Extents calls fn for the extents of a range, in order and without gaps, neighbours that are alike joined, until fn
// returns false. Any goroutine. Errors: EINVAL out of range, the disk's.
func (v *Volume) Extents(off, n int64, fn func(n int64, flags uint32) bool) error {
	return v.extents(nil, off, n, fn)
}

func (v *Volume) extents(at *snapshot, off, n int64, fn func(n int64, flags uint32) bool) error {
	if err := v.checkRangeOf(at, off, n); err != nil {
		return err
	}
	end := off + n
	run, flags := int64(0), uint32(0)
	for off < end {
		stop, f, err := v.extent(at, off, end)
		if err != nil {
			return err
		}
		switch {
		case f != extentInBase:
		case off >= v.base.Size(): // the clone has grown beyond it
			f = ExtentHole | ExtentZero
		default:
			if stop, f, err = v.base.firstExtent(off, min(stop, v.base.Size())); err != nil {
				return err
			}
		}
		if run > 0 && f != flags {
			if !fn(run, flags) {
				return nil
			}
			run = 0
		}
		run, flags, off = run+stop-off, f, stop
	}
	if run > 0 {
		fn(run, flags)
	}
	return nil
}

// extent returns how far, within one leaf or over absent ones, what is at off goes on.
func (v *Volume) extent(of *snapshot, off, end int64) (stop int64, flags uint32, err error) {
	v.mapMu.RLock()
	defer v.mapMu.RUnlock()
	if err := v.tornLocked(of); err != nil {
		return 0, 0, err
	}
	lba, last := uint64(off/chunkSize), uint64((end+chunkSize-1)/chunkSize)
	index := lba / format.RefsPerPage
	at, leaf, err := v.treeLocked(of).next(index, (last+format.RefsPerPage-1)/format.RefsPerPage)
	if err != nil {
		return 0, 0, err
	}
	if at > index {
		return min(end, int64(at*format.RefsPerPage)*chunkSize), v.extentFlags(format.Unmapped), nil
	}
	flags = v.extentFlags(refAt(leaf, lba%format.RefsPerPage))
	for lba++; lba < last && lba%format.RefsPerPage != 0; lba++ {
		if v.extentFlags(refAt(leaf, lba%format.RefsPerPage)) != flags {
			break
		}
	}
	return min(end, int64(lba)*chunkSize), flags, nil
}

// extentInBase stands for what the base tells.
const extentInBase = 1 << 31

func (v *Volume) extentFlags(r ref) uint32 {
	switch {
	case r == format.Unmapped && v.base != nil:
		return extentInBase
	case r == format.Unmapped, r == format.HoleRef:
		return ExtentHole | ExtentZero
	case !r.HasData():
		return ExtentZero
	}
	return 0
}
