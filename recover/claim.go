package recovery

import (
	"fmt"

	"cawrm/aodi/format"
)

// claim says who refers to a physical chunk:
//
//	 0        32       56      59     61     62        63
//	+--------+--------+-------+------+------+---------+
//	| number | crc 24 | level | tree | page | present |
//	+--------+--------+-------+------+------+---------+
//
// number is a logical chunk (16 TiB are 2^32 of them), or a page's number in its level. The crc is the reference's.
type claim uint64

const (
	claimBytes   = 8
	claimPage    = 1 << 61
	claimPresent = 1 << 63
)

func dataClaim(lba uint64, r format.Ref) claim {
	return claimPresent | claim(lba&0xffffffff) | claim(r>>40)<<32
}

func pageClaim(tree uint32, level int, index uint64, r format.Ref) claim {
	return dataClaim(index, r) | claimPage | claim(level&7)<<56 | claim(tree&3)<<59
}

func (c claim) number() uint64 { return uint64(c & 0xffffffff) }
func (c claim) sum() uint32    { return uint32(c>>32) & 0xffffff }
func (c claim) level() uint8   { return uint8(c>>56) & 7 }
func (c claim) tree() uint32   { return uint32(c>>59) & 3 }
func (c claim) isPage() bool   { return c&claimPage != 0 }

// String names the place in a tree, for messages.
func (c claim) String() string {
	switch {
	case !c.isPage():
		return fmt.Sprintf("logical chunk %d", c.number())
	case c.tree() == treeCatalog:
		return fmt.Sprintf("catalog chunk %d", c.number())
	}
	return fmt.Sprintf("page %d of level %d of the %s", c.number(), c.level(), treeName(c.tree()))
}

// claim notes that who refers to r's chunk, and looks at C5, C6 and C7. False: the reference leads nowhere.
func (k *checker) claim(r format.Ref, who claim) bool {
	if !r.HasData() {
		return k.refuse(5, who, "%s: reference %#x leads to chunk %d, before the first segment", who, uint64(r), r.Phys())
	}
	if uint64(r.Phys()-format.DataStart) >= k.c.Meta.Segments*uint64(k.geo.SegmentChunks) {
		return k.refuse(5, who, "%s: reference %#x leads beyond segment %d, the last", who, uint64(r), int64(k.c.Meta.Segments)-1)
	}
	seg, chunk := k.geo.Locate(r.Phys())
	if chunk >= k.geo.Slots() {
		return k.refuse(5, who, "%s: its place %s is in the summary", who, k.at(seg, chunk))
	}
	if !k.kindFits(seg, chunk, who) {
		return false
	}
	if seg < k.base || seg >= k.end {
		return true
	}
	p := &k.claims[int(seg-k.base)*int(k.geo.SegmentChunks)+int(chunk)]
	if *p != 0 && *p != who {
		k.rep.bad(7, "%s has two references: %s and %s", k.at(seg, chunk), *p, who)
		return true
	}
	*p = who
	return true
}

// kindFits is C6. While the segment table itself is read there is nothing to compare with yet.
func (k *checker) kindFits(seg, chunk uint32, who claim) bool {
	if k.rows == nil || k.lostRows && k.rows[seg].State == format.SegmentFree {
		return true
	}
	row := k.rows[seg]
	if row.State == format.SegmentFree {
		return k.refuse(6, who, "%s: its place %s is in a free segment", who, k.at(seg, chunk))
	}
	if who.isPage() != (row.Kind == format.BatchMeta) {
		return k.refuse(6, who, "%s: its place %s is in a segment of %s", who, k.at(seg, chunk), kindName(row.Kind))
	}
	return true
}

// refuse reports what every pass finds again, once.
func (k *checker) refuse(rule Rule, who claim, text string, args ...any) bool {
	if k.says(rule, who.tree()) {
		k.rep.bad(rule, text, args...)
	}
	return false
}

// claimAll walks everything that refers to chunks.
func (k *checker) claimAll() {
	n := int(k.end-k.base) * int(k.geo.SegmentChunks)
	if cap(k.claims) < n {
		k.claims = make([]claim, n)
	}
	k.claims = k.claims[:n]
	clear(k.claims)
	m := &k.c.Meta
	number := uint64(0)
	for _, p := range k.rep.Catalog.Places {
		for i := range p.Chunks() {
			r := format.MakeRef(p.Ref.Phys()+format.Phys(i), 0)
			k.claim(r, pageClaim(treeCatalog, 0, number, r))
			number++
		}
	}
	k.walk(k.segmentForest(func(uint64, [][]byte) {}))
	f := &forest{tree: treeMap, perLeaf: format.RefsPerPage, limit: k.limit, leaf: k.mapLeaf,
		roots: []format.Ref{m.MapRoot}, heights: []uint32{m.MapHeight}}
	if m.Jump.End > 0 {
		f.roots, f.heights = append(f.roots, m.Jump.Root), append(f.heights, jumpHeight(m))
		f.limit = max(f.limit, jumpLimit(m))
	}
	f.gone = make([]uint64, len(f.roots))
	for _, s := range k.rep.Catalog.Snapshots {
		if s.Height >= 1 && s.Height <= maxHeight {
			f.roots, f.heights, f.gone = append(f.roots, s.Root), append(f.heights, s.Height), append(f.gone, s.Gone)
			f.limit = max(f.limit, uint64(s.Size)/format.ChunkSize)
		}
	}
	k.walk(f)
}

// mapLeaf notes the references of a leaf of the forward map and its versions in snapshots.
func (k *checker) mapLeaf(index uint64, pages [][]byte) {
	for slot := range format.RefsPerPage {
		lba := index*format.RefsPerPage + uint64(slot)
		for i, p := range pages {
			if p == nil {
				continue
			}
			r := refAt(p, slot)
			if r == format.Unmapped {
				continue
			}
			if i == 0 && k.first {
				k.rep.Counts.Mapped++
				if lba >= k.limit {
					k.rep.bad(8, "logical chunk %d is mapped, the volume ends at %d", lba, k.limit)
				}
			}
			if r != format.ZeroRef && r != format.HoleRef {
				k.claim(r, dataClaim(lba, r))
			}
		}
	}
	k.progress("map", format.ChunkSize, int64(k.c.Meta.Mapped)*8)
}
