package aodi

import (
	"fmt"
	"slices"

	"cawrm/aodi/format"
)

// head is a forward map: the volume's own, the one that a jump epoch brings, or a snapshot's.
//
// Maps share pages and chunks, and nobody counts by how many maps one is held. But maps are made one out of the other, and
// what a map once has replaced it never gets back: so all that hold something stand next to each other. What a map replaces is
// still needed if the one under it has the same at the same place, and by no other if that has not.
type head struct {
	tree   tree
	mapped int64  // logical chunks that are not holes
	under  *head  // the map that this one was made of, and which does not change meanwhile; nil: none
	gone   uint64 // of a snapshot that is being deleted: its leaves below this one do not count any more
}

// beneath is the map under h as far as page number index of a level goes.
func (h *head) beneath(level uint8, index uint64) *head {
	b := h.under
	for b != nil && b.passed(level, index) {
		b = b.under
	}
	return b
}

// passed tells that the deletion of a snapshot is over with a page.
func (h *head) passed(level uint8, index uint64) bool { return (index+1)<<(fanBits*level) <= h.gone }

// coming is a mirror's content to be. A jump epoch's records are not in the order of the log, so what they make is not
// shown, and lies in a map of its own, which began as a copy of the volume's and shares what it has not changed. When the
// epoch is whole and durable it takes the place of the volume's. Checkpoints keep both, so that an epoch which was
// interrupted goes on where it stopped, whichever side was restarted.
type coming struct {
	head
	end   Position       // of the epoch
	got   format.Reached // what of it has come
	size  int64          // logical, that the epoch brings
	whole bool           // all of it is staged, and waits for Commit
}

func (v *Volume) newComing(j format.Jump) *coming {
	t := tree{id: treeMap, arena: v.arena, pages: v.pages, root: j.Root, height: v.main.tree.height}
	size := max(j.Size, v.Size())
	t.height = max(t.height, heightFor(uint64(size/chunkSize), format.RefsPerPage))
	return &coming{head: head{tree: t, mapped: int64(j.Mapped), under: v.main}, end: j.End, got: j.Got, size: size}
}

// meta is what a checkpoint keeps of it.
func (c *coming) meta() format.Jump {
	if c == nil {
		return format.Jump{}
	}
	return format.Jump{Root: c.tree.root, Mapped: uint64(c.mapped), End: c.end, Got: slices.Clone(c.got), Size: c.size}
}

// took notes that a record of the epoch that ends at end was applied. A source goes over the chunks from the first to the
// last, so when one comes, all before it are as of end. Of anything else, such as the size that comes first, only that it did:
// no epoch that ends before may go on behind it.
func (c *coming) took(e *format.Entry, end Position) {
	c.end = end
	cursor := uint64(0)
	if e.Kind == format.KindData {
		cursor = e.LBA + 1
	}
	c.got.Took(end, cursor)
}

// Coming tells what a jump epoch has brought that was interrupted; nil when there is none.
func (v *Volume) Coming() format.Reached {
	v.mapMu.RLock()
	defer v.mapMu.RUnlock()
	if v.coming == nil {
		return nil
	}
	if len(v.coming.got) == 0 {
		return format.ReachedTo(v.coming.end, 0) // begun, no more
	}
	return slices.Clone(v.coming.got)
}

// beginComingLocked begins a jump epoch, or goes on with the one that is there.
func (v *Volume) beginComingLocked(end Position) *coming {
	if v.coming == nil {
		v.coming = v.newComing(format.Jump{Root: v.main.tree.root, Mapped: uint64(v.main.mapped), End: end})
	}
	v.coming.end = end
	return v.coming
}

// settleMain sees to that no page of the volume's map is newer than the checkpoint: while a jump epoch comes only cleaning
// changes any. clean is held.
func (v *Volume) settleMain() error {
	v.mapMu.RLock()
	settled := !inMemory(v.main.tree.root)
	v.mapMu.RUnlock()
	if settled {
		return nil
	}
	return v.Checkpoint()
}

// showComingLocked makes the coming map the volume's, and counts what only the old one has led to as dead.
func (v *Volume) showComingLocked(end Position) error {
	c, old := v.coming, v.main
	same, err := c.tree.refOf(uint8(old.tree.height-1), 0) // the coming map can be higher
	if err != nil {
		return err
	}
	if err := v.dropReplacedLocked(&old.tree, &c.tree, old.tree.height-1, 0, old.tree.root, same); err != nil {
		return err
	}
	c.under = old.under
	v.main, v.coming = &c.head, nil
	v.size.Store(c.size)
	v.leaveBranchLocked()
	v.setShown(end)
	v.jumped = end
	v.raiseFloor(end) // what was superseded below it never came
	return nil
}

// dropComingLocked counts what only the coming map leads to, which is given up. It can be higher than the volume's.
func (v *Volume) dropComingLocked(c *coming) error {
	r, main := c.tree.root, &v.main.tree
	for level := c.tree.height - 1; level >= main.height && r != format.Unmapped; level-- {
		page, err := c.tree.bytes(r, true)
		if err != nil {
			return err
		}
		for slot := uint64(1); slot < format.RefsPerPage; slot++ {
			if err := v.dropReplacedLocked(&c.tree, main, level-1, slot, refAt(page, slot), format.Unmapped); err != nil {
				return err
			}
		}
		if err := v.dropPageLocked(r); err != nil {
			return err
		}
		r = refAt(page, 0)
	}
	return v.dropReplacedLocked(&c.tree, main, main.height-1, 0, r, main.root)
}

