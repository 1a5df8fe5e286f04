package aodi

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"syscall"

	"cawrm/aodi/format"
)

// Who writes to a volume can change while it is open, and each change is one checkpoint, so a crash leaves the role before
// or the one after:
//
//	Promote   a mirror gives up what has not become an epoch; a checkpoint says "primary" and begins a link of the
//	          lineage at end_ptr; then an empty batch takes the log to a term of positions that nobody has used before
//	Demote    a primary takes no more writes and makes its log durable; a checkpoint says "mirror"
//	Follow    a mirror that has not gone its own way takes over its source's lineage, before the first record of it
//
// The term stands in the high bits of a position. What the old primary wrote beyond the place of a promotion therefore has
// other positions than what the new one writes there, and a birth tells which it is. If a crash comes before the empty
// batch, opening makes up for it: a primary that stands where its last link begins has not entered its term.
//
// Two checkpoints are written where the role changes, so that no meta chunk is left that says the other one: were the newest
// damaged, the one before would roll forward by the rules of the other role.

// termBits are the positions of a term: at a million records a second it lasts for nine years.
const termBits = 48

// ErrNothingYet is why an empty mirror is not promoted.
var ErrNothingYet = errors.New("the mirror is empty: its first epoch has not come in whole")

// termAfter is the first position of the term behind p's.
func termAfter(p Position) Position { return (p>>termBits + 1) << termBits }

// isTerm tells whether a term begins at p.
func isTerm(p Position) bool { return p > 0 && p == p>>termBits<<termBits }

// Records counts the records of a history between two of its positions. Between the links of a lineage there are positions
// that no record has: a link's records begin with its term.
func Records(lineage []format.Lineage, from, to Position) uint64 {
	var n uint64
	for i := range lineage {
		end := to
		if i+1 < len(lineage) {
			end = min(to, lineage[i+1].Start)
		}
		first := lineage[i].Start
		if i > 0 {
			first = max(first, end>>termBits<<termBits)
		}
		if first = max(first, from); first < end {
			n += uint64(end - first)
		}
	}
	return n
}

// Hold lets writes wait until Release, and returns when all that were accepted are durable. Errors: it is no primary;
// the volume's failure. It is held then all the same.
func (v *Volume) Hold() error {
	v.mu.Lock()
	v.held = true
	v.mu.Unlock()
	if v.Role() != RolePrimary {
		return fmt.Errorf("%s: not a primary: %w", v.d.Name(), syscall.EINVAL)
	}
	return v.flush()
}

// Release ends Hold. What waited is written, or refused if the volume is a mirror now.
func (v *Volume) Release() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.held = false
	v.room.Broadcast()
}

// Untouched tells whether nothing was written since the volume was opened.
func (v *Volume) Untouched() bool { return v.shown() == v.openedAt }

// Promote makes a mirror the primary, at the position that it shows. Not beside Stage, Unstage or Adopt. When it returns nil
// that is durable, and writes are taken. Promoting a primary does nothing. Errors: ErrNothingYet; ENOSPC, and it is a mirror
// still; the volume's failure.
func (v *Volume) Promote() error {
	if v.Role() == RolePrimary {
		return nil
	}
	if !v.Info().HasIdentity || v.shown() == 0 {
		return fmt.Errorf("%s: %w", v.d.Name(), ErrNothingYet)
	}
	v.mu.Lock()
	v.held = true
	v.mu.Unlock()
	defer v.Release()
	if err := v.giveUp(); err != nil {
		return err
	}
	return v.branch()
}

// Demote makes a primary a mirror of what it holds: nothing that it has accepted is lost, and the next source goes on there.
// With yield the mirror leaves its own branch also for a source that is no successor of it; what only it holds is the
// caller's to keep. When it returns nil that is durable. Demoting a mirror changes only yield. Errors: ENOSPC, and it is
// a primary still; the volume's failure.
func (v *Volume) Demote(yield bool) error {
	was, yielded := v.Role(), v.Yields()
	if was == RoleMirror && (yielded || !yield) {
		return nil
	}
	if was == RolePrimary {
		if err := v.dropLeftover(); err != nil {
			return err
		}
	}
	if was == RolePrimary && !yield {
		if err := v.Begin(); err != nil {
			return err
		}
	}
	v.turnMirror(yield)
	err := v.flush()
	if err == nil {
		err = v.checkpoint(0)
	}
	if err == nil {
		return v.secondCheckpoint()
	}
	if v.failure() == nil {
		v.mu.Lock()
		v.mirror.Store(was == RoleMirror)
		v.yields.Store(yielded)
		v.mu.Unlock()
	}
	return err
}

