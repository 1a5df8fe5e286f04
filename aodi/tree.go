package aodi

import (
	"cawrm/aodi/format"
)

const (
	fanBits = 9 // an inner page has 512 children
	fanMask = 1<<fanBits - 1
)

// tree is a copy-on-write radix tree of pages: the forward map, with leaves of 512 references, or the
// segment tree, with leaves of 256 rows. Guarded by Volume.mapMu: shared for leaf and next, exclusive for the rest.
type tree struct {
	id     uint32 // what a page's entry in a batch header calls it
	arena  *arena
	pages  *pageReader
	root   ref
	height int // levels; 1: the root is a leaf
}

// Numbers of the trees in the inverse map of map pages.
const (
	treeMap     = 0
	treeSegment = 1
	treeCatalog = 2
)

// child returns reference number slot of an inner page. A page on disk does not lead to one in memory.
func (t *tree) child(parent ref, page []byte, slot uint64) (ref, error) {
	r := refAt(page, slot)
	if inMemory(r) && !inMemory(parent) {
		return r, t.pages.nowhere(r)
	}
	return r, nil
}

func (t *tree) bytes(r ref, wait bool) ([]byte, error) {
	if inMemory(r) {
		return t.arena.page(memoryPage(r)), nil
	}
	return t.pages.page(r, wait)
}

// leaf returns leaf number index for reading, or nil if it does not exist. Without wait a page that would have to be read
// from the disk is disk.ErrWouldBlock.
func (t *tree) leaf(index uint64, wait bool) ([]byte, error) {
	if index >= t.leaves() {
		return nil, nil
	}
	r := t.root
	for level := t.height - 1; r != format.Unmapped; level-- {
		b, err := t.bytes(r, wait)
		if err != nil || level == 0 {
			return b, err
		}
		if r, err = t.child(r, b, index>>(fanBits*(level-1))&fanMask); err != nil {
			return nil, err
		}
	}
	return nil, nil
}

// leaves is the number of leaves that a tree of its height can have.
func (t *tree) leaves() uint64 { return 1 << (fanBits * (t.height - 1)) }

// refOf returns the reference to page number index of a level.
func (t *tree) refOf(level uint8, index uint64) (ref, error) {
	if int(level) >= t.height || index<<(fanBits*level) >= t.leaves() {
		return format.Unmapped, nil
	}
	r := t.root
	for at := t.height - 1; at > int(level) && r != format.Unmapped; at-- {
		b, err := t.bytes(r, true)
		if err != nil {
			return r, err
		}
		r = refAt(b, index>>(fanBits*(at-1-int(level)))&fanMask)
	}
	return r, nil
}

// next returns the first leaf at or after index that exists and is below end.
func (t *tree) next(index, end uint64) (uint64, []byte, error) {
	for index < end && index < t.leaves() { // a snapshot's tree can be lower than the volume's, which has grown
		r, level := t.root, t.height-1
		for ; r != format.Unmapped; level-- {
			b, err := t.bytes(r, true)
			if err != nil || level == 0 {
				return index, b, err
			}
			if r, err = t.child(r, b, index>>(fanBits*(level-1))&fanMask); err != nil {
				return index, nil, err
			}
		}
		// The page that should be at this level is not there: go on behind what it would hold.
		span := fanBits * level
		if index = (index>>span + 1) << span; index == 0 {
			break
		}
	}
	return end, nil, nil
}

// leafForWrite returns leaf number index as a page of the open generation, making or copying the path to it.
func (t *tree) leafForWrite(index uint64) ([]byte, error) {
	var parent []byte // nil: the root's reference is in the tree
	var slot uint64
	r := t.root
	for level := t.height - 1; ; level-- {
		own, b, err := t.writable(r, uint8(level), index>>(fanBits*level))
		if err != nil {
			return nil, err
		}
		if own != r {
			if parent == nil {
				t.root = own
			} else {
				setRef(parent, slot, own)
			}
		}
		if level == 0 {
			return b, nil
		}
		parent, slot = b, index>>(fanBits*(level-1))&fanMask
		r = refAt(b, slot)
	}
}

