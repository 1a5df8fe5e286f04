package recovery

import (
	"encoding/binary"
	"fmt"
	"slices"
	"syscall"

	"cawrm/aodi/format"
)

// metaWriter puts new pages into segments that nothing refers to: new ones at the end, else free ones.
type metaWriter struct {
	m       *mender
	rows    []format.SegmentRow
	fresh   map[uint32]bool // segments that it took
	seg     uint32          // the head
	chunk   uint32
	batches []*pageBatch
	pages   map[format.Phys][]byte
}

// pageBatch is a batch of pages that has its place.
type pageBatch struct {
	seg, chunk uint32
	h          format.BatchHeader
	data       [][]byte
}

func newMetaWriter(m *mender) *metaWriter {
	return &metaWriter{m: m, rows: m.rows, fresh: map[uint32]bool{}, seg: noSegment, pages: map[format.Phys][]byte{}}
}

// take finds a segment that neither checkpoint refers to, also when a row says wrongly that it is free. Errors: ENOSPC.
func (w *metaWriter) take() (uint32, error) {
	n := uint32(len(w.rows))
	for w.held(n) {
		n++
	}
	for i := uint32(0); !w.room(n); i++ { // the end is reached: one of those that are free
		if int(i) == len(w.m.known) {
			return 0, fmt.Errorf("%s: a repair needs a free segment, and there is none: %w", w.m.d.Name(), syscall.ENOSPC)
		}
		if live, _ := w.m.before.live(w.m.geo, i); w.m.known[i] && w.rows[i].State == format.SegmentFree && live == 0 && !w.held(i) {
			n = i
			break
		}
	}
	w.fresh[n] = true
	return n, nil
}

// held tells whether a checkpoint names the segment, or the log leads through it.
func (w *metaWriter) held(n uint32) bool {
	old, now := &w.m.c.Meta, &w.m.meta
	return w.fresh[n] || slices.Contains(w.m.rolled.Passed, n) ||
		slices.Contains([]uint32{old.Log.Segment, old.Log.Next, old.MetaSegment, old.MetaNext, now.Log.Segment, now.Log.Next, coldHead(old)}, n)
}

// room tells whether the container may grow to hold segment n. What is kept in memory always may.
func (w *metaWriter) room(n uint32) bool {
	m, end := w.m, w.m.geo.Bytes(uint64(n)+1)
	return m.rescue || !(m.d.Fixed() && end > m.size) && !(m.meta.Capacity > 0 && end > m.meta.Capacity)
}

// page gives a page its place and returns the reference.
func (w *metaWriter) page(tree uint32, level uint8, index uint64, b []byte) (format.Ref, error) {
	e := format.Entry{Birth: format.Position(w.m.meta.Seq), LBA: index, Kind: format.KindPage, Level: level, Count: tree, CRC: format.Sum(b)}
	p, err := w.add(e, b, 1)
	return format.MakeRef(p, e.CRC), err
}

// add appends a page, in a new batch where fewer than n more fit.
func (w *metaWriter) add(e format.Entry, b []byte, n int) (format.Phys, error) {
	slots := w.m.geo.Slots()
	var last *pageBatch
	if k := len(w.batches); k > 0 {
		last = w.batches[k-1]
	}
	if w.seg == noSegment || w.chunk+uint32(n)+1 > slots && !(last != nil && n == 1 && w.chunk < slots && len(last.data) < format.MaxEntries) {
		if w.seg != noSegment {
			w.row(w.seg).State = format.SegmentSealed
		}
		seg, err := w.take()
		if err != nil {
			return 0, err
		}
		w.seg, w.chunk, last = seg, 0, nil
		*w.row(seg) = format.SegmentRow{State: format.SegmentOpen, Kind: format.BatchMeta}
	}
	if last == nil || len(last.data)+n > format.MaxEntries {
		last = &pageBatch{seg: w.seg, chunk: w.chunk}
		w.batches = append(w.batches, last)
		w.chunk++
	}
	p := w.m.geo.Phys(w.seg, w.chunk)
	w.chunk++
	last.h.Entries, last.data = append(last.h.Entries, e), append(last.data, b)
	w.pages[p] = b
	return p, nil
}

