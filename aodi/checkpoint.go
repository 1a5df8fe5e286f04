package aodi

import (
	"errors"
	"sort"
	"sync"
	"time"

	"cawrm/aodi/format"
)

// A checkpoint, step by step, with what a crash after the step leaves:
//
//	freeze   in memory: the records of the map end at P; its pages get places, the generation closes
//	wait     durable_ptr >= P (V3)
//	write    the pages, the catalog, summaries of filled meta segments: nothing refers to them yet;
//	         a crash leaves the checkpoint before, and the same places are used again
//	sync     they are durable
//	flip     one meta chunk, the older of two: torn, it has a bad checksum and the other one counts
//	sync     the checkpoint is the one that recovery takes
//	settle   in memory: references lead to the disk, the frozen pages' memory and dead segments are free
//
// A segment that dies is free only after the flip that says so is durable: until then the checkpoint before
// may be the one that recovery takes, and it refers to the segment (V4).

// checkpointer is the state of checkpoints. Fields without atomic are guarded by run.
type checkpointer struct {
	run       sync.Mutex // one at a time
	seq       uint64
	head      metaHead
	nextReady bool     // head.next has its space reserved
	spare     []uint32 // segments taken and reserved for a checkpoint that needs more
	err       error    // of the last one that ran by itself; guarded by Volume.mu
	wake      chan struct{}
	quit      chan struct{}
	quitOnce  sync.Once
	done      chan struct{}
}

// metaHead is where map pages go.
type metaHead struct {
	segment, chunk, next uint32
	slots                []format.Entry // of the segment so far
}

// frozen is a checkpoint between freeze and flip.
type frozen struct {
	meta    format.Meta
	pages   []*frozenPage
	catalog []byte
	batches []metaBatch
	seals   []metaSeal
	dead    []uint32
	ticket  uint64
	head    metaHead
}

// frozenPage is a page of the closed generation and the place that it gets.
type frozenPage struct {
	page  uint32 // of the arena
	tree  *tree
	level uint8
	index uint64
	final ref // Unmapped: an empty leaf, which is not written
}

// metaBatch is a header and the pages behind it.
type metaBatch struct {
	segment, chunk uint32
	pages          []*frozenPage
	catalog        int // catalog chunks instead of pages
}

type metaSeal struct {
	segment uint32
	slots   []format.Entry
}

// Checkpoint writes one now. Any goroutine.
func (v *Volume) Checkpoint() error { return v.checkpoint(0) }

func (c *checkpointer) request() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

func (c *checkpointer) stop(v *Volume) {
	c.quitOnce.Do(func() { close(c.quit) })
	<-c.done
}

// runCheckpoint writes a checkpoint after so many bytes, after so long if there is anything new, and on request.
func (v *Volume) runCheckpoint() {
	defer close(v.ckpt.done)
	tick := time.NewTicker(min(v.opt.CheckpointInterval, 100*time.Millisecond))
	defer tick.Stop()
	last := v.now()
	for {
		asked := false
		select {
		case <-v.ckpt.quit:
			return
		case <-v.ckpt.wake:
			asked = true
		case <-tick.C:
		}
		bytes := v.sinceCheckpoint.Load()
		due := bytes >= v.opt.CheckpointBytes || v.mapMemory() > v.opt.MapMemory/2 ||
			bytes > 0 && v.now().Sub(last) >= v.opt.CheckpointInterval
		if (asked || due) && v.failure() == nil {
			err := v.Checkpoint()
			v.mu.Lock()
			v.ckpt.err = err
			v.room.Broadcast()
			v.mu.Unlock()
			last = v.now()
		}
	}
}

func (v *Volume) checkpoint(flags uint32) error {
	v.ckpt.run.Lock()
	defer v.ckpt.run.Unlock()
	if err := v.failure(); err != nil {
		return err
	}
	if err := v.reserveMeta(); err != nil {
		v.log.Warn("checkpoint postponed", "err", err)
		return err
	}
	f, err := v.freeze(flags)
	if err == nil {
		err = v.dur.wait(f.ticket)
	}
	if err == nil {
		err = v.writeFrozen(f)
	}
	if err == nil {
		err = v.flip(&f.meta)
	}
	if err != nil {
		// The generation is closed and its places are given out: only opening again gets back to a known state.
		return v.fail(err)
	}
	v.settle(f)
	return nil
}

