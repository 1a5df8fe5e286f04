package recovery

import (
	"errors"
	"fmt"
	"math/bits"
	"slices"

	"cawrm/aodi/format"
)

// readRows reads the segment table as far as that is possible.
func (m *mender) readRows() {
	n := m.c.Meta.Segments
	m.rows, m.known = make([]format.SegmentRow, n), make([]bool, n)
	m.rowPages(int(m.meta.SegHeight)-1, 0, m.meta.SegRoot)
}

func (m *mender) rowPages(level int, index uint64, r format.Ref) {
	first, span := index*format.RowsPerPage<<(fanBits*level), uint64(format.RowsPerPage)<<(fanBits*level)
	if first >= uint64(len(m.rows)) {
		return
	}
	var b []byte
	if r == format.Unmapped { // rows of new segments are zero
		b = make([]byte, format.ChunkSize)
	} else if b = m.page(r); b == nil {
		m.did("segment table: page %d of level %d at byte %d is damaged: the rows of segments %d to %d made anew from what the segments hold", index, level,
			int64(r.Phys())*format.ChunkSize, first, min(first+span, uint64(len(m.rows)))-1)
		return
	}
	if level > 0 {
		for slot := range format.RefsPerPage {
			m.rowPages(level-1, index<<fanBits|uint64(slot), refAt(b, slot))
		}
		return
	}
	for i := range uint64(format.RowsPerPage) {
		if seg := first + i; seg < uint64(len(m.rows)) {
			m.rows[seg], m.known[seg] = format.GetSegmentRow(b[i*format.SegmentRowSize:]), true
		}
	}
}

// readCatalog reads the catalog, or an earlier copy. It tells whether the catalog must be written anew.
func (m *mender) readCatalog() (anew bool) {
	var err error
	if m.catalog, err = ReadCatalog(m.d, m.c); err == nil {
		return false
	}
	stays := m.catalog.Places
	if seq, ok := m.earlierCatalog(); ok {
		m.did("catalog: %v; taken from checkpoint %d", err, seq)
		return true
	}
	m.catalog = format.Catalog{Lineage: []format.Lineage{{ID: m.meta.Volume}}, Places: stays}
	m.cannot("catalog: %v, and there is no earlier copy; mirrors and lineage are forgotten", err)
	return m.rescue // on a disk it stays as it is
}

// earlierCatalog looks for the newest whole copy among the map pages.
func (m *mender) earlierCatalog() (seq uint64, ok bool) {
	s := newSegmentReader(m.d, m.c, 1)
	for seg := range uint32(m.c.Meta.Segments) {
		s.open(seg)
		m.batches(seg, format.BatchMeta, m.geo.Slots(), func(at uint32, h *format.BatchHeader) {
			if len(h.Entries) == 0 || h.Entries[0].Count != treeCatalog || h.Entries[0].LBA != 0 || h.Seq > m.c.Meta.Seq || ok && h.Seq <= seq {
				return
			}
			if c, err := m.catalogAt(seg, at, h); err == nil {
				m.catalog, seq, ok = c, h.Seq, true
			}
		})
	}
	return seq, ok
}

func (m *mender) catalogAt(seg, at uint32, h *format.BatchHeader) (format.Catalog, error) {
	b := make([]byte, int(h.Data)*format.ChunkSize)
	if err := m.d.ReadAt(b, int64(m.geo.Phys(seg, at+1))*format.ChunkSize); err != nil {
		return format.Catalog{}, err
	}
	if err := VerifyData(h, b); err != nil {
		return format.Catalog{}, err
	}
	n := 0 // nothing says how long it was, but what is behind it is zero, and no item is
	for n+4 <= len(b) && (b[n] != 0 || b[n+1] != 0) {
		n += 4 + int(b[n+2]) + int(b[n+3])<<8
	}
	b = b[:min(n, len(b))]
	return readCatalog(m.d, format.CatalogPart{Ref: format.MakeRef(m.geo.Phys(seg, at+1), format.Sum(b)), Len: uint32(len(b))})
}

// batches calls do for the headers of a segment's batches of that kind, one behind the other, below chunk end. It
// returns where they end, and why there when that is before.
func (m *mender) batches(seg uint32, kind format.BatchKind, end uint32, do func(at uint32, h *format.BatchHeader)) (at uint32, err error) {
	for s := m.chain(seg, kind, end); at < end; at += s.h.Chunks() {
		if err := s.next(at); err != nil {
			return at, err
		}
		do(at, &s.h)
	}
	return at, nil
}

