package aodi

import (
	"time"

	"cawrm/aodi/disk"
	"cawrm/aodi/format"
)

// Who may take how many of the last segments, from the most to the least:
//
//	checkpoints        all: only they give dead segments back
//	cleaning           but checkpointKeep, and what discards need, since both free more than they take
//	writes             but coldReserve more
//
// A write that finds none waits (relief.go).

// metaReserve is the least number of segments that only checkpoints may take.
const metaReserve = 3

// segmentLimit is how many segments fit on the disk.
func segmentLimit(d disk.Disk, geo format.Geometry, capacity int64) uint64 {
	bytes := int64(format.PhysLimit-format.DataStart) * format.ChunkSize
	if d.Fixed() {
		bytes = d.Size()
	}
	if capacity > 0 {
		bytes = min(bytes, capacity)
	}
	return uint64(max(0, bytes-format.DataStart*format.ChunkSize) / geo.SegmentBytes())
}

func (v *Volume) segmentLimit() uint64 { return segmentLimit(v.d, v.geo, v.capacity.Load()) }

// bounded tells whether the container cannot grow as far as the file system lets it.
func (v *Volume) bounded() bool { return v.capacity.Load() > 0 || v.d.Fixed() }

// recentSegments is how many segments of the log are kept for a while when nothing in them is live.
func (v *Volume) recentSegments() int { return int(min(historySegments, v.segmentLimit()/16)) }

// checkpointBytes is how much of the log makes a checkpoint due: less in a small container, where the space that it gives back
// is needed sooner.
func (v *Volume) checkpointBytes() int64 {
	if !v.bounded() {
		return v.opt.CheckpointBytes
	}
	return min(v.opt.CheckpointBytes, max(8, int64(v.segmentLimit())/8)*v.geo.SegmentBytes())
}

// leaves bounds the pages of the map's lowest level.
func (v *Volume) leaves() int64 { return v.Size()/chunkSize/format.RefsPerPage + 1 }

// pagesAhead bounds the map pages that two more segments of the log can change.
func (v *Volume) pagesAhead() int64 { return min(2*int64(v.geo.Slots()), v.leaves()) }

// checkpointKeep is the number of segments that records must leave: what the pages in memory take, and those that
// the segments which the log has already can bring in.
func (v *Volume) checkpointKeep() uint64 {
	slots := int64(v.geo.Slots())
	return metaReserve + uint64((v.mapMemory()/chunkSize+v.pagesAhead())/(slots-slots/32))
}

// coldReserve is the number of segments that writes leave to cleaning: what it gains with them has to be more than the checkpoint
// takes that frees it.
func coldReserve(geo format.Geometry, leaves int64) uint64 {
	return 2 + 2*uint64(leaves)/uint64(geo.Slots())
}

func (v *Volume) coldReserve() uint64 { return coldReserve(v.geo, v.pagesAhead()) }

// headSegments are those in use that are not full: the log's, the pages' and the one behind each, and the cold head.
const headSegments = 5

// fullAt is how many chunks of data can be live before writes get ENOSPC: a little less than fit, so that cleaning always
// finds something that is worth the effort.
func fullAt(geo format.Geometry, limit uint64, leaves int64) int64 {
	slots := int64(geo.Slots())
	segments := int64(limit) - headSegments - metaReserve - int64(coldReserve(geo, leaves)) - 3*leaves/slots
	data := slots - (slots+format.MaxEntries)/(format.MaxEntries+1) // headers
	return max(0, segments*data*15/16)
}

// MaxLive is how many bytes of data a container of that capacity holds before writes get ENOSPC.
func MaxLive(size, capacity int64) int64 {
	geo := format.NewGeometry(segmentChunksFor(capacity))
	limit := uint64(max(0, capacity-format.DataStart*format.ChunkSize) / geo.SegmentBytes())
	return fullAt(geo, limit, min(size, capacity)/chunkSize/format.RefsPerPage+1) * chunkSize
}

// segmentChunksFor chooses segments small enough that a container has some hundreds of them.
func segmentChunksFor(capacity int64) uint32 {
	n := uint32(format.DefaultSegmentChunks)
	for n > 256 && capacity/(int64(n)*chunkSize) < 512 {
		n /= 2
	}
	return n
}

// available is the number of segments that can be taken, so that not more than limit are in use. mapMu is held.
func (s *segmentTable) available(limit uint64) uint64 {
	most := limit + s.free - min(s.free, uint64(len(s.taken)))
	return most - min(most, s.count)
}

// lowWater is how many segments more than the least the log should find: with fewer it slows down.
func lowWater(limit uint64) uint64 { return max(4, limit/64) }

// slowest is the longest time that a write waits for a segment that is there, of 1 MiB or more, so that cleaning keeps up and it
// need not wait for one that is not.
const slowest = 50 * time.Millisecond

