package recovery_test

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"cawrm/aodi"
	"cawrm/aodi/disk"
	"cawrm/aodi/format"
	recovery "cawrm/recover"
)

// patient is a container that the volume made, and that a test breaks.
type patient struct {
	t    testing.TB
	d    *disk.Memory
	geo  format.Geometry
	meta format.Meta
}

// healthy is the image of newPatient's container, made once.
var healthy struct {
	sync.Once
	image []byte
}

// newPatient is the healthy container of all tests: some segments of each kind, holes, zeroes, dead chunks, a mirror.
func newPatient(t testing.TB) *patient {
	t.Helper()
	healthy.Do(func() { healthy.image = makePatient(t) })
	p := &patient{t: t, d: newDisk(t)}
	p.must(p.d.WriteCached(healthy.image, 0))
	p.must(p.d.Sync())
	p.load()
	return p
}

func makePatient(t testing.TB) []byte {
	t.Helper()
	d := newDisk(t)
	p := &patient{t: t, d: d}
	p.must(aodi.CreateOn(d, aodi.CreateOptions{Size: 2000 * chunk, SegmentChunks: 32}))
	v := open(t, d, quiet)
	rng := newRand(42)
	churn(t, v, rng, 40)
	v.RememberMirror(format.Mirror{ID: "b", URL: "cawrm://b", SyncPtr: 5})
	p.must(v.Checkpoint())
	churn(t, v, rng, 40)
	for i := range int64(12) { // map pages move on, and segments of them become free
		p.must(v.WriteAt(make([]byte, chunk), i*chunk, false))
		p.must(v.Checkpoint())
	}
	data := make([]byte, 20*chunk) // a known run: logical chunks 100 to 119 stand behind each other
	for i := range 20 {
		copy(data[i*chunk:], fmt.Sprintf("logical chunk %d", 100+i))
	}
	p.must(v.WriteAt(data, 100*chunk, true))
	p.must(v.WriteZeroes(90*chunk, 5*chunk, true, false))
	p.must(v.Trim(80*chunk, 5*chunk, false))
	p.must(v.Close())
	return p.read(0, int(d.Size()))
}

func (p *patient) must(err error) {
	p.t.Helper()
	if err != nil {
		p.t.Fatal(err)
	}
}

func (p *patient) load() {
	p.t.Helper()
	c, err := recovery.Newest(p.d)
	p.must(err)
	p.meta, p.geo = c.Meta, c.Geo
}

func (p *patient) read(off int64, n int) []byte {
	p.t.Helper()
	b := make([]byte, n)
	p.must(p.d.ReadAt(b, off))
	return b
}

func (p *patient) write(b []byte, off int64) { p.t.Helper(); p.must(p.d.WriteCached(b, off)) }

func (p *patient) setMeta(change func(m *format.Meta)) {
	change(&p.meta)
	b := make([]byte, chunk)
	p.meta.Encode(b)
	p.write(b, int64(1+p.meta.Seq%2)*chunk)
}

// edit changes a leaf in place and mends the checksums in the references above it.
func (p *patient) edit(root format.Ref, height uint32, leaf uint64, change func(b []byte)) format.Ref {
	p.t.Helper()
	off := int64(root.Phys()) * chunk
	b := p.read(off, chunk)
	if height == 1 {
		change(b)
	} else {
		slot := leaf >> (9 * (height - 2)) & 511
		child := format.Ref(binary.LittleEndian.Uint64(b[slot*8:]))
		binary.LittleEndian.PutUint64(b[slot*8:], uint64(p.edit(child, height-1, leaf, change)))
	}
	p.write(b, off)
	return format.MakeRef(root.Phys(), format.Sum(b))
}

func (p *patient) ref(lba uint64) (r format.Ref) {
	p.t.Helper()
	p.edit(p.meta.MapRoot, p.meta.MapHeight, lba/512, func(b []byte) {
		r = format.Ref(binary.LittleEndian.Uint64(b[lba%512*8:]))
	})
	return r
}

func (p *patient) setRef(lba uint64, r format.Ref) {
	p.t.Helper()
	root := p.edit(p.meta.MapRoot, p.meta.MapHeight, lba/512, func(b []byte) {
		binary.LittleEndian.PutUint64(b[lba%512*8:], uint64(r))
	})
	p.setMeta(func(m *format.Meta) { m.MapRoot = root })
}