// roll applies the log behind the checkpoint. Where the checkpoint that began an incarnation is lost, it goes on.
func (m *mender) roll() error {
	r := newRoller(m.d, m.c, nil)
	r.bridge = true
	end, logged, head := m.meta.Position, m.meta.Logged, m.meta.Log.Segment
	left := map[uint32]format.Position{}
	var wrong error
	jump, stop, next := false, format.LogPlace{}, m.meta.Log.Next
	r.apply = func(h *format.BatchHeader, at Place) error {
		if !jump && h.Flags&format.FlagJump != 0 {
			jump, stop = true, r.res.Log
		}
		next = h.Next
		if jump { // it goes to a map of its own, which is the volume's business; but where it stands nothing else may go
			return nil
		}
		if wrong = m.apply(h, at, false); wrong != nil {
			return errEnough
		}
		if at.Segment != head {
			left[head], head = max(end, m.meta.Jump.End), at.Segment
		}
		end, logged = max(end, h.End), logged+uint64(h.Data)
		return nil
	}
	res, err := r.run()
	if err != nil && !errors.Is(err, errEnough) {
		return err
	}
	if jump {
		if r.inc != m.c.Meta.Incarnation {
			return fmt.Errorf("%s: checkpoints are lost in the middle of a jump epoch: create the mirror anew", m.d.Name())
		}
		res.Log, res.Passed = stop, append(res.Passed, next) // the log goes on behind it
	}
	if wrong != nil {
		m.cannot("log: it ends at segment %d chunk %d: %v", res.Log.Segment, res.Log.Chunk, wrong)
	}
	m.rolled = res
	most := head
	for seg := range left {
		most = max(most, seg)
	}
	for uint32(len(m.rows)) <= most {
		m.rows, m.known = append(m.rows, format.SegmentRow{}), append(m.known, true)
	}
	for seg, at := range left {
		m.rows[seg], m.known[seg] = format.SegmentRow{State: format.SegmentSealed, Kind: format.BatchLog, MaxPosition: at}, true
		m.rows[head], m.known[head] = format.SegmentRow{State: format.SegmentOpen, Kind: format.BatchLog}, true
	}
	if r.inc != m.c.Meta.Incarnation {
		m.barred = true
		m.did("log: checkpoints of incarnations %d to %d are lost; the log goes on across them", m.c.Meta.Incarnation+1, r.inc)
	}
	if m.rescue && jump {
		m.cannot("log: a jump epoch begins or goes on at segment %d chunk %d: what it brings is not shown", res.Log.Segment, res.Log.Chunk)
	}
	if m.rescue {
		m.meta.Jump = format.Jump{}
		m.did("log: %s", rollLine(&res, end))
		m.beyond()
	}
	m.meta.Position, m.meta.Logged, m.meta.Log, m.meta.Incarnation = end, logged, res.Log, r.inc
	return nil
}

// beyond looks for batches behind the end of the log: an unfinished write of a crash leaves some, and so does damage.
func (m *mender) beyond() {
	to, n := &m.rolled.Log, 0
	b := make([]byte, format.ChunkSize)
	var h format.BatchHeader
	for at := to.Chunk + 1; at < m.geo.Slots(); at++ {
		off := int64(m.geo.Phys(to.Segment, at)) * format.ChunkSize
		if off+format.ChunkSize <= m.d.Size() && m.d.ReadAt(b, off) == nil && h.Decode(b) == nil && h.Tag == m.c.Tag() &&
			h.Kind == format.BatchLog && h.Seq > to.Seq && h.Incarnation >= m.meta.Incarnation {
			n++
		}
	}
	if n > 0 {
		m.cannot("log: %d batches stand behind its end at segment %d chunk %d and do not follow: an unfinished write of a crash, or damage there", n, to.Segment, to.Chunk)
	}
}