// paceLocked tells how long the log should wait still before it takes a segment. mu is held.
func (v *Volume) paceLocked(keep uint64) time.Duration {
	if !v.relief.cleaner || !v.bounded() {
		return 0
	}
	limit := v.segmentLimit()
	v.mapMu.RLock()
	have := v.segs.available(limit)
	v.mapMu.RUnlock()
	low := lowWater(limit)
	if have >= keep+low {
		return 0
	}
	lack := float64(keep+low-have) / float64(low)
	most := float64(slowest) * min(1, float64(v.geo.SegmentBytes())/(1<<20))
	return time.Duration(lack*lack*most) - v.now().Sub(v.taken)
}

// Space is how a container's space is used.
type Space struct {
	SegmentBytes  int64
	SegmentChunks uint32 // that a segment has for data, map pages and their headers
	Limit         uint64 // segments that fit
	Bounded       bool   // by the capacity or a device, not only by the file system
	Used          uint64 // segments that hold something
	Free          uint64 // segments that can be taken
	Within        uint64 // of these, the container has so many already; it grows by the others
	Keep          uint64 // of which writes leave so many
	Cold          uint64 // of which so many are for cleaning
	Low           uint64 // with fewer than Keep and Low, writes slow down
	Dead          uint64 // sealed segments that hold nothing live, which the next checkpoint frees
	Young         uint64 // segments that wait for a checkpoint: sealed since the last one, so that they cannot be cleaned yet, or their pages were moved
	Held          int    // cuts that hold segments
	LiveBytes     int64  // data that a map refers to
	MaxLiveBytes  int64  // with more, writes get ENOSPC; 0 when only the file system bounds it
	GarbageBytes  int64  // in used segments, what is neither live nor free to be written
	Waiting       int    // writes that wait for space
	Logged        uint64 // chunks of data that the log took since the volume was opened
	Moved         uint64 // and chunks of data that cleaning moved
	Capacity      int64  // 0: none
}

// Space returns how the space is used at this moment.
func (v *Volume) Space() Space {
	v.mu.Lock()
	logged, capacity := v.logged-v.loggedAtOpen, v.capacity.Load()
	v.mu.Unlock()
	limit, keep := v.segmentLimit(), v.checkpointKeep()+v.coldReserve()
	v.mapMu.RLock()
	defer v.mapMu.RUnlock()
	s := &v.segs
	used := s.count - min(s.count, s.free)
	sp := Space{SegmentBytes: v.geo.SegmentBytes(), SegmentChunks: v.geo.Slots(), Limit: limit, Bounded: v.bounded(), Used: used,
		Free: s.available(limit), Within: s.free - min(s.free, uint64(len(s.taken))), Keep: keep, Cold: v.coldReserve(), Low: lowWater(limit), Dead: uint64(len(s.dead)), Young: uint64(len(s.young)), Held: len(s.holds), LiveBytes: s.live * chunkSize,
		GarbageBytes: max(0, int64(used)*int64(v.geo.Slots())-s.live) * chunkSize,
		Waiting:      int(v.relief.waiting.Load()), Logged: logged, Moved: v.moved.Load(), Capacity: capacity}
	if sp.Bounded {
		sp.MaxLiveBytes = fullAt(v.geo, limit, min(v.leaves(), v.main.mapped+1)) * chunkSize
	}
	return sp
}

// SealedSegment is a segment that can be cleaned.
type SealedSegment struct {
	Segment uint32
	Kind    format.BatchKind
	Live    uint32   // chunks
	Age     Position // records since the youngest was born
}

// Sealed calls fn for each segment that Relocate takes, until fn returns false. Any goroutine.
func (v *Volume) Sealed(fn func(SealedSegment) bool) error {
	for first := uint64(0); ; first += format.RowsPerPage {
		batch, more, err := v.sealedRows(first)
		for _, s := range batch {
			if !fn(s) {
				return err
			}
		}
		if err != nil || !more {
			return err
		}
	}
}

// sealedRows looks at one page of the segment table.
func (v *Volume) sealedRows(first uint64) (batch []SealedSegment, more bool, err error) {
	v.mapMu.RLock()
	defer v.mapMu.RUnlock()
	end := v.shown()
	for seg := first; seg < min(first+format.RowsPerPage, v.segs.count); seg++ {
		r, err := v.segs.row(uint32(seg))
		if err != nil {
			return batch, false, err
		}
		if v.cleanableLocked(uint32(seg), r) {
			batch = append(batch, SealedSegment{uint32(seg), r.Kind, r.Live, end - min(end, r.MaxPosition)})
		}
	}
	return batch, first+format.RowsPerPage < v.segs.count, nil
}
