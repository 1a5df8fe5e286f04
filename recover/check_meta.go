package recovery

import (
	"errors"
	"fmt"

	"cawrm/aodi/disk"
	"cawrm/aodi/format"
)

// readMeta reads meta chunk A (0) or B (1).
func readMeta(d disk.Disk, i int) (m format.Meta, diskErr, err error) {
	b := make([]byte, format.ChunkSize)
	if diskErr = d.ReadAt(b, int64(1+i)*format.ChunkSize); diskErr != nil {
		return
	}
	m, err = format.DecodeMeta(b)
	return
}

// checkMeta looks at C1 and C2.
func (k *checker) checkMeta() error {
	m := &k.c.Meta
	own := int(m.Seq % 2)
	at, diskErr, err := readMeta(k.d, own)
	if diskErr != nil {
		return diskErr
	}
	if err != nil || at.Seq != m.Seq {
		k.rep.bad(1, "checkpoint %d stands in meta chunk %s (byte %d), not in %s", m.Seq, metaName(1-own), (2-own)*format.ChunkSize, metaName(own))
		own = 1 - own
	}
	other, diskErr, err := readMeta(k.d, 1-own)
	name := fmt.Sprintf("meta chunk %s (byte %d)", metaName(1-own), (2-own)*format.ChunkSize)
	switch {
	case diskErr != nil:
		return diskErr
	case errors.Is(err, format.ErrMagic):
		k.rep.note("%s was never written, or is torn", name)
	case err != nil:
		k.rep.note("%s does not count: %v", name, err)
	case other.Container != m.Container:
		k.rep.bad(1, "%s belongs to container %s", name, other.Container)
	case other.Seq >= m.Seq:
		k.rep.bad(1, "%s holds checkpoint %d beside checkpoint %d", name, other.Seq, m.Seq)
	}
	k.checkHeads()
	k.checkSizes()
	return nil
}

func metaName(i int) string { return string(rune('A' + i)) }

// checkHeads looks at the places that a checkpoint names.
func (k *checker) checkHeads() {
	m := &k.c.Meta
	seen := map[uint32]string{}
	for _, h := range []struct {
		name string
		seg  uint32
		used bool // what is reserved or empty may not be there yet
	}{{"log head", m.Log.Segment, m.Log.Chunk > 0}, {"reserved log segment", m.Log.Next, false},
		{"page head", m.MetaSegment, m.MetaChunk > 0}, {"reserved page segment", m.MetaNext, false},
		{"cold head", coldHead(m), m.ColdChunk > 0}} {
		if h.seg == noSegment {
			continue
		}
		if h.used && uint64(h.seg) >= m.Segments {
			k.rep.bad(2, "the %s is segment %d of %d", h.name, h.seg, m.Segments)
		}
		if other, ok := seen[h.seg]; ok {
			k.rep.bad(2, "segment %d is %s and %s", h.seg, other, h.name)
		}
		seen[h.seg] = h.name
	}
	if m.Log.Chunk > k.geo.Slots() {
		k.rep.bad(2, "the log goes on at chunk %d of segment %d, which has %d", m.Log.Chunk, m.Log.Segment, k.geo.Slots())
	}
	if m.MetaChunk > k.geo.Slots() {
		k.rep.bad(2, "pages go on at chunk %d of segment %d, which has %d", m.MetaChunk, m.MetaSegment, k.geo.Slots())
	}
	if m.ColdChunk > k.geo.Slots() {
		k.rep.bad(2, "cold chunks go on at chunk %d of segment %d, which has %d", m.ColdChunk, m.ColdSegment, k.geo.Slots())
	}
}

// coldHead is the segment that cleaning goes on in, or noSegment.
func coldHead(m *format.Meta) uint32 {
	if m.ColdChunk == 0 {
		return noSegment
	}
	return m.ColdSegment
}

func (k *checker) checkSizes() {
	m := &k.c.Meta
	if n := span(m.MapHeight, format.RefsPerPage); n < k.limit {
		k.rep.bad(2, "a forward map of height %d holds %d chunks, the volume has %d", m.MapHeight, n, k.limit)
	}
	if n := span(m.SegHeight, format.RowsPerPage); n < m.Segments {
		k.rep.bad(2, "a segment tree of height %d holds %d rows, the container has %d", m.SegHeight, n, m.Segments)
	}
	if m.HistoryFl > m.Position || m.TrimFloor > m.Position {
		k.rep.bad(2, "history_floor %d or trim_floor %d lies above position %d", m.HistoryFl, m.TrimFloor, m.Position)
	}
	j := m.Jump
	if _, cursor := j.Got.Least(); j.End > 0 &&
		(j.End <= m.Position || j.Got.Newest() > j.End || cursor > jumpLimit(m) || jumpLimit(m) < k.limit || !j.Got.Valid()) {
		k.rep.bad(2, "a jump epoch up to %d, of which %v of %d has come, does not fit position %d of a volume of %d chunks", j.End, j.Got,
			jumpLimit(m), m.Position, k.limit)
	}
	if used := m.Segments - min(m.Segments, m.Free); m.Capacity > 0 && k.geo.Bytes(used) > m.Capacity {
		k.rep.bad(2, "%d segments in use take %d bytes, the capacity is %d", used, k.geo.Bytes(used), m.Capacity)
	}
	if m.Flags&format.FlagNoIdentity != 0 && (m.Size != 0 || m.Mapped != 0 || m.MapRoot != format.Unmapped || !m.Volume.IsZero()) {
		k.rep.bad(2, "the container has no identity, but size %d, %d mapped chunks and volume id %s", m.Size, m.Mapped, m.Volume)
	}
}