// deriveRows makes rows that were not read, or that cannot be, from what the segments hold. Which of those are in use is
// told by countRows, when it is known what refers to them.
func (m *mender) deriveRows() {
	for i := range m.rows {
		row := &m.rows[i]
		if m.known[i] = m.known[i] && row.State <= format.SegmentSealed && (row.State == format.SegmentFree || row.Kind >= format.BatchLog && row.Kind <= format.BatchMeta); m.known[i] && row.State == format.SegmentFree {
			*row = format.SegmentRow{}
		}
	}
	if !slices.Contains(m.known, false) && m.c.Stale == nil {
		return
	}
	var reach format.Position
	m.traced, reach = m.traceLog()
	m.raiseFloor(reach)
	for i := range m.rows {
		seg := uint32(i)
		if m.known[i] {
			continue
		}
		if m.rows[i] = m.rowOf(seg); m.reserved(seg) || slices.Contains(m.rolled.Passed, seg) {
			m.rows[i] = format.SegmentRow{} // what is there is of an earlier life
		}
	}
}

// reserved tells whether a checkpoint names the segment and nothing of its own is in it yet.
func (m *mender) reserved(seg uint32) bool {
	old, now := &m.c.Meta, &m.meta
	return seg == now.Log.Next || seg == old.MetaNext || seg == now.Log.Segment && now.Log.Chunk == 0 || seg == old.MetaSegment && old.MetaChunk == 0
}

// rowOf says what a segment is by its first batch, else by its summary.
func (m *mender) rowOf(seg uint32) format.SegmentRow {
	b := make([]byte, format.ChunkSize)
	var h format.BatchHeader
	row := format.SegmentRow{State: format.SegmentSealed}
	if m.d.ReadAt(b, int64(m.geo.Phys(seg, 0))*format.ChunkSize) == nil && h.Decode(b) == nil && h.Tag == m.c.Tag() && m.past(&h) {
		row.Kind = h.Kind
	} else {
		s := newSegmentReader(m.d, m.c, 1)
		s.open(seg)
		sum, err := s.summary()
		if err != nil || sum.Tag != m.c.Tag() || sum.Segment != seg {
			return format.SegmentRow{}
		}
		row.Kind, row.MaxPosition = sum.Kind, sum.MaxPosition
	}
	if row.Kind == format.BatchLog {
		_, _ = m.batches(seg, row.Kind, m.geo.Slots(), func(_ uint32, h *format.BatchHeader) {
			if (h.Commits() || h.Flags&format.FlagJump != 0) && h.End <= m.births() {
				row.MaxPosition = max(row.MaxPosition, h.End)
			}
		})
	}
	return row
}

// past tells whether a batch was written before the end of the log, or by a checkpoint that counts.
func (m *mender) past(h *format.BatchHeader) bool {
	if h.Kind == format.BatchMeta {
		return h.Seq <= m.c.Meta.Seq
	}
	return h.Kind != format.BatchLog || h.Seq < m.meta.Log.Seq
}

// chooseHead keeps the head of the log if its batches can be read: opening for writing needs them.
func (m *mender) chooseHead() {
	to := &m.meta.Log
	_, err := m.batches(to.Segment, format.BatchLog, to.Chunk, func(uint32, *format.BatchHeader) {})
	if m.rescue {
		err = errors.New("nothing is written") // a head of its own, whatever stands in the old one
	} else if err != nil {
		m.barred = true
		m.did("log: a batch of its head, segment %d, is damaged (%v); it goes on in a new segment", to.Segment, err)
	}
	if err == nil {
		return
	}
	if int(to.Segment) < len(m.rows) && to.Chunk > 0 {
		m.rows[to.Segment] = format.SegmentRow{State: format.SegmentSealed, Kind: format.BatchLog, MaxPosition: m.meta.Position}
	}
	to.Segment, to.Chunk, to.Next = noSegment, 0, noSegment
}

const noSegment = ^uint32(0)

// bitmap has a bit for each chunk of the container.
type bitmap struct{ words []uint64 }

// set tells whether the bit was set before.
func (s *bitmap) set(p format.Phys) bool {
	i := int(p / 64)
	for i >= len(s.words) {
		s.words = append(s.words, make([]uint64, 1+len(s.words))...)
	}
	was := s.words[i]&(1<<(p%64)) != 0
	s.words[i] |= 1 << (p % 64)
	return was
}

// live counts the chunks of a segment, and finds the one behind the last.
func (s *bitmap) live(g format.Geometry, seg uint32) (n, end uint32) {
	first := g.Phys(seg, 0)
	for i := uint32(0); i < g.SegmentChunks; i += 32 { // segments are of 32 chunks at least
		p := first + format.Phys(i)
		if int(p/64) >= len(s.words) {
			break
		}
		if w := uint32(s.words[p/64] >> (p % 64)); w != 0 {
			n += uint32(bits.OnesCount32(w))
			end = i + uint32(bits.Len32(w))
		}
	}
	return n, end
}

