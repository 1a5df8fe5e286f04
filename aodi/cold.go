package aodi

import (
	"errors"
	"fmt"

	"cawrm/aodi/format"
	recovery "cawrm/recover"

	"github.com/ncw/directio"
)

// Cleaning moves what is live in a segment to the cold head, so that the segment dies. Step by step, with what a crash after
// the step leaves:
//
//	copy        to the cold head, with the births and checksums that the chunks have: nothing refers to it yet; a crash
//	            leaves the map as it was, and the same place is written again
//	remap       in memory: a chunk that is still where it was found is where its copy is from now on; a crash leaves the
//	            checkpoint before, which leads to the segment, and that was not touched
//	checkpoint  the sync before its flip comes after the copy was written, so what its map leads to is durable (V3)
//	free        the segment is dead, and goes the way of all dead segments: usable when a checkpoint that does not refer
//	            to it is durable (V4)
//
// So there is nothing to roll forward: what a crash can lose is only the copy. The content, the births, and with them cuts and
// mirrors, do not notice. A sync that fails can lose the copy, too: the volume has failed then, and until it is opened again it
// refuses to readers what was moved and is not there.

// coldHead is where chunks go that cleaning moves. Who holds Volume.clean writes there; what is said here of it changes
// under mapMu, together with the map, so that a checkpoint sees no more of the head than its map can lead to.
type coldHead struct {
	segment uint32         // noSegment: there is none
	chunk   uint32         // of the next batch
	prev    uint32         // checksum of the header before
	max     Position       // above all births in it
	slots   []format.Entry // of the segment so far
	buf     []byte         // of a batch, and scratch as large behind it
}

// ErrNotCleanable is returned for a segment that cannot be cleaned now: it is not sealed, or not long enough, or a cut needs it.
var ErrNotCleanable = errors.New("the segment cannot be cleaned now")

// Relocate moves all that is live out of a sealed segment, a batch at a time; between is called after each, without
// locks, and ends it with an error. It returns how many chunks were moved. Map pages are moved by the next checkpoint. Any goroutine.
// Errors: ErrNotCleanable; between's; ENOSPC; *CorruptError for a chunk that does not match its checksum, which stays
// where it is; the disk's, which harm nothing.
func (v *Volume) Relocate(seg uint32, between func() error) (int, error) {
	v.clean.take()
	defer v.clean.give()
	if err := v.failure(); err != nil {
		return 0, err
	}
	kind, err := v.beginMove(seg)
	if err != nil {
		return 0, err
	}
	defer v.endMove()
	slots, err := v.readSummary(seg)
	if err != nil {
		return 0, err
	}
	r := &relocation{v: v, seg: seg, slots: slots, step: v.moveChunks}
	if kind == format.BatchMeta {
		r.step = v.movePages
	}
	for r.at < uint32(len(slots)) && err == nil {
		if err = v.throttle(); err == nil {
			err = r.step(r)
		}
		if err == nil && between != nil {
			err = between()
		}
	}
	if err == nil && kind == format.BatchMeta {
		v.awaitCheckpoint(seg)
	}
	return r.moved, errors.Join(err, r.corrupt)
}

// awaitCheckpoint lets a segment whose pages are in memory now not be cleaned again before the checkpoint that moves them: until
// then they count as live here, and a cleaner would choose it for ever.
func (v *Volume) awaitCheckpoint(seg uint32) {
	v.mapMu.Lock()
	defer v.mapMu.Unlock()
	v.segs.young[seg] = true
}

// relocation is one that is under way.
type relocation struct {
	v       *Volume
	seg     uint32
	slots   []format.Entry // its inverse map
	at      uint32         // next slot
	moved   int
	corrupt error
	step    func(*relocation) error
	live    []uint32 // slots of the chunks that are moved next
}