// dropReplacedLocked counts what a leads to and b, the reference at the same place of the newer map, does not.
func (v *Volume) dropReplacedLocked(from, to *tree, level int, index uint64, a, b ref) error {
	if a == b || a == format.Unmapped {
		return nil
	}
	if inMemory(a) {
		return fmt.Errorf("page at level %d of the old map is newer than the checkpoint", level) // beginJump has seen to that
	}
	old, err := from.bytes(a, true)
	if err != nil {
		return err
	}
	var now []byte
	if b != format.Unmapped {
		if now, err = to.bytes(b, true); err != nil {
			return err
		}
	}
	d := dropper{v: v, h: &head{}}
	if under := v.main.beneath(uint8(level), index); under != nil && level == 0 {
		if d.base, err = under.tree.leaf(index, true); err != nil {
			return err
		}
	}
	for i := range uint64(format.RefsPerPage) {
		ra, rb := refAt(old, i), format.Unmapped
		if now != nil {
			rb = refAt(now, i)
		}
		if level == 0 && ra != rb {
			d.drop(i, ra)
		} else if level > 0 {
			if err := v.dropReplacedLocked(from, to, level-1, index<<fanBits|i, ra, rb); err != nil {
				return err
			}
		}
	}
	if err := d.done(); err != nil {
		return err
	}
	if inMemory(b) {
		if info := &v.arena.info[memoryPage(b)]; info.gen == v.arena.gen && info.old == a {
			return nil // the next checkpoint counts it, since nobody shares it any more
		}
	}
	if shared, err := v.main.sharesPage(uint8(level), index, a); err != nil || shared {
		return err
	}
	return v.dropPageLocked(a)
}

// sharesPage tells whether the map under h still has a page that h has replaced.
func (h *head) sharesPage(level uint8, index uint64, old ref) (bool, error) {
	b := h.beneath(level, index)
	if b == nil {
		return false, nil
	}
	r, err := b.tree.refOf(level, index)
	return r.Phys() == old.Phys(), err // the checksum can have come later than the place
}

// replacesToo tells whether a map under h has a page of the open generation that replaces the same as p, the page of h: where
// cleaning has changed a page in all maps that have it, the lowest counts what is replaced.
func (v *Volume) replacesToo(h *head, p *pageInfo, page uint32) (bool, error) {
	for b := h.beneath(p.level, p.index); b != nil; b = b.beneath(p.level, p.index) {
		r, err := b.tree.refOf(p.level, p.index)
		if err != nil || !inMemory(r) {
			return false, err
		}
		if memoryPage(r) != page {
			o := &v.arena.info[memoryPage(r)]
			return o.gen == p.gen && o.old.Phys() == p.old.Phys(), nil
		}
	}
	return false, nil
}

// headOf returns the map that a tree is of, nil when it is none.
func (v *Volume) headOf(t *tree) *head {
	for _, h := range v.roots() {
		if t == &h.tree {
			return h
		}
	}
	return nil
}

// roots are all maps, from the newest to the oldest.
func (v *Volume) roots() []*head {
	all := make([]*head, 0, len(v.snaps)+2)
	if v.coming != nil {
		all = append(all, &v.coming.head)
	}
	all = append(all, v.main)
	for i := len(v.snaps) - 1; i >= 0; i-- {
		all = append(all, &v.snaps[i].head)
	}
	return all
}

// rootsOf are the maps that can lead to a chunk: snapshots from before its birth cannot.
func (v *Volume) rootsOf(e *format.Entry) []*head {
	all := make([]*head, 0, 4)
	if v.coming != nil {
		all = append(all, &v.coming.head)
	}
	all = append(all, v.main)
	for i := len(v.snaps) - 1; i >= 0; i-- {
		if v.snaps[i].position > e.Birth && !v.snaps[i].passed(0, e.LBA/format.RefsPerPage) {
			all = append(all, &v.snaps[i].head)
		}
	}
	return all
}

// replayBatch applies one batch in recovery. The coming map begins as a copy of one that a checkpoint holds (beginJump); from the checkpoint
// before that one, the map is in memory, and the two would be changed together.
func (v *Volume) replayBatch(h *format.BatchHeader, seg, chunk uint32) error {
	if h.Flags&format.FlagJump == 0 {
		if err := v.applyLocked(v.main, h, seg, chunk); err != nil {
			return err
		}
		v.setShown(h.End)
		return nil
	}
	if v.coming == nil && inMemory(v.main.tree.root) {
		return fmt.Errorf("%s: segment %d, chunk %d: a jump epoch begins where a checkpoint stood that is lost: run `cawrm check --repair`", v.d.Name(), seg, chunk)
	}
	c := v.beginComingLocked(h.End)
	if err := v.applyLocked(&c.head, h, seg, chunk); err != nil {
		return err
	}
	for i := range h.Entries {
		c.took(&h.Entries[i], h.End)
	}
	if h.Commits() {
		return v.showComingLocked(h.End)
	}
	return nil
}