// reserveMeta reserves the space that a checkpoint of the pages in memory needs, with some to spare for those that come
// until it freezes. A checkpoint that finds no space is postponed and harms nothing.
func (v *Volume) reserveMeta() error {
	c := &v.ckpt
	if !c.nextReady {
		if err := v.makeReady(c.head.next, false); err != nil {
			return err
		}
		c.nextReady = true
	}
	for {
		slots := int64(v.geo.Slots())
		need := v.mapMemory()/chunkSize + catalogSlack
		need += need/format.MaxEntries + 2
		room := slots - int64(c.head.chunk) + slots*int64(1+len(c.spare))
		if need <= room {
			return nil
		}
		v.mapMu.Lock()
		seg, err := v.segs.take(v.segmentLimit())
		v.mapMu.Unlock()
		if err == nil {
			err = v.makeReady(seg, false)
		}
		if err != nil {
			return err
		}
		c.spare = append(c.spare, seg)
	}
}

// catalogSlack is room for the catalog and for pages of the segment table that placing the others brings in.
const catalogSlack = format.MaxCatalog/chunkSize/8 + 4

// flip makes a checkpoint the newest.
func (v *Volume) flip(m *format.Meta) error {
	b := make([]byte, chunkSize)
	m.Encode(b)
	if err := v.d.Sync(); err != nil {
		return err
	}
	if err := v.d.WriteCached(b, int64(1+m.Seq%2)*chunkSize); err != nil {
		return err
	}
	return v.d.Sync()
}

func (v *Volume) freeze(flags uint32) (*frozen, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.role == RolePrimary {
		v.closeBatchLocked(true)
	}
	v.mapMu.Lock()
	defer v.mapMu.Unlock()
	v.ckpt.seq++
	f := &frozen{ticket: v.ticket, head: v.ckpt.head}
	f.head.slots = append([]format.Entry(nil), f.head.slots...)
	v.sinceCheckpoint.Store(0)
	if v.role == RolePrimary {
		v.shownPlace, v.shownLogged = v.head, v.logged
	}
	// The head may have moved on to a segment that no record has come to yet.
	err := v.enterLocked(v.shownPlace.Segment)
	if err != nil {
		return nil, err
	}
	if f.catalog, err = v.catalog.Encode(nil); err != nil {
		return nil, err
	}
	if err = v.collectDeadLocked(f); err == nil {
		err = v.placePagesLocked(f)
	}
	if err != nil {
		return nil, err
	}
	f.meta = v.metaLocked(f, flags)
	v.arena.gen++
	v.arena.dirty = v.arena.dirty[:0]
	return f, nil
}

// metaLocked is the checkpoint's meta chunk, but for what only writing the pages tells: checksums of the roots.
func (v *Volume) metaLocked(f *frozen, flags uint32) format.Meta {
	if v.role == RoleMirror {
		flags |= format.FlagMirror
	}
	if !v.hasIdentity {
		flags |= format.FlagNoIdentity
	}
	// Segments at the end that are held for a head may not be there on the disk yet.
	count, free := v.segs.count, v.segs.free
	for ; count > 0 && v.segs.taken[uint32(count-1)]; count-- {
		free--
	}
	return format.Meta{Flags: flags, Seq: v.ckpt.seq, Container: v.super.Container, Volume: v.volume, Size: v.Size(),
		Position: v.shown(), Time: v.now().UnixNano(), MapRoot: v.fwd.root, MapHeight: uint32(v.fwd.height),
		SegRoot: v.segs.tree.root, SegHeight: segmentTreeHeight, Segments: count, Free: free,
		Log: v.shownPlace, Incarnation: v.incarnation, Logged: v.shownLogged, Mapped: uint64(v.mapped),
		MetaSegment: f.head.segment, MetaChunk: f.head.chunk, MetaNext: f.head.next,
		Catalog: v.catalogRef, CatalogLen: uint32(len(f.catalog)), Capacity: v.capacity}
}

