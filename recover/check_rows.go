package recovery

import (
	"fmt"

	"cawrm/aodi/format"
)

func (k *checker) segmentForest(leaf func(uint64, [][]byte)) *forest {
	m := &k.c.Meta
	// Free segments at the end are not counted, and their rows, all zero, can fill a page: loadRows looks at them.
	return &forest{tree: treeSegment, perLeaf: format.RowsPerPage, limit: span(m.SegHeight, format.RowsPerPage), leaf: leaf,
		roots: []format.Ref{m.SegRoot}, heights: []uint32{m.SegHeight}}
}

// loadRows reads the segment table. Rows whose page is absent or unreadable are zero.
func (k *checker) loadRows() {
	segments := k.c.Meta.Segments
	rows := make([]format.SegmentRow, segments)
	k.walk(k.segmentForest(func(index uint64, pages [][]byte) {
		for i := range uint64(format.RowsPerPage) {
			row, seg := format.GetSegmentRow(pages[0][i*format.SegmentRowSize:]), index*format.RowsPerPage+i
			switch {
			case seg < segments:
				rows[seg] = row
			case row != format.SegmentRow{}:
				k.rep.bad(8, "segment %d has a row (%s, %d live), the container has %d segments", seg, stateName(row.State), row.Live, segments)
			}
		}
	}))
	k.rows = rows
	k.lostRows = k.lost > 0
}

// checkRows looks at C9, C10 and C13.
func (k *checker) checkRows() {
	m, n := &k.c.Meta, &k.rep.Counts
	live := uint64(0)
	if k.lostRows {
		k.rep.note("parts of the segment table could not be read: their segments count as free")
	}
	n.Segments = m.Segments
	for i, row := range k.rows {
		seg := uint32(i)
		switch row.State {
		case format.SegmentFree:
			n.Free++
			if (row != format.SegmentRow{}) {
				k.rep.bad(9, "segment %d is free, but its row says %s, %d live, max position %d", seg, kindName(row.Kind), row.Live, row.MaxPosition)
			}
			continue
		case format.SegmentOpen:
			n.Open++
			k.checkOpen(seg, row)
		case format.SegmentSealed:
			n.Sealed++
		default:
			k.rep.bad(9, "segment %d has state %d", seg, row.State)
		}
		if row.Kind < format.BatchLog || row.Kind > format.BatchMeta {
			k.rep.bad(9, "segment %d has kind %d", seg, row.Kind)
		}
		if row.Kind != format.BatchMeta {
			live += uint64(row.Live)
		}
		if row.Live > k.geo.Slots() {
			k.rep.bad(9, "segment %d has %d live chunks of %d", seg, row.Live, k.geo.Slots())
		}
	}
	k.checkHead(m.Log.Segment, format.BatchLog, m.Log.Chunk)
	k.checkHead(m.MetaSegment, format.BatchMeta, m.MetaChunk)
	if m.ColdChunk > 0 {
		k.checkHead(m.ColdSegment, format.BatchCold, m.ColdChunk)
	}
	k.checkReserved(m.Log.Next, format.BatchLog)
	k.checkReserved(m.MetaNext, format.BatchMeta)
	if !k.lostRows && n.Free != m.Free {
		k.rep.bad(13, "%d segments are free, the checkpoint says %d", n.Free, m.Free)
	}
	if !k.lostRows && live != m.Live {
		k.rep.bad(13, "%d chunks of data are live, the checkpoint says %d", live, m.Live)
	}
}

// checkHead: a head is open, unless nothing was put into it yet (C10).
func (k *checker) checkHead(seg uint32, kind format.BatchKind, chunk uint32) {
	if uint64(seg) >= uint64(len(k.rows)) || k.lostRows {
		return
	}
	row := k.rows[seg]
	if row.State == format.SegmentFree && chunk == 0 {
		return
	}
	if row.State != format.SegmentOpen || row.Kind != kind {
		k.rep.bad(10, "segment %d is the head of %s, but its row says %s, %s", seg, kindName(kind), stateName(row.State), kindName(row.Kind))
	}
}

func (k *checker) checkReserved(seg uint32, kind format.BatchKind) {
	if uint64(seg) >= uint64(len(k.rows)) {
		return
	}
	row := k.rows[seg]
	if row.State == format.SegmentSealed || row.State == format.SegmentOpen && row.Kind != kind || row.Live > 0 {
		k.rep.bad(10, "segment %d is reserved for %s, but its row says %s, %s, %d live", seg, kindName(kind), stateName(row.State), kindName(row.Kind), row.Live)
	}
}

// checkOpen: who is open is a head or reserved.
func (k *checker) checkOpen(seg uint32, row format.SegmentRow) {
	m := &k.c.Meta
	switch {
	case row.Kind == format.BatchLog && (seg == m.Log.Segment || seg == m.Log.Next),
		row.Kind == format.BatchMeta && (seg == m.MetaSegment || seg == m.MetaNext),
		row.Kind == format.BatchCold && seg == coldHead(m):
		return
	}
	k.rep.bad(10, "segment %d of %s is open and is neither head nor reserved", seg, kindName(row.Kind))
}

func stateName(s format.SegmentState) string {
	switch s {
	case format.SegmentFree:
		return "free"
	case format.SegmentOpen:
		return "open"
	case format.SegmentSealed:
		return "sealed"
	}
	return fmt.Sprintf("state %d", s)
}

func kindName(b format.BatchKind) string {
	switch b {
	case format.BatchLog:
		return "log"
	case format.BatchCold:
		return "cold"
	case format.BatchMeta:
		return "pages"
	}
	return fmt.Sprintf("kind %d", b)
}
