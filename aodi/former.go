package aodi

import (
	"cawrm/aodi/format"
)

// replacedSlots is how many chunks are remembered by where their content stood before it was replaced: 1 MiB.
const replacedSlots = 1 << 16

// replaced remembers where content stood that was replaced lately, until another chunk takes its slot. Nothing is held for it: what stands there by
// now is seen by the checksum. It is guarded by mapMu, and nil until somebody asks for former content, so that it costs nothing without mirrors.
type replaced []struct {
	lba uint64
	ref ref
}

func (r replaced) note(lba uint64, old ref) {
	if len(r) > 0 && old.HasData() {
		s := &r[lba%replacedSlots]
		s.lba, s.ref = lba, old
	}
}

func (r replaced) find(lba uint64) ref {
	if len(r) > 0 {
		if s := &r[lba%replacedSlots]; s.lba == lba {
			return s.ref
		}
	}
	return format.Unmapped
}

// ReadFormer fills p with content of a logical chunk that has the checksum crc, if that is what the volume holds there, or what the newest
// snapshot or cut of the history at or below a position does, or what was replaced last and still stands in the log. Whoever asks knows which
// content it is, not where that stands: so nothing is held for it, and what was freed and used again between the look into the map and the read is
// seen by the checksum. Any goroutine.
func (v *Volume) ReadFormer(lba uint64, crc uint32, below Position, p []byte) bool {
	return v.readIf(crc, p, func() ref { return v.refInLocked(&v.main.tree, lba) }) ||
		v.readIf(crc, p, func() ref { return v.refInLocked(v.formerLocked(below), lba) }) ||
		v.readIf(crc, p, func() ref { return v.replaced.find(lba) })
}

// RememberReplaced lets ReadFormer find content that is replaced from now on. Any goroutine.
func (v *Volume) RememberReplaced() {
	v.mapMu.Lock()
	defer v.mapMu.Unlock()
	if v.replaced == nil {
		v.replaced = make(replaced, replacedSlots)
	}
}

// readIf is ReadFormer for one place.
func (v *Volume) readIf(crc uint32, p []byte, placeLocked func() ref) bool {
	r, done := v.findIf(crc, p, placeLocked)
	if done || !r.HasData() {
		return done
	}
	return v.d.ReadAt(p, int64(r.Phys())*chunkSize) == nil && format.Sum(p) == crc
}

// findIf finds where content lies that can have that checksum, or, done, the content in a batch that is in memory.
func (v *Volume) findIf(crc uint32, p []byte, placeLocked func() ref) (r ref, done bool) {
	v.mapMu.RLock()
	defer v.mapMu.RUnlock()
	if v.isClosed() {
		return format.Unmapped, false
	}
	if r = placeLocked(); !r.HasData() || !r.Matches(crc) {
		return format.Unmapped, false
	}
	if b := v.residentLocked(r.Phys()); b != nil {
		copy(p, b.data(r.Phys()))
		return r, format.Sum(p) == crc
	}
	return r, false
}

// refInLocked is where a map says that a chunk stands, Unmapped when there is none or it cannot be read.
func (v *Volume) refInLocked(t *tree, lba uint64) ref {
	if t == nil || lba >= uint64(v.Size()/chunkSize) {
		return format.Unmapped
	}
	r, err := t.refAt(lba)
	if err != nil {
		return format.Unmapped
	}
	return r
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