func (p *patient) setRow(seg uint32, change func(r *format.SegmentRow)) {
	p.t.Helper()
	root := p.edit(p.meta.SegRoot, p.meta.SegHeight, uint64(seg)/256, func(b []byte) {
		r := format.GetSegmentRow(b[seg%256*16:])
		change(&r)
		r.Put(b[seg%256*16:])
	})
	p.setMeta(func(m *format.Meta) { m.SegRoot = root })
}

func (p *patient) row(seg uint32) (row format.SegmentRow) {
	p.setRow(seg, func(r *format.SegmentRow) { row = *r })
	return row
}

// segment finds a segment by its row.
func (p *patient) segment(is func(r format.SegmentRow) bool) uint32 {
	p.t.Helper()
	for seg := range uint32(p.meta.Segments) {
		if is(p.row(seg)) {
			return seg
		}
	}
	p.t.Fatal("the container has no such segment")
	return 0
}

func sealedLog(r format.SegmentRow) bool {
	return r.State == format.SegmentSealed && r.Kind == format.BatchLog && r.Live > 0
}

func (p *patient) off(seg, i uint32) int64 { return int64(p.geo.Phys(seg, i)) * chunk }

func (p *patient) flip(off int64) { flip(p.t, p.d, off) }

func (p *patient) editSummary(seg uint32, change func(s *format.Summary)) {
	p.t.Helper()
	off := p.off(seg, p.geo.Slots())
	b := p.read(off, int(p.geo.SummaryChunks)*chunk)
	s, err := format.DecodeSummary(p.geo, b)
	p.must(err)
	change(&s)
	s.Encode(p.geo, b)
	p.write(b, off)
}

// append puts one more batch behind the log, as a crash would leave it.
func (p *patient) append(change func(h *format.BatchHeader, data []byte)) {
	p.t.Helper()
	m := &p.meta
	data := make([]byte, chunk)
	h := format.BatchHeader{Kind: format.BatchLog, Flags: format.FlagCommit, Tag: recovery.Tag(m.Container), Seq: m.Log.Seq, First: m.Position,
		End: m.Position + 1, Logged: m.Logged, Incarnation: m.Incarnation, PrevCRC: m.Log.PrevCRC, Next: m.Log.Next, Data: 1,
		Entries: []format.Entry{{Birth: m.Position, LBA: 3, Kind: format.KindData, Count: 1, CRC: format.Sum(data)}}}
	change(&h, data)
	b := make([]byte, chunk, 2*chunk)
	h.Encode(b)
	p.write(append(b, data...), p.off(m.Log.Segment, m.Log.Chunk))
}

func (p *patient) notClean() {
	p.setMeta(func(m *format.Meta) { m.Flags &^= format.FlagClean })
}