// collectDeadLocked makes the rows of dead segments free. Only segments of map pages: records of the log are what
// a mirror that was away, or is yet to come, is brought up with.
func (v *Volume) collectDeadLocked(f *frozen) error {
	for seg := range v.segs.dead {
		f.dead = append(f.dead, seg)
		v.segs.taken[seg] = true // until the flip is durable
	}
	for _, seg := range f.dead {
		if err := v.segs.release(seg); err != nil {
			return err
		}
	}
	return nil
}

// placePagesLocked gives every page of the generation, and the catalog, its place. Placing changes rows of the
// segment table, which can bring further pages of that tree into the generation: the loop ends when none is left.
func (v *Volume) placePagesLocked(f *frozen) error {
	if err := v.placeCatalogLocked(f); err != nil {
		return err
	}
	for i := 0; i < len(v.arena.dirty); i++ {
		page := v.arena.dirty[i]
		info := v.arena.info[page]
		p := &frozenPage{page: page, tree: info.tree, level: info.level, index: info.index}
		f.pages = append(f.pages, p)
		if info.old.HasData() {
			if err := v.dropPageLocked(info.old); err != nil {
				return err
			}
		}
		if p.level == 0 && p.tree == &v.fwd && isZero(v.arena.page(page)) {
			continue // an empty leaf is none
		}
		if err := v.placeLocked(f, p); err != nil {
			return err
		}
		v.arena.info[page].final = p.final
	}
	return nil
}

func (v *Volume) dropPageLocked(old ref) error {
	seg, _ := v.geo.Locate(old.Phys())
	return v.segs.addLive(seg, -1)
}

func isZero(b []byte) bool {
	for ; len(b) >= 8; b = b[8:] {
		if refAt(b, 0) != 0 {
			return false
		}
	}
	return true
}

// placeLocked takes the next chunk of the meta head for a page, and begins a batch or a segment where needed.
func (v *Volume) placeLocked(f *frozen, p *frozenPage) error {
	last := len(f.batches) - 1
	if last < 0 || f.batches[last].catalog > 0 || len(f.batches[last].pages) == format.MaxEntries || f.head.chunk >= v.geo.Slots() {
		if err := v.beginMetaBatchLocked(f, 1); err != nil {
			return err
		}
		last = len(f.batches) - 1
	}
	f.batches[last].pages = append(f.batches[last].pages, p)
	phys, err := v.takeMetaChunkLocked(f, v.pageEntry(p))
	p.final = format.MakeRef(phys, 0) // the checksum follows when it is known
	return err
}

// pageEntry is a page's inverse map, but for its checksum.
func (v *Volume) pageEntry(p *frozenPage) format.Entry {
	return format.Entry{Birth: Position(v.ckpt.seq), LBA: p.index, Kind: format.KindPage, Level: p.level, Count: p.tree.id}
}

func (v *Volume) takeMetaChunkLocked(f *frozen, e format.Entry) (format.Phys, error) {
	phys := v.geo.Phys(f.head.segment, f.head.chunk)
	f.head.slots[f.head.chunk] = e
	f.head.chunk++
	return phys, v.segs.addLive(f.head.segment, 1)
}

// beginMetaBatchLocked takes a header's chunk with room for n chunks behind it in the same segment.
func (v *Volume) beginMetaBatchLocked(f *frozen, n uint32) error {
	if f.head.chunk+1+n > v.geo.Slots() {
		if err := v.nextMetaSegmentLocked(f); err != nil {
			return err
		}
	}
	f.batches = append(f.batches, metaBatch{segment: f.head.segment, chunk: f.head.chunk})
	f.head.slots[f.head.chunk] = format.Entry{Kind: format.KindHeader}
	f.head.chunk++
	return nil
}