// jumpLimit is the number of chunks that the volume has when the jump epoch is whole.
func jumpLimit(m *format.Meta) uint64 {
	if m.Jump.Size == 0 {
		return uint64(m.Size) / format.ChunkSize
	}
	return uint64(m.Jump.Size) / format.ChunkSize
}

// jumpHeight is the height of the epoch's map: that of the volume's, or more where it brings a larger size.
func jumpHeight(m *format.Meta) uint32 {
	h := m.MapHeight
	for span(h, format.RefsPerPage) < jumpLimit(m) {
		h++
	}
	return h
}

// span is the number of entries that a tree of that height holds.
func span(height uint32, perLeaf uint64) uint64 {
	for ; height > 1; height-- {
		perLeaf *= format.RefsPerPage
	}
	return perLeaf
}

// loadCatalog reads the catalog (C3). Its place is checked when its chunks are claimed.
func (k *checker) loadCatalog() {
	cat, err := ReadCatalog(k.d, k.c)
	if err != nil {
		k.rep.bad(3, "%v", err)
	}
	k.rep.Catalog = cat
}

// ReadCatalog reads a checkpoint's catalog. Errors: the disk's, format.ErrChecksum, format.ErrInvalid, with the place.
func ReadCatalog(d disk.Disk, c *Container) (format.Catalog, error) {
	return readCatalog(d, format.CatalogPart{Ref: c.Meta.Catalog, Len: c.Meta.CatalogLen})
}

func readCatalog(d disk.Disk, first format.CatalogPart) (format.Catalog, error) {
	at := first
	cat, err := format.ReadCatalog(first, func(p format.CatalogPart) ([]byte, error) {
		at = p
		off := int64(p.Ref.Phys()) * format.ChunkSize
		if off+int64(p.Len) > d.Size() {
			return nil, fmt.Errorf("its place is not in a segment: %w", format.ErrInvalid)
		}
		b := make([]byte, p.Len) // at most format.MaxCatalog
		return b, d.ReadAt(b, off)
	})
	if err != nil {
		err = fmt.Errorf("catalog (byte %d, %d bytes): %w", int64(at.Ref.Phys())*format.ChunkSize, at.Len, err)
	}
	return cat, err
}

// checkCatalog looks at what the catalog says (C3), once the end of the log is known.
func (k *checker) checkCatalog() {
	m, cat := &k.c.Meta, &k.rep.Catalog
	identity := m.Flags&format.FlagNoIdentity == 0
	fresh := m.Incarnation == 0 // created and never opened: its lineage is the volume's id
	if k.rep.Broken[3] > 0 {
		return // it could not be read
	}
	if identity != (len(cat.Lineage) > 0) && !fresh {
		k.rep.bad(3, "the lineage has %d links, and the container %s", len(cat.Lineage), map[bool]string{true: "has an identity", false: "has none"}[identity])
	}
	for i, l := range cat.Lineage {
		if l.ID.IsZero() {
			k.rep.bad(3, "lineage link %d has no id", i)
		}
		if i > 0 && l.Start <= cat.Lineage[i-1].Start {
			k.rep.bad(3, "lineage link %d starts at %d, the one before it at %d", i, l.Start, cat.Lineage[i-1].Start)
		}
	}
	for _, r := range cat.Mirrors {
		if r.SyncPtr > k.rep.RolledEnd {
			k.rep.bad(3, "mirror %q: sync_ptr %d is above durable_ptr %d", r.ID, r.SyncPtr, k.rep.RolledEnd)
		}
	}
	for _, s := range cat.Snapshots {
		if s.Position > m.Position || s.Size < 0 || s.Size > format.MaxLogicalSize || s.Height < 1 || s.Height > maxHeight {
			k.rep.bad(3, "snapshot %q: position %d (checkpoint: %d), size %d, height %d", s.Name, s.Position, m.Position, s.Size, s.Height)
		}
	}
}