// beginMove tells whether a segment can be cleaned: all of it is on the disk, and it would be free afterwards. It is not freed before
// endMove, also when it dies: used again, it could hold the same logical chunk at the same place, newer than what cleaning knows of it.
func (v *Volume) beginMove(seg uint32) (format.BatchKind, error) {
	v.mapMu.Lock()
	defer v.mapMu.Unlock()
	if uint64(seg) >= v.segs.count {
		return 0, fmt.Errorf("segment %d of %d: %w", seg, v.segs.count, ErrNotCleanable)
	}
	r, err := v.segs.row(seg)
	if err == nil && !v.cleanableLocked(seg, r) {
		err = fmt.Errorf("segment %d: %w", seg, ErrNotCleanable)
	}
	if err == nil {
		v.segs.moving = seg
	}
	return r.Kind, err
}

func (v *Volume) endMove() {
	v.mapMu.Lock()
	defer v.mapMu.Unlock()
	v.segs.moving = noSegment
}

// pauseCleaning lets nothing be moved until resume: what was read of a map stays true.
func (v *Volume) pauseCleaning() (resume func()) {
	count := func(n int) {
		v.mapMu.Lock()
		defer v.mapMu.Unlock()
		v.still += n
	}
	count(1)
	v.clean.take() // whoever moves something has ended
	v.clean.give()
	return func() { count(-1) }
}

func (v *Volume) cleanableLocked(seg uint32, r format.SegmentRow) bool {
	s := &v.segs
	return v.still == 0 && r.State == format.SegmentSealed && r.Live > 0 && !s.young[seg] && !s.recentLog(r) && !s.held(seg, r) && !v.remembersLocked(r)
}

// moveChunks moves the live chunks of as many slots as fill a batch.
func (v *Volume) moveChunks(r *relocation) error {
	room, err := v.openCold()
	if err != nil {
		return err
	}
	if err := v.findLive(r, room); err != nil || len(r.live) == 0 {
		return err
	}
	c := &v.cold
	h := format.BatchHeader{Kind: format.BatchCold, Flags: format.FlagCommit, Tag: v.tag, First: ^Position(0), Time: v.now().UnixNano(),
		Incarnation: v.incarnation, PrevCRC: c.prev, Entries: make([]format.Entry, 0, len(r.live))}
	from := make([]format.Phys, 0, len(r.live))
	for i := 0; i < len(r.live); { // chunks that lie one after the other are read with one request
		n := 1
		for i+n < len(r.live) && r.live[i+n] == r.live[i]+uint32(n) {
			n++
		}
		p := v.geo.Phys(r.seg, r.live[i])
		b := c.buf[batchBytes : batchBytes+n*chunkSize]
		if err := v.d.ReadAt(b, int64(p)*chunkSize); err != nil {
			return err
		}
		for k := range n {
			e, data := r.slots[r.live[i+k]], b[k*chunkSize:(k+1)*chunkSize]
			if format.Sum(data) != e.CRC {
				v.corrupt.Add(1)
				r.corrupt = &CorruptError{Disk: v.d.Name(), What: "chunk", LBA: e.LBA, Offset: int64(p+format.Phys(k)) * chunkSize}
				v.log.Error("cleaning leaves a chunk where it is", "err", r.corrupt)
				continue
			}
			h.Data++
			copy(c.buf[int(h.Data)*chunkSize:], data)
			h.Entries, from = append(h.Entries, e), append(from, p+format.Phys(k))
			h.First, h.End = min(h.First, e.Birth), max(h.End, e.Birth+1)
		}
		i += n
	}
	if h.Data == 0 {
		return nil
	}
	crc := h.Encode(c.buf)
	if err := v.d.WriteAt(c.buf[:int(h.Chunks())*chunkSize], int64(v.geo.Phys(c.segment, c.chunk))*chunkSize); err != nil {
		return err
	}
	n, err := v.remap(r.seg, &h, crc, from)
	r.moved += n
	return err
}

// findLive fills r.live with the next slots that a map leads to, at most n.
func (v *Volume) findLive(r *relocation, n int) error {
	r.live = r.live[:0]
	for r.at < uint32(len(r.slots)) && len(r.live) < n {
		v.mapMu.RLock()
		for stop := min(r.at+readStep, uint32(len(r.slots))); r.at < stop && len(r.live) < n; r.at++ {
			e := &r.slots[r.at]
			if e.Kind != format.KindData {
				continue
			}
			led, err := leads(v.rootsOf(e), e.LBA, v.geo.Phys(r.seg, r.at))
			if err != nil {
				v.mapMu.RUnlock()
				return err
			}
			if led {
				r.live = append(r.live, r.at)
			}
		}
		v.mapMu.RUnlock()
	}
	return nil
}

