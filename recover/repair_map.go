package recovery

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"

	"cawrm/aodi/format"
)

// gap is a page of the forward map that cannot be read, and so a range of leaves.
type gap struct {
	level       int
	index       uint64
	ref         format.Ref
	first, last uint64 // leaves [first, last)
}

func (m *mender) limit() uint64 { return uint64(m.meta.Size) / format.ChunkSize }

// grow makes the volume as large as a record says. The map's new height is for placeMap.
func (m *mender) grow(chunks uint64) {
	if chunks <= m.limit() {
		return
	}
	m.meta.Size = int64(chunks * format.ChunkSize)
	for span(m.meta.MapHeight, format.RefsPerPage) < chunks {
		m.meta.MapHeight++
	}
}

// leafLimit is the number of leaves that the volume can have.
func (m *mender) leafLimit() uint64 {
	return (m.limit() + format.RefsPerPage - 1) / format.RefsPerPage
}

// good tells whether a reference leads into a segment.
func (m *mender) good(r format.Ref) bool {
	if !r.HasData() || uint64(r.Phys()-format.DataStart) >= m.c.Meta.Segments*uint64(m.geo.SegmentChunks) {
		return false
	}
	_, chunk := m.geo.Locate(r.Phys())
	return chunk < m.geo.Slots()
}

// page reads a page and verifies it; nil when it is not what was referred to.
func (m *mender) page(r format.Ref) []byte {
	b := make([]byte, format.ChunkSize)
	if !m.good(r) || m.d.ReadAt(b, int64(r.Phys())*format.ChunkSize) != nil || !r.Matches(format.Sum(b)) {
		return nil
	}
	return b
}

// readMap looks for pages of the forward map that cannot be read.
func (m *mender) readMap() {
	if m.how == mapFromLog && m.meta.MapRoot != format.Unmapped {
		m.gone = []gap{{int(m.meta.MapHeight) - 1, 0, m.meta.MapRoot, 0, m.leafLimit()}}
		return
	}
	m.findGaps(int(m.meta.MapHeight)-1, 0, m.meta.MapRoot)
}

const leafBytes = format.RefsPerPage * format.ChunkSize

func (g *gap) name() string {
	return fmt.Sprintf("forward map: page %d of level %d at byte %d", g.index, g.level, int64(g.ref.Phys())*format.ChunkSize)
}

func (m *mender) findGaps(level int, index uint64, r format.Ref) {
	if r == format.Unmapped {
		return
	}
	b := m.page(r)
	if b == nil {
		first := index << (fanBits * level)
		m.gone = append(m.gone, gap{level, index, r, first, min(m.leafLimit(), (index+1)<<(fanBits*level))})
		return
	}
	if level > 0 {
		for slot := range format.RefsPerPage {
			m.findGaps(level-1, index<<fanBits|uint64(slot), refAt(b, slot))
		}
	}
}

// inGap finds the gap that a leaf is in.
func (m *mender) inGap(leaf uint64) *gap {
	for i := range m.gone {
		if leaf >= m.gone[i].first && leaf < m.gone[i].last {
			return &m.gone[i]
		}
	}
	return nil
}

// errEnough ends a roll that has come as far as it should.
var errEnough = errors.New("far enough")

// rebuild makes the leaves of the gaps anew: what the checkpoint before says of them and the log behind it, or all that the log
// ever said of them. That needs the whole log; the newest record of a chunk, a discard above all, may be in any batch.
//
// Memory: the leaves that are made anew, a page for each 2 MiB that was mapped there.
func (m *mender) rebuild() error {
	if len(m.gone) == 0 {
		return nil
	}
	m.whole = true
	err := m.history()
	if err == nil {
		for _, g := range m.gone {
			m.did("%s: made anew", g.name())
		}
		return nil
	}
	m.whole = false
	clear(m.leaves)
	if m.rescue {
		for _, g := range m.gone {
			m.cannot("%s cannot be read: reads of logical bytes %d to %d fail", g.name(), g.first*leafBytes, min(g.last*leafBytes, uint64(m.c.Meta.Size)))
		}
		m.cannot("the log cannot tell what was there: %v", err)
		return nil
	}
	return fmt.Errorf("%s: %d pages of the forward map are damaged, and the log cannot tell what was there: %w; "+
		"nothing was changed; `cawrm serve --rescue` shows the rest, a mirror has it all", m.d.Name(), len(m.gone), err)
}

