package aodi

import (
	"errors"
	"fmt"
	"syscall"
	"time"

	"cawrm/aodi/format"
)

// A rollback is a jump epoch that a primary gives itself: what differs from the state that is wanted is appended and goes into
// the coming map, which takes the place of the volume's when all of it is durable. So a crash leaves the one or the other,
// and mirrors get it as one epoch, too. Its records are new ones: what was there before is as far back in the log as anything.

// Rollback makes the volume hold what a view of it holds, a snapshot or a moment of the history, durably, and keeps what it held
// as a snapshot of that name. The size stays: what the view has not is holes then. It costs what differs. Writes wait meanwhile; clients that remember what they have read
// must be gone. One at a time. Errors: it is no primary, or a clone; CreateSnapshot's; ENOSPC, or the
// disk's when it reads: then the volume is as it was. If the volume fails with it, opening it again shows whether it was done.
func (v *Volume) Rollback(to *View, keep string) error {
	switch {
	case v.Role() != RolePrimary:
		return v.readOnly()
	case v.base != nil:
		return fmt.Errorf("%s: %w, which is not rolled back: make another clone: %w", v.d.Name(), ErrIsClone, syscall.EINVAL)
	case to.v != v || to.Size() > v.Size():
		return fmt.Errorf("%s: of %d bytes cannot become what %s is, of %d: %w", v.d.Name(), v.Size(), to.name, to.Size(), syscall.EINVAL)
	}
	defer v.Release()
	if err := v.Hold(); err != nil {
		return err
	}
	if err := v.dropLeftover(); err != nil {
		return err
	}
	if _, err := v.CreateSnapshot(keep); err != nil {
		return err
	}
	defer v.pauseCleaning()()
	c, err := v.beginJump(&LogBatch{Jump: true, First: v.shown(), End: v.shown() + 1})
	if err != nil {
		return err
	}
	r := &rollback{v: v, to: to, c: c, birth: v.shown()}
	err = r.run()
	if err == nil {
		err = v.openLastBatch()
	}
	if err != nil {
		v.mu.Lock()
		v.suspendJumpLocked()
		v.leftover = true
		v.mu.Unlock()
		if v.failure() == nil {
			if left := v.dropLeftover(); left != nil {
				v.reaper.request()
				err = errors.Join(err, left)
			}
		}
		return err
	}
	if err := v.showRollback(c, r.birth+1); err != nil {
		return err
	}
	return v.secondCheckpoint()
}

// dropLeftover gives up what a rollback has brought that could not be ended. Until that is done no write is taken: the map that is to go
// counts as made of the volume's as it is, so what would replace a chunk of both would count it dead, and so would this. Where there is no
// space for the checkpoint that it takes the reaper tries it again. Errors: ENOSPC, the volume's failure.
func (v *Volume) dropLeftover() error {
	v.clean.take() // one at a time, and not beside the next rollback's beginning
	defer v.clean.give()
	v.mu.Lock()
	there := v.leftover
	v.mu.Unlock()
	if !there {
		return nil
	}
	err := v.dropComingStill()
	if err == nil {
		err = v.Checkpoint()
	}
	if err == nil {
		err = v.forgetDropped()
	}
	if err != nil {
		return fmt.Errorf("what a rollback has brought in vain is there still, and no write is taken: %w", err)
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.leftover = false
	v.room.Broadcast()
	return nil
}

// openLastBatch gives the batch that commits its place, for which space may have to be waited: with checkpoints, so not beside showRollback.
func (v *Volume) openLastBatch() error {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.closeJumpLocked()
	_, err := v.openBatchLocked(true) // it stays open while it is empty
	return err
}

// showRollback ends the epoch. No checkpoint may come between the batch that commits and the map that it makes the volume's: one
// would stand behind that batch, and its map before.
func (v *Volume) showRollback(c *coming, end Position) error {
	v.ckpt.run.take()
	defer v.ckpt.run.give()
	if err := v.endJump(c, end); err != nil {
		return v.fail(err)
	}
	if _, err := v.Commit(); err != nil {
		return v.fail(err)
	}
	return nil
}

// rollback is one under way.
type rollback struct {
	v     *Volume
	to    *View
	c     *coming
	birth Position
	leaf  []differs
	buf   [chunkSize]byte
}

// differs is a chunk that is not as it was.
type differs struct {
	lba uint64
	to  ref // its reference as it was
}

func (r *rollback) run() error {
	v := r.v
	for index := uint64(0); ; index++ {
		// The volume's map does not change: writes wait.
		v.mapMu.RLock()
		now, _, err := v.main.tree.next(index, v.main.tree.leaves())
		was := now
		if err == nil {
			was, _, err = v.treeLocked(r.to.snap).next(index, v.main.tree.leaves())
		}
		if index = min(now, was); err == nil && index < v.main.tree.leaves() {
			err = r.compareLocked(index)
		}
		v.mapMu.RUnlock()
		if err != nil || index >= v.main.tree.leaves() {
			return err
		}
		if err := r.stage(); err != nil {
			return err
		}
	}
}

// compareLocked finds what differs in one leaf.
func (r *rollback) compareLocked(index uint64) error {
	r.leaf = r.leaf[:0]
	now, err := r.v.main.tree.leaf(index, true)
	if err != nil {
		return err
	}
	was, err := r.v.treeLocked(r.to.snap).leaf(index, true)
	if err != nil {
		return err
	}
	at := func(leaf []byte, slot uint64) ref {
		if leaf == nil {
			return format.Unmapped
		}
		return refAt(leaf, slot)
	}
	for slot := range uint64(format.RefsPerPage) {
		if to := at(was, slot); to != at(now, slot) {
			r.leaf = append(r.leaf, differs{index*format.RefsPerPage + slot, to})
		}
	}
	return nil
}

// stage brings the chunks of a leaf into the coming map as they were.
func (r *rollback) stage() error {
	if len(r.leaf) == 0 {
		return nil
	}
	v := r.v
	if err := v.throttle(); err != nil {
		return err
	}
	first := []format.Entry{{LBA: r.leaf[0].lba, Count: 1}}
	if err := v.warmEntries(&r.c.head, first); err != nil {
		return err
	}
	for _, d := range r.leaf {
		e := format.Entry{Birth: r.birth, LBA: d.lba, Kind: kindOf(d.to), Count: 1}
		if e.Kind == format.KindData {
			if err := r.to.ReadAt(r.buf[:], int64(d.lba)*chunkSize); err != nil {
				return err
			}
			e.CRC = format.Sum(r.buf[:])
		}
		if _, err := v.stageJumpRecord(r.c, e, r.buf[:]); err != nil {
			return err
		}
	}
	return nil
}

// KeptName is the name under which a rollback keeps what was there.
func KeptName(now time.Time) string {
	return "before-rollback-" + now.UTC().Format("20060102T150405.000Z")
}
