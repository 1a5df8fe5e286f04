package aodi

import (
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"syscall"
)

// How a write waits for space. One that finds no segment, or finds the container full of what is live, waits, and is refused with
// ENOSPC on one condition:
//
//	a whole round has ended that began after the write had found no space, and there is still none
//
// A whole round has tried to its end all that can give space, in this order: checkpoints, which free dead segments, what the log has just
// filled with the second one; cleaning, as long as it gains; and what gives way to a write, which is segments that are kept for mirrors a
// little behind, cuts that are being shipped, and the history, oldest first. A round that an error has cut short is none, nor is one that
// ended since there was space, should that be gone again, and the write waits for the next; but when three in a row were none, that
// is all that can be tried.
//
// Two kinds of write need not wait, since a round would tell them nothing: one that finds the container full of data that cannot give
// way (what is live is not less for being moved); and one that comes after a refusal, when nothing has happened since that round began
// after which another one could gain (chance). So a volume that is full says so at once.

// relief is how writers that find no space wait for it. Guarded by Volume.mu.
type relief struct {
	wake    chan struct{}
	cleaner bool   // somebody cleans; else the checkpoints' goroutine does what it can
	stopped bool   // nobody does any more
	began   uint64 // rounds
	ended   uint64 // of the whole ones, the last
	broken  int    // rounds in a row that were not whole
	gave    uint64 // how often segments came back
	chances uint64 // segmentTable.chances when the last whole round began
	barren  uint64 // 1 + that, when a write was refused after it
	waiting atomic.Int64
}

// brokenMost is how many rounds that an error has cut short count as a whole one.
const brokenMost = 3

const noChances = ^uint64(0)

func newRelief() relief { return relief{wake: make(chan struct{}, 1)} }

func (r *relief) request() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// spaceWait is one writer's.
type spaceWait struct {
	round uint64 // the first that tries all for it; 0: it does not wait
	last  bool   // that one is over: it looks once more
}

// end is called when the writer has found a segment, or gives up.
func (w *spaceWait) end(v *Volume) {
	if w.round > 0 {
		v.relief.waiting.Add(-1)
	}
	*w = spaceWait{}
}

// awaitSpaceLocked waits, with mu released, until it is worth looking for space again. It returns err, which said that there is none, when
// the write is to be refused.
func (v *Volume) awaitSpaceLocked(w *spaceWait, err error) error {
	r := &v.relief
	switch {
	case !errors.Is(err, syscall.ENOSPC) || r.stopped || r.barren == 1+v.segs.chances.Load():
		return err
	case w.round == 0:
		w.round = r.began + 1 // the one that is under way may have looked already
		r.waiting.Add(1)
	case w.last:
		if r.chances == v.segs.chances.Load() {
			r.barren = 1 + r.chances
		}
		return err
	}
	for gave := r.gave; r.gave == gave && r.ended < w.round && !r.stopped; {
		if r.cleaner {
			r.request()
		} else {
			v.ckpt.request()
		}
		v.room.Wait()
		if err := v.failure(); err != nil {
			return err
		}
	}
	w.last = r.ended >= w.round || r.stopped // what brought the error can have been tried before
	return nil
}

// Round runs a round of what can give space, and tells the writes that wait. try tells whether it was a whole one.
func (v *Volume) Round(try func() (whole bool)) {
	r := &v.relief
	v.mu.Lock()
	r.began++
	round, chances := r.began, v.segs.chances.Load()
	v.mu.Unlock()
	whole := try()
	roomy := v.roomy()
	v.mu.Lock()
	defer v.mu.Unlock()
	switch {
	case r.waiting.Load() == 0:
		r.broken = 0
	case roomy: // it has not tried all, since there was enough: who looks may find that it is gone again
		whole = false
		r.gave++
	}
	if r.broken++; whole || r.broken >= brokenMost {
		if r.broken = 0; !whole {
			chances = noChances // what was in the way may be over for the next one
		}
		if round > r.ended {
			r.ended, r.chances = round, chances
		}
	}
	v.room.Broadcast()
}

// chance notes that something has happened after which a round could gain.
func (s *segmentTable) chance() { s.chances.Add(1) }

// fullLocked tells whether what is live fills the container, and whether that is so for good: nothing of it can give way. mu is held.
func (v *Volume) fullLocked() (forGood bool, err error) {
	if !v.bounded() {
		return false, nil
	}
	v.mapMu.RLock()
	defer v.mapMu.RUnlock()
	if err = v.fullMapLocked(); err == nil {
		return false, nil
	}
	// Under the same lock: a part of the history that has just gone is neither live nor there.
	return !slices.ContainsFunc(v.snaps, func(s *snapshot) bool { return s.deleting || s.cut && s.users == 0 }), err
}

func (v *Volume) fullMapLocked() error {
	most := fullAt(v.geo, v.segmentLimit(), min(v.leaves(), v.main.mapped+1))
	if v.segs.live < most {
		return nil
	}
	return fmt.Errorf("%s: %d bytes are live, of at most %d: discard some, or delete snapshots: %w",
		v.d.Name(), v.segs.live*chunkSize, most*chunkSize, syscall.ENOSPC)
}

// roomy tells whether a write that waits would find space by now, so that nothing more has to give way to it.
func (v *Volume) roomy() bool {
	keep := v.checkpointKeep() + v.coldReserve()
	v.mapMu.RLock()
	defer v.mapMu.RUnlock()
	return v.bounded() && v.fullMapLocked() == nil && v.segs.available(v.segmentLimit()) > keep
}

// relieve is a round where nobody cleans. It ends when there is space, or when nothing more comes of it.
func (v *Volume) relieve() error {
	for {
		before := v.availableNow()
		n, err := v.FreeDead()
		if n == 0 && err == nil { // what the log has just filled comes with the second
			_, err = v.FreeDead()
		}
		if err != nil || v.relief.waiting.Load() == 0 || v.roomy() {
			return err
		}
		if more, err := v.Relieve(); err != nil || !more && v.availableNow() <= before {
			return err
		}
	}
}

func (v *Volume) availableNow() uint64 {
	v.mapMu.RLock()
	defer v.mapMu.RUnlock()
	return v.segs.available(v.segmentLimit())
}

// stop lets nobody wait any more.
func (r *relief) stop(v *Volume) {
	v.mu.Lock()
	defer v.mu.Unlock()
	r.stopped = true
	v.room.Broadcast()
}

// Attach tells the volume that somebody cleans it from now on, until detach. wake tells that the log has taken a segment, or
// that a write waits for space; who waits is told by a round that ends. One cleaner at a time.
func (v *Volume) Attach() (wake <-chan struct{}, detach func()) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.relief.cleaner = true
	return v.relief.wake, func() {
		v.mu.Lock()
		defer v.mu.Unlock()
		v.relief.cleaner = false
		v.room.Broadcast()
	}
}

func (v *Volume) hasCleaner() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.relief.cleaner
}
