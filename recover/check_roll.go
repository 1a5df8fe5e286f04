package recovery

import (
	"fmt"

	"cawrm/aodi/format"
)

// checkRoll is C22: it rolls the log forward as opening the volume would, and applies nothing.
func (k *checker) checkRoll() {
	m := &k.c.Meta
	ends := map[bool]uint64{false: k.limit, true: max(k.limit, jumpLimit(m))} // of a jump epoch: true
	entered := map[uint32]bool{m.Log.Segment: true}
	place := func(at Place) string { return k.at(at.Segment, at.Chunk) }
	res, err := Roll(k.d, k.c, func(h *format.BatchHeader, at Place) error {
		if !entered[at.Segment] {
			entered[at.Segment] = true
			if what := k.enters(at.Segment); what != "" {
				k.rep.bad(22, "%s: the log goes on in %s", place(at), what)
			}
		}
		last := k.rep.RolledEnd
		if h.First != last && !(h.First < last && h.Flags&format.FlagRestart != 0) {
			k.rep.bad(22, "%s: batch %d begins at position %d, the log before it ends at %d", place(at), h.Seq, h.First, last)
		}
		jump := h.Flags&format.FlagJump != 0
		ends[jump] = k.checkRolled(h, at, ends[jump])
		if jump && h.Commits() {
			ends[false] = ends[true]
		} else {
			ends[true] = max(ends[true], ends[false])
		}
		if h.Commits() || h.Flags&format.FlagJump == 0 {
			k.rep.RolledEnd = max(k.rep.RolledEnd, h.End)
		}
		k.rep.Counts.Batches++
		return nil
	})
	k.rep.Rolled = res
	k.rep.Counts.ReadBytes += uint64(res.Bytes)
	if err != nil {
		k.rep.bad(22, "the log after the checkpoint: %v", err)
	}
	// On a mirror whole epochs that were not acknowledged may follow, and what was given up of the last one.
	if res.Batches > 0 && m.Flags&(format.FlagClean|format.FlagMirror) == format.FlagClean {
		k.rep.bad(22, "the container was closed in order, but %d batches follow the checkpoint", res.Batches)
	}
}

// enters tells what is wrong with the log going on in a segment, or "".
func (k *checker) enters(seg uint32) string {
	m := &k.c.Meta
	if uint64(seg) >= m.Segments || k.lostRows {
		return ""
	}
	row := k.rows[seg]
	switch {
	case row.State == format.SegmentFree && seg != m.MetaSegment && seg != m.MetaNext,
		row.State == format.SegmentOpen && seg == m.Log.Next:
		return ""
	}
	return fmt.Sprintf("a segment that is %s and holds %s", stateName(row.State), kindName(row.Kind))
}

// checkRolled returns where the volume ends after the batch; before it, it ended at chunk end.
func (k *checker) checkRolled(h *format.BatchHeader, at Place, end uint64) uint64 {
	last := format.Position(0)
	for i := range h.Entries {
		e := &h.Entries[i]
		if e.Birth < h.First && h.Flags&format.FlagJump == 0 || e.Birth >= h.End || i > 0 && e.Birth <= last && h.Flags&format.FlagJump == 0 {
			k.rep.bad(17, "%s: batch %d of positions [%d, %d) holds %s", k.at(at.Segment, at.Chunk), h.Seq, h.First, h.End, entryName(e))
		}
		last = e.Birth
		if e.Kind == format.KindSize {
			end = max(end, e.LBA+uint64(e.Count))
		}
		if n := uint64(e.Count); e.LBA+n > end {
			k.rep.bad(22, "%s: batch %d holds %s, the volume ends at %d", k.at(at.Segment, at.Chunk), h.Seq, entryName(e), end)
		}
	}
	return end
}
