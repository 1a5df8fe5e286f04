package aodi

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"cawrm/aodi/format"
)

// History is a window of time, or of log, in which every state of the volume can be read again. It is made of snapshots that
// nobody named (cuts), one at a checkpoint now and then, and of the log behind the oldest, no segment of which is freed.
// A moment is read as the cut before it, with the records between the two rolled forward into a map of its own: that takes
// time and memory for what was written between two cuts, whatever the size of the volume.
//
// What falls out of the window is deleted as snapshots are, oldest first; so is what stands in the way when space runs short.

// HistoryWindow says how far back the history goes: the shorter of both; the zero value is none.
type HistoryWindow struct {
	Age   time.Duration // 0: any
	Bytes int64         // of the log; 0: any
}

func (w HistoryWindow) on() bool { return w.Age > 0 || w.Bytes > 0 }

// SetHistory changes the window; the next checkpoint goes by it. Any goroutine.
func (v *Volume) SetHistory(w HistoryWindow) {
	v.mapMu.Lock()
	defer v.mapMu.Unlock()
	v.opt.History = w
	v.segs.chance()
}

// historyCuts is how many cuts a full window has, about.
const historyCuts = 500

// ErrNoHistory is returned for a moment that the history does not hold.
var ErrNoHistory = errors.New("the history does not go back so far")

// wantsCutLocked tells whether a checkpoint is to keep its root for the history.
func (v *Volume) wantsCutLocked() bool {
	w := v.opt.History
	if !w.on() || !v.hasIdentity || v.relief.waiting.Load() > 0 { // to that it has just given way
		return false
	}
	last := v.newestCutLocked()
	switch {
	case last == nil:
		return true
	case last.position == v.shown():
		return false
	case last.position < v.jumped: // the log does not tell what came then
		return true
	case w.Age > 0 && v.now().UnixNano()-last.time >= int64(w.Age)/historyCuts:
		return true
	}
	return w.Bytes > 0 && int64(v.logged-last.logged)*chunkSize >= w.Bytes/historyCuts
}

func (v *Volume) newestCutLocked() *snapshot {
	for i := len(v.snaps) - 1; i >= 0; i-- {
		if s := v.snaps[i]; s.cut && !s.deleting {
			return s
		}
	}
	return nil
}

// oldestCutLocked is the first cut that is not being deleted, nil when there is none.
func (v *Volume) oldestCutLocked() *snapshot {
	for _, s := range v.snaps {
		if s.cut && !s.deleting {
			return s
		}
	}
	return nil
}

// expireLocked gives up what lies before the window. The oldest cut in it is at its begin or before, so that all of it can be read.
func (v *Volume) expireLocked() {
	w, gone := v.opt.History, false
	var before *snapshot
	for _, s := range v.snaps {
		if !s.cut || s.deleting {
			continue
		}
		if before != nil && before.users == 0 && (!w.on() || v.outOfWindow(w, s)) {
			before.deleting, gone = true, true
		}
		before = s
	}
	if before != nil && !w.on() && before.users == 0 {
		before.deleting, gone = true, true
	}
	if s := v.oldestCutLocked(); s != nil && s.users == 0 && v.shortOfSpaceLocked() {
		v.log.Warn("space is short: the history gives way", "from", time.Unix(0, s.time).UTC())
		s.deleting, gone = true, true
	}
	if gone {
		v.reaper.request()
	}
}

// forgetLocked gives up the oldest eighth of the history.
func (v *Volume) forgetLocked() {
	var cuts []*snapshot
	for _, s := range v.snaps {
		if s.cut && !s.deleting {
			cuts = append(cuts, s)
		}
	}
	for _, s := range cuts[:(len(cuts)+7)/8] {
		if s.users > 0 {
			break
		}
		s.deleting = true
		v.log.Warn("space is short: the history gives way", "from", time.Unix(0, s.time).UTC())
	}
}

// outOfWindow tells whether a cut is old enough that nothing before it is wanted.
func (v *Volume) outOfWindow(w HistoryWindow, s *snapshot) bool {
	return w.Age > 0 && v.now().UnixNano()-s.time >= int64(w.Age) || w.Bytes > 0 && int64(v.logged-s.logged)*chunkSize >= w.Bytes
}

// remembersLocked tells whether the history needs a segment of the log.
func (v *Volume) remembersLocked(r format.SegmentRow) bool {
	s := v.oldestCutLocked()
	return s != nil && r.Kind == format.BatchLog && r.MaxPosition > s.position
}