// TestCheckFinds ensures that each rule is looked at: a container that was broken in one way is found to be.
// also: rules that the same damage breaks too.
func TestCheckFinds(t *testing.T) {
	for _, row := range []struct {
		rule recovery.Rule
		name string
		hurt func(p *patient)
		also []recovery.Rule
		says string
	}{
		{1, "both meta chunks hold the newest checkpoint", func(p *patient) {
			p.write(p.read(int64(1+p.meta.Seq%2)*chunk, chunk), int64(2-p.meta.Seq%2)*chunk)
		}, nil, "holds checkpoint"},
		{1, "the newest checkpoint is in the other chunk", func(p *patient) {
			m := p.meta
			m.Seq++
			b := make([]byte, chunk)
			m.Encode(b)
			p.write(b, int64(2-m.Seq%2)*chunk)
		}, nil, "stands in meta chunk"},
		{1, "the other chunk is another container's", func(p *patient) {
			m := p.meta
			m.Seq--
			m.Container[3]++
			b := make([]byte, chunk)
			m.Encode(b)
			p.write(b, int64(1+m.Seq%2)*chunk)
		}, nil, "belongs to container"},
		{2, "one segment is two heads", func(p *patient) { p.setMeta(func(m *format.Meta) { m.Log.Next = m.MetaSegment }) }, []recovery.Rule{10}, "log segment and page head"},
		{2, "a head beyond the end", func(p *patient) { p.setMeta(func(m *format.Meta) { m.MetaSegment = 1 << 20 }) }, []recovery.Rule{10, 15}, "page head is segment"},
		{2, "the log goes on in the summary", func(p *patient) { p.setMeta(func(m *format.Meta) { m.Log.Chunk = 32 }) }, []recovery.Rule{15, 21}, "goes on at chunk 32"},
		{2, "pages go on behind the segment", func(p *patient) { p.setMeta(func(m *format.Meta) { m.MetaChunk = 33 }) }, []recovery.Rule{15}, "pages go on at"},
		{2, "the map is not high enough", func(p *patient) { p.setMeta(func(m *format.Meta) { m.Size = 300000 * chunk }) }, nil, "height 2 holds"},
		{2, "a floor above the position", func(p *patient) { p.setMeta(func(m *format.Meta) { m.TrimFloor = m.Position + 1 }) }, nil, "trim_floor"},
		{2, "beyond the capacity", func(p *patient) { p.setMeta(func(m *format.Meta) { m.Capacity = 1 << 20 }) }, nil, "capacity"},
		{2, "content without identity", func(p *patient) { p.setMeta(func(m *format.Meta) { m.Flags |= format.FlagNoIdentity }) }, []recovery.Rule{3}, "no identity"},
		{3, "the catalog is damaged", func(p *patient) { p.flip(int64(p.meta.Catalog.Phys())*chunk + 5) }, nil, format.ErrChecksum.Error()},
		{3, "the catalog does not decode", func(p *patient) { p.setCatalog([]byte{9, 0, 0, 0}) }, nil, format.ErrInvalid.Error()},
		{3, "the catalog is nowhere", func(p *patient) { p.setMeta(func(m *format.Meta) { m.Catalog = 7 }) }, []recovery.Rule{11}, "not in a segment"},
		{3, "a lineage that goes back", func(p *patient) {
			p.editCatalog(func(c *format.Catalog) {
				c.Lineage = append(c.Lineage, format.Lineage{ID: format.UUID{1}, Start: c.Lineage[len(c.Lineage)-1].Start})
			})
		}, nil, "starts at"},
		{3, "no lineage", func(p *patient) { p.editCatalog(func(c *format.Catalog) { c.Lineage = nil }) }, nil, "0 links"},
		{3, "a lineage without id", func(p *patient) { p.editCatalog(func(c *format.Catalog) { c.Lineage[0].ID = format.UUID{} }) }, nil, "no id"},
		{3, "a mirror that is ahead", func(p *patient) {
			p.editCatalog(func(c *format.Catalog) { c.Mirrors[0].SyncPtr = p.meta.Position + 1 })
		}, nil, `mirror "b"`},
		{3, "a snapshot of the future", func(p *patient) {
			p.editCatalog(func(c *format.Catalog) {
				c.Snapshots = []format.Snapshot{{Name: "s", Position: p.meta.Position + 1, Root: p.meta.MapRoot, Height: p.meta.MapHeight, Size: p.meta.Size}}
			})
		}, nil, `snapshot "s"`},
		{4, "a leaf of the map is damaged", func(p *patient) { p.flip(p.pageOff(p.meta.MapRoot, p.meta.MapHeight, 0) + 9) }, nil, "page 0 of level 0 of the forward map"},
		{4, "the root of the map is damaged", func(p *patient) { p.flip(int64(p.meta.MapRoot.Phys())*chunk + 4095) }, nil, "level 1 of the forward map"},
		{4, "a leaf of the segment tree is damaged", func(p *patient) { p.flip(p.pageOff(p.meta.SegRoot, p.meta.SegHeight, 0)) }, nil, "page 0 of level 0 of the segment tree"},
		{5, "a reference beyond the end", func(p *patient) { p.setRef(100, format.MakeRef(p.geo.Phys(1<<20, 3), 1)) }, []recovery.Rule{11, 18}, "logical chunk 100"},
		{5, "a reference before the start", func(p *patient) { p.setRef(100, 17) }, []recovery.Rule{11, 18}, "leads to chunk 17"},
		{5, "a reference to a summary", func(p *patient) {
			seg, _ := p.geo.Locate(p.ref(100).Phys())
			p.setRef(100, format.MakeRef(p.geo.Phys(seg, 31), 1))
		}, []recovery.Rule{11, 18}, "in the summary"},
		{6, "a reference to a page", func(p *patient) { p.setRef(100, format.MakeRef(p.geo.Phys(p.meta.MetaSegment, 1), 1)) }, []recovery.Rule{11, 18}, "segment of pages"},
		{6, "a reference to a free segment", func(p *patient) {
			seg := p.segment(func(r format.SegmentRow) bool { return r.State == format.SegmentFree })
			p.setRef(100, format.MakeRef(p.geo.Phys(seg, 1), 1))
		}, []recovery.Rule{11, 18}, "free segment"},
		{6, "a segment that is used is called free", func(p *patient) {
			seg, _ := p.geo.Locate(p.ref(100).Phys())
			p.setRow(seg, func(r *format.SegmentRow) { *r = format.SegmentRow{} })
		}, []recovery.Rule{10, 13, 18}, "free segment"},
		{7, "two logical chunks share a place", func(p *patient) { p.setRef(100, p.ref(101)) }, []recovery.Rule{11, 18}, "logical chunk 100 and logical chunk 101"},
		{8, "a chunk beyond the size is mapped", func(p *patient) {
			p.setMeta(func(m *format.Meta) { m.Size = 110 * chunk })
		}, nil, "logical chunk 119 is mapped, the volume ends at 110"},
		{8, "a row beyond the segments", func(p *patient) {
			p.setRow(uint32(p.meta.Segments)+3, func(r *format.SegmentRow) { r.State = format.SegmentSealed })
		}, []recovery.Rule{18}, "has a row"},
		{9, "a free row that is not zero", func(p *patient) {
			seg := p.segment(func(r format.SegmentRow) bool { return r.State == format.SegmentFree })
			p.setRow(seg, func(r *format.SegmentRow) { r.MaxPosition = 4 })
		}, []recovery.Rule{18}, "is free, but"},
		{9, "an unknown state", func(p *patient) { p.setRow(p.segment(sealedLog), func(r *format.SegmentRow) { r.State = 7 }) }, []recovery.Rule{14, 18}, "state 7"},
		{9, "an unknown kind", func(p *patient) { p.setRow(p.segment(sealedLog), func(r *format.SegmentRow) { r.Kind = 9 }) }, []recovery.Rule{14, 15, 18}, "kind 9"},
		{10, "the log head is sealed", func(p *patient) {
			p.setRow(p.meta.Log.Segment, func(r *format.SegmentRow) { r.State = format.SegmentSealed })
		}, []recovery.Rule{14, 17, 18}, "is the head of log"},
		{10, "an open segment that nobody fills", func(p *patient) {
			p.setRow(p.segment(sealedLog), func(r *format.SegmentRow) { r.State = format.SegmentOpen })
		}, []recovery.Rule{15, 18}, "neither head nor reserved"},
		{10, "a reserved segment that holds something", func(p *patient) {
			p.setMeta(func(m *format.Meta) { m.Log.Next = p.segment(sealedLog) })
		}, []recovery.Rule{15, 18}, "is reserved for log"},
		{11, "a live count too high", func(p *patient) { p.setRow(p.segment(sealedLog), func(r *format.SegmentRow) { r.Live++ }) }, []recovery.Rule{13, 18}, "its row says"},
		{11, "a live count too low", func(p *patient) { p.setRow(p.meta.MetaSegment, func(r *format.SegmentRow) { r.Live-- }) }, []recovery.Rule{18}, "pages) has"},
		{12, "too many mapped", func(p *patient) { p.setMeta(func(m *format.Meta) { m.Mapped++ }) }, nil, "chunks are mapped"},
		{13, "a wrong count of live chunks", func(p *patient) { p.setMeta(func(m *format.Meta) { m.Live++ }) }, nil, "chunks of data are live"},
		{12, "a lost mapping", func(p *patient) { p.setRef(100, format.Unmapped) }, []recovery.Rule{11, 18}, "chunks are mapped"},
		{12, "zeroes count as mapped", func(p *patient) { p.setRef(80, format.ZeroRef) }, []recovery.Rule{18}, "chunks are mapped"},
		{13, "too many free", func(p *patient) { p.setMeta(func(m *format.Meta) { m.Free++ }) }, nil, "segments are free"},
		{14, "a damaged summary", func(p *patient) { p.flip(p.off(p.segment(sealedLog), 31) + 700) }, nil, format.ErrChecksum.Error()},
		{14, "another segment's summary", func(p *patient) {
			p.editSummary(p.segment(sealedLog), func(s *format.Summary) { s.Segment++ })
		}, nil, "is of segment"},
		{14, "a summary that never arrived", func(p *patient) { p.write(make([]byte, chunk), p.off(p.segment(sealedLog), 31)) }, nil, format.ErrMagic.Error()},
		{15, "a damaged header in a sealed segment", func(p *patient) { p.flip(p.off(p.segment(sealedLog), 0) + 99) }, nil, format.ErrChecksum.Error()},
		{15, "a damaged header in the log head", func(p *patient) { p.flip(p.off(p.meta.Log.Segment, 0) + 99) }, []recovery.Rule{18}, format.ErrChecksum.Error()},
		{15, "a header of a later incarnation", func(p *patient) {
			p.editHeader(p.meta.Log.Segment, 0, func(h *format.BatchHeader) { h.Incarnation = 99 })
		}, []recovery.Rule{18}, "incarnation 99"},
		{15, "a gap in the chain", func(p *patient) {
			p.editHeader(p.meta.Log.Segment, 0, func(h *format.BatchHeader) { h.Time++ })
		}, []recovery.Rule{18, 21}, "as the checksum of the header before it"},
		{16, "a slot that says something else", func(p *patient) {
			p.editSummary(p.segment(sealedLog), func(s *format.Summary) { s.Slots[1].Birth++ })
		}, nil, "the summary says"},
		{16, "a slot too many", func(p *patient) {
			p.editSummary(p.segment(sealedLog), func(s *format.Summary) {
				n := len(s.Slots) - 1
				for s.Slots[n].Kind != format.KindNone && n > 0 {
					n--
				}
				if n == 0 {
					s.Slots[len(s.Slots)-1] = format.Entry{Kind: format.KindHeader}
					return
				}
				s.Slots[n] = s.Slots[1]
			})
		}, []recovery.Rule{15, 18}, "summary"},
		{17, "a maximum below a birth", func(p *patient) { p.setRow(p.segment(sealedLog), func(r *format.SegmentRow) { r.MaxPosition = 1 }) }, []recovery.Rule{18}, "has a birth"},
		{17, "a maximum above the position", func(p *patient) {
			p.setRow(p.segment(sealedLog), func(r *format.SegmentRow) { r.MaxPosition = p.meta.Position + 1 })
		}, []recovery.Rule{18}, "above the checkpoint's"},
		{17, "births that do not grow", func(p *patient) {
			p.notClean()
			p.append(func(h *format.BatchHeader, _ []byte) { h.Entries[0].Birth-- })
		}, nil, "holds logical chunk 3"},
		{18, "two chunks have changed places", func(p *patient) {
			a, b := p.ref(100), p.ref(101)
			p.setRef(100, b)
			p.setRef(101, a)
		}, nil, "logical chunk 100 with checksum"},
		{18, "another chunk's checksum", func(p *patient) { p.setRef(100, format.MakeRef(p.ref(100).Phys(), 1)) }, []recovery.Rule{20}, "checksum 000001"},
		{18, "a reference to a batch header", func(p *patient) {
			seg, i := p.geo.Locate(p.ref(100).Phys())
			for p.read(p.off(seg, i), 4)[0] != 'C' { // of CBAT; the data of this run begin with another letter
				i--
			}
			p.setRef(100, format.MakeRef(p.geo.Phys(seg, i), format.Sum(p.read(p.off(seg, i), chunk))))
		}, []recovery.Rule{11}, "a batch header"},
		{19, "born in the future", func(p *patient) { p.setMeta(func(m *format.Meta) { m.Position -= 3 }) }, []recovery.Rule{17, 21, 3}, "was born at"},
		{20, "one bit of data", func(p *patient) { p.flip(int64(p.ref(107).Phys())*chunk + 2345) }, nil, "logical chunk 107"},
		{21, "another checksum before the log's end", func(p *patient) { p.setMeta(func(m *format.Meta) { m.Log.PrevCRC++ }) }, nil, "the checkpoint says"},
		{21, "another count of logged chunks", func(p *patient) { p.setMeta(func(m *format.Meta) { m.Logged++ }) }, nil, "chunks logged"},
		{22, "something to roll after a clean close", func(p *patient) { p.append(func(*format.BatchHeader, []byte) {}) }, nil, "closed in order"},
		{22, "a record beyond the end of the volume", func(p *patient) {
			p.notClean()
			p.append(func(h *format.BatchHeader, _ []byte) { h.Entries[0].LBA = 2000 })
		}, nil, "the volume ends at 2000"},
		{22, "positions that leave a gap", func(p *patient) {
			p.notClean()
			p.append(func(h *format.BatchHeader, _ []byte) { h.First++; h.End++; h.Entries[0].Birth++ })
		}, nil, "the log before it ends at"},
		{22, "a lost checkpoint", func(p *patient) {
			p.append(func(h *format.BatchHeader, _ []byte) { h.Incarnation++ })
		}, nil, recovery.ErrLostCheckpoint.Error()},
	} {
		t.Run(fmt.Sprintf("%v %s", row.rule, row.name), func(t *testing.T) {
			p := newPatient(t)
			row.hurt(p)
			rep, err := recovery.Check(p.d, recovery.CheckOptions{})
			if err != nil {
				t.Fatal(err)
			}
			var out strings.Builder
			p.must(rep.Print(&out))
			if rep.OK() || rep.Broken[row.rule] == 0 {
				t.Fatalf("%v is not found broken:\n%s", row.rule, out.String())
			}
			if !slices.ContainsFunc(rep.Violations, func(v recovery.Violation) bool { return v.Rule == row.rule && strings.Contains(v.Text, row.says) }) {
				t.Errorf("no line of %v says %q:\n%s", row.rule, row.says, out.String())
			}
			if small, err := recovery.Check(p.d, recovery.CheckOptions{Memory: 1}); err != nil || small.Counts.Passes < 5 ||
				fmt.Sprint(small.Broken) != fmt.Sprint(rep.Broken) {
				t.Errorf("in many passes %v, in one %v, %v", small.Broken, rep.Broken, err)
			}
			p.must(recovery.Dump(p.d, recovery.DumpOptions{Segment: int(p.meta.Log.Segment), LBA: 100, Verbose: true}, recovery.Text(&out)))
			for rule := range rep.Broken {
				// An edited page or header no longer has the checksum that its entry says: C16 and C18, of the test's own making.
				if rule != row.rule && !slices.Contains(row.also, rule) && rule != 16 && rule != 18 {
					t.Errorf("%v is said to be broken too:\n%s", rule, out.String())
				}
			}
		})
	}
}

