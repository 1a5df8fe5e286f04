package recovery

import (
	"fmt"

	"cawrm/aodi/format"
)

// checkSegment compares one segment with what refers to it and with itself.
func (k *checker) checkSegment(seg uint32) {
	row := k.rows[seg]
	at := int(seg-k.base) * int(k.geo.SegmentChunks)
	claims := k.claims[at : at+int(k.geo.Slots())]
	live := uint32(0)
	for _, c := range claims {
		if c != 0 {
			live++
		}
	}
	k.rep.Counts.Live += uint64(live)
	if k.lost == 0 && live != row.Live {
		k.rep.bad(11, "segment %d (%s, %s) has %d referenced chunks, its row says %d", seg, stateName(row.State), kindName(row.Kind), live, row.Live)
	}
	if row.State == format.SegmentFree {
		return
	}
	if k.reader == nil {
		k.reader = newSegmentReader(k.d, k.c, readAhead)
		if k.o.Quick {
			k.reader = newSegmentReader(k.d, k.c, 1) // headers and summaries are far between
		}
	}
	k.reader.open(seg)
	k.reader.read = 0
	k.readInverse(seg, row)
	k.checkClaims(seg, claims)
	k.rep.Counts.ReadBytes += k.reader.read
}

// readInverse fills slots with the inverse map of a segment: from its summary when it is sealed, else from its batches.
func (k *checker) readInverse(seg uint32, row format.SegmentRow) {
	clear(k.slots)
	w := &batchWalk{k: k, chain: chain{segmentReader: k.reader, kind: row.Kind, limit: k.geo.Slots()}}
	m := &k.c.Meta
	switch {
	case row.State == format.SegmentSealed:
		w.sum = k.checkSummary(seg, row)
	case seg == m.Log.Segment:
		w.limit = min(w.limit, m.Log.Chunk)
	case seg == m.MetaSegment:
		w.limit = min(w.limit, m.MetaChunk)
	case seg == coldHead(m):
		w.limit = min(w.limit, m.ColdChunk)
	case seg == m.Log.Next, seg == m.MetaNext:
		return // nothing was promised of it
	}
	if w.sum != nil {
		copy(k.slots, w.sum.Slots)
	}
	w.run()
	if row.Kind == format.BatchMeta {
		return
	}
	if row.State == format.SegmentSealed || row.Kind == format.BatchCold {
		if limit := k.births(); row.MaxPosition > limit && row.Kind == format.BatchLog {
			k.rep.bad(17, "segment %d: its maximum position %d is above the checkpoint's %d", seg, row.MaxPosition, limit)
		}
		if w.max > row.MaxPosition || w.sum != nil && w.max > w.sum.MaxPosition {
			k.rep.bad(17, "segment %d has a birth at %d, and a maximum position of %d in its row", seg, w.max-1, row.MaxPosition)
		}
	}
	if seg == m.Log.Segment {
		k.checkLogHead(&w.prev)
	}
}

// births is above all births: the checkpoint's position, or that of the jump epoch which it holds a part of.
func (k *checker) births() format.Position { return max(k.c.Meta.Position, k.c.Meta.Jump.End) }

// checkSummary is C14.
func (k *checker) checkSummary(seg uint32, row format.SegmentRow) *format.Summary {
	s, err := k.reader.summary()
	where := k.at(seg, k.geo.Slots())
	switch {
	case err != nil:
		k.rep.bad(14, "summary at %s: %v", where, err)
		return nil
	case s.Segment != seg || s.Tag != k.c.Tag() || s.Kind != row.Kind || s.Incarnation > k.c.Meta.Incarnation:
		k.rep.bad(14, "summary at %s is of segment %d, %s, incarnation %d (of %d), container %#016x", where, s.Segment, kindName(s.Kind),
			s.Incarnation, k.c.Meta.Incarnation, s.Tag)
		return nil
	}
	return &s
}

// checkLogHead is C21.
func (k *checker) checkLogHead(p *link) {
	m := &k.c.Meta
	if m.Log.Chunk == 0 || !p.known {
		return // nothing there, or C15 has said it
	}
	end := p.end
	if p.jump {
		end = p.first // the position stays until the epoch ends
	}
	if p.seq+1 != m.Log.Seq || p.crc != m.Log.PrevCRC || end != m.Position || p.logged != m.Logged {
		k.rep.bad(21, "segment %d: before chunk %d stands batch %d with checksum %#08x, end %d, %d chunks logged; the checkpoint says %d, %#08x, %d, %d",
			m.Log.Segment, m.Log.Chunk, p.seq, p.crc, end, p.logged, m.Log.Seq-1, m.Log.PrevCRC, m.Position, m.Logged)
	}
}

