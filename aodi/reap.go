package aodi

import (
	"slices"
	"time"

	"cawrm/aodi/format"
)

// How a snapshot that is deleted goes: the reaper goes over its map from the first leaf to the last, a few leaves at a time
// under mapMu, and counts as dead what neither the map under it nor the one over it has. head.gone says how far it has come:
// below, who asks what is under a map gets the one under the snapshot (head.beneath). Counts and gone are in the same
// checkpoints, so a crash goes on from where the newest one was, and the space is used again only after that (V4).

// reapStep is how many leaves are looked at under one lock.
const reapStep = 64

// reapAgain is how long the reaper waits when the disk is full or fails.
const reapAgain = 5 * time.Second

// reaper deletes snapshots in the background.
type reaper struct {
	wake chan struct{}
}

func newReaper() reaper { return reaper{make(chan struct{}, 1)} }

func (r reaper) request() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

func (v *Volume) runReaper() {
	defer v.wg.Done()
	var again <-chan time.Time
	for {
		select {
		case <-v.closing:
			return
		case <-v.reaper.wake:
		case <-again:
		}
		again = nil
		if err := v.dropLeftover(); err != nil {
			again = time.After(reapAgain)
			continue
		}
		for more := true; more && v.failure() == nil; {
			var err error
			if more, err = v.reap(); err != nil {
				v.log.Warn("the space of a deleted snapshot is still in use", "err", err)
				again = time.After(reapAgain)
				break
			}
		}
	}
}

// reap does one step. more: there is something left to do.
func (v *Volume) reap() (more bool, err error) {
	if err := v.throttle(); err != nil { // rows of the segment table become pages in memory
		return false, err
	}
	v.ckpt.run.take() // no page is on its way between memory and disk
	defer v.ckpt.run.give()
	if err := v.settleDeleted(); err != nil {
		return false, err
	}
	v.mapMu.Lock()
	defer v.mapMu.Unlock()
	i := v.nextToReapLocked()
	if i < 0 {
		return false, nil
	}
	s := v.snaps[i]
	if inMemory(s.tree.root) {
		return true, nil // cleaning was faster
	}
	over := v.main
	if i+1 < len(v.snaps) {
		over = &v.snaps[i+1].head
	}
	v.givenUp.Store(true)
	w := reapWalk{v: v, s: &s.head, over: over, left: reapStep}
	if err := w.page(uint8(s.tree.height-1), 0, s.tree.root); err != nil {
		return false, err
	}
	if s.gone >= s.tree.leaves() {
		v.segs.chance()
		over.under = s.under
		v.snaps = append(v.snaps[:i:i], v.snaps[i+1:]...)
		v.sinceCheckpoint.Add(chunkSize) // that it is gone is new, too
	}
	return true, nil
}

// nextToReapLocked is the index of the snapshot whose deletion goes on, -1: there is none. One that is gone in part comes first, the
// newest of them: what it shares with an older one it has left to that, and to the older one, while both are there, it would seem to be
// the newer one's.
func (v *Volume) nextToReapLocked() int {
	for i := len(v.snaps) - 1; i >= 0; i-- {
		if s := v.snaps[i]; s.deleting && s.gone > 0 {
			return i
		}
	}
	return slices.IndexFunc(v.snaps, func(s *snapshot) bool { return s.deleting })
}

// settleDeleted sees to that no page of a snapshot that is deleted is newer than the checkpoint: cleaning changes such pages.
func (v *Volume) settleDeleted() error {
	v.mapMu.RLock()
	settled := true
	for _, s := range v.snaps {
		settled = settled && !(s.deleting && inMemory(s.tree.root))
	}
	v.mapMu.RUnlock()
	if settled {
		return nil
	}
	_, err := v.checkpointLocked(0, nil, nil)
	return err
}

// reapWalk is one step of a deletion.
type reapWalk struct {
	v    *Volume
	s    *head // what is deleted
	over *head // the map that was made of it
	left int   // leaves to look at yet
}

// page goes over the part of the snapshot's map that a page leads to, from s.gone on.
func (w *reapWalk) page(level uint8, index uint64, r ref) error {
	end := (index + 1) << (fanBits * level)
	if w.s.passed(level, index) {
		return nil
	}
	var below ref
	if b := w.s.beneath(level, index); b != nil {
		var err error
		if below, err = b.tree.refOf(level, index); err != nil {
			return err
		}
	}
	above, err := w.over.tree.refOf(level, index)
	if err != nil {
		return err
	}
	if r == format.Unmapped || r == below || r == above {
		w.s.gone = end // another map holds all of it
		return nil
	}
	b, err := w.s.tree.bytes(r, true)
	if err != nil {
		return err
	}
	if level == 0 {
		w.left--
		if err := w.leaf(index, b); err != nil {
			return err
		}
	}
	for slot := uint64(0); level > 0 && slot < format.RefsPerPage; slot++ {
		if w.left <= 0 {
			return nil
		}
		child, err := w.s.tree.child(r, b, slot)
		if err != nil {
			return err
		}
		if err := w.page(level-1, index<<fanBits|slot, child); err != nil {
			return err
		}
	}
	if level > 0 && w.s.gone < end {
		return nil // the step is over in its last child
	}
	w.s.gone = end
	if inMemory(above) && w.v.arena.info[memoryPage(above)].old.Phys() == r.Phys() {
		return nil // the next checkpoint counts it, since nobody shares it any more
	}
	if err := w.v.dropPageLocked(r); err != nil {
		return w.v.fail(err)
	}
	return nil
}

// leaf counts what a leaf leads to and neither neighbour has at that place.
func (w *reapWalk) leaf(index uint64, b []byte) error {
	above, err := w.over.tree.leaf(index, true)
	if err != nil {
		return err
	}
	d, err := w.v.newDropper(&head{under: w.s.beneath(0, index)}, index)
	if err != nil {
		return err
	}
	for slot := range uint64(format.RefsPerPage) {
		if r := refAt(b, slot); above == nil || refAt(above, slot) != r {
			d.drop(slot, r)
		}
	}
	if err := d.done(); err != nil {
		return w.v.fail(err) // some of it may be counted: it cannot be tried again
	}
	return nil
}
