package aodi

import (
	"errors"
	"syscall"
)

// The stock. Below a container that is a file the file system can be full before the container is. Nobody knows how much is left there, and
// what is left others can take, so there are always some free segments that have their space: the stock, which is the last of
// segmentTable.kept. Who may take how many of it, from the most to the least:
//
//	checkpoints   all, and where a certain segment has to have space, a head's next one, another gives its own up (makeReady)
//	cleaning      but those
//	discards      the same
//	writes        only what it has too much: they fill it first
//
// So a full file system refuses writes first. A discard can still be recorded, what it frees be cleaned and freed, and that keeps its space,
// since it fills the stock: writes go on.

// stockForMeta is how many of the stock are for checkpoints: for two, so that the first can be spent on what frees segments. mapMu is held.
func (v *Volume) stockForMeta() int {
	return 1 + int((v.stockPages()+2*(catalogSlack+v.snapshotChunksLocked()))/int64(v.geo.Slots()))
}

// stockWhole is how many segments the whole stock has, with those for cleaning. mapMu is held.
func (v *Volume) stockWhole() int { return v.stockForMeta() + int(coldReserve(v.geo, v.stockPages())) }

func (v *Volume) stockPages() int64 { return min(v.pagesAhead(), v.main.mapped+1) }

// stockAtRest is how many free segments keep their space when the volume rests.
func (v *Volume) stockAtRest() int {
	if v.d.Fixed() {
		return 0
	}
	v.mapMu.RLock()
	defer v.mapMu.RUnlock()
	return v.stockWhole()
}

// hasStock tells whether so many free segments surely have their space, or all that are left. mapMu is held.
func (v *Volume) hasStock(n int) bool {
	s := &v.segs
	return v.d.Fixed() || s.sure >= n || s.available(v.segmentLimit()) <= uint64(s.sure)
}

// stockedLocked tells whether the log may take a segment. It asks for the stock to be filled if not. mu is held.
func (v *Volume) stockedLocked(frees bool) (bool, error) {
	v.mapMu.RLock()
	n := v.stockWhole() + 1
	if frees {
		n = v.stockForMeta() + 1
	}
	has := v.hasStock(n)
	v.mapMu.RUnlock()
	if has {
		return true, nil
	}
	return false, v.ready.wantStock()
}

// fillStock reserves free segments: first those that may have their space still. Errors: ENOSPC; the disk's.
func (v *Volume) fillStock() error {
	for {
		seg, blank, ok, err := v.nextOfStock()
		if !ok || err != nil {
			return err
		}
		err = v.d.Reserve(int64(v.geo.Phys(seg, 0))*chunkSize, v.geo.SegmentBytes())
		if err == nil {
			v.ready.got(seg)
		}
		v.mapMu.Lock()
		delete(v.segs.taken, seg)
		if err == nil {
			v.segs.keepSure(seg)
			v.segs.blank[seg] = blank
		}
		v.mapMu.Unlock()
		if err != nil && (blank || !errors.Is(err, syscall.ENOSPC)) {
			return err
		}
	}
}

// nextOfStock holds the segment that is to be reserved next, if one is wanted and there is one.
func (v *Volume) nextOfStock() (seg uint32, blank, ok bool, err error) {
	v.mapMu.Lock()
	defer v.mapMu.Unlock()
	s := &v.segs
	if v.hasStock(v.stockWhole() + 1) {
		return 0, false, false, nil
	}
	if len(s.kept) > s.sure {
		seg = s.shiftKept()
	} else {
		blank = true
		if seg, _, err = s.takeNew(v.segmentLimit()); err != nil {
			return 0, false, false, err
		}
	}
	s.taken[seg] = true
	s.reuses.Add(1)
	return seg, blank, true, nil
}

// keepSure adds a free segment that surely has its space.
func (s *segmentTable) keepSure(seg uint32) {
	s.kept = append(s.kept, seg)
	s.sure++
}

// popKept takes the last one. written: there is something in it, of before.
func (s *segmentTable) popKept() (seg uint32, written bool) {
	n := len(s.kept) - 1
	seg, s.kept = s.kept[n], s.kept[:n]
	s.sure = max(0, s.sure-1)
	written = !s.blank[seg]
	delete(s.blank, seg)
	return seg, written
}

// shiftKept takes the first one.
func (s *segmentTable) shiftKept() uint32 {
	seg := s.kept[0]
	s.kept = s.kept[1:]
	s.sure = min(s.sure, len(s.kept))
	delete(s.blank, seg)
	return seg
}

// wantStock asks for the stock to be filled, and returns why the last try that was asked for could not do it.
func (r *readiness) wantStock() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	err := r.stockErr
	r.stockErr, r.stock, r.asked = nil, true, err == nil
	r.kick()
	return err
}

// fillSoon has it filled ahead; what is in the way nobody needs to know yet.
func (r *readiness) fillSoon() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stock = true
	r.kick()
}

func (r *readiness) takeStock() (want, asked bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	want, asked = r.stock, r.asked
	r.stock, r.asked = false, false
	return want, asked
}

func (r *readiness) stockFailed(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stockErr = err
}
