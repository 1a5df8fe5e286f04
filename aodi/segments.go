package aodi

import (
	"fmt"
	"slices"
	"sync/atomic"
	"syscall"

	"cawrm/aodi/format"
)

// segmentTreeHeight gives rows to 512 TiB of segments of 8 MiB.
const segmentTreeHeight = 3

// segmentTable is the table of segments: its rows, which live in a tree and are as of the records that the
// map holds, and what is taken but not yet in a row. Guarded by Volume.mapMu.
type segmentTable struct {
	tree    tree
	count   uint64            // segments that were ever used: [0, count)
	free    uint64            // rows below count that are free
	sweep   uint64            // where the search for a free one goes on
	taken   map[uint32]bool   // held for a head: the row is still free
	dead    map[uint32]bool   // sealed segments without a live chunk
	swept   uint64            // rows below it were looked at for what an earlier life left
	holds   []*hold           // of cuts that are being shipped
	kept    []uint32          // free segments that still have their space, oldest first
	reuses  atomic.Uint64     // segments that were given out again
	fresh   int               // segments opened since the last checkpoint
	recent  []format.Position // ends of the segments of the log that were sealed last
	filled  map[uint32]bool   // not to be freed by the next checkpoint: filled by the log, or cleaned, since the last one
	keep    int               // how many of these there are
	moving  uint32            // being cleaned, so it is not freed; noSegment: none
	live    int64             // chunks of data that a map refers to
	chances atomic.Uint64     // counts what can let a write find space that has found none: what was replaced or discarded, and chance
	young   map[uint32]bool   // not to be cleaned before the next checkpoint: sealed since the last one, so that not all of it need be on the disk, or its pages wait for it
}

// hold keeps what a cut refers to from being freed.
type hold struct {
	from   format.Position // what is older than this is not needed
	young  map[uint32]bool // segments opened since: the cut does not know them
	yields bool            // it may be given up when writes need the space
	gone   atomic.Bool     // it was
}

// held tells whether a cut still needs a segment.
func (s *segmentTable) held(seg uint32, r format.SegmentRow) bool {
	for _, h := range s.holds {
		if !h.young[seg] && (r.Kind == format.BatchMeta || r.MaxPosition > h.from) {
			return true
		}
	}
	return false
}

// lookBack looks at some rows that this life has not seen yet.
func (s *segmentTable) lookBack(rows int) error {
	for ; rows > 0 && s.swept < s.count; rows-- {
		r, err := s.row(uint32(s.swept))
		if err != nil {
			return err
		}
		switch seg := uint32(s.swept); {
		case r.State == format.SegmentSealed && r.Live == 0:
			s.dead[seg] = true
		case r.State == format.SegmentFree && !s.taken[seg] && !slices.Contains(s.kept, seg):
			s.kept = append(s.kept, seg) // it may have its space still
		}
		s.swept++
	}
	return nil
}

func (s *segmentTable) row(seg uint32) (format.SegmentRow, error) {
	b, err := s.tree.leaf(uint64(seg)/format.RowsPerPage, true)
	if b == nil || err != nil {
		return format.SegmentRow{}, err
	}
	return format.GetSegmentRow(b[seg%format.RowsPerPage*format.SegmentRowSize:]), nil
}

// update changes one row in place.
func (s *segmentTable) update(seg uint32, change func(*format.SegmentRow)) error {
	at, err := s.rowForWrite(seg)
	if err != nil {
		return err
	}
	r := format.GetSegmentRow(at)
	change(&r)
	s.put(seg, r, at)
	return nil
}

func (s *segmentTable) rowForWrite(seg uint32) ([]byte, error) {
	b, err := s.tree.leafForWrite(uint64(seg) / format.RowsPerPage)
	if err != nil {
		return nil, err
	}
	return b[seg%format.RowsPerPage*format.SegmentRowSize:], nil
}

func (s *segmentTable) put(seg uint32, r format.SegmentRow, at []byte) {
	r.Put(at)
	if r.Live == 0 && r.State == format.SegmentSealed {
		s.dead[seg] = true
	}
}

// addLive counts n more (or fewer) live chunks in a segment. It is on the path of every write.
func (s *segmentTable) addLive(seg uint32, n int) error {
	at, err := s.rowForWrite(seg)
	if err != nil {
		return err
	}
	r := format.GetSegmentRow(at)
	if int64(r.Live)+int64(n) < 0 {
		return fmt.Errorf("%s: segment %d: live count %d falls below zero; run `cawrm check`", s.tree.pages.d.Name(), seg, r.Live)
	}
	r.Live = uint32(int64(r.Live) + int64(n))
	if r.Kind != format.BatchMeta {
		s.live += int64(n)
	}
	s.put(seg, r, at)
	return nil
}

