package aodi

import (
	"errors"
	"fmt"
	"slices"
	"syscall"

	"cawrm/aodi/format"
)

// A mirror takes epochs: Stage appends their records to the log like a write does, but neither maps nor counts
// them; Commit makes all whole epochs durable with one sync and only then maps them. After a crash recovery
// shows what a batch with the commit flag ends, so the mirror is always at the end of an epoch: before Commit's
// sync the records may be lost or kept as a whole epoch that was not acknowledged, never in part.

// stagedBatch is a batch that was appended and is not shown.
type stagedBatch struct {
	hdr            format.BatchHeader // with entries of its own
	segment, chunk uint32
	after          format.LogPlace
	logged         uint64 // after it
	ticket         uint64
	commit         bool
}

// Adopt gives an empty mirror its identity, durably. Errors: it has one, it is no mirror, the size is no volume's.
func (v *Volume) Adopt(volume format.UUID, size int64, lineage []format.Lineage) error {
	if size <= 0 || size > format.MaxLogicalSize || size%chunkSize != 0 || volume.IsZero() || len(lineage) == 0 {
		return fmt.Errorf("%s: identity of a source with size %d is not valid: %w", v.d.Name(), size, syscall.EINVAL)
	}
	if err := v.setIdentity(volume, size, lineage); err != nil {
		return err
	}
	err := v.checkpoint(0)
	if err != nil {
		v.clearIdentity() // not durable: the next try begins anew
	}
	return err
}

func (v *Volume) setIdentity(volume format.UUID, size int64, lineage []format.Lineage) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.mapMu.Lock()
	defer v.mapMu.Unlock()
	if v.Role() != RoleMirror || v.hasIdentity {
		return fmt.Errorf("%s: not an empty mirror: %w", v.d.Name(), syscall.EINVAL)
	}
	v.volume, v.hasIdentity = volume, true
	v.setLineageLocked(slices.Clone(lineage), nil)
	v.main.tree.height = heightFor(uint64(size/chunkSize), format.RefsPerPage)
	v.size.Store(size)
	return nil
}

func (v *Volume) clearIdentity() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.mapMu.Lock()
	defer v.mapMu.Unlock()
	v.volume, v.hasIdentity = format.UUID{}, false
	v.setLineageLocked(nil, nil)
	v.main.tree.height = 1
	v.size.Store(0)
}