// HistoryFrom is the moment from which on the history can be read; zero when there is none.
func (v *Volume) HistoryFrom() time.Time {
	v.mapMu.RLock()
	defer v.mapMu.RUnlock()
	if s := v.oldestCutLocked(); s != nil {
		return time.Unix(0, s.time)
	}
	return time.Time{}
}

// OpenMoment opens the volume as it was at a moment: with all records of batches that were begun until then. What it refers to is
// held until the view is closed. Any goroutine. Errors: ErrNoHistory; the disk's.
func (v *Volume) OpenMoment(at time.Time) (*View, error) {
	if v.Role() == RolePrimary {
		if err := v.flush(); err != nil { // the log is read from the disk
			return nil, err
		}
	}
	v.clean.take() // a map whose pages cleaning has moved is on the disk only with the next checkpoint
	give := sync.OnceFunc(v.clean.give)
	defer give()
	v.mapMu.Lock()
	cut, limit := v.cutBeforeLocked(at)
	if cut != nil && inMemory(cut.tree.root) {
		v.mapMu.Unlock()
		if err := v.Checkpoint(); err != nil {
			return nil, err
		}
		v.mapMu.Lock()
		cut, limit = v.cutBeforeLocked(at)
	}
	if cut == nil {
		defer v.mapMu.Unlock()
		if s := v.oldestCutLocked(); s != nil {
			return nil, fmt.Errorf("%w: to %s, not to %s", ErrNoHistory, time.Unix(0, s.time).UTC().Format(time.RFC3339Nano), at.UTC().Format(time.RFC3339Nano))
		}
		return nil, fmt.Errorf("%w: none is kept; `cawrm serve --history 24h` does", ErrNoHistory)
	}
	cut.users++ // as long as the cut stays, so does the log behind it
	// What the map of the moment leads to must not move: nothing that is there now is freed.
	h := &hold{young: map[uint32]bool{}}
	v.segs.holds = append(v.segs.holds, h)
	a := &arena{gen: 1}
	past := &snapshot{head: head{tree: tree{id: treeMap, arena: a, pages: v.pages, root: cut.tree.root, height: cut.tree.height}, mapped: cut.mapped},
		position: cut.position, size: cut.size, time: cut.time, logged: cut.logged, log: cut.log}
	v.mapMu.Unlock()
	give()
	w := &View{v: v, snap: past, cut: cut, name: at.UTC().Format(time.RFC3339Nano), done: func() {
		v.mapMu.Lock()
		defer v.mapMu.Unlock()
		cut.users--
		v.unholdLocked(h)
		a.close()
	}}
	if err := v.rollInto(past, at, limit); err != nil {
		w.Close()
		return nil, fmt.Errorf("%s at %s: %w", v.d.Name(), w.name, err)
	}
	return w, nil
}

// cutBeforeLocked is the last cut at or before a moment, nil when there is none, and a position beyond which the moment cannot be.
func (v *Volume) cutBeforeLocked(at time.Time) (cut *snapshot, limit Position) {
	_, limit = v.Pointers()
	for _, s := range v.snaps {
		if !s.cut || s.deleting {
			continue
		}
		if s.time > at.UnixNano() {
			return cut, min(limit, s.position)
		}
		cut = s
	}
	return cut, limit
}

// rollInto applies the records from a cut to a moment to the cut's map. Nobody else has that map yet.
func (v *Volume) rollInto(past *snapshot, at time.Time, limit Position) error {
	r, err := v.ReadLog(past.position)
	if err != nil {
		return err
	}
	defer r.Close()
	r.ahead = headerAhead
	r.seg, r.chunk, r.found, r.hdr.Next = past.log.Segment, past.log.Chunk, true, past.log.Next
	var staged []stagedBatch // of an epoch whose end has not come yet
	for r.pos < limit {
		if err := r.header(); err != nil {
			return err
		}
		if r.hdr.Flags&format.FlagRestart != 0 {
			staged, r.pos = nil, past.position
		}
		switch h := &r.hdr; {
		case h.Time > at.UnixNano():
			return nil
		case h.Flags&format.FlagJump != 0 && h.Commits():
			return fmt.Errorf("%w: between %s and the cut after it all was replaced at once", ErrNoHistory, at.UTC().Format(time.RFC3339Nano))
		case h.Flags&format.FlagJump == 0 && h.End > r.pos:
			s := stagedBatch{hdr: *h, segment: r.seg, chunk: r.chunk}
			s.hdr.Entries = slices.Clone(h.Entries)
			staged, r.pos = append(staged, s), h.End
			if !h.Commits() {
				break
			}
			for i := range staged {
				if err := past.applyAll(&staged[i].hdr, v.geo.Phys(staged[i].segment, staged[i].chunk)); err != nil {
					return err
				}
			}
			staged, past.position, past.time = nil, h.End, h.Time
		}
		r.chunk += r.hdr.Chunks()
	}
	return nil
}

