package recovery

import (
	"fmt"

	"cawrm/aodi/disk"
	"cawrm/aodi/format"
)

// lookup finds leaves of one tree on disk.
type lookup struct {
	d      disk.Disk
	c      *Container
	root   format.Ref
	height uint32
	path   []format.Ref // the pages of the last leaf, root first
}

// leaf reads and verifies the pages down to a leaf; nil when it does not exist.
func (l *lookup) leaf(index uint64) ([]byte, error) {
	l.path = l.path[:0]
	if index >= 1<<(fanBits*(l.height-1)) {
		return nil, nil // the volume had not grown so far
	}
	r := l.root
	for level := int(l.height) - 1; r != format.Unmapped; level-- {
		l.path = append(l.path, r)
		b := make([]byte, format.ChunkSize)
		if !r.HasData() {
			return nil, fmt.Errorf("page of level %d: reference %#x leads nowhere", level, uint64(r))
		}
		off := int64(r.Phys()) * format.ChunkSize
		if err := l.d.ReadAt(b, off); err != nil {
			return nil, err
		}
		if !r.Matches(format.Sum(b)) {
			return nil, fmt.Errorf("page of level %d (byte %d): %w", level, off, format.ErrChecksum)
		}
		if level == 0 {
			return b, nil
		}
		r = refAt(b, int(index>>(fanBits*(level-1))&(format.RefsPerPage-1)))
	}
	return nil, nil
}

// lookup writes what leads to a logical chunk and what leads back.
func (p *dumper) lookup() error {
	m := &p.c.Meta
	lba := uint64(p.o.LBA)
	p.section(fmt.Sprintf("logical chunk %d (logical byte %d)", lba, lba*format.ChunkSize))
	if lba >= uint64(m.Size)/format.ChunkSize {
		p.row(fmt.Sprintf("  beyond the end of the volume, which has %d chunks", uint64(m.Size)/format.ChunkSize))
		return nil
	}
	defer func() { // what the map does not know yet
		for _, line := range p.later {
			p.row("  behind the checkpoint", line)
		}
	}()
	l := lookup{d: p.d, c: p.c, root: m.MapRoot, height: m.MapHeight}
	leaf, err := l.leaf(lba / format.RefsPerPage)
	for i, r := range l.path {
		p.row(fmt.Sprintf("  page of level %d", int(m.MapHeight)-1-i), p.ref(r))
	}
	if err != nil {
		p.row("  " + err.Error())
		return nil
	}
	r := format.Unmapped
	if leaf != nil {
		r = refAt(leaf, int(lba%format.RefsPerPage))
	}
	p.row("  reference", p.ref(r))
	if !r.HasData() {
		return nil
	}
	seg, chunk := p.c.Geo.Locate(r.Phys())
	if uint64(seg) >= m.Segments || chunk >= p.c.Geo.Slots() {
		p.row("  its place is not in a segment")
		return nil
	}
	if err := p.data(r); err != nil {
		return err
	}
	p.inverse(seg, chunk)
	return nil
}

func (p *dumper) data(r format.Ref) error {
	b := make([]byte, format.ChunkSize)
	if err := p.d.ReadAt(b, int64(r.Phys())*format.ChunkSize); err != nil {
		return err
	}
	sum := format.Sum(b)
	verdict := "matches"
	if !r.Matches(sum) {
		verdict = "does not match the reference"
	}
	p.row("  data", fmt.Sprintf("checksum %08x, %s", sum, verdict))
	return nil
}

// inverse writes the entry of a chunk as the headers have it, and as the summary does.
func (p *dumper) inverse(seg, chunk uint32) {
	s := newSegmentReader(p.d, p.c, 1)
	s.open(seg)
	if sum, err := s.summary(); err != nil {
		p.row("  summary", err)
	} else if int(chunk) < len(sum.Slots) {
		p.row("  summary", entryName(&sum.Slots[chunk]))
	}
	for at := uint32(0); at <= chunk; {
		b, err := s.chunk(at)
		var h format.BatchHeader
		if err == nil {
			err = h.Decode(b)
		}
		if err != nil {
			p.row("  batch header", fmt.Sprintf("at chunk %d: %v", at, err))
			return
		}
		if chunk > at && chunk < at+h.Chunks() {
			p.row("  batch header", fmt.Sprintf("at chunk %d: batch %d, written %s", at, h.Seq, when(h.Time)))
			p.row("  inverse entry", entryName(dataEntry(&h, chunk-at)))
			return
		}
		at += h.Chunks()
	}
}

// dataEntry is the entry of the nth chunk of a batch.
func dataEntry(h *format.BatchHeader, n uint32) *format.Entry {
	for i := range h.Entries {
		if e := &h.Entries[i]; e.Kind == format.KindData || e.Kind == format.KindPage {
			if n--; n == 0 {
				return e
			}
		}
	}
	return &format.Entry{}
}
