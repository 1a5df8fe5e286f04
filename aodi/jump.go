package aodi

import (
	"cawrm/aodi/format"
)

// A mirror takes a jump epoch record by record into the map that is coming (head.go): like a client's writes these are
// durable sooner or later, counted, and in checkpoints, but they are shown only when the epoch's last batch, which commits
// and holds no record, is durable.

// stageJump is Stage for a part of a jump epoch.
func (v *Volume) stageJump(b *LogBatch, commit bool) error {
	c, err := v.beginJump(b)
	if err != nil {
		return err
	}
	if err := v.warmEntries(&c.head, b.Entries); err != nil {
		return err
	}
	data := b.Data
	for i := range b.Entries {
		n, err := v.stageJumpRecord(c, b.Entries[i], data)
		if err != nil {
			return err
		}
		data = data[n:]
	}
	if commit {
		return v.endJump(c, b.End)
	}
	return nil
}

// beginJump returns the map that is coming. At the beginning of an epoch that is a copy of the volume's, which must be one
// that a checkpoint holds: then none of its pages changes place as long as they are shared.
func (v *Volume) beginJump(b *LogBatch) (*coming, error) {
	v.mu.Lock()
	running := v.jumpEnd > 0
	v.mu.Unlock()
	if !running {
		if _, err := v.Commit(); err != nil {
			return nil, err
		}
		v.clean.take() // cleaning changes pages of the map, too
		defer v.clean.give()
		if v.Coming() == nil {
			if err := v.Checkpoint(); err != nil {
				return nil, err
			}
		}
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.mapMu.Lock()
	defer v.mapMu.Unlock()
	v.jumpEnd = b.End
	return v.beginComingLocked(b.End), nil
}

func (v *Volume) stageJumpRecord(c *coming, e format.Entry, data []byte) (int, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	b, n, err := v.addStagedLocked(e, data)
	if err != nil {
		return 0, err
	}
	if err := v.showJumpRecordLocked(c, b, &e); err != nil {
		return 0, v.fail(err)
	}
	if b.full() {
		v.closeBatchLocked(false)
	}
	return n, nil
}

func (v *Volume) showJumpRecordLocked(c *coming, b *batch, e *format.Entry) error {
	v.mapMu.Lock()
	defer v.mapMu.Unlock()
	if err := v.enterLocked(b.segment); err != nil {
		return err
	}
	c.took(e, v.jumpEnd)
	return v.applyEntryLocked(&c.head, e, b.phys+format.Phys(b.hdr.Data))
}

// endJump closes the epoch. What recovery goes on from is in front of the batch that commits until that is shown.
func (v *Volume) endJump(c *coming, end Position) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.closeJumpLocked()
	if _, err := v.openBatchLocked(true); err != nil {
		return err
	}
	v.mapMu.Lock()
	c.whole = true
	v.mapMu.Unlock()
	v.logEnd = end
	defer func() { v.jumpEnd = 0 }()
	return v.closeStagedLocked(true)
}

// closeJumpLocked ends the open batch. All that the log holds is in a map then, so recovery can go on behind it.
func (v *Volume) closeJumpLocked() {
	if v.batch != nil && len(v.batch.hdr.Entries) > 0 {
		v.closeBatchLocked(false)
	}
	v.mapMu.Lock()
	defer v.mapMu.Unlock()
	if v.batch == nil && !v.void { // else recovery comes through what was given up, as it did
		v.shownPlace, v.shownLogged = v.head, v.logged
	}
}

// suspendJumpLocked leaves an epoch as far as it has come.
func (v *Volume) suspendJumpLocked() {
	v.closeJumpLocked()
	v.jumpEnd = 0
}