// pageOff is where a leaf stands.
func (p *patient) pageOff(root format.Ref, height uint32, leaf uint64) int64 {
	for ; height > 1; height-- {
		b := p.read(int64(root.Phys())*chunk, chunk)
		root = format.Ref(binary.LittleEndian.Uint64(b[leaf>>(9*(height-2))&511*8:]))
	}
	return int64(root.Phys()) * chunk
}

// setCatalog puts other bytes in the catalog's place, which are not longer.
func (p *patient) setCatalog(b []byte) {
	p.t.Helper()
	c := make([]byte, chunk)
	copy(c, b)
	p.write(c, int64(p.meta.Catalog.Phys())*chunk)
	p.setMeta(func(m *format.Meta) {
		m.Catalog, m.CatalogLen = format.MakeRef(m.Catalog.Phys(), format.Sum(b)), uint32(len(b))
	})
}

func (p *patient) editCatalog(change func(c *format.Catalog)) {
	p.t.Helper()
	cat, err := format.DecodeCatalog(p.read(int64(p.meta.Catalog.Phys())*chunk, int(p.meta.CatalogLen)))
	p.must(err)
	change(&cat)
	b, err := cat.Encode(nil)
	p.must(err)
	p.setCatalog(b)
}

func (p *patient) editHeader(seg, i uint32, change func(h *format.BatchHeader)) {
	p.t.Helper()
	b := p.read(p.off(seg, i), chunk)
	var h format.BatchHeader
	p.must(h.Decode(b))
	change(&h)
	h.Encode(b)
	p.write(b, p.off(seg, i))
}