func (v *Volume) nextMetaSegmentLocked(f *frozen) error {
	c := &v.ckpt
	var next uint32
	var err error
	if n := len(c.spare); n > 0 {
		next, c.spare = c.spare[n-1], c.spare[:n-1]
	} else {
		next, err = v.segs.take(v.segmentLimit())
		c.nextReady = false
	}
	if err != nil {
		return err
	}
	if err := v.segs.seal(f.head.segment, 0); err != nil {
		return err
	}
	if err := v.segs.open(f.head.next, format.BatchMeta); err != nil {
		return err
	}
	f.seals = append(f.seals, metaSeal{f.head.segment, f.head.slots})
	f.head = metaHead{segment: f.head.next, next: next, slots: make([]format.Entry, v.geo.Slots())}
	return nil
}

// placeCatalogLocked places the catalog, in chunks that follow each other.
func (v *Volume) placeCatalogLocked(f *frozen) error {
	for i, n := 0, catalogChunks(v.catalogLen); i < n; i++ {
		if err := v.dropPageLocked(format.MakeRef(v.catalogRef.Phys()+format.Phys(i), 0)); err != nil {
			return err
		}
	}
	n := catalogChunks(uint32(len(f.catalog)))
	v.catalogRef, v.catalogLen = format.Unmapped, uint32(len(f.catalog))
	if n == 0 {
		return nil
	}
	if n+1 > int(v.geo.Slots()) || n > format.MaxEntries {
		return errors.New("the catalog of mirrors and snapshots does not fit a segment")
	}
	if err := v.beginMetaBatchLocked(f, uint32(n)); err != nil {
		return err
	}
	f.batches[len(f.batches)-1].catalog = n
	for i := range n {
		phys, err := v.takeMetaChunkLocked(f, format.Entry{Birth: Position(v.ckpt.seq), LBA: uint64(i), Kind: format.KindPage, Count: treeCatalog})
		if err != nil {
			return err
		}
		if i == 0 {
			v.catalogRef = format.MakeRef(phys, format.Sum(f.catalog))
		}
	}
	return nil
}

func catalogChunks(n uint32) int { return int(n+chunkSize-1) / chunkSize }

// writeFrozen writes what freeze has placed. The pages are immutable and the catalog is the checkpoint's own, so no lock is held.
func (v *Volume) writeFrozen(f *frozen) error {
	w := &pageWriter{v: v, f: f}
	w.finals()
	for i := range f.batches {
		if err := w.batch(&f.batches[i]); err != nil {
			return err
		}
	}
	for _, s := range f.seals {
		sum := format.Summary{Kind: format.BatchMeta, Tag: v.tag, Segment: s.segment, Incarnation: v.incarnation, Slots: w.withSums(s.segment, s.slots)}
		b := make([]byte, v.geo.SummaryChunks*chunkSize)
		sum.Encode(v.geo, b)
		if err := v.d.WriteCached(b, int64(v.geo.Phys(s.segment, v.geo.Slots()))*chunkSize); err != nil {
			return err
		}
	}
	f.head.slots = w.withSums(f.head.segment, f.head.slots)
	w.root(&f.meta.MapRoot)
	w.root(&f.meta.SegRoot)
	return nil
}

// pageWriter turns frozen pages into what goes on the disk: references to memory become references to places.
type pageWriter struct {
	v      *Volume
	f      *frozen
	blocks [][]byte       // the arena's memory; the arena itself may grow meanwhile
	final  map[uint32]ref // by arena page
	sums   map[format.Phys]uint32
	buf    []byte
}

// finals computes the checksums, lower levels first, since a page holds those of its children. From here on
// the pages of a closed generation are only read: by clients, and by the copies that writers make of them.
func (w *pageWriter) finals() {
	w.final = make(map[uint32]ref, len(w.f.pages))
	w.sums = make(map[format.Phys]uint32, len(w.f.pages))
	w.v.mapMu.RLock()
	for _, b := range w.v.arena.blocks {
		w.blocks = append(w.blocks, b)
	}
	w.v.mapMu.RUnlock()
	sort.SliceStable(w.f.pages, func(i, j int) bool { return w.f.pages[i].level < w.f.pages[j].level })
	b := make([]byte, chunkSize)
	for _, p := range w.f.pages {
		if p.final != format.Unmapped {
			w.render(b, p)
			sum := format.Sum(b)
			p.final = format.MakeRef(p.final.Phys(), sum)
			w.sums[p.final.Phys()] = sum
		}
		w.final[p.page] = p.final
	}
}

