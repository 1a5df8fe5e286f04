package aodi

import (
	"time"

	"cawrm/aodi/format"
)

// What becomes of a dead segment:
//
//	dead      the last live chunk in it was replaced (segmentTable.put)
//	released  a checkpoint says that it is free (collectDeadLocked); the one before may still need it (V4). What the log has
//	          filled since the one before waits for the next
//	kept      that checkpoint is durable (reclaim); the space stays, because writing where something was written before is
//	          cheaper for the file system, and most segments are needed again soon
//	punched   it was not needed: the space goes back to the file system (punch)
//
// A batch that an earlier life of the segment left there is not taken for one of the new: its sequence number is older.

const (
	minKept = 4 // free segments that keep their space, whatever the load; else what two checkpoints brought

	// Without a write for so long all space goes back: soon when some was given up, by a discard or with a snapshot; not so soon
	// when all of it was only written over, since the next writes will want as much.
	restAfter     = 5 * time.Second
	restOverwrite = 30 * time.Second
)

// voidSegment is a segment of a mirror that holds nothing but an epoch that was given up.
type voidSegment struct {
	segment uint32
	seq     uint64 // of the last batch there
}

// HistoryFloor is the position from which on every record is still in the log. What is older can be superseded and gone.
func (v *Volume) HistoryFloor() Position { return Position(v.floor.Load()) }

// reclaim makes segments that nothing durable refers to ready for use.
func (v *Volume) reclaim(segs []uint32) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.mapMu.Lock()
	defer v.mapMu.Unlock()
	for _, seg := range segs {
		v.pages.forget(seg)
		v.dropResidentLocked(seg)
		delete(v.segs.taken, seg)
		v.segs.kept = append(v.segs.kept, seg)
	}
	if len(segs) > 0 {
		v.relief.gave++
	}
	v.room.Broadcast()
}

// dropResidentLocked forgets batches of a segment that was freed: something else will be at their place.
func (v *Volume) dropResidentLocked(seg uint32) {
	left := v.resident[:0]
	for _, b := range v.resident {
		if b.segment == seg && b.written.Load() {
			v.spare = append(v.spare, b)
		} else {
			left = append(left, b)
		}
	}
	v.resident = left
}

// punch gives back the space of all free segments but the keep youngest.
func (v *Volume) punch(keep int) {
	for {
		v.mapMu.Lock()
		if len(v.segs.kept) <= keep {
			v.mapMu.Unlock()
			return
		}
		seg := v.segs.kept[0]
		v.segs.kept = v.segs.kept[1:]
		v.segs.taken[seg] = true // nothing new can come there meanwhile
		v.segs.reuses.Add(1)     // who reads it still looks again
		v.mapMu.Unlock()
		v.ready.gone(seg)
		if err := v.d.Punch(int64(v.geo.Phys(seg, 0))*format.ChunkSize, v.geo.SegmentBytes()); err != nil {
			v.log.Warn("space of a free segment was not given back", "segment", seg, "err", err)
		}
		v.mapMu.Lock()
		delete(v.segs.taken, seg)
		v.mapMu.Unlock()
	}
}

// Relieve frees what was kept for who might need it, because writes need it more: dead segments of the log that mirrors a little
// behind would be given in order, what cuts hold that are being shipped, and the oldest part of the history. It does nothing when no
// write waits. more: something came back, or may with the next call.
func (v *Volume) Relieve() (more bool, err error) {
	if v.relief.waiting.Load() == 0 || v.roomy() {
		return false, nil
	}
	v.mapMu.Lock()
	kept := len(v.segs.recent) > 0
	v.segs.recent = nil
	for _, h := range v.segs.holds {
		if h.yields && !h.gone.Load() {
			kept = true
			h.from = ^Position(0) // its pages stay: it may be reading one
			h.gone.Store(true)
		}
	}
	v.forgetLocked()
	for _, s := range v.snaps {
		more = more || s.deleting
	}
	kept = kept && len(v.segs.dead) > 0
	v.mapMu.Unlock()
	if !kept && !more {
		return false, nil
	}
	n, err := v.FreeDead()
	for reaping := more; reaping && err == nil && v.failure() == nil; {
		reaping, err = v.reap()
	}
	if more && err == nil { // what only these had is dead now
		v.mu.Lock()
		v.relief.gave++ // less is live, if nothing else
		v.room.Broadcast()
		v.mu.Unlock()
		_, err = v.FreeDead()
	}
	return more || n > 0, err
}

// GiveBack gives all space that is not used to the file system. Any goroutine.
func (v *Volume) GiveBack() error { return v.rest() }

// restDue is how long a volume must be left alone before its space goes back.
func (v *Volume) restDue() time.Duration {
	if v.givenUp.Load() {
		return restAfter
	}
	return restOverwrite
}

// rest is for a volume that is not written to: short lags are over, and what is free goes back to the file system.
func (v *Volume) rest() error {
	v.mapMu.Lock()
	v.segs.recent = nil
	v.mapMu.Unlock()
	var err error
	for range 2 { // what was filled since the last one is not freed by the next, but by that after it
		v.mapMu.Lock()
		dead := len(v.segs.dead) > 0
		v.mapMu.Unlock()
		if dead && err == nil {
			err = v.Checkpoint()
		}
	}
	v.givenUp.Store(false)
	v.punch(0)
	return err
}

// punchTail gives back what lies behind the last segment: a crash can leave it. Before the volume is shared.
func (v *Volume) punchTail() {
	if end := v.geo.Bytes(v.segs.count); !v.d.Fixed() && end < v.d.Size() {
		if err := v.d.Punch(end, v.d.Size()-end); err != nil {
			v.log.Warn("space behind the last segment was not given back", "err", err)
		}
	}
}
