package aodi

import (
	"errors"
	"fmt"

	"cawrm/aodi/format"
)

// Still is the volume's content at End, which holds still while the volume goes on: a checkpoint's map, of which nothing is freed
// until it is closed. It leaves no trace in the container. Any number may be open, also of a mirror.
type Still struct {
	End  Position
	v    *Volume
	hold *hold
	snap *snapshot
}

// OpenStill writes a checkpoint and holds its map. Errors: the volume's failure, ENOSPC, the disk's.
func (v *Volume) OpenStill() (*Still, error) {
	v.ckpt.run.take() // no other checkpoint frees anything before the hold is there
	defer v.ckpt.run.give()
	f, err := v.checkpointLocked(0, nil, nil)
	if err != nil {
		return nil, err
	}
	m := &f.meta
	s := &Still{End: m.Position, v: v, hold: &hold{young: map[uint32]bool{}}, snap: &snapshot{size: m.Size, position: m.Position,
		head: head{tree: tree{id: treeMap, pages: v.pages, root: m.MapRoot, height: int(m.MapHeight)}}}}
	v.mapMu.Lock()
	defer v.mapMu.Unlock()
	v.segs.holds = append(v.segs.holds, s.hold)
	return s, nil
}

// Close lets go what was held. It may be called twice.
func (s *Still) Close() { s.v.unhold(s.hold) }

func (v *Volume) unhold(h *hold) {
	v.mapMu.Lock()
	defer v.mapMu.Unlock()
	for i, other := range v.segs.holds {
		if other == h {
			v.segs.holds = append(v.segs.holds[:i], v.segs.holds[i+1:]...)
			return
		}
	}
}

// Size is the logical size in bytes, as it was.
func (s *Still) Size() int64 { return s.snap.size }

// ReadAt is Volume.ReadAt on it.
func (s *Still) ReadAt(p []byte, off int64) error { return s.v.read(s.snap, p, off, true) }

// Extents is Volume.Extents on it.
func (s *Still) Extents(off, n int64, fn func(n int64, flags uint32) bool) error {
	return s.v.extents(s.snap, off, n, fn)
}

// Mend writes a chunk whose content on the disk does not match its checksum anew, with what another site has of it, in its place: what
// is written is what was there, so whoever else refers to the place is mended too, and a crash in the middle leaves it as bad as
// it was. It says whether there was something to mend: not if the chunk is sound, or data is not what it held. Any goroutine.
// Errors: the disk's, if it cannot be written or is as bad afterwards.
func (v *Volume) Mend(lba uint64, data []byte) (bool, error) {
	if err := v.checkRange(int64(lba)*chunkSize, chunkSize); err != nil {
		return false, err
	}
	h := &hold{young: map[uint32]bool{}}
	v.mapMu.Lock()
	v.segs.holds = append(v.segs.holds, h) // its place is not given to anything else meanwhile
	r, err := v.refAtLocked(lba)
	bad := err == nil && r.HasData() && v.residentLocked(r.Phys()) == nil && r.Matches(format.Sum(data))
	v.mapMu.Unlock()
	defer v.unhold(h)
	if err != nil || !bad {
		return false, err
	}
	buf := chunkPool.Get().(*[]byte)
	defer chunkPool.Put(buf)
	off := int64(r.Phys()) * chunkSize
	if v.d.ReadAt(*buf, off) == nil && r.Matches(format.Sum(*buf)) {
		return false, nil
	}
	copy(*buf, data)
	if err := v.d.WriteAt(*buf, off); err != nil {
		return false, fmt.Errorf("mend logical chunk %d: %w", lba, err)
	}
	if err := v.syncer.sync(); err != nil {
		return false, v.fail(err)
	}
	if err := v.d.ReadAt(*buf, off); err != nil || !r.Matches(format.Sum(*buf)) {
		return false, &CorruptError{Disk: v.d.Name(), What: "chunk", LBA: lba, Offset: off}
	}
	v.mended.Add(1)
	v.log.Warn("chunk mended from another site", "chunk", lba, "offset", off)
	return true, nil
}

// Sum24 is the part of a chunk's checksum that the map has, for asking another site for what it held. ok is false where there is no
// data on the disk.
func (v *Volume) Sum24(lba uint64) (sum uint32, ok bool) {
	v.mapMu.RLock()
	defer v.mapMu.RUnlock()
	r, err := v.refAtLocked(lba)
	if err != nil || !r.HasData() || lba >= uint64(v.Size()/chunkSize) {
		return 0, false
	}
	return r.Sum(), true
}

// Rewrite appends to the log what a chunk holds, so that all mirrors get it again; if it is written meanwhile they get that. Any
// goroutine. Errors as WriteAt; *CorruptError.
func (v *Volume) Rewrite(lba uint64) error {
	if err := v.checkWrite(int64(lba)*chunkSize, chunkSize); err != nil {
		return err
	}
	if err := v.throttle(); err != nil {
		return err
	}
	buf := chunkPool.Get().(*[]byte)
	defer chunkPool.Put(buf)
	v.mapMu.RLock()
	r, err := v.refAtLocked(lba)
	v.mapMu.RUnlock()
	if err == nil {
		err = v.readChunk(lba, r, *buf)
	}
	if err == nil {
		err = v.putChunks(lba, *buf, &r)
	}
	if errors.Is(err, errChanged) {
		return nil
	}
	return err
}
