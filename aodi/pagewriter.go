package aodi

import (
	"sort"

	"cawrm/aodi/format"
)

// The second step of a checkpoint: without locks, what freeze has placed goes to the disk.

// writeFrozen writes what freeze has placed. The pages are immutable and the catalog is the checkpoint's own, so no lock is held.
func (v *Volume) writeFrozen(f *frozen) error {
	w := &pageWriter{v: v, f: f}
	w.finals()
	if err := f.completeCatalog(w); err != nil {
		return err
	}
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
	w.root(&f.meta.Jump.Root)
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
		copy(data, w.f.catalogBytes[b.part])
	}
	for i, p := range b.pages {
		w.render(data[i*chunkSize:(i+1)*chunkSize], p)
		h.Entries = append(h.Entries, w.v.pageEntry(p))
	}
	for i := range b.catalog {
		h.Entries = append(h.Entries, w.v.catalogEntry(b.number+i))
	}
	for i := range h.Entries {
		sum := format.Sum(data[i*chunkSize : (i+1)*chunkSize])
		h.Entries[i].CRC = sum
		w.sums[w.v.geo.Phys(b.segment, b.chunk+1+uint32(i))] = sum
	}
	h.Encode(w.buf)
	return w.v.d.WriteCached(w.buf[:(1+n)*chunkSize], int64(w.v.geo.Phys(b.segment, b.chunk))*chunkSize)
}
