package aodi

import (
	"errors"
	"fmt"
	"syscall"

	"cawrm/aodi/format"
)

// The capacity bounds how many segments are in use, wherever they stand in the container: a file that is given a smaller one keeps
// its length, with holes. It is changed by checkpoints:
//
//	more   first two checkpoints say it, so that no meta chunk is left that does not, and then segments are taken by it: after a crash
//	       no more are in use than what the checkpoint allows that recovery takes, or there would be none for its own
//	less   one checkpoint says it that finds few enough in use, and in the same moment no more are taken
//
// So a crash leaves the bound before or the one after, and what is in use fits it.

// Why a capacity is refused.
var (
	ErrLive  = errors.New("more than that is live")
	ErrInUse = errors.New("more than that is in use")
)

// SetCapacity bounds the space that the container takes, durably; 0 lifts the bound. The volume is used meanwhile. Any
// goroutine, one at a time. Errors: EINVAL for a device that has not so much; ErrLive, with the least that would do; ErrInUse,
// when cleaning can help; ENOSPC; the volume's failure.
func (v *Volume) SetCapacity(bytes int64) error {
	switch {
	case bytes < 0:
		return fmt.Errorf("%s: capacity %d: %w", v.d.Name(), bytes, syscall.EINVAL)
	case v.d.Fixed() && bytes > v.d.Size():
		return fmt.Errorf("%s: capacity %d: the device has %d bytes: %w", v.d.Name(), bytes, v.d.Size(), syscall.EINVAL)
	}
	if limit := segmentLimit(v.d, v.geo, bytes); limit >= v.segmentLimit() {
		return v.raiseCapacity(bytes)
	}
	return v.lowerCapacity(bytes)
}

func (v *Volume) raiseCapacity(bytes int64) error {
	v.mapMu.RLock()
	was := v.promised
	v.mapMu.RUnlock()
	promise := func(bytes int64) func() { return func() { v.promised = bytes } }
	err := v.checkpointWith(0, promise(bytes))
	if err == nil {
		err = v.checkpoint(0)
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.mapMu.Lock()
	defer v.mapMu.Unlock()
	if err != nil {
		v.promised = was // the next checkpoint says so; one that says more does no harm
		return err
	}
	v.capacity.Store(bytes)
	v.relief.gave++
	v.segs.chance()
	v.room.Broadcast() // there is space now
	return nil
}

func (v *Volume) lowerCapacity(bytes int64) error {
	limit := segmentLimit(v.d, v.geo, bytes)
	if least, live := v.LeastCapacity(); bytes < least {
		return fmt.Errorf("%s: capacity %d: %w: %d bytes are, for which the container needs at least %d; discard some, or delete snapshots", v.d.Name(), bytes, ErrLive, live, least)
	}
	keep := v.checkpointKeep() + v.coldReserve()
	refused := error(nil)
	err := v.checkpointWith(0, func() {
		if have := v.segs.available(limit); have < keep {
			used := v.segs.count - min(v.segs.count, v.segs.free) + uint64(len(v.segs.taken)) + keep
			refused = fmt.Errorf("%s: capacity %d: %w: %d segments of %d bytes, with what writes and checkpoints need, and it has %d",
				v.d.Name(), bytes, ErrInUse, used, v.geo.SegmentBytes(), limit)
			return
		}
		v.promised = bytes
		v.capacity.Store(bytes)
	})
	if err == nil {
		err = refused
	}
	if err == nil {
		v.punch(0)
	}
	return err
}

// LeastCapacity is the least bound for what is live, data of snapshots and the history included, and how much that is, bytes. A
// little more than it is wanted for cleaning to be cheap.
func (v *Volume) LeastCapacity() (least, live int64) {
	v.mapMu.RLock()
	chunks, leaves := v.segs.live, min(v.leaves(), v.main.mapped+1)
	v.mapMu.RUnlock()
	low, high := uint64(firstSegments+metaReserve), uint64(format.PhysLimit)/uint64(v.geo.SegmentChunks)
	for low < high { // fullAt grows with the limit
		if mid := (low + high) / 2; fullAt(v.geo, mid, leaves) > chunks {
			high = mid
		} else {
			low = mid + 1
		}
	}
	return v.geo.Bytes(low + 2), chunks * chunkSize // and what cleaning leaves in part
}