// writable returns the page behind r if it is of the open generation, else a copy of it that is.
func (t *tree) writable(r ref, level uint8, index uint64) (ref, []byte, error) {
	old := r
	if inMemory(r) {
		i := memoryPage(r)
		info := &t.arena.info[i]
		switch {
		case info.gen != t.arena.gen:
			old = info.final // frozen: what the running checkpoint is about to write
		case info.more > 0:
			return t.unshare(i)
		default:
			return r, t.arena.page(i), nil
		}
	}
	var src []byte
	if r != format.Unmapped {
		var err error
		if src, err = t.bytes(r, true); err != nil {
			return r, nil, err
		}
		for slot := uint64(0); level > 0 && slot < format.RefsPerPage; slot++ {
			if _, err := t.child(r, src, slot); err != nil { // in the copy nobody could tell any more
				return r, nil, err
			}
		}
	}
	i, b, err := t.arena.alloc(t, level, index, old)
	if err != nil {
		return r, nil, err
	}
	if src == nil {
		clear(b)
	} else {
		copy(b, src)
	}
	return memoryRef(i), b, nil
}

// unshare copies a page of the open generation for one of the maps that share it. Nothing on the disk is replaced by that: the
// page itself does it.
func (t *tree) unshare(i uint32) (ref, []byte, error) {
	info := t.arena.info[i]
	own, b, err := t.arena.alloc(t, info.level, info.index, format.Unmapped)
	if err != nil {
		return memoryRef(i), nil, err
	}
	copy(b, t.arena.page(i))
	t.arena.info[i].more--
	for slot := uint64(0); info.level > 0 && slot < format.RefsPerPage; slot++ {
		if r := refAt(b, slot); inMemory(r) && t.arena.info[memoryPage(r)].gen == t.arena.gen {
			t.arena.info[memoryPage(r)].more++
		}
	}
	return memoryRef(own), b, nil
}

// forRemap is forWrite for a change that all maps get that share a page, so that they go on sharing it. made is what was
// copied for the same change in other maps, by what it replaces. It returns no page when that included all of the path.
func (t *tree) forRemap(index uint64, to int, made map[ref]ref) ([]byte, error) {
	var parent []byte
	var slot uint64
	r := t.root
	for level := t.height - 1; ; level-- {
		own, done := made[r]
		var b []byte
		var err error
		switch {
		case done:
			t.arena.info[memoryPage(own)].more++
		case inMemory(r) && t.arena.info[memoryPage(r)].gen == t.arena.gen:
			own, b = r, t.arena.page(memoryPage(r))
		default:
			if own, b, err = t.writable(r, uint8(level), index>>(fanBits*level)); err != nil {
				return nil, err
			}
			made[r] = own
		}
		if own != r && parent == nil {
			t.root = own
		} else if own != r {
			setRef(parent, slot, own)
		}
		if done || level == to {
			return b, nil
		}
		parent, slot = b, index>>(fanBits*(level-1))&fanMask
		r = refAt(b, slot)
	}
}

// settle replaces the reference to a frozen page by the page's place on disk, wherever the tree still holds it.
func (t *tree) settle(i uint32) {
	info := &t.arena.info[i]
	self := memoryRef(i)
	if int(info.level) >= t.height {
		return // of a tree that is higher
	}
	if int(info.level) == t.height-1 {
		if t.root == self {
			t.root = info.final
		}
		return
	}
	r := t.root
	for level := t.height - 1; inMemory(r); level-- {
		b := t.arena.page(memoryPage(r))
		slot := info.index >> (fanBits * (level - 1 - int(info.level))) & fanMask
		if level-1 == int(info.level) {
			if refAt(b, slot) == self {
				setRef(b, slot, info.final)
			}
			return
		}
		r = refAt(b, slot)
	}
	// Its parent is on disk already, and leads to the page's place there.
}

// raise makes the tree high enough for leaves of that many references. What it holds stays where it is, below the first slot.
func (t *tree) raise(count uint64) error {
	for to := heightFor(count, format.RefsPerPage); t.height < to; t.height++ {
		if t.root == format.Unmapped {
			continue
		}
		i, b, err := t.arena.alloc(t, uint8(t.height), 0, format.Unmapped)
		if err != nil {
			return err
		}
		clear(b)
		setRef(b, 0, t.root)
		t.root = memoryRef(i)
	}
	return nil
}

// heightFor is the number of levels that leaves of n entries need for count entries.
func heightFor(count, perLeaf uint64) int {
	h := 1
	for n := perLeaf; n < count; n <<= fanBits {
		h++
	}
	return h
}
