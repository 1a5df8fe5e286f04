package recovery

import (
	"encoding/binary"

	"cawrm/aodi/format"
)

// The trees whose pages stand in segments: the count of a page's entry says which one.
const (
	treeMap     = 0
	treeSegment = 1
	treeCatalog = 2
)

const (
	maxHeight = 4
	fanBits   = 9
)

func refAt(page []byte, i int) format.Ref { return format.Ref(binary.LittleEndian.Uint64(page[i*8:])) }

// forest is the trees of one kind that may share pages: the head's forward map and those of snapshots.
type forest struct {
	tree    uint32
	perLeaf uint64
	limit   uint64 // entries that may exist
	roots   []format.Ref
	heights []uint32
	gone    []uint64 // of each tree, leaves below this one do not count any more
	// leaf is called for each leaf that exists in a tree, with its content in each tree; nil where it does not exist.
	leaf func(index uint64, pages [][]byte)

	bufs  [maxHeight][][]byte // of each level and tree
	pages [maxHeight][][]byte
	refs  [maxHeight][]format.Ref
}

// walk visits each page once, also when several trees share it.
func (k *checker) walk(f *forest) {
	top := 0
	for _, h := range f.heights {
		top = max(top, int(h)-1)
	}
	for level := range top + 1 {
		f.pages[level] = make([][]byte, len(f.roots))
		f.refs[level] = make([]format.Ref, len(f.roots))
		f.bufs[level] = make([][]byte, len(f.roots))
	}
	k.step(f, top, 0)
}

// step visits page number index of a level, whose references are in f.refs[level].
func (k *checker) step(f *forest, level int, index uint64) {
	lower := false // a tree that is not as high begins further down
	for i, h := range f.heights {
		if index == 0 && int(h)-1 == level {
			f.refs[level][i] = f.roots[i]
		}
		lower = lower || index == 0 && int(h)-1 < level
	}
	if !k.readPages(f, level, index) && !lower {
		return
	}
	if level == 0 {
		f.leaf(index, f.pages[0])
		return
	}
	for slot := range format.RefsPerPage {
		any := false
		for i, p := range f.pages[level] {
			r := format.Unmapped
			if p != nil {
				r = refAt(p, slot)
			}
			f.refs[level-1][i] = r
			any = any || r != format.Unmapped
		}
		child := index<<fanBits | uint64(slot)
		switch {
		case !any && !(lower && slot == 0):
		case child<<(fanBits*(level-1))*f.perLeaf >= f.limit && child > 0:
			if k.says(8, f.tree) {
				k.lost++
				k.rep.bad(8, "page %d of level %d of the %s lies wholly beyond the end at %d", child, level-1, treeName(f.tree), f.limit)
			}
		default:
			k.step(f, level-1, child)
		}
	}
}

// readPages reads the pages of f.refs[level] into f.pages[level], each distinct one once. It tells whether there is any.
func (k *checker) readPages(f *forest, level int, index uint64) bool {
	any := false
	for i, r := range f.refs[level] {
		f.pages[level][i] = nil
		if gone := (index + 1) << (fanBits * level); i < len(f.gone) && gone <= f.gone[i] {
			f.refs[level][i] = format.Unmapped
			continue
		}
		if r == format.Unmapped {
			continue
		}
		for j := range i {
			if f.refs[level][j] == r {
				f.pages[level][i] = f.pages[level][j]
				break
			}
		}
		if f.pages[level][i] == nil {
			f.pages[level][i] = k.readPage(f, level, index, i, r)
		}
		any = any || f.pages[level][i] != nil
	}
	return any
}

// readPage reads and verifies one page (C4), or returns nil and says why not.
func (k *checker) readPage(f *forest, level int, index uint64, i int, r format.Ref) []byte {
	who := pageClaim(f.tree, level, index, r)
	if !k.claim(r, who) {
		if k.says(4, f.tree) {
			k.lost++
		}
		return nil
	}
	if f.bufs[level][i] == nil {
		f.bufs[level][i] = make([]byte, format.ChunkSize)
	}
	b := f.bufs[level][i]
	err := k.d.ReadAt(b, int64(r.Phys())*format.ChunkSize)
	k.rep.Counts.ReadBytes += format.ChunkSize
	if err == nil && !r.Matches(format.Sum(b)) {
		err = format.ErrChecksum
	}
	if k.says(4, f.tree) {
		k.rep.Counts.Pages++
	}
	if err != nil {
		if k.says(4, f.tree) {
			k.lost++
			seg, chunk := k.geo.Locate(r.Phys())
			k.rep.bad(4, "%s at %s: %v", who, k.at(seg, chunk), err)
		}
		return nil
	}
	return b
}

// says tells whether what breaks a rule in a tree is reported now: each pass walks the trees again, and the
// segment tree is walked once more before, when only C6 and C7 cannot be looked at yet.
func (k *checker) says(rule Rule, tree uint32) bool {
	return k.first && (k.rows == nil || tree != treeSegment || rule == 6)
}

func treeName(tree uint32) string {
	switch tree {
	case treeMap:
		return "forward map"
	case treeSegment:
		return "segment tree"
	case treeCatalog:
		return "catalog"
	}
	return "unknown tree"
}