// Stage appends records with the births and checksums that they were sent with, without showing them. b.First must be
// the end of what is staged so far, or end_ptr; with commit an epoch ends at b.End. One goroutine at a time, beside Commit.
// Errors: a record that does not follow, lies outside the volume or does not match its checksum; ENOSPC; the volume's
// failure. After an error the epoch is void: Unstage.
func (v *Volume) Stage(b *LogBatch, commit bool) error {
	if v.Role() != RoleMirror || !v.hasIdentity {
		return fmt.Errorf("%s: not a mirror of anything: %w", v.d.Name(), syscall.EINVAL)
	}
	if err := v.checkStage(b); err != nil {
		return err
	}
	if err := v.throttle(); err != nil {
		return err
	}
	v.mu.Lock()
	v.highest = max(v.highest, b.End)
	v.mu.Unlock()
	if b.Jump {
		return v.stageJump(b, commit)
	}
	data := b.Data
	for i, e := range b.Entries {
		end := b.First + Position(i) + 1
		if i == len(b.Entries)-1 {
			end = b.End
		}
		n, err := v.stageRecord(e, data, end)
		if err != nil {
			return err
		}
		data = data[n:]
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if gap := b.End-b.First > Position(len(b.Entries)); gap {
		return v.stageGapLocked(b.End, commit)
	}
	if commit {
		return v.closeStagedLocked(true)
	}
	return nil
}

// stageGapLocked ends a run of records with positions that no record has: a batch counts its records from its first position
// on, so none goes on behind a gap.
func (v *Volume) stageGapLocked(end Position, commit bool) error {
	if _, err := v.openBatchLocked(true); err != nil {
		return err
	}
	v.logEnd = end
	return v.closeStagedLocked(commit)
}

func (v *Volume) checkStage(b *LogBatch) error {
	bad := func(format string, args ...any) error {
		return fmt.Errorf("%s: epoch at position %d: %s: %w", v.d.Name(), b.First, fmt.Sprintf(format, args...), syscall.EINVAL)
	}
	v.mu.Lock()
	at, jump, size := v.logEnd, v.jumpEnd, max(v.Size(), v.stagedSize)
	v.mapMu.RLock()
	begun := v.coming != nil && !v.coming.whole || len(v.catalog.Next) > 0
	newest := Position(0)
	if b.Jump && v.coming != nil {
		size, newest = max(size, v.coming.size), v.coming.got.Newest()
	}
	v.mapMu.RUnlock()
	middle := v.wholeEpochsLocked() < len(v.staged) || v.batch != nil && len(v.batch.hdr.Entries) > 0
	v.mu.Unlock()
	switch {
	case b.First != at:
		return bad("does not follow %d", at)
	case jump > 0 && (!b.Jump || b.End != jump), jump == 0 && b.Jump && middle:
		return bad("up to %d: it comes in the middle of another one, up to %d", b.End, max(jump, at))
	case b.End < newest:
		return bad("up to %d: a part of one up to %d has come", b.End, newest)
	case begun && !b.Jump:
		return bad("a jump epoch was begun, and must be ended first")
	case b.End <= b.First, !b.Jump && (b.End-b.First < Position(len(b.Entries)) || len(b.Entries) == 0 && !isTerm(b.End)):
		return bad("%d records cannot end at %d", len(b.Entries), b.End)
	}
	chunks, data := uint64(size/chunkSize), b.Data
	for i, e := range b.Entries {
		if end := e.LBA + uint64(e.Count); e.Kind == format.KindSize && end <= format.MaxLogicalSize/chunkSize {
			chunks = max(chunks, end) // what follows may lie there
		}
		if e.Birth < b.First && !b.Jump || e.Birth >= b.End { // a mirror that leaves its branch gets older ones too
			return bad("record %d was born at %d, not before %d", i, e.Birth, b.End)
		}
		if e.Count == 0 || e.LBA >= chunks || uint64(e.Count) > chunks-e.LBA {
			return bad("record %d of %d chunks at %d lies outside the volume of %d", i, e.Count, e.LBA, chunks)
		}
		switch e.Kind {
		case format.KindDiscard, format.KindZero, format.KindSize:
			continue
		case format.KindData:
			if e.Count != 1 || len(data) < chunkSize {
				return bad("record %d lacks its data", i)
			}
			if format.Sum(data[:chunkSize]) != e.CRC {
				return bad("record %d, chunk %d: %v", i, e.LBA, format.ErrChecksum)
			}
			data = data[chunkSize:]
		default:
			return bad("record %d is of unknown kind %d", i, e.Kind)
		}
	}
	if len(data) > 0 {
		return bad("%d bytes of data belong to no record", len(data))
	}
	return nil
}

func (v *Volume) stageRecord(e format.Entry, data []byte, end Position) (int, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	b, n, err := v.addStagedLocked(e, data)
	if err != nil {
		return 0, err
	}
	v.logEnd = end
	if b.full() {
		err = v.closeStagedLocked(false)
	}
	return n, err
}

// addStagedLocked copies a record into the open batch. It returns the batch, and how many bytes of data the record took.
func (v *Volume) addStagedLocked(e format.Entry, data []byte) (b *batch, n int, err error) {
	if b, err = v.openBatchLocked(e.Kind != format.KindData); err != nil {
		return nil, 0, err
	}
	if e.Kind == format.KindData {
		n = chunkSize
		v.addDataLocked(b, e, data[:n])
	} else {
		b.hdr.Entries = append(b.hdr.Entries, e)
	}
	if e.Kind == format.KindSize && v.jumpEnd == 0 {
		v.stagedSize = max(v.stagedSize, sizeIn(&e))
	}
	return b, n, nil
}

// closeStagedLocked hands the open batch to the disk and remembers it for Commit. When the epoch's last record has
// filled a batch exactly, an empty batch carries the commit.
func (v *Volume) closeStagedLocked(commit bool) error {
	b := v.batch
	if b == nil {
		if !commit || len(v.staged) == 0 || v.staged[len(v.staged)-1].commit {
			return nil
		}
		var err error
		if b, err = v.openBatchLocked(true); err != nil {
			return err
		}
	}
	v.closeBatchLocked(commit)
	s := stagedBatch{hdr: b.hdr, segment: b.segment, chunk: b.chunk, after: v.head, logged: v.logged, ticket: v.ticket, commit: commit}
	s.hdr.Entries = append([]format.Entry(nil), b.hdr.Entries...)
	v.staged = append(v.staged, s)
	return nil
}

// Commit makes all whole epochs that are staged durable, then shows them, and returns end_ptr. Beside Stage. Errors: the
// volume's failure.
func (v *Volume) Commit() (Position, error) {
	v.commit.take()
	defer v.commit.give()
	v.mu.Lock()
	n := v.wholeEpochsLocked()
	if err := v.failure(); n == 0 || err != nil { // what was shown in part when it failed is staged still
		defer v.mu.Unlock()
		return v.shown(), err
	}
	batches, ticket := v.staged[:n:n], v.staged[n-1].ticket
	v.mu.Unlock()
	if err := v.dur.wait(ticket); err != nil {
		return v.shown(), v.fail(err)
	}
	for i := range batches { // an epoch is shown as a whole: a page that cannot be read is found before
		if err := v.warmEntries(v.main, batches[i].hdr.Entries); err != nil {
			return v.shown(), err
		}
	}
	for i := range batches {
		if batches[i].hdr.Flags&format.FlagJump != 0 {
			v.clean.take()
			defer v.clean.give()
			if err := v.settleMain(); err != nil {
				return v.shown(), err
			}
			break
		}
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.mapMu.Lock()
	defer v.mapMu.Unlock()
	for i := range batches {
		s := &batches[i]
		if err := v.showStagedLocked(s); err != nil {
			v.torn = true
			return v.shown(), v.fail(err)
		}
		v.shownPlace, v.shownLogged = s.after, s.logged
	}
	v.staged = append([]stagedBatch(nil), v.staged[n:]...)
	v.dur.notify()
	return v.shown(), nil
}

func (v *Volume) showStagedLocked(s *stagedBatch) error {
	if s.hdr.Flags&format.FlagJump != 0 {
		if err := v.enterLocked(s.segment); err != nil {
			return err
		}
		return v.showComingLocked(s.hdr.End)
	}
	if err := v.applyLocked(v.main, &s.hdr, s.segment, s.chunk); err != nil {
		return err
	}
	v.setShown(s.hdr.End)
	return nil
}

func (v *Volume) wholeEpochsLocked() int {
	for n := len(v.staged); n > 0; n-- {
		if v.staged[n-1].commit {
			return n
		}
	}
	return 0
}

// Unstage forgets what was staged after the last whole epoch, because the link broke in the middle of one; but what a jump
// epoch has brought stays, for the next connection to go on with. Not beside Stage.
func (v *Volume) Unstage() error {
	if v.Role() != RoleMirror {
		return nil
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if err := v.failure(); err != nil && !errors.Is(err, ErrClosed) {
		return err
	}
	if v.jumpEnd > 0 {
		v.suspendJumpLocked()
		return nil
	}
	n := v.wholeEpochsLocked()
	if v.batch == nil && n == len(v.staged) {
		return nil
	}
	if err := v.closeStagedLocked(false); err != nil {
		return err
	}
	v.voidLocked(v.staged[n:], v.staged[:n])
	v.logEnd, v.logged = v.shown(), v.shownLogged
	if n > 0 {
		v.logEnd, v.logged = v.staged[n-1].hdr.End, v.staged[n-1].logged
	}
	v.staged = v.staged[:n]
	v.stagedSize = 0
	for i := range v.staged {
		v.stagedSize = max(v.stagedSize, sizeAfter(0, v.staged[i].hdr.Entries))
	}
	v.restart, v.void = true, true
	return nil
}

// voidLocked remembers the segments that hold nothing but batches which were given up, to free them when recovery does not
// come through them any more. The head's will be used further.
func (v *Volume) voidLocked(given, kept []stagedBatch) {
	for i := range given {
		s := given[i].segment
		used := s == v.head.Segment || s == v.shownPlace.Segment
		for j := range kept {
			used = used || kept[j].segment == s
		}
		if n := len(v.voids); !used && (n == 0 || v.voids[n-1].segment != s) {
			v.voids = append(v.voids, voidSegment{s, given[i].hdr.Seq})
		} else if !used {
			v.voids[n-1].seq = given[i].hdr.Seq
		}
	}
}
