package aodi

import (
	"errors"
	"sync"
	"syscall"

	"cawrm/aodi/format"
)

// zeroAheadFlushes is how many flushes while one segment fills make it worth writing zeroes over the next:
// a flush into space that was written before has no file system metadata to commit (half the time on ext4),
// but the zeroes are bytes on the disk, which a load without flushes would only pay for.
const zeroAheadFlushes = 16

// readiness makes segments ready ahead of the heads: space is reserved before a record that will use it is
// accepted, so a full disk refuses writes and loses none.
//
// Where only the file system bounds the container nobody knows how much is left, so there are some segments more that have their
// space. Writes take one only when all of them are there; when the file system is full, discards go on in them, and cleaning.
type readiness struct {
	mu    sync.Mutex
	state map[uint32]*readyState
	wake  chan struct{}

	spares []spare // segments that have their space
	wanted bool    // there are to be enough
	err    error   // why there are not; reported once for each try
}

// spare is a segment that is held. written: it was in use before.
type spare struct {
	segment uint32
	written bool
}

// spareSegments are one for discards, two for cleaning, and one for whoever goes on first.
const spareSegments = 4

type readyState struct {
	zero, done bool
	err        error
}

func newReadiness() *readiness {
	return &readiness{state: map[uint32]*readyState{}, wake: make(chan struct{}, 1)}
}

// hasSpares tells whether there are enough spare segments, and asks for them if not.
func (r *readiness) hasSpares() (bool, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.spares) >= spareSegments {
		return true, nil
	}
	err := r.err
	r.err, r.wanted = nil, true
	r.kick()
	return false, err
}

// takeSpare gives a spare segment away, if there is one.
func (r *readiness) takeSpare() (s spare, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.spares) == 0 {
		return s, false
	}
	s, r.spares = r.spares[0], r.spares[1:]
	return s, true
}

// lacks tells whether one more is to be made.
func (r *readiness) lacks() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.wanted && len(r.spares) < spareSegments && r.err == nil
}

func (r *readiness) made(s spare, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err = err; err == nil {
		r.spares = append(r.spares, s)
	}
	r.wanted = err == nil && len(r.spares) < spareSegments
}

func (r *readiness) want(seg uint32, zero bool) {
	r.mu.Lock()
	r.state[seg] = &readyState{zero: zero}
	r.mu.Unlock()
	r.kick()
}

func (r *readiness) kick() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// check tells whether a segment is ready, and takes it off the list if so. After an error it is tried again,
// so that writes succeed when space has come back; the error is reported once for each try.
func (r *readiness) check(seg uint32) (bool, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.state[seg]
	switch {
	case s == nil:
		return true, nil
	case s.err != nil:
		err := s.err
		s.err, s.done = nil, false
		r.kick()
		return false, err
	case s.done:
		delete(r.state, seg)
		return true, nil
	}
	return false, nil
}

func (r *readiness) todo() (uint32, bool, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for seg, s := range r.state {
		if !s.done && s.err == nil {
			return seg, s.zero, true
		}
	}
	return 0, false, false
}

// runReady reserves, and where it pays zeroes, the segments that are wanted.
func (v *Volume) runReady() {
	defer v.wg.Done()
	for {
		for seg, zero, ok := v.ready.todo(); ok; seg, zero, ok = v.ready.todo() {
			err := v.makeReady(seg, zero)
			if err == nil {
				// A log that filled the disk could otherwise not be checkpointed, and not be opened again.
				err = v.reserveMeta(v.pagesAhead())
			}
			v.ready.mu.Lock()
			if s := v.ready.state[seg]; s != nil {
				s.done, s.err = err == nil, err
			}
			v.ready.mu.Unlock()
			v.wakeAll()
		}
		if v.ready.lacks() {
			v.ready.made(v.makeSpare())
			v.wakeAll()
			continue
		}
		select {
		case <-v.closing:
			return
		case <-v.ready.wake:
		}
	}
}

func (v *Volume) wakeAll() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.room.Broadcast()
}

// makeSpare takes a segment and gives it its space, and reserves what checkpoints need when it is used.
func (v *Volume) makeSpare() (spare, error) {
	v.mapMu.Lock()
	seg, written, err := v.segs.take(v.segmentLimit(), 0)
	v.mapMu.Unlock()
	if err != nil {
		return spare{}, err
	}
	if err = v.makeReady(seg, false); err == nil {
		err = v.reserveMeta(2 * v.pagesAhead())
	}
	if err != nil {
		v.mapMu.Lock()
		delete(v.segs.taken, seg) // it is free, and found again by the next try
		v.mapMu.Unlock()
	}
	return spare{seg, written}, err
}

// releaseSpares gives the spare segments up. The next segment that the log takes asks for others.
func (v *Volume) releaseSpares() {
	for s, ok := v.ready.takeSpare(); ok; s, ok = v.ready.takeSpare() {
		v.mapMu.Lock()
		delete(v.segs.taken, s.segment)
		v.segs.kept = append(v.segs.kept, s.segment)
		v.mapMu.Unlock()
	}
}

// reserve makes free segments that still have their space give it up when the file system has no more.
func (v *Volume) reserve(off, n int64) error {
	err := v.d.Reserve(off, n)
	if errors.Is(err, syscall.ENOSPC) && v.hasKept() {
		v.punch(0)
		err = v.d.Reserve(off, n)
	}
	return err
}

func (v *Volume) makeReady(seg uint32, zero bool) error {
	off, n := int64(v.geo.Phys(seg, 0))*format.ChunkSize, v.geo.SegmentBytes()
	if err := v.reserve(off, n); err != nil {
		return err
	}
	if zero {
		return v.d.Zero(off, n)
	}
	return nil
}