// turnMirror refuses writes from here on. What was accepted is in the log, and shown, so a mirror's epochs follow behind it.
func (v *Volume) turnMirror(yield bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.yields.Store(yield)
	if v.Role() == RoleMirror {
		return
	}
	v.closeBatchLocked(true)
	v.mapMu.Lock()
	defer v.mapMu.Unlock()
	v.mirror.Store(true)
	if b := v.batch; b != nil { // it is empty: a source's records would come into a client's batch
		v.resident = slices.DeleteFunc(v.resident, func(r *batch) bool { return r == b })
		v.spare, v.batch = append(v.spare, b), nil
		v.restart = v.restart || b.hdr.Flags&format.FlagRestart != 0
	}
	v.shownPlace, v.shownLogged = v.head, v.logged
	v.room.Broadcast()
}

// Yields tells whether a mirror was told to leave its own branch for any other.
func (v *Volume) Yields() bool { return v.yields.Load() }

// NewTerm takes a primary's positions beyond p, which a mirror that went its own way has used. It begins a link of the
// lineage. Not beside Promote and Demote. Errors: it is no primary; ENOSPC, the volume's failure.
func (v *Volume) NewTerm(p Position) error {
	defer v.Release()
	if err := v.Hold(); err != nil {
		return err
	}
	v.mu.Lock()
	v.highest = max(v.highest, p)
	v.mu.Unlock()
	return v.branch()
}

// Begin sees to it that a primary's log is not empty: a mirror at position 0 cannot be told from one whose first epoch has not come in
// whole, which nobody may promote. The record says the size as it is. Errors: as WriteAt.
func (v *Volume) Begin() error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.logEnd > 0 {
		return nil
	}
	b, err := v.writeBatchLocked(true)
	if err != nil || v.logEnd > 0 {
		return err
	}
	return v.putSizeLocked(b, v.Size(), v.Size()-chunkSize)
}

// giveUp forgets what a mirror has got and does not show: the end of an epoch never came.
func (v *Volume) giveUp() error {
	if _, err := v.Commit(); err != nil {
		return err
	}
	if err := v.Unstage(); err != nil {
		return err
	}
	return v.dropComing()
}

// branch begins a link of the lineage at end_ptr, as a primary, and enters its term. Writes are held meanwhile.
func (v *Volume) branch() error {
	v.mu.Lock()
	_, err := v.openBatchLocked(true) // the empty batch has a place: nothing can fail for space between the two steps
	v.mu.Unlock()
	if err != nil {
		return err
	}
	link := format.Lineage{ID: newUUID()}
	if err := v.checkpointWith(0, func() {
		link.Start = v.shown()
		own := v.catalog.Lineage
		for len(own) > 1 && own[len(own)-1].Start >= link.Start {
			own = own[:len(own)-1] // of a source that it was going to follow, and has nothing of
		}
		v.setLineageLocked(append(slices.Clone(own), link), nil)
		v.mirror.Store(false)
		v.yields.Store(false)
	}); err != nil {
		return err
	}
	if err := v.enterTerm(); err != nil {
		return v.fail(err) // opening it again makes up for it
	}
	return v.secondCheckpoint()
}

// secondCheckpoint writes the second checkpoint of a change. When there is no space for it now, the next one that comes will do: what has
// changed has done so already, durably, and must not be called what it was.
func (v *Volume) secondCheckpoint() error {
	if err := v.checkpoint(0); err != nil && v.failure() != nil {
		return err
	}
	return nil
}

// enterTerm takes the log to a term of its own, if the last link of the lineage begins at end_ptr: with an empty batch, which
// is durable when it returns.
func (v *Volume) enterTerm() error {
	v.mu.Lock()
	v.mapMu.RLock()
	l := v.catalog.Lineage
	due := v.Role() == RolePrimary && len(l) > 1 && l[len(l)-1].Start == v.logEnd
	v.mapMu.RUnlock()
	if !due {
		v.mu.Unlock()
		return nil
	}
	b, err := v.openBatchLocked(true)
	if err == nil {
		v.logEnd = termAfter(max(v.highest, v.logEnd))
		v.closeBatchLocked(true)
		v.mapMu.Lock()
		err = v.enterLocked(b.segment)
		v.setShown(v.logEnd)
		v.mapMu.Unlock()
	}
	v.mu.Unlock()
	if err != nil {
		return err
	}
	return v.flush()
}

// dropComing gives up a jump epoch that is under way. A checkpoint, and forgetDropped, make that durable before anything else is
// taken. Not beside Stage.
func (v *Volume) dropComing() error {
	if v.Coming() == nil {
		return nil
	}
	v.clean.take()
	defer v.clean.give()
	return v.dropComingStill()
}

