package aodi

import (
	"maps"
	"slices"

	"cawrm/aodi/format"
)

// The first step of a checkpoint: under the locks, in memory, everything that it will write gets its place and the
// accounts are made up to the record. What is here is short: it is what writers wait for.

// frozen is a checkpoint between freeze and flip.
type frozen struct {
	meta    format.Meta
	pages   []*frozenPage
	catalog format.Catalog
	snap    *snapshot // that the checkpoint makes, or nil
	batches []metaBatch
	seals   []metaSeal
	dead    []uint32
	sealed  []uint32 // by then
	void    []uint32 // held, free, and of no use any more
	opened  int      // segments since the checkpoint before
	alone   bool     // a segment is freed without which the checkpoint before is none any more
	gen     uint64
	ticket  uint64
	head    metaHead

	catalogBytes [][]byte      // its parts
	catalogAt    []format.Phys // their first chunks
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
	catalog        int // so many chunks of the catalog instead of pages
	part, number   int // of which part, and what number the first has
}

type metaSeal struct {
	segment uint32
	slots   []format.Entry
}

// freeze is the first step. snap: a snapshot that the checkpoint makes, which has a name and a time so far, or nil; change: what else
// it changes, or nil.
func (v *Volume) freeze(flags uint32, snap *snapshot, change func()) (*frozen, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	// What a jump epoch has brought is in a map, like what a client writes, so the log must be durable up to there.
	jump := v.jumpEnd > 0
	if v.Role() == RolePrimary || jump && v.batch != nil && len(v.batch.hdr.Entries) > 0 {
		v.closeBatchLocked(v.Role() == RolePrimary)
	}
	v.mapMu.Lock()
	defer v.mapMu.Unlock()
	if err := v.failure(); err != nil { // what failed meanwhile can have left the map between two records
		return nil, err
	}
	v.ckpt.seq++
	f := &frozen{ticket: v.ticket, head: v.ckpt.head}
	f.head.slots = append([]format.Entry(nil), f.head.slots...)
	v.sinceCheckpoint.Store(0)
	if v.Role() == RolePrimary || jump && !v.void {
		v.shownPlace, v.shownLogged = v.head, v.logged
	}
	if change != nil {
		change() // where the log goes on was settled by the rules of the role before
	}
	// The head may have moved on to a segment that no record has come to yet.
	err := v.enterLocked(v.shownPlace.Segment)
	if err != nil {
		return nil, err
	}
	f.catalog = v.catalogLocked()
	v.expireLocked()
	if snap == nil && v.wantsCutLocked() {
		snap = &snapshot{cut: true, time: v.now().UnixNano()}
	}
	if snap != nil {
		v.freezeSnapshotLocked(f, snap)
		f.catalog.Snapshots = append(f.catalog.Snapshots, f.snap.entry())
	}
	if f.catalogBytes, err = f.catalog.Parts(v.geo); err != nil {
		return nil, err
	}
	if err = v.collectDeadLocked(f); err == nil {
		v.collectVoidLocked(f)
		err = v.placePagesLocked(f)
	}
	if err != nil {
		return nil, err
	}
	f.meta = v.metaLocked(f, flags)
	if f.snap != nil {
		v.pushSnapshotLocked(f.snap) // after the pages were placed: what they replace, the snapshot does not have
	}
	v.arena.gen++
	v.arena.dirty = v.arena.dirty[:0]
	return f, nil
}

// metaLocked is the checkpoint's meta chunk, but for what only writing the pages tells: checksums of the roots.
func (v *Volume) metaLocked(f *frozen, flags uint32) format.Meta {
	if v.Role() == RoleMirror {
		flags |= format.FlagMirror
	}
	if v.Yields() {
		flags |= format.FlagYields
	}
	if !v.hasIdentity {
		flags |= format.FlagNoIdentity
	}
	// Free segments at the end are left out: one that was never reserved is not there yet on the disk.
	count, free := v.segs.count, v.segs.free
	for count > 0 {
		if r, err := v.segs.row(uint32(count - 1)); err != nil || r.State != format.SegmentFree {
			break
		}
		count, free = count-1, free-1
	}
	catalog := format.CatalogPart{}
	if len(v.catalogParts) > 0 {
		catalog = v.catalogParts[0]
	}
	return format.Meta{Flags: flags, Seq: v.ckpt.seq, Container: v.super.Container, Volume: v.volume, Size: v.Size(),
		Position: v.shown(), Time: v.now().UnixNano(), MapRoot: v.main.tree.root, MapHeight: uint32(v.main.tree.height),
		SegRoot: v.segs.tree.root, SegHeight: segmentTreeHeight, Segments: count, Free: free,
		Log: v.shownPlace, Incarnation: v.incarnation, Logged: v.shownLogged, Mapped: uint64(v.main.mapped),
		MetaSegment: f.head.segment, MetaChunk: f.head.chunk, MetaNext: f.head.next,
		Catalog: catalog.Ref, CatalogLen: catalog.Len, Capacity: v.promised,
		HistoryFl: v.HistoryFloor(), TrimFloor: v.HistoryFloor(), Jump: v.coming.meta(),
		ColdSegment: v.cold.segment, ColdChunk: v.cold.chunk, Live: uint64(v.segs.live)}
}

// sweepRows bounds how many rows of an earlier life one checkpoint looks at.
const sweepRows = 16 * format.RowsPerPage