// batchWalk goes over the batches of a segment and compares them with the summary, or collects what it would say.
type batchWalk struct {
	chain
	k    *checker
	sum  *format.Summary // nil: slots are filled from the headers
	max  format.Position // 1 + the greatest birth that counts
	held format.Position // the same for batches that nothing has committed yet
	jump bool            // which are of a jump epoch
}

func (w *batchWalk) run() {
	used := w.used()
	for at := uint32(0); at < used; {
		// A batch that was void when its segment was recovered is in no slot, but the chain goes through it.
		void := w.sum != nil && w.k.slots[at].Kind == format.KindNone
		if err := w.next(at); err != nil {
			if w.sum == nil && w.k.rows[w.seg].State == format.SegmentSealed {
				return // nothing tells where its batches end; C14 was reported
			}
			if void {
				w.k.rep.bad(16, "%s is in no slot of the summary, though chunks behind it are, and it is no batch: %v", w.k.at(w.seg, at), err)
			} else {
				w.k.rep.bad(15, "%s: %v", w.k.at(w.seg, at), err)
			}
			at = w.resume(at)
			continue
		}
		w.k.rep.Counts.Batches++
		w.compare(at, void)
		w.births(at)
		at += w.h.Chunks()
	}
}

// used is the chunk behind the last one that batches have used.
func (w *batchWalk) used() uint32 {
	if w.sum == nil {
		return w.limit
	}
	n := uint32(len(w.sum.Slots))
	for n > 0 && w.sum.Slots[n-1].Kind == format.KindNone {
		n--
	}
	return n
}

// resume finds where to go on behind a batch that could not be read.
func (w *batchWalk) resume(at uint32) uint32 {
	w.prev = link{}
	for at++; w.sum != nil && int(at) < len(w.sum.Slots); at++ {
		if w.sum.Slots[at].Kind == format.KindHeader {
			return at
		}
	}
	return w.limit
}

// compare is C16 for one batch.
func (w *batchWalk) compare(at uint32, void bool) {
	slots := w.k.slots
	if w.sum == nil {
		slots[at] = format.Entry{Kind: format.KindHeader}
	} else if !void && slots[at].Kind != format.KindHeader {
		w.k.rep.bad(16, "%s is a batch header, the summary says %s", w.k.at(w.seg, at), entryName(&slots[at]))
	}
	i := at
	for n := range w.h.Entries {
		e := &w.h.Entries[n]
		if e.Kind != format.KindData && e.Kind != format.KindPage {
			continue
		}
		i++
		switch {
		case w.sum == nil:
			slots[i] = *e
		case !void && slots[i] != *e:
			w.k.rep.bad(16, "%s holds %s, the summary says %s", w.k.at(w.seg, i), entryName(e), entryName(&slots[i]))
		}
	}
}

// births is C17 for one batch.
func (w *batchWalk) births(at uint32) {
	h := &w.h
	if w.kind == format.BatchCold {
		w.coldBirths(at)
	}
	if w.kind != format.BatchLog {
		return
	}
	last, ok := format.Position(0), true
	for i := range h.Entries {
		b := h.Entries[i].Birth
		if b < h.First && h.Flags&format.FlagJump == 0 || b >= h.End || i > 0 && b <= last && h.Flags&format.FlagJump == 0 {
			ok = false
		}
		last = max(last, b)
	}
	if !ok {
		w.k.rep.bad(17, "%s: batch %d of positions [%d, %d) has births that are outside or do not grow", w.k.at(w.seg, at), h.Seq, h.First, h.End)
	}
	jump := h.Flags&format.FlagJump != 0
	if h.Flags&format.FlagRestart != 0 || w.jump && !jump { // a jump epoch that the log goes on behind in order was given up
		w.held = 0
	}
	if w.jump = jump; len(h.Entries) > 0 {
		w.held = max(w.held, last+1)
	}
	if h.Commits() {
		w.max, w.held = max(w.max, w.held), 0
	}
}