// dropComingStill is dropComing with clean held.
func (v *Volume) dropComingStill() error {
	if err := v.Checkpoint(); err != nil { // then all its pages are in the container, and counted
		return err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.mapMu.Lock()
	defer v.mapMu.Unlock()
	c := v.coming
	if c == nil {
		return nil
	}
	if err := v.dropComingLocked(c); err != nil {
		return v.fail(err)
	}
	// Segments were sealed with the end of the epoch, which nothing that is left comes up to. Below end_ptr they could be
	// taken for those that hold the log in order.
	if err := v.segs.lowerEnds(v.shown()); err != nil {
		return v.fail(err)
	}
	v.raiseFloor(v.shown())
	v.coming, v.catalog.Next, v.dropped = nil, nil, true
	v.highest = max(v.highest, c.end)
	return nil
}

// Follow is called before the first record of a source whose lineage is given. A mirror that has nothing which the source
// lacks takes over the lineage; else, diverged, it does so when the jump epoch that makes it the source's is whole.
// keep: the jump epoch that is under way is of the source's history too. tail: the name of a snapshot that keeps what only this
// mirror has, before it is given up; empty: there is nothing; kept tells whether it was made. Durable when it returns. Not beside Stage.
// Errors: it is no mirror; the snapshot's; ENOSPC; the volume's failure.
func (v *Volume) Follow(lineage []format.Lineage, diverged, keep bool, tail string) (kept bool, err error) {
	if v.Role() != RoleMirror || len(lineage) == 0 {
		return false, fmt.Errorf("%s: not a mirror: %w", v.d.Name(), syscall.EINVAL)
	}
	if !keep {
		if err := v.dropComing(); err != nil {
			return false, err
		}
	}
	// The snapshot is durable before anything says that its turn is over.
	if diverged && tail != "" && !slices.Equal(v.ComingLineage(), lineage) {
		if _, err := v.CreateSnapshot(tail); err != nil {
			return false, err
		}
		kept = true
	}
	c := &v.catalog
	own, next := lineage, []format.Lineage(nil)
	v.mapMu.RLock()
	if diverged {
		own, next = c.Lineage, lineage
	}
	same := slices.Equal(c.Lineage, own) && slices.Equal(c.Next, next) && !v.dropped
	v.mapMu.RUnlock()
	if same {
		return kept, nil
	}
	// With the checkpoint and not before: if there is no space for it, the next session must not find that all is done.
	if err := v.checkpointWith(0, func() { v.setLineageLocked(slices.Clone(own), slices.Clone(next)) }); err != nil {
		return kept, err
	}
	return kept, v.forgetDropped()
}

// forgetDropped ends what dropComing began, after one checkpoint: the one before it must not have that map either. Recovery from there
// would let records of the volume's map come behind it, which count as dead what it has, and it would be gone on with: another source
// would find it whole where it lacks what came meanwhile.
func (v *Volume) forgetDropped() error {
	v.mapMu.Lock()
	was := v.dropped
	v.dropped = false
	v.mapMu.Unlock()
	if !was {
		return nil
	}
	return v.secondCheckpoint()
}

// ComingLineage is the lineage of the source that the jump epoch which is under way comes from.
func (v *Volume) ComingLineage() []format.Lineage {
	v.mapMu.RLock()
	defer v.mapMu.RUnlock()
	if len(v.catalog.Next) > 0 {
		return slices.Clone(v.catalog.Next)
	}
	return slices.Clone(v.catalog.Lineage)
}

// setLineageLocked changes the lineage, and that of the source whose jump epoch is under way.
func (v *Volume) setLineageLocked(own, next []format.Lineage) {
	if !slices.Equal(v.catalog.Lineage, own) {
		v.turn++
	}
	v.catalog.Lineage, v.catalog.Next = own, next
}

// leaveBranchLocked is called when a jump epoch takes the place of what the mirror held. Snapshots of the branch are marked: the other
// may have used the same positions, if both heads were promoted from one.
func (v *Volume) leaveBranchLocked() {
	if len(v.catalog.Next) > 0 {
		fork := forkOf(v.catalog.Lineage, v.catalog.Next)
		for _, s := range v.snaps {
			s.astray = s.astray || s.position > fork
		}
		v.setLineageLocked(v.catalog.Next, nil)
		v.yields.Store(false)
	}
}

// forkOf is where two lineages part, at the latest: where one of them begins a link that the other has not.
func forkOf(a, b []format.Lineage) Position {
	fork := Position(math.MaxUint64)
	for i := range max(len(a), len(b)) {
		if i < len(a) && i < len(b) && a[i] == b[i] {
			continue
		}
		if i < len(a) {
			fork = min(fork, a[i].Start)
		}
		if i < len(b) {
			fork = min(fork, b[i].Start)
		}
		break
	}
	return fork
}
