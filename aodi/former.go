package aodi

import (
	"cawrm/aodi/format"
)

// ReadFormer fills p with content of a logical chunk that has the checksum crc, if that is what the volume holds there, or what the newest
// snapshot or cut of the history at or below a position does. Whoever asks knows which content it is, not where that stands: so nothing
// is held for it, and what was freed and used again between the look into the map and the read is seen by the checksum. Any goroutine.
func (v *Volume) ReadFormer(lba uint64, crc uint32, below Position, p []byte) bool {
	return v.readIf(lba, crc, p, func() *tree { return &v.main.tree }) ||
		v.readIf(lba, crc, p, func() *tree { return v.formerLocked(below) })
}

// readIf is ReadFormer for one map, nil when there is none.
func (v *Volume) readIf(lba uint64, crc uint32, p []byte, mapLocked func() *tree) bool {
	r, done := v.findIf(lba, crc, p, mapLocked)
	if done || !r.HasData() {
		return done
	}
	return v.d.ReadAt(p, int64(r.Phys())*chunkSize) == nil && format.Sum(p) == crc
}

// findIf finds where a chunk lies that can have that checksum, or, done, its content in a batch that is in memory.
func (v *Volume) findIf(lba uint64, crc uint32, p []byte, mapLocked func() *tree) (r ref, done bool) {
	v.mapMu.RLock()
	defer v.mapMu.RUnlock()
	t := mapLocked()
	if v.isClosed() || t == nil || lba >= uint64(v.Size()/chunkSize) {
		return format.Unmapped, false
	}
	r, err := t.refAt(lba)
	if err != nil || !r.HasData() || !r.Matches(crc) {
		return format.Unmapped, false
	}
	if b := v.residentLocked(r.Phys()); b != nil {
		copy(p, b.data(r.Phys()))
		return r, format.Sum(p) == crc
	}
	return r, false
}

// formerLocked is the map of the newest snapshot at or below a position.
func (v *Volume) formerLocked(below Position) *tree {
	for i := len(v.snaps) - 1; i >= 0; i-- {
		if s := v.snaps[i]; s.position <= below && !s.deleting && !s.astray {
			return &s.tree
		}
	}
	return nil
}
