package aodi

import (
	"cawrm/aodi/format"
)

// What a record does to the forward map and to the counts that follow from it. All of it runs under mapMu, held
// exclusively, for live writes, for a mirror's epochs and for recovery alike.

// refAtLocked looks one chunk up. mapMu is held, shared or exclusively.
func (v *Volume) refAtLocked(lba uint64) (ref, error) { return v.main.tree.refAt(lba) }

// refAt looks one chunk up.
func (t *tree) refAt(lba uint64) (ref, error) {
	b, err := t.leaf(lba/format.RefsPerPage, true)
	if b == nil || err != nil {
		return format.Unmapped, err
	}
	return refAt(b, lba%format.RefsPerPage), nil
}

// mapChunksLocked maps len(sums) logical chunks from lba to physical chunks from phys.
func (v *Volume) mapChunksLocked(h *head, lba uint64, phys format.Phys, sums []uint32) error {
	seg, _ := v.geo.Locate(phys)
	if err := v.segs.addLive(seg, len(sums)); err != nil {
		return err
	}
	for len(sums) > 0 {
		leaf, err := h.tree.leafForWrite(lba / format.RefsPerPage)
		if err != nil {
			return err
		}
		d, err := v.newDropper(h, lba/format.RefsPerPage)
		if err != nil {
			return err
		}
		slot := lba % format.RefsPerPage
		n := min(len(sums), int(format.RefsPerPage-slot))
		for i := range n {
			old := refAt(leaf, slot+uint64(i))
			d.drop(slot+uint64(i), old)
			if h == v.main {
				v.replaced.note(lba+uint64(i), old)
			}
			setRef(leaf, slot+uint64(i), format.MakeRef(phys+format.Phys(i), sums[i]))
		}
		h.mapped += int64(n)
		if err := d.done(); err != nil {
			return err
		}
		lba, phys, sums = lba+uint64(n), phys+format.Phys(n), sums[n:]
	}
	return nil
}

// mapRangeLocked makes chunks [lba, end) holes (discard) or zeroes, until steps chunks have changed. It returns the range
// that holds all that changed, empty if nothing did, and where to go on.
func (v *Volume) mapRangeLocked(h *head, lba, end uint64, kind format.Kind, steps int) (first, last, next uint64, err error) {
	to := format.Unmapped
	if kind == format.KindZero {
		to = format.ZeroRef
	}
	v.givenUp.Store(true)
	first, last = end, lba
	for lba < end && steps > 0 {
		index := lba / format.RefsPerPage
		if to == format.Unmapped {
			if index, err = v.nextLeafToDiscard(h, lba, end); err != nil {
				return
			}
			if lba = max(lba, index*format.RefsPerPage); lba >= end {
				break
			}
		}
		stop := min(end, (index+1)*format.RefsPerPage)
		if _, err = h.tree.leaf(index, true); err != nil {
			return first, max(first, last), lba, err // this leaf is as it was
		}
		var changed int
		if changed, err = v.setLeafLocked(h, lba, stop, to, &first, &last); err != nil {
			return
		}
		steps -= max(changed, 1) // a leaf that stays as it is took time, too
		lba = stop
	}
	return first, max(first, last), min(lba, end), nil
}

// setLeafLocked sets the references of one leaf's chunks [lba, stop), and widens [first, last) over those that changed.
func (v *Volume) setLeafLocked(h *head, lba, stop uint64, to ref, first, last *uint64) (changed int, err error) {
	old, err := h.tree.leaf(lba/format.RefsPerPage, true)
	if err != nil {
		return 0, err
	}
	d, err := v.newDropper(h, lba/format.RefsPerPage)
	if err != nil {
		return 0, err
	}
	var leaf []byte
	for ; lba < stop; lba++ {
		slot := lba % format.RefsPerPage
		r := format.Unmapped
		if old != nil {
			r = refAt(old, slot)
		}
		to := to
		if to == format.Unmapped && v.base != nil {
			if to, err = v.holeOver(lba); err != nil {
				return changed, err
			}
		}
		if r == to {
			continue
		}
		if leaf == nil { // nothing is copied for a leaf that stays as it is
			if leaf, err = h.tree.leafForWrite(lba / format.RefsPerPage); err != nil {
				return changed, err
			}
			old = leaf
		}
		setRef(leaf, slot, to)
		d.drop(slot, r)
		if to != format.Unmapped {
			h.mapped++
		}
		*first, *last = min(*first, lba), lba+1
		changed++
	}
	return changed, d.done()
}

