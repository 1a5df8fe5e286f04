package aodi

import (
	"sync"

	"cawrm/aodi/format"
)

// zeroAheadFlushes is how many flushes while one segment fills make it worth writing zeroes over the next:
// a flush into space that was written before has no file system metadata to commit (half the time on ext4),
// but the zeroes are bytes on the disk, which a load without flushes would only pay for.
const zeroAheadFlushes = 16

// readiness makes segments ready ahead of the heads: space is reserved before a record that will use it is
// accepted, so a full disk refuses writes and loses none.
type readiness struct {
	mu    sync.Mutex
	state map[uint32]*readyState
	whole map[uint32]bool // segments that were reserved in this life and not given back since
	wake  chan struct{}
}

type readyState struct {
	zero, done bool
	err        error
}

func newReadiness() *readiness {
	return &readiness{state: map[uint32]*readyState{}, whole: map[uint32]bool{}, wake: make(chan struct{}, 1)}
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
			v.mu.Lock()
			v.room.Broadcast()
			v.mu.Unlock()
		}
		select {
		case <-v.closing:
			return
		case <-v.ready.wake:
		}
	}
}

// reserved tells whether a segment has all its space, as far as this life knows.
func (r *readiness) reserved(seg uint32) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.whole[seg]
}

// got notes that all of a segment's space was reserved, gone that it is given back.
func (r *readiness) got(seg uint32) {
	r.mu.Lock()
	r.whole[seg] = true
	r.mu.Unlock()
}

func (r *readiness) gone(seg uint32) {
	r.mu.Lock()
	delete(r.whole, seg)
	r.mu.Unlock()
}

// makeReady reserves a segment's space, unless it has it. To ask the file system costs more than the call: ext4 lets all direct
// writes to the file end first, and begins none meanwhile.
func (v *Volume) makeReady(seg uint32, zero bool) error {
	off, n := int64(v.geo.Phys(seg, 0))*format.ChunkSize, v.geo.SegmentBytes()
	if !v.ready.reserved(seg) {
		if err := v.d.Reserve(off, n); err != nil {
			return err
		}
		v.ready.got(seg)
	}
	if zero {
		return v.d.Zero(off, n)
	}
	return nil
}