// history makes the gaps anew from the checkpoint before and the log behind it, else from the whole log.
func (m *mender) history() error {
	if m.catalog.Base != nil {
		return errors.New("it is a clone, and the log does not tell what is its base's")
	}
	if len(m.catalog.Snapshots) > 0 {
		return errors.New("there are snapshots, whose maps the log does not hold")
	}
	if m.how != mapFromLog && m.older() {
		return nil
	}
	clear(m.leaves)
	start, err := m.firstBatch()
	if err != nil {
		return err
	}
	return m.between(&format.Meta{Log: format.LogPlace{Segment: start, Seq: 1}})
}

// older takes the gaps from the map of the checkpoint before, if all of it is still there: its pages may be damaged as
// well, being the same ones, or have been written over.
func (m *mender) older() bool {
	at, diskErr, err := readMeta(m.d, int(1-m.c.Meta.Seq%2))
	if diskErr != nil || err != nil || at.Container != m.c.Super.Container || at.Seq >= m.c.Meta.Seq || at.MapHeight > m.c.Meta.MapHeight {
		return false
	}
	l := lookup{d: m.d, c: m.c, root: at.MapRoot, height: at.MapHeight}
	for _, g := range m.gone {
		for index := g.first; index < g.last; index++ {
			b, err := l.leaf(index)
			if err != nil {
				return false
			}
			if b != nil {
				m.leaves[index] = b
			}
		}
	}
	return m.between(&at) == nil
}

// between applies the log from a checkpoint to the one that counts to the gaps. It must be whole.
func (m *mender) between(from *format.Meta) error {
	c, to := *m.c, &m.c.Meta.Log
	c.Meta.Log, c.Meta.Incarnation = from.Log, from.Incarnation
	last := from.Log
	r := newRoller(m.d, &c, nil)
	r.bridge, r.blind = true, true
	r.apply = func(h *format.BatchHeader, at Place) error {
		if h.Seq >= to.Seq {
			return errEnough
		}
		if h.Flags&format.FlagJump != 0 {
			return fmt.Errorf("batch %d of the log is of a jump epoch, whose records are in no order", h.Seq)
		}
		last = r.at
		return m.apply(h, at, true)
	}
	res, err := r.run()
	switch {
	case err != nil && !errors.Is(err, errEnough):
		return err
	case last.Seq != to.Seq || last.PrevCRC != to.PrevCRC:
		return fmt.Errorf("batch %d of the log, of %d, is damaged or was cleaned away (segment %d chunk %d: %v)", res.Log.Seq, to.Seq-1,
			res.Log.Segment, res.Log.Chunk, res.Stop)
	}
	return nil
}

// firstBatch finds the segment in which the log began.
func (m *mender) firstBatch() (uint32, error) {
	b := make([]byte, format.ChunkSize)
	var h format.BatchHeader
	for seg := range uint32(m.c.Meta.Segments) {
		err := m.d.ReadAt(b, int64(m.geo.Phys(seg, 0))*format.ChunkSize)
		if err == nil && h.Decode(b) == nil && h.Kind == format.BatchLog && h.Tag == m.c.Tag() && h.Seq == 1 && h.PrevCRC == 0 {
			return seg, nil
		}
	}
	return 0, errors.New("the first batch of the log is damaged or was cleaned away")
}

// apply does to the leaves what the records of a batch say. With gaps, only to leaves in gaps.
func (m *mender) apply(h *format.BatchHeader, at Place, gaps bool) error {
	phys := m.geo.Phys(at.Segment, at.Chunk)
	for i := range h.Entries {
		e := &h.Entries[i]
		to := format.Unmapped
		switch e.Kind {
		case format.KindData:
			phys++
			to = format.MakeRef(phys, e.CRC)
		case format.KindZero:
			to = format.ZeroRef
		case format.KindSize:
			m.grow(e.LBA + uint64(e.Count))
			continue
		}
		if e.LBA+uint64(e.Count) > m.limit() {
			return fmt.Errorf("batch %d holds %s, the volume ends at %d", h.Seq, entryName(e), m.limit())
		}
		m.set(e.LBA, e.LBA+uint64(e.Count), to, gaps)
	}
	return nil
}

func (m *mender) set(lba, end uint64, to format.Ref, gaps bool) {
	for lba < end {
		index := lba / format.RefsPerPage
		stop := min(end, (index+1)*format.RefsPerPage)
		if g := m.inGap(index); !gaps || g != nil {
			leaf := m.leaf(index)
			for ; lba < stop; lba++ {
				binary.LittleEndian.PutUint64(leaf[lba%format.RefsPerPage*8:], uint64(to))
			}
		}
		lba = stop
	}
}