// coldBirths is C17 for a batch of chunks that cleaning moved.
func (w *batchWalk) coldBirths(at uint32) {
	for i := range w.h.Entries {
		if b := w.h.Entries[i].Birth; b < w.h.First || b >= w.h.End {
			w.k.rep.bad(17, "%s: a chunk that was born at %d is in a batch of births [%d, %d)", w.k.at(w.seg, at), b, w.h.First, w.h.End)
			return
		}
	}
	w.max = max(w.max, w.h.End)
}

// checkClaims looks at each referenced chunk of a segment: C18, C19, C20.
func (k *checker) checkClaims(seg uint32, claims []claim) {
	for i, c := range claims {
		if c == 0 {
			continue
		}
		e := &k.slots[i]
		agrees := c.agrees(e)
		if !agrees {
			k.rep.bad(18, "%s: %s with checksum %06x refers to it, the inverse map says %s", k.at(seg, uint32(i)), c, c.sum(), entryName(e))
		}
		switch {
		case c.isPage() && e.Birth > format.Position(k.c.Meta.Seq):
			k.rep.bad(19, "%s: %s was written by checkpoint %d, this one is %d", k.at(seg, uint32(i)), c, e.Birth, k.c.Meta.Seq)
		case !c.isPage() && agrees && e.Birth >= k.births():
			k.rep.bad(19, "%s: %s was born at %d, the checkpoint's position is %d", k.at(seg, uint32(i)), c, e.Birth, k.births())
		}
		if !c.isPage() && !k.o.Quick {
			k.checkData(seg, uint32(i), c, e, agrees)
		}
	}
}

// checkData is C20.
func (k *checker) checkData(seg, chunk uint32, c claim, e *format.Entry, agrees bool) {
	b, err := k.reader.chunk(chunk)
	if err != nil {
		k.rep.bad(20, "%s of %s: %v", k.at(seg, chunk), c, err)
		return
	}
	k.rep.Counts.Verified += format.ChunkSize
	k.progress("data", format.ChunkSize, int64(k.c.Meta.Mapped)*(8+format.ChunkSize))
	if sum := format.Sum(b); sum&0xffffff != c.sum() || agrees && sum != e.CRC {
		k.rep.bad(20, "%s: the data of %s have checksum %08x, expected ..%06x", k.at(seg, chunk), c, sum, c.sum())
	}
}

// agrees is C18: the inverse map leads back to who refers.
func (c claim) agrees(e *format.Entry) bool {
	if e.LBA != c.number() {
		return false
	}
	if !c.isPage() {
		return e.Kind == format.KindData && e.CRC&0xffffff == c.sum()
	}
	// The reference to the catalog holds the checksum of the whole catalog, which no entry has.
	return e.Kind == format.KindPage && e.Level == c.level() && e.Count == c.tree() &&
		(c.tree() == treeCatalog || e.CRC&0xffffff == c.sum())
}

// entryName says what an entry is, for messages.
func entryName(e *format.Entry) string {
	switch e.Kind {
	case format.KindNone:
		return "nothing"
	case format.KindHeader:
		return "a batch header"
	case format.KindData:
		return fmt.Sprintf("logical chunk %d, birth %d, checksum %08x", e.LBA, e.Birth, e.CRC)
	case format.KindDiscard:
		return fmt.Sprintf("discard of chunks [%d, %d), birth %d", e.LBA, e.LBA+uint64(e.Count), e.Birth)
	case format.KindZero:
		return fmt.Sprintf("zeroes for chunks [%d, %d), birth %d", e.LBA, e.LBA+uint64(e.Count), e.Birth)
	case format.KindSize:
		return fmt.Sprintf("growth by chunks [%d, %d), birth %d", e.LBA, e.LBA+uint64(e.Count), e.Birth)
	case format.KindPage:
		if e.Count == treeCatalog {
			return fmt.Sprintf("catalog chunk %d of checkpoint %d, checksum %08x", e.LBA, e.Birth, e.CRC)
		}
		return fmt.Sprintf("page %d of level %d of the %s, of checkpoint %d, checksum %08x", e.LBA, e.Level, treeName(e.Count), e.Birth, e.CRC)
	}
	return fmt.Sprintf("an entry of kind %d", e.Kind)
}