// summarize writes summaries of sealed segments that have none, or not a right one, from their batches.
func (m *mender) summarize() {
	s := newSegmentReader(m.d, m.c, 1)
	for i := range m.w.rows {
		seg, row := uint32(i), &m.w.rows[i]
		if row.State != format.SegmentSealed || m.w.fresh[seg] {
			continue
		}
		s.open(seg)
		old, err := s.summary()
		if err == nil && (old.Segment != seg || old.Tag != m.c.Tag() || old.Kind != row.Kind || old.Incarnation > m.meta.Incarnation) {
			err = fmt.Errorf("it is of segment %d: %w", old.Segment, format.ErrInvalid)
		}
		slots, whole := m.slotsOf(seg, row)
		if err == nil && (!whole || sameSlots(old.Slots, slots)) {
			continue
		}
		if !whole {
			m.cannot("summary of segment %d: %v, and not all of its batches can be read: it holds those that can be", seg, err)
			m.behind(seg, row, slots)
		}
		sum := format.Summary{Kind: row.Kind, Tag: m.c.Tag(), Segment: seg, Incarnation: m.meta.Incarnation, MaxPosition: row.MaxPosition, Slots: slots}
		b := make([]byte, m.geo.SummaryChunks*format.ChunkSize)
		sum.Encode(m.geo, b)
		if m.d.WriteCached(b, int64(m.geo.Phys(seg, m.geo.Slots()))*format.ChunkSize) == nil {
			m.did("summary of segment %d: made anew from its batches", seg)
		}
	}
}

// slotsOf is what the headers of a segment say; whole when they reach all that is referred to. It raises the row's
// maximum position to what the batches hold.
func (m *mender) slotsOf(seg uint32, row *format.SegmentRow) (slots []format.Entry, whole bool) {
	slots = make([]format.Entry, m.geo.Slots())
	end := m.geo.Slots()
	if seg == m.c.Meta.MetaSegment {
		end = min(end, m.c.Meta.MetaChunk) // a checkpoint with a right checksum can say anything
	}
	if seg == coldHead(&m.c.Meta) {
		end = min(end, m.c.Meta.ColdChunk)
	}
	at, _ := m.batches(seg, row.Kind, end, func(at uint32, h *format.BatchHeader) { fillSlots(slots, at, h) })
	_, used := m.used.live(m.geo, seg)
	return slots, at >= used && (row.Kind != format.BatchLog || !Fits(m.geo, at))
}

// behind looks for batches behind one that cannot be read.
func (m *mender) behind(seg uint32, row *format.SegmentRow, slots []format.Entry) {
	var h format.BatchHeader
	for at := uint32(0); at < m.geo.Slots(); at++ {
		if slots[at].Kind != format.KindNone || !m.wholeBatch(seg, at, &h) || h.Kind != row.Kind || !m.past(&h) {
			continue
		}
		fillSlots(slots, at, &h)
	}
}

// wholeBatch reads a batch with its data.
func (m *mender) wholeBatch(seg, at uint32, h *format.BatchHeader) bool {
	b := make([]byte, format.ChunkSize)
	off := int64(m.geo.Phys(seg, at)) * format.ChunkSize
	if m.d.ReadAt(b, off) != nil || h.Decode(b) != nil || h.Tag != m.c.Tag() || at+h.Chunks() > m.geo.Slots() {
		return false
	}
	data := make([]byte, int(h.Data)*format.ChunkSize)
	return m.d.ReadAt(data, off+format.ChunkSize) == nil && VerifyData(h, data) == nil
}

// fillSlots notes a batch in a summary.
func fillSlots(slots []format.Entry, at uint32, h *format.BatchHeader) {
	slots[at] = format.Entry{Kind: format.KindHeader}
	for i := range h.Entries {
		if e := h.Entries[i]; e.Kind == format.KindData || e.Kind == format.KindPage {
			at++
			slots[at] = e
		}
	}
}

// sameSlots compares a summary with the headers. A batch that was void when the segment was recovered may be in no slot.
func sameSlots(old, now []format.Entry) bool {
	for i := range now {
		if i < len(old) && old[i] != now[i] && old[i].Kind != format.KindNone {
			return false
		}
	}
	return len(old) == len(now)
}
