package recovery

import (
	"slices"

	"cawrm/aodi/format"
)

// Which segments are the log's, when their rows are lost? What stands in a segment does not tell. One that was freed, or
// that was being filled when a crash came, holds batches as well, and whole ones: nothing in them can say that they are over.
// But the log is one chain, in which every batch names the checksum of the one before it (R3), and the checkpoint says where
// it ends. So it is followed backwards from there. A segment that it does not come by is not the log's, and is in use only
// when something refers to its chunks.

// logPart is what of the log stands in one segment.
type logPart struct {
	seg     uint32
	seq     uint64 // of the first batch
	prevCRC uint32 // the header before that one
	first   format.Position
	last    uint64 // of the last batch
	crc     uint32 // its header
}

// logPart reads the batches of a segment below chunk end. ok: there is one.
func (m *mender) logPart(seg, end uint32) (p logPart, ok bool) {
	p.seg = seg
	s := m.chain(seg, format.BatchLog, end)
	for at := uint32(0); at < end && s.next(at) == nil; at += s.h.Chunks() {
		if !ok {
			p.seq, p.prevCRC, p.first, ok = s.h.Seq, s.h.PrevCRC, s.h.First, true
		}
		p.last, p.crc = s.h.Seq, s.crc
	}
	return p, ok
}

// traceLog finds the segments behind the head that the log comes through, and the position from which on it is whole.
func (m *mender) traceLog() (segs map[uint32]bool, reach format.Position) {
	segs, reach = map[uint32]bool{}, m.meta.Position
	to := m.meta.Log
	seq, crc := to.Seq, to.PrevCRC // what follows the part that is looked for
	if to.Chunk > 0 {
		head, ok := m.logPart(to.Segment, to.Chunk)
		if !ok || head.last+1 != seq || head.crc != crc {
			return segs, reach
		}
		seq, crc, reach = head.seq, head.prevCRC, min(reach, head.first)
	}
	parts := m.logParts()
	for {
		list := parts[seq-1]
		i := slices.IndexFunc(list, func(p logPart) bool { return p.crc == crc })
		if i < 0 {
			return segs, reach
		}
		p := list[i]
		if m.reserved(p.seg) { // it was freed since, and what it holds is of no worth
			return segs, reach
		}
		segs[p.seg] = true
		seq, crc, reach = p.seq, p.prevCRC, min(reach, p.first)
	}
}

// logParts reads all segments that can be the log's, but the head. The key is the sequence of the last batch.
func (m *mender) logParts() map[uint64][]logPart {
	parts := map[uint64][]logPart{}
	for i, row := range m.rows {
		seg := uint32(i)
		if seg == m.meta.Log.Segment && m.meta.Log.Chunk > 0 || m.known[i] && (row.State != format.SegmentSealed || row.Kind != format.BatchLog) {
			continue
		}
		if p, ok := m.logPart(seg, m.geo.Slots()); ok {
			parts[p.last] = append(parts[p.last], p)
		}
	}
	return parts
}

// chain reads the batches of a segment below chunk end.
func (m *mender) chain(seg uint32, kind format.BatchKind, end uint32) *chain {
	c := *m.c
	c.Meta.Incarnation = m.meta.Incarnation // what was rolled over a lost checkpoint counts
	s := &chain{segmentReader: newSegmentReader(m.d, &c, 1), kind: kind, limit: end}
	s.open(seg)
	return s
}

// unused tells whether a segment is free, of which no row was read, or a row that the checkpoint which is lost may have
// changed: nothing refers to it, and it holds nothing of the log from history_floor on.
func (m *mender) unused(seg uint32, row *format.SegmentRow, live uint32) bool {
	return live == 0 && int(seg) < len(m.known) && (!m.known[seg] || m.c.Stale != nil) && !(m.traced[seg] && row.MaxPosition > m.meta.HistoryFl)
}

// raiseFloor gives up the history that is not there any more, or not known to be.
func (m *mender) raiseFloor(to format.Position) {
	if m.meta.HistoryFl < to {
		m.did("history_floor: %d, not %d: the log before it cannot be told from what an earlier life of its segments left", to, m.meta.HistoryFl)
	}
	m.meta.HistoryFl, m.meta.TrimFloor = max(m.meta.HistoryFl, to), max(m.meta.TrimFloor, to)
}