// row is a segment's row, which comes to be where there was none.
func (w *metaWriter) row(seg uint32) *format.SegmentRow {
	for uint32(len(w.rows)) <= seg {
		w.rows = append(w.rows, format.SegmentRow{})
	}
	return &w.rows[seg]
}

func (w *metaWriter) good(r format.Ref) bool {
	return w.pages[r.Phys()] != nil || w.m.good(r) || w.inLog(r)
}

// inLog tells whether a reference leads to a segment that the log came to behind the checkpoint.
func (w *metaWriter) inLog(r format.Ref) bool {
	if !r.HasData() {
		return false
	}
	seg, chunk := w.m.geo.Locate(r.Phys())
	return int(seg) < len(w.rows) && chunk < w.m.geo.Slots()
}

func (w *metaWriter) read(r format.Ref) []byte {
	if b := w.pages[r.Phys()]; b != nil {
		return b
	}
	return w.m.page(r)
}

// writeTrees places the forward map and the catalog, counts what refers to what, and places the segment table.
func (m *mender) writeTrees(catalogAnew bool) error {
	m.countBefore()
	m.used, m.mapped = &bitmap{}, 0
	var err error
	if m.meta.MapRoot, err = m.placeMap(); err != nil {
		return err
	}
	if catalogAnew {
		if err := m.placeCatalog(); err != nil {
			return err
		}
	}
	for _, p := range m.catalog.Places {
		for i := 0; i < p.Chunks() && m.w.good(p.Ref); i++ {
			m.used.set(p.Ref.Phys() + format.Phys(i))
		}
	}
	m.count(int(m.meta.MapHeight)-1, m.meta.MapRoot, true)
	m.countOthers()
	if m.meta.Log.Segment == noSegment {
		var seg, next uint32
		if seg, err = m.w.take(); err == nil {
			next, err = m.w.take()
		}
		if err != nil {
			return err
		}
		m.meta.Log.Segment, m.meta.Log.Next = seg, next
		for _, seg := range []uint32{m.meta.Log.Segment, m.meta.Log.Next} {
			*m.w.row(seg) = format.SegmentRow{}
		}
	}
	return m.placeRows()
}

// countOthers counts the maps that are not the volume's: snapshots', and that of a jump epoch.
func (m *mender) countOthers() {
	if m.meta.Jump.End > 0 {
		m.count(int(jumpHeight(&m.meta))-1, m.meta.Jump.Root, false)
	}
	for _, s := range m.catalog.Snapshots {
		m.count(int(s.Height)-1, s.Root, false)
	}
}

// countBefore notes what the old trees and the changed leaves lead to: no page may be put there.
func (m *mender) countBefore() {
	m.used = &bitmap{}
	m.count(int(m.c.Meta.MapHeight)-1, m.c.Meta.MapRoot, true)
	m.countOthers()
	for _, b := range m.leaves {
		for slot := range format.RefsPerPage {
			if r := refAt(b, slot); m.w.good(r) {
				m.used.set(r.Phys())
			}
		}
	}
	m.before = m.used
}

func (m *mender) placeCatalog() error {
	parts, err := m.catalog.Parts(m.geo)
	if err != nil {
		return err
	}
	m.meta.Catalog, m.meta.CatalogLen, m.catalog.Places = format.Unmapped, 0, nil
	numbers, at := make([]int, len(parts)+1), make([]format.Phys, len(parts))
	for k, b := range parts {
		numbers[k+1] = numbers[k] + format.CatalogPart{Len: uint32(len(b))}.Chunks()
	}
	for k := len(parts) - 1; k >= 0; k-- { // each has the place of the next in it
		m.catalog.Places = format.Chain(parts, at)
		if at[k], err = m.placePart(parts[k], numbers[k]); err != nil {
			return err
		}
	}
	if len(parts) > 0 {
		m.catalog.Places = format.Chain(parts, at)
		m.meta.Catalog, m.meta.CatalogLen = m.catalog.Places[0].Ref, m.catalog.Places[0].Len
	}
	return nil
}

