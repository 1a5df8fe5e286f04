package format

import "fmt"

// Geometry turns chunk numbers into segments and back. It is derived from the super chunk.
type Geometry struct {
	SegmentChunks uint32
	SummaryChunks uint32
}

// NewGeometry derives the geometry of segments of that many chunks.
func NewGeometry(segmentChunks uint32) Geometry {
	room := ChunkSize + entrySize
	return Geometry{segmentChunks, (summaryEntries + 4 + entrySize*segmentChunks + uint32(room) - 1) / uint32(room)}
}

// Slots is the number of chunks of a segment that batches can use.
func (g Geometry) Slots() uint32 { return g.SegmentChunks - g.SummaryChunks }

// SegmentBytes is the size of a segment.
func (g Geometry) SegmentBytes() int64 { return int64(g.SegmentChunks) * ChunkSize }

// Phys is chunk i of segment seg.
func (g Geometry) Phys(seg, i uint32) Phys {
	return DataStart + Phys(seg)*Phys(g.SegmentChunks) + Phys(i)
}

// Locate is the inverse of Phys. p must be at or above DataStart.
func (g Geometry) Locate(p Phys) (seg, i uint32) {
	p -= DataStart
	return uint32(p / Phys(g.SegmentChunks)), uint32(p % Phys(g.SegmentChunks))
}

// Bytes is the size of a container with that many segments.
func (g Geometry) Bytes(segments uint64) int64 {
	return DataStart*ChunkSize + int64(segments)*g.SegmentBytes()
}

// SegmentState is where a segment is in its life.
type SegmentState uint8

// The life of a segment: free, open (one of the heads), sealed, and free again.
const (
	SegmentFree   SegmentState = 0
	SegmentOpen   SegmentState = 1
	SegmentSealed SegmentState = 2
)

// SegmentRow is a segment's row in the segment tree.
type SegmentRow struct {
	Live        uint32
	State       SegmentState
	Kind        BatchKind // which head filled it
	MaxPosition Position  // no record in it has a birth at or above it
}

// SegmentRowSize is the size of a row, in bytes; RowsPerPage of them fill a page.
const (
	SegmentRowSize = 16
	RowsPerPage    = ChunkSize / SegmentRowSize
)

// Put writes the row into b.
func (r SegmentRow) Put(b []byte) {
	le.PutUint32(b, r.Live)
	le.PutUint32(b[4:], uint32(r.State)|uint32(r.Kind)<<8)
	le.PutUint64(b[8:], uint64(r.MaxPosition))
}

// GetSegmentRow reads a row.
func GetSegmentRow(b []byte) SegmentRow {
	return SegmentRow{le.Uint32(b), SegmentState(b[4]), BatchKind(b[5]), Position(le.Uint64(b[8:]))}
}

const (
	summaryMagic   = 0x4d555343 // "CSUM"
	summaryEntries = 64
)

// Summary is the inverse map of a sealed segment: slot i tells what chunk i holds.
type Summary struct {
	Kind        BatchKind
	Tag         uint64
	Segment     uint32
	Incarnation uint32
	MaxPosition Position
	Slots       []Entry
}

// Encode writes s into b, which holds the geometry's summary chunks.
func (s *Summary) Encode(g Geometry, b []byte) {
	b = b[:g.SummaryChunks*ChunkSize]
	clear(b)
	le.PutUint32(b, summaryMagic)
	le.PutUint16(b[4:], Version)
	b[6] = byte(s.Kind)
	le.PutUint64(b[8:], s.Tag)
	le.PutUint32(b[16:], s.Segment)
	le.PutUint32(b[20:], s.Incarnation)
	le.PutUint64(b[24:], uint64(s.MaxPosition))
	le.PutUint32(b[32:], uint32(len(s.Slots)))
	for i := range s.Slots {
		s.Slots[i].put(b[summaryEntries+i*entrySize:])
	}
	le.PutUint32(b[len(b)-4:], Sum(b[:len(b)-4]))
}

// DecodeSummary reads a summary. Errors: ErrMagic, ErrVersion, ErrChecksum, ErrInvalid.
func DecodeSummary(g Geometry, b []byte) (Summary, error) {
	var s Summary
	if len(b) < int(g.SummaryChunks*ChunkSize) || le.Uint32(b) != summaryMagic {
		return s, ErrMagic
	}
	b = b[:g.SummaryChunks*ChunkSize]
	if v := le.Uint16(b[4:]); v != Version {
		return s, fmt.Errorf("segment summary: %w (format %d, this program knows %d)", ErrVersion, v, Version)
	}
	if le.Uint32(b[len(b)-4:]) != Sum(b[:len(b)-4]) {
		return s, ErrChecksum
	}
	s = Summary{Kind: BatchKind(b[6]), Tag: le.Uint64(b[8:]), Segment: le.Uint32(b[16:]), Incarnation: le.Uint32(b[20:]),
		MaxPosition: Position(le.Uint64(b[24:]))}
	n := le.Uint32(b[32:])
	if n > g.Slots() {
		return s, fmt.Errorf("segment summary: %w", ErrInvalid)
	}
	s.Slots = make([]Entry, n)
	for i := range s.Slots {
		s.Slots[i] = getEntry(b[summaryEntries+i*entrySize:])
	}
	return s, nil
}