// leaf is a leaf that may be changed. What is not known in it is references that match nothing.
func (m *mender) leaf(index uint64) []byte {
	if b := m.leaves[index]; b != nil {
		return b
	}
	b := make([]byte, format.ChunkSize)
	if g := m.inGap(index); g == nil {
		l := lookup{d: m.d, c: m.c, root: m.c.Meta.MapRoot, height: m.c.Meta.MapHeight}
		if old, err := l.leaf(index); err == nil && old != nil {
			b = old
		}
	} else if !m.whole {
		m.spoil(b, g.ref)
	}
	m.leaves[index] = b
	return b
}

// spoil makes every reference of a page one that leads to a place with another checksum: the reference to a page that is
// damaged is one already.
func (m *mender) spoil(b []byte, r format.Ref) {
	if !m.good(r) {
		at := m.geo.Phys(0, 0)
		_ = m.d.ReadAt(b, int64(at)*format.ChunkSize) // an overlay always can
		r = format.MakeRef(at, ^format.Sum(b))
	}
	for i := range format.RefsPerPage {
		binary.LittleEndian.PutUint64(b[i*8:], uint64(r))
	}
}

// changed lists the leaves that the new map does not share with the old one. Of a gap that is empty, one leaf will do to
// come by the page that is damaged.
func (m *mender) changed() []uint64 {
	list := slices.Collect(maps.Keys(m.leaves))
	if m.whole {
		for _, g := range m.gone {
			list = append(list, g.first)
		}
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// placeMap puts what changed into new pages, and over them those by which the map has become higher. It returns the root.
func (m *mender) placeMap() (format.Ref, error) {
	level, changed := int(m.c.Meta.MapHeight), m.changed()
	below := func(level int, index uint64) []uint64 {
		return within(changed, index<<(fanBits*level), (index+1)<<(fanBits*level))
	}
	root, err := m.place(level-1, 0, m.meta.MapRoot, below(level-1, 0))
	for ; err == nil && level < int(m.meta.MapHeight); level++ {
		b := make([]byte, format.ChunkSize)
		binary.LittleEndian.PutUint64(b, uint64(root))
		for slot := uint64(1); err == nil && slot < format.RefsPerPage; slot++ {
			var to format.Ref
			to, err = m.place(level-1, slot, format.Unmapped, below(level-1, slot))
			binary.LittleEndian.PutUint64(b[slot*8:], uint64(to))
		}
		if root = format.Unmapped; err == nil && !isZero(b) {
			root, err = m.w.page(treeMap, uint8(level), 0, b)
		}
	}
	return root, err
}

// place puts what changed below a page into new pages and returns the reference to the page.
func (m *mender) place(level int, index uint64, r format.Ref, changed []uint64) (format.Ref, error) {
	if len(changed) == 0 {
		return r, nil
	}
	if level == 0 {
		if b := m.leaves[index]; b != nil && !isZero(b) {
			return m.w.page(treeMap, 0, index, b)
		}
		return format.Unmapped, nil
	}
	b := m.page(r)
	if b == nil {
		b = make([]byte, format.ChunkSize)
		if r != format.Unmapped && !m.whole {
			m.spoil(b, r)
		}
	}
	for slot := range uint64(format.RefsPerPage) {
		child := index<<fanBits | slot
		below := within(changed, child<<(fanBits*(level-1)), (child+1)<<(fanBits*(level-1)))
		to, err := m.place(level-1, child, refAt(b, int(slot)), below)
		if err != nil {
			return r, err
		}
		binary.LittleEndian.PutUint64(b[slot*8:], uint64(to))
	}
	if isZero(b) {
		return format.Unmapped, nil
	}
	return m.w.page(treeMap, uint8(level), index, b)
}

// within is the part of a sorted list that lies in [first, last).
func within(list []uint64, first, last uint64) []uint64 {
	a, _ := slices.BinarySearch(list, first)
	z, _ := slices.BinarySearch(list, last)
	return list[a:z]
}

func isZero(b []byte) bool {
	for _, x := range b {
		if x != 0 {
			return false
		}
	}
	return true
}

// count notes every chunk that a tree of the forward map leads to.
func (m *mender) count(level int, r format.Ref, head bool) {
	if r == format.Unmapped || !m.w.good(r) {
		return
	}
	b := m.w.read(r)
	if b == nil || m.used.set(r.Phys()) && !head {
		return
	}
	for slot := range format.RefsPerPage {
		to := refAt(b, slot)
		switch {
		case level > 0:
			m.count(level-1, to, head)
		case to == format.Unmapped:
		default:
			if head {
				m.mapped++
			}
			if m.w.good(to) {
				m.used.set(to.Phys())
			}
		}
	}
}