// leads tells whether one of the maps leads to a physical chunk as logical chunk lba. mapMu is held.
func leads(roots []*head, lba uint64, p format.Phys) (bool, error) {
	for _, h := range roots {
		leaf, err := h.tree.leaf(lba/format.RefsPerPage, true)
		if err != nil || leaf != nil && refAt(leaf, lba%format.RefsPerPage).Phys() == p {
			return err == nil, err
		}
	}
	return false, nil
}

// remapLocked makes each of the maps that lead to a chunk lead to its copy. It tells whether one did: what was replaced
// meanwhile stays so. Maps that share the chunk, or the page that leads to it, go on sharing it.
func (v *Volume) remapLocked(roots []*head, lba uint64, from format.Phys, to ref) (bool, error) {
	moved, made := false, map[ref]ref{}
	for _, h := range roots {
		led, err := leads([]*head{h}, lba, from)
		if err != nil {
			return moved, err
		}
		if !led {
			continue
		}
		leaf, err := h.tree.forRemap(lba/format.RefsPerPage, 0, made)
		if err != nil {
			return moved, err
		}
		if leaf != nil {
			setRef(leaf, lba%format.RefsPerPage, to)
		}
		moved = true
	}
	return moved, nil
}

// remap is the second step, for a batch that was written at the cold head.
func (v *Volume) remap(seg uint32, h *format.BatchHeader, crc uint32, from []format.Phys) (moved int, err error) {
	v.mu.Lock() // who holds it relies on what the map says
	defer v.mu.Unlock()
	v.mapMu.Lock()
	defer v.mapMu.Unlock()
	c := &v.cold
	if c.chunk == 0 {
		if err := v.segs.open(c.segment, format.BatchCold); err != nil {
			return 0, v.fail(err)
		}
	}
	for i := range h.Entries {
		e := &h.Entries[i]
		to := format.MakeRef(v.geo.Phys(c.segment, c.chunk+1+uint32(i)), e.CRC)
		ok, err := v.remapLocked(v.rootsOf(e), e.LBA, from[i], to)
		if err != nil {
			return moved, v.fail(err)
		}
		if ok {
			moved++
		}
	}
	fillSlots(c.slots, c.chunk, h)
	c.max = max(c.max, h.End)
	c.chunk, c.prev = c.chunk+h.Chunks(), crc
	v.segs.filled[seg] = true // the checkpoint before leads to it, and no record of the log tells where the copy is
	err = v.segs.addLive(seg, -moved)
	if err == nil {
		err = v.segs.addLive(c.segment, moved)
	}
	if err == nil {
		err = v.segs.update(c.segment, func(r *format.SegmentRow) { r.MaxPosition = c.max })
	}
	v.sinceCheckpoint.Add(int64(h.Chunks()) * chunkSize)
	v.moved.Add(uint64(h.Data))
	return moved, v.fail(err)
}

// openCold makes sure that the cold head has room, and returns how many chunks.
func (v *Volume) openCold() (int, error) {
	c := &v.cold
	if c.segment != noSegment && !recovery.Fits(v.geo, c.chunk) {
		if err := v.sealCold(); err != nil {
			return 0, err
		}
	}
	if c.segment == noSegment {
		if err := v.nextCold(); err != nil {
			return 0, err
		}
	}
	if c.buf == nil {
		c.buf = directio.AlignedBlock(2 * batchBytes)
	}
	return min(int(v.geo.Slots()-c.chunk)-1, format.MaxEntries), nil
}

func (v *Volume) nextCold() error {
	keep := v.checkpointKeep()
	v.mapMu.Lock()
	seg, _, err := v.segs.take(v.segmentLimit(), keep)
	v.mapMu.Unlock()
	if err != nil {
		return err
	}
	err = v.makeReady(seg, false)
	v.mapMu.Lock()
	defer v.mapMu.Unlock()
	if err != nil {
		delete(v.segs.taken, seg) // it is free, and found again by the next try
		return err
	}
	v.cold = coldHead{segment: seg, slots: make([]format.Entry, v.geo.Slots()), buf: v.cold.buf}
	return nil
}