// dropper counts what references that are replaced in one leaf leave behind, one update for a run in the same segment.
type dropper struct {
	v    *Volume
	h    *head
	base []byte // the same leaf in the map under h, where chunks are that h shares
	seg  uint32
	n    int
	fail error
}

func (v *Volume) newDropper(h *head, leaf uint64) (dropper, error) {
	d := dropper{v: v, h: h}
	under := h.beneath(0, leaf)
	if under == nil {
		return d, nil
	}
	var err error
	d.base, err = under.tree.leaf(leaf, true)
	return d, err
}

func (d *dropper) drop(slot uint64, r ref) {
	if r == format.Unmapped {
		return
	}
	d.h.mapped--
	if !r.HasData() || d.base != nil && refAt(d.base, slot) == r {
		return
	}
	seg, _ := d.v.geo.Locate(r.Phys())
	if d.n > 0 && seg != d.seg {
		d.flush()
	}
	d.seg = seg
	d.n++
}

func (d *dropper) flush() {
	if d.n > 0 && d.fail == nil {
		d.fail = d.v.segs.addLive(d.seg, -d.n)
		d.v.segs.chance()
	}
	d.n = 0
}

func (d *dropper) done() error {
	d.flush()
	return d.fail
}

// enterLocked tells the segment table that the map's records now come from seg: the one before is sealed.
func (v *Volume) enterLocked(seg uint32) error {
	if seg == v.shownSegment {
		return nil
	}
	if v.shownSegment != noSegment {
		if err := v.segs.seal(v.shownSegment, v.birthLimitLocked()); err != nil {
			return err
		}
	}
	v.shownSegment = seg
	return v.segs.open(seg, format.BatchLog)
}

// birthLimitLocked is above the births of all that is in a map.
func (v *Volume) birthLimitLocked() Position {
	if v.coming != nil {
		return max(v.shown(), v.coming.end)
	}
	return v.shown()
}

// applyLocked applies a whole batch that stands at seg, chunk to a map: a mirror's epoch, or recovery.
func (v *Volume) applyLocked(to *head, h *format.BatchHeader, seg, chunk uint32) error {
	if err := v.enterLocked(seg); err != nil {
		return err
	}
	phys := v.geo.Phys(seg, chunk)
	for i := range h.Entries {
		e := &h.Entries[i]
		if e.Kind == format.KindData {
			phys++
		}
		if err := v.applyEntryLocked(to, e, phys); err != nil {
			return err
		}
	}
	return nil
}

// applyEntryLocked applies one record to a map; phys is where its data are.
func (v *Volume) applyEntryLocked(to *head, e *format.Entry, phys format.Phys) (err error) {
	switch e.Kind {
	case format.KindData:
		return v.mapChunksLocked(to, e.LBA, phys, []uint32{e.CRC})
	case format.KindDiscard, format.KindZero:
		for lba, end := e.LBA, e.LBA+uint64(e.Count); lba < end && err == nil; {
			_, _, lba, err = v.mapRangeLocked(to, lba, end, e.Kind, rangeStep)
		}
	case format.KindSize:
		return v.growLocked(to, sizeIn(e))
	}
	return err
}

// warmEntries reads the map pages that records will change.
func (v *Volume) warmEntries(h *head, entries []format.Entry) error {
	for i := range entries {
		at, end := entries[i].LBA/format.RefsPerPage, (entries[i].LBA+uint64(entries[i].Count)-1)/format.RefsPerPage+1
		for at < end {
			v.mapMu.RLock()
			next, _, err := h.tree.next(at, end)
			v.mapMu.RUnlock()
			if err != nil {
				return err
			}
			at = next + 1
		}
	}
	return nil
}

// warm reads the map pages that a write of n chunks will change, so that it does not wait for the disk while it
// holds the locks. Without wait it only looks whether they are in memory, else disk.ErrWouldBlock.
func (v *Volume) warm(lba uint64, n int, wait bool) error {
	v.mapMu.RLock()
	defer v.mapMu.RUnlock()
	for i := lba / format.RefsPerPage; i <= (lba+uint64(n)-1)/format.RefsPerPage; i++ {
		if _, err := v.main.tree.leaf(i, wait); err != nil {
			return err
		}
		if under := v.main.beneath(0, i); under != nil {
			if _, err := under.tree.leaf(i, wait); err != nil {
				return err
			}
		}
	}
	return nil
}