// applyAll makes the changes of a batch.
func (s *snapshot) applyAll(h *format.BatchHeader, phys format.Phys) error {
	for i := range h.Entries {
		switch e := &h.Entries[i]; e.Kind {
		case format.KindData:
			phys++
		case format.KindSize:
			s.size = max(s.size, sizeIn(e))
			if err := s.tree.raise(uint64(s.size / chunkSize)); err != nil {
				return err
			}
			continue
		}
		if err := s.apply(&h.Entries[i], phys); err != nil {
			return err
		}
	}
	return nil
}

// apply makes one record's change to a map that nobody counts for.
func (s *snapshot) apply(e *format.Entry, phys format.Phys) error {
	for lba, end := e.LBA, e.LBA+uint64(e.Count); lba < end; {
		index := lba / format.RefsPerPage
		stop := min(end, (index+1)*format.RefsPerPage)
		old, err := s.tree.leaf(index, true)
		if err != nil {
			return err
		}
		if old == nil && e.Kind == format.KindDiscard { // nothing there, and perhaps nothing for long
			next, _, err := s.tree.next(index, (end+format.RefsPerPage-1)/format.RefsPerPage)
			if err != nil {
				return err
			}
			lba = max(stop, next*format.RefsPerPage)
			continue
		}
		leaf, err := s.tree.leafForWrite(index)
		if err != nil {
			return err
		}
		for ; lba < stop; lba++ {
			slot := lba % format.RefsPerPage
			to := format.Unmapped
			switch e.Kind {
			case format.KindData:
				to = format.MakeRef(phys, e.CRC)
			case format.KindZero:
				to = format.ZeroRef
			}
			if was := refAt(leaf, slot); was == format.Unmapped && to != format.Unmapped {
				s.mapped++
			} else if was != format.Unmapped && to == format.Unmapped {
				s.mapped--
			}
			setRef(leaf, slot, to)
		}
	}
	return nil
}

// nameCut makes a snapshot of what a cut holds, beside it: the two share everything. The next checkpoint makes it durable.
func (v *Volume) nameCut(cut *snapshot, name string) error {
	v.ckpt.run.take()
	defer v.ckpt.run.give()
	v.mapMu.Lock()
	defer v.mapMu.Unlock()
	if err := v.admitSnapshotLocked(name); err != nil {
		return fmt.Errorf("%s@%s: %w", v.d.Name(), name, err)
	}
	twin := &snapshot{head: head{tree: cut.tree, mapped: cut.mapped, under: cut.under}, name: name, position: cut.position,
		size: cut.size, time: cut.time, logged: cut.logged, log: cut.log}
	cut.under = &twin.head
	if inMemory(cut.tree.root) { // cleaning has moved something of it
		v.arena.info[memoryPage(cut.tree.root)].more++
	}
	v.snaps = slices.Insert(v.snaps, slices.Index(v.snaps, cut), twin)
	return nil
}

// copySince writes what a moment has and the cut before it has not into a clone of that cut.
func (w *View) copySince(clone *Volume) error {
	past := &w.snap.tree
	for _, page := range past.arena.dirty {
		if info := past.arena.info[page]; info.level == 0 {
			if err := w.copyLeaf(clone, info.index); err != nil {
				return err
			}
		}
	}
	return nil
}

func (w *View) copyLeaf(clone *Volume, index uint64) error {
	w.v.mapMu.RLock()
	now, err := w.snap.tree.leaf(index, true)
	var was []byte
	if err == nil {
		was, err = w.cut.tree.leaf(index, true)
	}
	var differs []uint64
	for slot := range uint64(format.RefsPerPage) {
		if lba := index*format.RefsPerPage + slot; err == nil && lba < uint64(w.snap.size/chunkSize) && (was == nil && refAt(now, slot) != format.Unmapped ||
			was != nil && refAt(now, slot) != refAt(was, slot)) {
			differs = append(differs, lba)
		}
	}
	w.v.mapMu.RUnlock()
	b := make([]byte, chunkSize)
	for _, lba := range differs {
		if err != nil {
			return err
		}
		off := int64(lba) * chunkSize
		switch r := refAt(now, lba%format.RefsPerPage); {
		case r == format.Unmapped:
			err = clone.Trim(off, chunkSize, false)
		case !r.HasData():
			err = clone.WriteZeroes(off, chunkSize, true, false)
		default:
			if err = w.ReadAt(b, off); err == nil {
				err = clone.WriteAt(b, off, false)
			}
		}
	}
	return err
}