// sealCold writes the summary of a full segment. A checkpoint that says sealed syncs after that.
func (v *Volume) sealCold() error {
	c := &v.cold
	s := format.Summary{Kind: format.BatchCold, Tag: v.tag, Segment: c.segment, Incarnation: v.incarnation, MaxPosition: c.max, Slots: c.slots}
	buf := c.buf
	if buf == nil || len(buf) < int(v.geo.SummaryChunks)*chunkSize {
		buf = directio.AlignedBlock(int(v.geo.SummaryChunks) * chunkSize)
	}
	buf = buf[:v.geo.SummaryChunks*chunkSize]
	s.Encode(v.geo, buf)
	if err := v.d.WriteAt(buf, int64(v.geo.Phys(c.segment, v.geo.Slots()))*chunkSize); err != nil {
		return err
	}
	v.mapMu.Lock()
	defer v.mapMu.Unlock()
	if err := v.segs.seal(c.segment, c.max); err != nil {
		return v.fail(err)
	}
	v.cold = coldHead{segment: noSegment, buf: c.buf}
	return nil
}

// recoverCold reads back the inverse map of the cold head. What a crash left behind its place, nothing leads to.
func (v *Volume) recoverCold(m *format.Meta) error {
	v.cold.segment = noSegment
	if m.ColdChunk == 0 {
		return nil
	}
	row, err := v.segs.row(m.ColdSegment)
	if err != nil {
		return err
	}
	c := coldHead{segment: m.ColdSegment, chunk: m.ColdChunk, max: row.MaxPosition, slots: make([]format.Entry, v.geo.Slots())}
	for at := uint32(0); at < c.chunk; {
		n, crc, err := v.refillSlot(c.segment, at, format.BatchCold, c.slots)
		if err != nil {
			return err
		}
		at, c.prev = at+n, crc
	}
	v.cold = c
	return nil
}

// pageStep is how many map pages are moved under one lock.
const pageStep = 64

// movePages copies the live pages of some slots into memory, in each map that has them; the next checkpoint gives them a new place.
func (v *Volume) movePages(r *relocation) error {
	stop := min(r.at+pageStep, uint32(len(r.slots)))
	v.mapMu.RLock()
	for i := r.at; i < stop; i++ { // read what is not in memory before the locks are taken
		if err := v.eachTree(r, i, func(t *tree, e *format.Entry, at ref) error { _, err := t.bytes(at, true); return err }); err != nil {
			v.mapMu.RUnlock()
			return err
		}
	}
	v.mapMu.RUnlock()
	v.mu.Lock()
	defer v.mu.Unlock()
	v.mapMu.Lock()
	defer v.mapMu.Unlock()
	for ; r.at < stop; r.at++ {
		made := map[ref]ref{}
		if err := v.eachTree(r, r.at, func(t *tree, e *format.Entry, at ref) error {
			r.moved++
			v.sinceCheckpoint.Add(chunkSize)
			_, err := t.forRemap(e.LBA<<(fanBits*e.Level), int(e.Level), made)
			return err
		}); err != nil {
			return v.fail(err)
		}
	}
	return nil
}

// eachTree calls do for each tree that leads to the page in slot i.
func (v *Volume) eachTree(r *relocation, i uint32, do func(*tree, *format.Entry, ref) error) error {
	e := &r.slots[i]
	if e.Kind != format.KindPage {
		return nil
	}
	var trees []*tree
	switch e.Count {
	case treeSegment:
		trees = append(trees, &v.segs.tree)
	case treeMap:
		for _, h := range v.roots() {
			if !h.passed(e.Level, e.LBA) {
				trees = append(trees, &h.tree)
			}
		}
	}
	for _, t := range trees {
		at, err := t.refOf(e.Level, e.LBA)
		if err == nil && at.Phys() == v.geo.Phys(r.seg, i) {
			err = do(t, e, at)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