// take picks a free segment, or a new one at the end, and holds it until a row says that it is open.
// limit is the number of segments that the container may have, keep how many must be left for others. written: the
// segment was in use before and still has its space. Errors: ENOSPC.
func (s *segmentTable) take(limit, keep uint64) (seg uint32, written bool, err error) {
	free := s.free - min(s.free, uint64(len(s.taken)))
	if s.available(limit) <= keep {
		return 0, false, fmt.Errorf("%s: of %d segments, the last %d are kept for checkpoints: %w", s.tree.pages.d.Name(), limit, keep, syscall.ENOSPC)
	}
	if n := len(s.kept); n > 0 {
		seg := s.kept[n-1]
		s.kept = s.kept[:n-1]
		s.taken[seg] = true
		s.reuses.Add(1)
		return seg, true, nil
	}
	if free > 0 { // else each free row is taken
		seg, ok, err := s.sweepFree()
		if err != nil {
			return 0, false, err
		}
		if ok {
			s.taken[seg] = true
			s.reuses.Add(1)
			return seg, false, nil
		}
	}
	if s.count >= limit {
		return 0, false, fmt.Errorf("%s: all %d segments are in use: %w", s.tree.pages.d.Name(), limit, syscall.ENOSPC)
	}
	seg = uint32(s.count)
	s.count++
	s.free++ // its row is still zero
	s.taken[seg] = true
	return seg, false, nil
}

func (s *segmentTable) sweepFree() (uint32, bool, error) {
	for range s.count {
		if s.sweep >= s.count {
			s.sweep = 0
		}
		seg := uint32(s.sweep)
		s.sweep++
		if s.taken[seg] {
			continue
		}
		r, err := s.row(seg)
		if err != nil || r.State == format.SegmentFree {
			return seg, err == nil, err
		}
	}
	return 0, false, nil
}

// open makes the row of a taken segment say so.
func (s *segmentTable) open(seg uint32, kind format.BatchKind) error {
	return s.update(seg, func(r *format.SegmentRow) {
		if r.State == format.SegmentFree {
			s.free--
		}
		*r = format.SegmentRow{State: format.SegmentOpen, Kind: kind}
		delete(s.taken, seg)
		delete(s.dead, seg)
		delete(s.filled, seg)
		s.fresh++
		for _, h := range s.holds {
			h.young[seg] = true
		}
	})
}

// seal ends an open segment: no record in it has a birth at or above end.
func (s *segmentTable) seal(seg uint32, end format.Position) error {
	return s.update(seg, func(r *format.SegmentRow) {
		r.State, r.MaxPosition = format.SegmentSealed, end
		s.young[seg] = true
		if r.Kind == format.BatchLog {
			s.filled[seg] = true
		}
		if r.Kind == format.BatchLog && s.keep > 0 {
			s.recent = append(s.recent[max(0, len(s.recent)+1-s.keep):], end)
		}
	})
}

// lowerEnds makes end the end of all segments of the log that are said to reach beyond it.
func (s *segmentTable) lowerEnds(end format.Position) error {
	for seg := range uint32(s.count) {
		r, err := s.row(seg)
		if err != nil {
			return err
		}
		if r.State != format.SegmentSealed || r.Kind != format.BatchLog || r.MaxPosition <= end {
			continue
		}
		if err := s.update(seg, func(r *format.SegmentRow) { r.MaxPosition = end }); err != nil {
			return err
		}
	}
	return nil
}

// historySegments is how many segments of the log are kept for a while when nothing in them is live, so that a mirror that is
// a little behind gets the log in order; fewer in a small container.
const historySegments = 8

// recentLog tells whether a segment of the log is one of those that were sealed last.
func (s *segmentTable) recentLog(r format.SegmentRow) bool {
	return r.Kind == format.BatchLog && len(s.recent) > 0 && r.MaxPosition >= s.recent[0]
}

// release makes a row free.
func (s *segmentTable) release(seg uint32) error {
	delete(s.dead, seg)
	s.free++
	return s.update(seg, func(r *format.SegmentRow) { *r = format.SegmentRow{} })
}