// collectDeadLocked makes the rows of dead segments free, but those that a cut needs, the log's youngest, and the log since
// the checkpoint before. With a segment of the log go superseded records and discards, so the floor rises over it (V5) before
// it can be used again.
//
// The log since the checkpoint before is what recovery follows from there, should the meta chunk of this one be damaged. Were
// a part of it used again, it would end early, and what was flushed behind it would be lost without a word. It is kept until
// the next checkpoint has taken the place of the one before. So is a segment that was a head at the checkpoint before: recovery reads
// back what is in it. Where space is short it is not: then one copy of the meta chunk
// must do, and the checkpoint before is taken away before anything is put where it leads to (dropBefore).
func (v *Volume) collectDeadLocked(f *frozen) error {
	if err := v.segs.lookBack(sweepRows); err != nil {
		return err
	}
	short := v.shortOfSpaceLocked()
	for _, seg := range slices.Sorted(maps.Keys(v.segs.dead)) {
		r, err := v.segs.row(seg)
		if err != nil {
			return err
		}
		if v.segs.recentLog(r) || v.segs.held(seg, r) || (v.segs.filled[seg] || v.segs.young[seg]) && !short || v.remembersLocked(r) || seg == v.segs.moving {
			continue
		}
		if r.Kind == format.BatchLog {
			v.raiseFloor(min(r.MaxPosition, v.shown()))
		}
		f.alone = f.alone || v.segs.filled[seg] || v.segs.young[seg]
		f.dead = append(f.dead, seg)
		v.segs.taken[seg] = true // until the flip is durable
		if err := v.segs.release(seg); err != nil {
			return err
		}
	}
	f.opened, v.segs.fresh = v.segs.fresh, 0
	clear(v.segs.filled)
	f.sealed = slices.Collect(maps.Keys(v.segs.young))
	return nil
}

// shortOfSpaceLocked tells whether as many segments as were filled since the last checkpoint would not fit again, or a write waits.
func (v *Volume) shortOfSpaceLocked() bool {
	s := &v.segs
	return v.relief.waiting.Load() > 0 || s.available(v.segmentLimit()) < v.checkpointKeep()+v.coldReserve()+uint64(len(s.filled))
}

// raiseFloor is called with mapMu held.
func (v *Volume) raiseFloor(p Position) { v.floor.Store(max(v.floor.Load(), uint64(p))) }

// collectVoidLocked finds segments of a mirror that hold nothing but batches of epochs that were given up. Recovery's way
// leads through them until a checkpoint stands behind them, and from the checkpoint before until the next one.
func (v *Volume) collectVoidLocked(f *frozen) {
	kept := v.voids[:0]
	for _, s := range v.voids {
		if s.seq < v.ckpt.place.Seq {
			f.void = append(f.void, s.segment)
		} else {
			kept = append(kept, s)
		}
	}
	v.voids = kept
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
		if err := v.replacePageLocked(page); err != nil {
			return err
		}
		if p.level == 0 && p.tree.id == treeMap && isZero(v.arena.page(page)) {
			continue // an empty leaf is none
		}
		if err := v.placeLocked(f, p); err != nil {
			return err
		}
		v.arena.info[page].final = p.final
	}
	return nil
}

// replacePageLocked counts the page that one of the generation replaces as dead, unless another map has it.
func (v *Volume) replacePageLocked(page uint32) error {
	p := &v.arena.info[page]
	if !p.old.HasData() {
		return nil
	}
	if h := v.headOf(p.tree); h != nil {
		if shared, err := h.sharesPage(p.level, p.index, p.old); err != nil || shared {
			return err
		}
		if too, err := v.replacesToo(h, p, page); err != nil || too {
			return err
		}
	}
	return v.dropPageLocked(p.old)
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
		c.readyNext = next
	} else {
		next, _, err = v.segs.take(v.segmentLimit(), 0)
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

// placeCatalogLocked places the catalog, each part in chunks that follow each other. All of it is written with each checkpoint: some
// hundred bytes a snapshot.
func (v *Volume) placeCatalogLocked(f *frozen) error {
	for _, p := range v.catalogParts {
		for i := range p.Chunks() {
			if err := v.dropPageLocked(format.MakeRef(p.Ref.Phys()+format.Phys(i), 0)); err != nil {
				return err
			}
		}
	}
	number := 0
	for k, part := range f.catalogBytes {
		n := format.CatalogPart{Len: uint32(len(part))}.Chunks()
		if err := v.beginMetaBatchLocked(f, uint32(n)); err != nil {
			return err
		}
		b := &f.batches[len(f.batches)-1]
		b.catalog, b.part, b.number = n, k, number
		f.catalogAt = append(f.catalogAt, v.geo.Phys(f.head.segment, f.head.chunk))
		for range n {
			if _, err := v.takeMetaChunkLocked(f, v.catalogEntry(number)); err != nil {
				return err
			}
			number++
		}
	}
	v.catalogParts = format.Chain(f.catalogBytes, f.catalogAt)
	return nil
}

// catalogEntry is the inverse map of a chunk of the catalog, but for its checksum.
func (v *Volume) catalogEntry(number int) format.Entry {
	return format.Entry{Birth: Position(v.ckpt.seq), LBA: uint64(number), Kind: format.KindPage, Count: treeCatalog}
}