func (w *pageWriter) render(dst []byte, p *frozenPage) {
	o := int(p.page%arenaBlock) * chunkSize
	copy(dst, w.blocks[p.page/arenaBlock][o:o+chunkSize])
	if p.level == 0 {
		return
	}
	for i := range uint64(format.RefsPerPage) {
		if r := refAt(dst, i); inMemory(r) {
			setRef(dst, i, w.final[memoryPage(r)])
		}
	}
}

func (w *pageWriter) root(r *ref) {
	if inMemory(*r) {
		*r = w.final[memoryPage(*r)]
	}
}

// withSums completes a segment's slots with the checksums that were not known when they were taken.
func (w *pageWriter) withSums(seg uint32, slots []format.Entry) []format.Entry {
	for i := range slots {
		if sum, ok := w.sums[w.v.geo.Phys(seg, uint32(i))]; ok && slots[i].Kind == format.KindPage {
			slots[i].CRC = sum
		}
	}
	return slots
}

func (w *pageWriter) batch(b *metaBatch) error {
	n := len(b.pages) + b.catalog
	if w.buf == nil {
		w.buf = make([]byte, (1+format.MaxEntries)*chunkSize)
	}
	h := format.BatchHeader{Kind: format.BatchMeta, Flags: format.FlagCommit, Tag: w.v.tag, Seq: w.f.meta.Seq, Time: w.f.meta.Time,
		Incarnation: w.v.incarnation, Data: uint16(n), Entries: make([]format.Entry, 0, n)}
	data := w.buf[chunkSize : (1+n)*chunkSize]
	if b.catalog > 0 {
		clear(data)
		copy(data, w.f.catalog)
	}
	for i, p := range b.pages {
		w.render(data[i*chunkSize:(i+1)*chunkSize], p)
		h.Entries = append(h.Entries, w.v.pageEntry(p))
	}
	for i := range b.catalog {
		h.Entries = append(h.Entries, format.Entry{Birth: Position(w.f.meta.Seq), LBA: uint64(i), Kind: format.KindPage, Count: treeCatalog})
	}
	for i := range h.Entries {
		sum := format.Sum(data[i*chunkSize : (i+1)*chunkSize])
		h.Entries[i].CRC = sum
		w.sums[w.v.geo.Phys(b.segment, b.chunk+1+uint32(i))] = sum
	}
	h.Encode(w.buf)
	return w.v.d.WriteCached(w.buf[:(1+n)*chunkSize], int64(w.v.geo.Phys(b.segment, b.chunk))*chunkSize)
}

// settle makes the references lead to the disk and gives back the memory of the frozen pages. Higher levels go
// first, so that most lower pages are found to be out of reach already; the lock is given up now and then.
func (v *Volume) settle(f *frozen) {
	for at := len(f.pages); at > 0; {
		v.mapMu.Lock()
		for n := 0; n < 1024 && at > 0; n++ {
			at--
			p := f.pages[at]
			v.arena.info[p.page].final = p.final
			p.tree.settle(p.page)
		}
		v.mapMu.Unlock()
	}
	v.mapMu.Lock()
	for _, p := range f.pages {
		v.arena.release(p.page)
	}
	v.ckpt.head = f.head
	for _, seg := range f.dead {
		v.pages.forget(seg)
	}
	v.mapMu.Unlock()
	for _, seg := range f.dead { // still held, so nothing new can be there yet
		if err := v.d.Punch(int64(v.geo.Phys(seg, 0))*chunkSize, v.geo.SegmentBytes()); err != nil {
			v.log.Warn("space of a free segment was not given back", "segment", seg, "err", err)
		}
	}
	v.mapMu.Lock()
	for _, seg := range f.dead {
		delete(v.segs.taken, seg)
	}
	v.mapMu.Unlock()
	v.mu.Lock()
	v.room.Broadcast()
	v.mu.Unlock()
}
