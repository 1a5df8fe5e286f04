package aodi

import (
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"cawrm/aodi/disk"
	"cawrm/aodi/format"
	recovery "cawrm/recover"

	"github.com/ncw/directio"
)

// Options say how to open. The zero value is good.
type Options struct {
	Logger             *slog.Logger     // nil: none
	DurableInterval    time.Duration    // how soon the tail of the log is durable without a flush; 0: 50 ms
	CheckpointBytes    int64            // a checkpoint after so many bytes of log; 0: 256 MiB
	CheckpointInterval time.Duration    // and after so long, if anything is new; 0: 30 s
	MapMemory          int64            // bytes of map pages in memory before writers wait for a checkpoint; 0: 128 MiB
	Now                func() time.Time // nil: time.Now
	History            HistoryWindow    // what can be read again; zero: nothing
	Base               *View            // what a clone is made of; Close closes it
	Files              disk.Files       // where containers lie that are named by a path; nil: the file system
}

func (o Options) withDefaults() Options {
	def := func(d *time.Duration, v time.Duration) {
		if *d <= 0 {
			*d = v
		}
	}
	def(&o.DurableInterval, 50*time.Millisecond)
	def(&o.CheckpointInterval, 30*time.Second)
	if o.CheckpointBytes <= 0 {
		o.CheckpointBytes = 256 << 20
	}
	if o.MapMemory <= 0 {
		o.MapMemory = 128 << 20
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Files == nil {
		o.Files = disk.FileSystem{}
	}
	return o
}

// Open takes the exclusive lock, recovers, and starts the volume's goroutines.
// Errors: disk.ErrInUse; format.ErrMagic, ErrVersion, ErrChecksum with what to do; the disk's.
func Open(path string, opt Options) (*Volume, error) {
	d, err := opt.withDefaults().Files.Open(path)
	if err != nil {
		return nil, err
	}
	v, err := OpenOn(d, opt)
	if err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return v, nil
}

// OpenOn is Open on a disk that is open. On success the volume owns the disk, and Close closes it.
func OpenOn(d disk.Disk, opt Options) (*Volume, error) {
	start := time.Now()
	c, err := recovery.Newest(d)
	if err == nil {
		err = c.Places(d)
	}
	if err != nil {
		return nil, err
	}
	v := newVolume(d, c, opt.withDefaults())
	if err := v.makeBuffers(); err != nil {
		return nil, err
	}
	rolled, err := v.recover(c)
	if err != nil {
		v.release()
		return nil, err
	}
	v.punchTail()
	v.start()
	// The new incarnation must be durable before anything is appended, and what was rolled forward before anything
	// is shown: it was found on the disk, which does not say that it would be found after the next crash.
	if err := v.checkpoint(0); err != nil {
		return nil, errors.Join(err, v.abandon())
	}
	if err := v.enterTerm(); err != nil { // a promotion that a crash has cut short
		return nil, errors.Join(err, v.abandon())
	}
	v.openedAt = v.shown()
	v.mapMu.Lock()
	for _, seg := range v.passed { // the checkpoint that needs the way through it is not the newest any more
		delete(v.segs.taken, seg)
	}
	v.passed = nil
	v.mapMu.Unlock()
	if v.Role() == RolePrimary && v.coming != nil { // a rollback that was not ended
		err := v.dropComing()
		if err == nil {
			err = v.checkpoint(0) // the log that leads to it is passed
		}
		if err == nil {
			err = v.forgetDropped()
		}
		if err != nil {
			return nil, errors.Join(err, v.abandon())
		}
	}
	v.reaper.request() // for what an earlier life has not finished
	v.closedInOrder = c.Meta.Flags&format.FlagClean != 0 && rolled.Batches == 0
	v.recovery = describe(c, rolled, v, time.Since(start))
	v.log.Info("recovered", "path", d.Name(), "found", v.recovery)
	if direct, why := d.Direct(); !direct {
		v.log.Warn("the file system refuses O_DIRECT: the log is written through the page cache", "path", d.Name(), "why", why)
	}
	return v, nil
}

func newVolume(d disk.Disk, c *recovery.Container, opt Options) *Volume {
	m := &c.Meta
	v := &Volume{d: d, geo: c.Geo, super: c.Super, tag: c.Tag(), opt: opt, log: opt.Logger, now: opt.Now, opened: opt.Now(),
		base: opt.Base, incarnation: m.Incarnation, promised: m.Capacity,
		arena: &arena{gen: 1}, pages: newPageReader(d, c.Geo), shownSegment: noSegment,
		hasIdentity: m.Flags&format.FlagNoIdentity == 0, volume: m.Volume,
		catalogParts: []format.CatalogPart{{Ref: m.Catalog, Len: m.CatalogLen}},
		logged:       m.Logged, commit: newTurn(), clean: newTurn(), relief: newRelief(), ready: newReadiness(), reaper: newReaper(), closing: make(chan struct{}),
		queue: make(chan write, 4*batchBuffers), slots: make([]format.Entry, c.Geo.Slots())}
	v.capacity.Store(m.Capacity)
	v.mirror.Store(m.Flags&format.FlagMirror != 0)
	v.yields.Store(m.Flags&format.FlagYields != 0)
	v.room = sync.NewCond(&v.mu)
	v.size.Store(m.Size)
	v.setShown(m.Position)
	v.floor.Store(uint64(max(m.HistoryFl, m.TrimFloor)))
	v.main = &head{tree: tree{id: treeMap, arena: v.arena, pages: v.pages, root: m.MapRoot, height: int(m.MapHeight)}, mapped: int64(m.Mapped)}
	if j := m.Jump; j.End > 0 {
		v.coming = v.newComing(j)
	}
	v.segs = segmentTable{tree: tree{id: treeSegment, arena: v.arena, pages: v.pages, root: m.SegRoot, height: int(m.SegHeight)},
		count: m.Segments, free: m.Free, taken: map[uint32]bool{}, dead: map[uint32]bool{}, filled: map[uint32]bool{}, young: map[uint32]bool{}, moving: noSegment, live: int64(m.Live)}
	v.segs.keep = v.recentSegments()
	v.ckpt = checkpointer{seq: m.Seq, place: m.Log, head: metaHead{segment: m.MetaSegment, chunk: m.MetaChunk, next: m.MetaNext}, readyNext: noSegment,
		run: newTurn(), wake: make(chan struct{}, 1), quit: make(chan struct{}), done: make(chan struct{})}
	v.syncer = syncer{d: d, turn: newTurn()}
	v.dur = newDurability(v.syncer.sync, m.Position)
	return v
}

// recover brings the maps from the checkpoint to the end of the log, and the heads to where they go on.
func (v *Volume) recover(c *recovery.Container) (recovery.Rolled, error) {
	var none recovery.Rolled
	if err := v.loadCatalog(); err != nil {
		return none, err
	}
	if err := v.checkBase(); err != nil {
		return none, err
	}
	v.loadSnapshots()
	if err := v.recoverHeads(&c.Meta); err != nil {
		return none, err
	}
	rolled, err := recovery.Roll(v.d, c, v.replay)
	if err != nil {
		return rolled, err
	}
	v.head = rolled.Log
	v.loggedAtOpen = v.logged
	v.incarnation++
	v.logEnd = v.shown()
	v.dur.written.end, v.dur.durable.end = v.logEnd, v.logEnd
	v.shownPlace, v.shownLogged = v.head, v.logged
	v.segs.taken[v.head.Next] = true
	v.coverLocked(v.head.Next)
	v.ready.want(v.head.Next, false)
	for _, seg := range rolled.Passed {
		// A mirror's chain can lead through a segment of which nothing is applied, so its row says free.
		v.coverLocked(seg)
		if row, err := v.segs.row(seg); err != nil {
			return rolled, err
		} else if row.State == format.SegmentFree && !v.segs.taken[seg] {
			v.segs.taken[seg] = true
			v.passed = append(v.passed, seg)
		}
	}
	return rolled, v.refillSlots(v.head.Segment, v.head.Chunk, format.BatchLog, v.slots)
}

// recoverHeads makes the rows of the heads say open, which a new container's do not yet, and reads back the
// inverse map of the segment in which map pages go on.
func (v *Volume) recoverHeads(m *format.Meta) error {
	v.segs.taken[m.MetaNext] = true
	v.coverLocked(m.MetaNext)
	meta, err := v.segs.row(m.MetaSegment)
	if err == nil && meta.State == format.SegmentFree {
		err = v.segs.open(m.MetaSegment, format.BatchMeta)
	}
	if err != nil {
		return err
	}
	log, err := v.segs.row(m.Log.Segment)
	if err == nil && log.State == format.SegmentOpen {
		v.shownSegment = m.Log.Segment
	} else if err == nil {
		err = v.enterLocked(m.Log.Segment)
	}
	if err != nil {
		return err
	}
	if err := v.recoverCold(m); err != nil {
		return err
	}
	v.ckpt.head.slots = make([]format.Entry, v.geo.Slots())
	return v.refillSlots(m.MetaSegment, m.MetaChunk, format.BatchMeta, v.ckpt.head.slots)
}

// replay applies one batch that recovery found.
func (v *Volume) replay(h *format.BatchHeader, at recovery.Place) error {
	v.coverLocked(at.Segment)
	delete(v.segs.taken, at.Segment)
	size := v.Size()
	if h.Flags&format.FlagJump != 0 && v.coming != nil {
		size = v.coming.size
	}
	for i := range h.Entries {
		e := &h.Entries[i]
		if e.Kind == format.KindSize {
			size = max(size, sizeIn(e))
		}
		if end := e.LBA + uint64(e.Count); end > uint64(size/chunkSize) {
			return fmt.Errorf("%s: segment %d, chunk %d: a record of chunk %d lies outside the volume; run `cawrm check`",
				v.d.Name(), at.Segment, at.Chunk, e.LBA)
		}
	}
	v.logged += uint64(h.Data)
	if old := v.shownSegment; old != at.Segment {
		// The log went on in another segment: the summary of this one may have been lost while that was kept.
		if err := v.resummarize(old); err != nil {
			return err
		}
	}
	return v.replayBatch(h, at.Segment, at.Chunk)
}

// coverLocked raises the count of segments so that seg is one of them; the rows of new ones are zero, so free.
func (v *Volume) coverLocked(seg uint32) {
	if n := uint64(seg) + 1; n > v.segs.count {
		v.segs.free += n - v.segs.count
		v.segs.count = n
	}
}

// resummarize writes the summary of a segment that is full of batches again. The checkpoint that ends recovery makes it durable.
func (v *Volume) resummarize(seg uint32) error {
	slots := make([]format.Entry, v.geo.Slots())
	end := uint32(0)
	for recovery.Fits(v.geo, end) {
		n, _, err := v.refillSlot(seg, end, format.BatchLog, slots)
		if err != nil {
			return err
		}
		end += n
	}
	s := format.Summary{Kind: format.BatchLog, Tag: v.tag, Segment: seg, Incarnation: v.incarnation, MaxPosition: v.birthLimitLocked(), Slots: slots}
	buf := directio.AlignedBlock(int(v.geo.SummaryChunks) * chunkSize)
	s.Encode(v.geo, buf)
	return v.d.WriteAt(buf, int64(v.geo.Phys(seg, v.geo.Slots()))*chunkSize)
}

// refillSlots reads a head segment's batch headers, up to chunk end, back into its summary.
func (v *Volume) refillSlots(seg, end uint32, kind format.BatchKind, slots []format.Entry) error {
	for at := uint32(0); at < end; {
		n, _, err := v.refillSlot(seg, at, kind, slots)
		if err != nil {
			return err
		}
		at += n
	}
	return nil
}

// refillSlot is refillSlots for one batch; it returns the batch's chunks and its header's checksum.
func (v *Volume) refillSlot(seg, at uint32, kind format.BatchKind, slots []format.Entry) (chunks, crc uint32, err error) {
	buf := chunkPool.Get().(*[]byte)
	defer chunkPool.Put(buf)
	off := int64(v.geo.Phys(seg, at)) * chunkSize
	if err := v.d.ReadAt(*buf, off); err != nil {
		return 0, 0, err
	}
	var h format.BatchHeader
	if err := h.Decode(*buf); err != nil {
		return 0, 0, fmt.Errorf("%s: batch header at byte %d: %w; run `cawrm check`", v.d.Name(), off, err)
	}
	if h.Kind != kind || h.Tag != v.tag {
		return 0, 0, fmt.Errorf("%s: the batch at byte %d is not of the head that was there: the segment was used again since this checkpoint; run `cawrm check --repair`",
			v.d.Name(), off)
	}
	if at+h.Chunks() > v.geo.Slots() {
		return 0, 0, fmt.Errorf("%s: batch at byte %d does not fit its segment; run `cawrm check`", v.d.Name(), off)
	}
	fillSlots(slots, at, &h)
	return h.Chunks(), format.HeaderCRC(*buf), nil
}

func fillSlots(slots []format.Entry, at uint32, h *format.BatchHeader) {
	slots[at] = format.Entry{Kind: format.KindHeader}
	for _, e := range h.Entries {
		if e.Kind == format.KindData || e.Kind == format.KindPage {
			at++
			slots[at] = e
		}
	}
}

func (v *Volume) loadCatalog() error {
	off := int64(0)
	c, err := format.ReadCatalog(v.catalogParts[0], func(p format.CatalogPart) ([]byte, error) {
		b := make([]byte, p.Len)
		off = int64(p.Ref.Phys()) * chunkSize
		return b, v.d.ReadAt(b, off)
	})
	if errors.Is(err, format.ErrChecksum) {
		return &CorruptError{Disk: v.d.Name(), What: "catalog", Offset: off}
	} else if err != nil {
		return fmt.Errorf("%s: %w", v.d.Name(), err)
	}
	v.catalog, v.catalogParts = c, c.Places
	if v.hasIdentity && len(v.catalog.Lineage) == 0 {
		v.catalog.Lineage = []format.Lineage{{ID: v.volume}}
	}
	return nil
}

func (v *Volume) start() {
	v.wg.Add(appenders + 3)
	for range appenders {
		go v.runAppend()
	}
	go v.runReady()
	go v.runDurable(v.opt.DurableInterval)
	go v.runReaper()
	go v.runCheckpoint()
}

// abandon ends a volume whose first checkpoint failed.
func (v *Volume) abandon() error {
	v.ckpt.stop(v)
	close(v.closing)
	close(v.queue)
	v.wg.Wait()
	v.release()
	return nil
}

func describe(c *recovery.Container, r recovery.Rolled, v *Volume, took time.Duration) string {
	state := "rolled forward"
	switch {
	case c.Meta.Flags&format.FlagClean != 0 && r.Batches == 0:
		state = "was closed in order"
	case r.Batches == 0:
		state = "nothing to roll forward"
	}
	s := fmt.Sprintf("checkpoint %d at %d, %s: %d batches, %d records, %d bytes, to end_ptr %d, in %v",
		c.Meta.Seq, c.Meta.Position, state, r.Batches, r.Records, r.Bytes, v.shown(), took.Round(10*time.Microsecond))
	if r.Void > 0 {
		s += fmt.Sprintf("; %d batches of an epoch that was not committed are left out", r.Void)
	}
	return s
}