// placePart writes a part of the catalog and returns where its first chunk is.
func (m *mender) placePart(b []byte, number int) (first format.Phys, err error) {
	n := format.CatalogPart{Len: uint32(len(b))}.Chunks()
	b = append(slices.Clone(b), make([]byte, n*format.ChunkSize-len(b))...)
	for i := range n {
		part := b[i*format.ChunkSize : (i+1)*format.ChunkSize]
		p, err := m.w.add(format.Entry{Birth: format.Position(m.meta.Seq), LBA: uint64(number + i), Kind: format.KindPage, Count: treeCatalog, CRC: format.Sum(part)}, part, n-i)
		if err != nil {
			return 0, err
		}
		if i == 0 {
			first = p
		}
	}
	return first, nil
}

// placeRows writes the whole segment table anew. Its own pages are counted in it, so they get their places first.
func (m *mender) placeRows() error {
	w := m.w
	type slot struct {
		p format.Phys
		b []byte
	}
	levels := make([][]slot, m.meta.SegHeight)
	for again := true; again; {
		again = false
		for level, n := range pagesOf(len(w.rows), int(m.meta.SegHeight)) {
			for i := len(levels[level]); i < n; i++ {
				b := make([]byte, format.ChunkSize)
				p, err := w.add(format.Entry{Birth: format.Position(m.meta.Seq), LBA: uint64(i), Kind: format.KindPage, Level: uint8(level), Count: treeSegment}, b, 1)
				if err != nil {
					return err
				}
				levels[level] = append(levels[level], slot{p, b})
				again = true
			}
		}
	}
	for p := range w.pages {
		m.used.set(p)
	}
	m.countRows()
	for i, row := range w.rows {
		row.Put(levels[0][i/format.RowsPerPage].b[i%format.RowsPerPage*format.SegmentRowSize:])
	}
	root := format.Unmapped
	for level := range levels {
		for i, s := range levels[level] {
			r := format.MakeRef(s.p, format.Sum(s.b))
			if level+1 < len(levels) {
				binary.LittleEndian.PutUint64(levels[level+1][i/format.RefsPerPage].b[i%format.RefsPerPage*8:], uint64(r))
			} else {
				root = r
			}
		}
	}
	m.meta.SegRoot = root
	return nil
}

// pagesOf is the number of pages of each level that rows need.
func pagesOf(rows, height int) []int {
	n := make([]int, height)
	for level, k := 0, (rows+format.RowsPerPage-1)/format.RowsPerPage; level < height; level++ {
		n[level] = max(1, k)
		k = (k + format.RefsPerPage - 1) / format.RefsPerPage
	}
	return n
}

// countRows makes the counts of the rows, and what follows from them, agree with what refers to the segments.
func (m *mender) countRows() {
	w := m.w
	for i := range w.rows {
		seg, row := uint32(i), &w.rows[i]
		live, _ := m.used.live(m.geo, seg)
		switch {
		case row.State == format.SegmentFree && live > 0:
			*row = m.rowOf(seg)
			if row.State == format.SegmentFree {
				row.State, row.Kind = format.SegmentSealed, format.BatchLog
			}
		case w.fresh[seg]:
		case row.Kind == format.BatchMeta && live == 0, row.State == format.SegmentSealed && m.unused(seg, row, live):
			*row = format.SegmentRow{} // also the head that was
		case row.State == format.SegmentOpen && seg != m.meta.Log.Segment && seg != m.meta.Log.Next:
			row.State = format.SegmentSealed
		}
		if row.Kind == format.BatchLog && row.State == format.SegmentSealed {
			m.raise(seg, row)
		}
		row.Live = live
	}
	if to := m.meta.Log.Segment; int(to) < len(w.rows) && m.meta.Log.Chunk > 0 {
		w.rows[to].State, w.rows[to].Kind, w.rows[to].MaxPosition = format.SegmentOpen, format.BatchLog, 0
	}
	n := len(w.rows)
	for n > 0 && w.rows[n-1].State == format.SegmentFree {
		n--
	}
	m.meta.Segments, m.meta.Free, m.meta.Live, m.meta.ColdChunk = uint64(n), 0, 0, 0 // cleaning goes on in a new segment
	for _, row := range w.rows[:n] {
		if row.Kind != format.BatchMeta {
			m.meta.Live += uint64(row.Live)
		}
		if row.State == format.SegmentFree {
			m.meta.Free++
		}
	}
	if m.mapped != m.meta.Mapped && m.rolled.Batches == 0 && len(m.gone) == 0 {
		m.did("checkpoint: %d chunks are mapped, not %d", m.mapped, m.meta.Mapped)
	}
	m.meta.Mapped = m.mapped
}

