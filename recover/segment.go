package recovery

import (
	"fmt"

	"cawrm/aodi/disk"
	"cawrm/aodi/format"
)

// segmentReader reads one segment's chunks, ahead of what is asked for when they will be read one after the other.
type segmentReader struct {
	d     disk.Disk
	c     *Container
	seg   uint32
	buf   []byte // as many chunks as are read at a time
	first uint32 // chunk at which buf begins
	n     uint32 // chunks in buf
	read  uint64 // bytes
}

const readAhead = 256 // chunks

func newSegmentReader(d disk.Disk, c *Container, chunks int) *segmentReader {
	return &segmentReader{d: d, c: c, buf: make([]byte, chunks*format.ChunkSize)}
}

func (s *segmentReader) open(seg uint32) { s.seg, s.n = seg, 0 }

// chunk returns one chunk, valid until the next call.
func (s *segmentReader) chunk(i uint32) ([]byte, error) {
	if i < s.first || i >= s.first+s.n {
		n := min(uint32(len(s.buf)/format.ChunkSize), s.c.Geo.Slots()-i)
		s.first, s.n = i, 0
		b := s.buf[:n*format.ChunkSize]
		if err := s.d.ReadAt(b, s.off(i)); err != nil {
			// One bad chunk is not to hide its neighbours.
			b, n = b[:format.ChunkSize], 1
			if err := s.d.ReadAt(b, s.off(i)); err != nil {
				return nil, err
			}
		}
		s.n = n
		s.read += uint64(len(b))
	}
	o := (i - s.first) * format.ChunkSize
	return s.buf[o : o+format.ChunkSize], nil
}

// summary reads and decodes the segment's summary.
func (s *segmentReader) summary() (format.Summary, error) {
	b := make([]byte, s.c.Geo.SummaryChunks*format.ChunkSize)
	if err := s.d.ReadAt(b, s.off(s.c.Geo.Slots())); err != nil {
		return format.Summary{}, err
	}
	s.read += uint64(len(b))
	return format.DecodeSummary(s.c.Geo, b)
}

func (s *segmentReader) off(i uint32) int64 {
	return int64(s.c.Geo.Phys(s.seg, i)) * format.ChunkSize
}

// link is what the next batch of a segment must follow.
type link struct {
	known       bool
	seq         uint64
	crc         uint32
	first, end  format.Position
	jump        bool // and it does not commit: the next batch can be of the same epoch
	incarnation uint32
	logged      uint64 // data chunks logged up to and with the batch
}

// chain reads a segment's batches one behind the other (C15).
type chain struct {
	*segmentReader
	kind  format.BatchKind
	limit uint32 // no batch reaches beyond this chunk
	prev  link
	h     format.BatchHeader
	crc   uint32
}

// next reads the header at a chunk into h and compares it with the batch before. Errors say why it does not follow.
func (s *chain) next(at uint32) error {
	b, err := s.chunk(at)
	if err != nil {
		return err
	}
	if err := s.h.Decode(b); err != nil {
		return err
	}
	h, p, m := &s.h, &s.prev, &s.c.Meta
	s.crc = format.HeaderCRC(b)
	switch {
	case h.Tag != s.c.Tag():
		return fmt.Errorf("a batch of another container")
	case h.Kind != s.kind:
		return fmt.Errorf("a batch of %s in a segment of %s", kindName(h.Kind), kindName(s.kind))
	case h.Incarnation > m.Incarnation || p.known && h.Incarnation < p.incarnation:
		return fmt.Errorf("a batch of incarnation %d after %d, the checkpoint's is %d", h.Incarnation, p.incarnation, m.Incarnation)
	case at+h.Chunks() > s.limit:
		return fmt.Errorf("a batch of %d chunks reaches beyond chunk %d", h.Chunks(), s.limit)
	}
	if p.known {
		switch {
		case h.Kind == format.BatchMeta && h.Seq < p.seq:
			return fmt.Errorf("pages of checkpoint %d after those of %d", h.Seq, p.seq)
		case h.Kind == format.BatchCold && h.PrevCRC != p.crc:
			return fmt.Errorf("a batch names %#08x as the checksum of the header before it, which has %#08x", h.PrevCRC, p.crc)
		case h.Kind != format.BatchLog:
		case h.Seq != p.seq+1:
			return fmt.Errorf("batch %d after batch %d", h.Seq, p.seq)
		case h.PrevCRC != p.crc:
			return fmt.Errorf("batch %d names %#08x as the checksum of the header before it, which has %#08x", h.Seq, h.PrevCRC, p.crc)
		case p.jump && h.First == p.first: // perhaps with a newer cut; or the epoch was given up
		case h.First > p.end, h.First < p.end && h.Flags&format.FlagRestart == 0:
			return fmt.Errorf("batch %d begins at position %d, the one before it ends at %d", h.Seq, h.First, p.end)
		}
	}
	s.prev = link{true, h.Seq, s.crc, h.First, h.End, h.Flags&format.FlagJump != 0 && !h.Commits(), h.Incarnation, h.Logged + uint64(h.Data)}
	return nil
}
