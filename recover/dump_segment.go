package recovery

import (
	"fmt"
	"strings"

	"cawrm/aodi/format"
)

// segments writes the segment table: a line for each segment that is not free; neighbours that look alike,
// but for what they hold, share a line unless all is asked for.
func (p *dumper) segments() error {
	p.section("segments")
	p.row("segment", "state", "kind", "live", "of", "max position", "")
	var run, last format.SegmentRow
	var from, live, n, free uint64
	flush := func() {
		if n == 0 {
			return
		}
		name := fmt.Sprint(from)
		if n > 1 {
			name = fmt.Sprintf("%d-%d", from, from+n-1)
		}
		p.row(""+name, stateName(run.State), kindName(run.Kind), live, n*uint64(p.c.Geo.Slots()), position(last.MaxPosition), p.headName(from, n))
		n, live = 0, 0
	}
	err := p.rows(func(seg uint64, row format.SegmentRow) {
		if row.State == format.SegmentFree {
			free++
			flush()
			return
		}
		alike := n > 0 && seg == from+n && row.State == run.State && row.Kind == run.Kind && row.State == format.SegmentSealed
		if !alike || p.o.Verbose {
			flush()
			run, from = row, seg
		}
		n, live, last = n+1, live+uint64(row.Live), row
	})
	flush()
	if err != nil {
		p.row(err.Error())
	}
	p.row(fmt.Sprintf("%d free", free))
	return nil
}

// headName tells what a checkpoint calls a segment.
func (p *dumper) headName(from, n uint64) string {
	m := &p.c.Meta
	var names []string
	for _, h := range []struct {
		seg  uint32
		name string
	}{{m.Log.Segment, "log head"}, {m.Log.Next, "next log segment"}, {m.MetaSegment, "page head"}, {m.MetaNext, "next page segment"}, {coldHead(m), "cold head"}} {
		if s := uint64(h.seg); s >= from && s < from+n {
			names = append(names, h.name)
		}
	}
	return strings.Join(names, ", ")
}

// rows calls fn for each row below the number of segments. Rows whose page is absent are zero.
func (p *dumper) rows(fn func(seg uint64, row format.SegmentRow)) error {
	m := &p.c.Meta
	l := lookup{d: p.d, c: p.c, root: m.SegRoot, height: m.SegHeight}
	for seg := uint64(0); seg < m.Segments; {
		leaf, err := l.leaf(seg / format.RowsPerPage)
		if err != nil {
			return fmt.Errorf("row of segment %d: %w", seg, err)
		}
		for end := min(m.Segments, (seg/format.RowsPerPage+1)*format.RowsPerPage); seg < end; seg++ {
			var row format.SegmentRow
			if leaf != nil {
				row = format.GetSegmentRow(leaf[seg%format.RowsPerPage*format.SegmentRowSize:])
			}
			fn(seg, row)
		}
	}
	return nil
}

// log writes what opening the volume would roll forward.
func (p *dumper) log() error {
	p.section("log behind the checkpoint")
	end := p.c.Meta.Position
	res, err := Roll(p.d, p.c, func(h *format.BatchHeader, at Place) error {
		end = h.End
		for i := range h.Entries {
			if e := &h.Entries[i]; p.o.LBA >= 0 && e.LBA <= uint64(p.o.LBA) && uint64(p.o.LBA) < e.LBA+uint64(e.Count) {
				p.later = append(p.later, fmt.Sprintf("segment %d chunk %d, batch %d: %s", at.Segment, at.Chunk, h.Seq, entryName(e)))
			}
		}
		return nil
	})
	p.row(rollLine(&res, end))
	if err != nil {
		p.row(err.Error())
	}
	return nil
}

// segment writes the batches of one segment, as far as they follow each other.
func (p *dumper) segment() error {
	m := &p.c.Meta
	if uint64(p.o.Segment) >= m.Segments && p.c.Geo.Bytes(uint64(p.o.Segment)+1) > p.d.Size() {
		return fmt.Errorf("%s: there is no segment %d: the container has %d", p.d.Name(), p.o.Segment, m.Segments)
	}
	seg := uint32(p.o.Segment)
	s := newSegmentReader(p.d, p.c, 1)
	s.open(seg)
	p.section(fmt.Sprintf("segment %d (byte %d)", seg, s.off(0)))
	p.summary(s)
	p.row("chunk", "kind", "batch", "positions", "data", "records", "incarnation", "checksum", "next", "time", "flags")
	for at := uint32(0); at < p.c.Geo.Slots(); {
		b, err := s.chunk(at)
		if err != nil {
			return err
		}
		var h format.BatchHeader
		if err := h.Decode(b); err != nil {
			p.row(fmt.Sprintf("%d: %v", at, err))
			break
		}
		note := batchFlags(h.Flags)
		if h.Tag != p.c.Tag() {
			note += " of another container"
		}
		if seg == m.Log.Segment && at >= m.Log.Chunk || seg == m.MetaSegment && at >= m.MetaChunk {
			note += " (behind the checkpoint)"
		}
		p.row(fmt.Sprintf("%d", at), kindName(h.Kind), h.Seq, fmt.Sprintf("[%d, %d)", h.First, h.End), h.Data, len(h.Entries),
			h.Incarnation, fmt.Sprintf("%08x after %08x", format.HeaderCRC(b), h.PrevCRC), h.Next, when(h.Time), note)
		if p.o.Verbose {
			p.entries(at, h.Entries)
		}
		at += h.Chunks()
	}
	return nil
}

func batchFlags(f uint8) string {
	var names []string
	if f&format.FlagRestart != 0 {
		names = append(names, "restart")
	}
	if f&format.FlagJump != 0 {
		names = append(names, "jump")
	}
	if f&format.FlagCommit != 0 {
		names = append(names, "commit")
	}
	return strings.Join(names, " ")
}

// entries writes a batch's entries in lines of their own, which do not widen the columns of the batches.
func (p *dumper) entries(at uint32, entries []format.Entry) {
	i := at
	for n := range entries {
		e := &entries[n]
		place := "-"
		if e.Kind == format.KindData || e.Kind == format.KindPage {
			i++
			place = fmt.Sprint(i)
		}
		p.row(fmt.Sprintf("  %s: %s", place, entryName(e)))
	}
}

func (p *dumper) summary(s *segmentReader) {
	sum, err := s.summary()
	if err != nil {
		p.row(fmt.Sprintf("summary: %v", err))
		return
	}
	counts := map[format.Kind]int{}
	for i := range sum.Slots {
		counts[sum.Slots[i].Kind]++
	}
	p.row(fmt.Sprintf("summary: segment %d, %s, incarnation %d, max position %d: %d headers, %d data, %d pages", sum.Segment, kindName(sum.Kind),
		sum.Incarnation, sum.MaxPosition, counts[format.KindHeader], counts[format.KindData], counts[format.KindPage]))
}