// raise puts the maximum position of a log segment where its batches are.
func (m *mender) raise(seg uint32, row *format.SegmentRow) {
	if m.rescue {
		return
	}
	most := format.Position(0)
	_, _ = m.batches(seg, format.BatchLog, m.geo.Slots(), func(_ uint32, h *format.BatchHeader) {
		if h.Commits() && h.End <= m.births() {
			most = max(most, h.End)
		}
	})
	if row.MaxPosition < most || row.MaxPosition > m.births() {
		m.did("segment %d: its maximum position is %d, not %d", seg, most, row.MaxPosition)
		row.MaxPosition = most
	}
}

// births is above the births of all records that count.
func (m *mender) births() format.Position { return max(m.meta.Position, m.meta.Jump.End) }

// flush writes the pages, summaries of segments that are full of them, and the meta chunk.
func (w *metaWriter) flush() error {
	m := w.m
	slots := map[uint32][]format.Entry{}
	for _, b := range w.batches {
		h := &b.h
		h.Kind, h.Flags, h.Tag, h.Seq, h.Time = format.BatchMeta, format.FlagCommit, m.c.Tag(), m.meta.Seq, m.meta.Time
		h.Incarnation, h.Data = m.meta.Incarnation, uint16(len(b.data))
		if slots[b.seg] == nil {
			slots[b.seg] = make([]format.Entry, m.geo.Slots())
		}
		slots[b.seg][b.chunk].Kind = format.KindHeader
		p := make([]byte, format.ChunkSize, (1+len(b.data))*format.ChunkSize)
		for i, page := range b.data {
			h.Entries[i].CRC = format.Sum(page) // the rows were filled in after they had their place
			slots[b.seg][b.chunk+1+uint32(i)] = h.Entries[i]
			p = append(p, page...)
		}
		h.Encode(p)
		if err := m.d.WriteCached(p, int64(m.geo.Phys(b.seg, b.chunk))*format.ChunkSize); err != nil {
			return err
		}
	}
	for seg, s := range slots {
		if seg == w.seg {
			continue
		}
		sum := format.Summary{Kind: format.BatchMeta, Tag: m.c.Tag(), Segment: seg, Incarnation: m.meta.Incarnation, Slots: s}
		b := make([]byte, m.geo.SummaryChunks*format.ChunkSize)
		sum.Encode(m.geo, b)
		if err := m.d.WriteCached(b, int64(m.geo.Phys(seg, m.geo.Slots()))*format.ChunkSize); err != nil {
			return err
		}
	}
	next, err := w.take()
	if err != nil {
		return err
	}
	m.meta.MetaSegment, m.meta.MetaChunk, m.meta.MetaNext = w.seg, w.chunk, next
	if err := m.d.Grow(m.geo.Bytes(m.meta.Segments)); err != nil {
		return err
	}
	b := make([]byte, format.ChunkSize)
	m.meta.Encode(b)
	return m.d.WriteCached(b, int64(1+m.meta.Seq%2)*format.ChunkSize)
}
