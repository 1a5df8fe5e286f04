package recovery_test

import (
	"fmt"
	"testing"

	"cawrm/aodi/disk"
	"cawrm/aodi/format"
	recovery "cawrm/recover"
)

// builder makes a container by hand, of the smallest segments: 31 chunks for batches and one for the summary.
type builder struct {
	t      testing.TB
	d      *disk.Memory
	super  format.Super
	geo    format.Geometry
	meta   format.Meta
	log    format.LogPlace // where the next batch goes
	end    format.Position
	logged uint64
	inc    uint32
	free   uint32 // the next segment that nobody has
}

func newBuilder(t testing.TB) *builder {
	b := &builder{t: t, d: newDisk(t), super: format.Super{SegmentChunks: 32, Created: 1}, end: 100, inc: 3, free: 4}
	copy(b.super.Container[:], "a container here")
	b.geo = format.NewGeometry(b.super.SegmentChunks)
	b.log = format.LogPlace{Segment: 0, Next: 2, PrevCRC: 0xabcd, Seq: 10}
	b.must(b.d.Grow(b.geo.Bytes(16)))
	p := make([]byte, chunk)
	b.super.Encode(p)
	b.write(p, 0)
	b.checkpoint()
	return b
}

func (b *builder) must(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
}

func (b *builder) write(p []byte, off int64) { b.t.Helper(); b.must(b.d.WriteCached(p, off)) }

// checkpoint says that the map holds the log up to here.
func (b *builder) checkpoint() {
	b.meta.Seq++
	b.meta.Container, b.meta.Size, b.meta.Position, b.meta.Incarnation = b.super.Container, 1<<20, b.end, b.inc
	b.meta.MapHeight, b.meta.SegHeight, b.meta.Segments, b.meta.Logged = 1, 1, 4, b.logged
	b.meta.Log, b.meta.MetaSegment, b.meta.MetaNext = b.log, 1, 3
	b.writeMeta(b.meta)
}

func (b *builder) writeMeta(m format.Meta) {
	p := make([]byte, chunk)
	m.Encode(p)
	b.write(p, int64(1+m.Seq%2)*chunk)
}

// header is the next batch of the log, with n chunks of data.
func (b *builder) header(n int, flags uint8) (format.BatchHeader, []byte) {
	h := format.BatchHeader{Kind: format.BatchLog, Flags: flags, Tag: recovery.Tag(b.super.Container), Seq: b.log.Seq, First: b.end,
		End: b.end + format.Position(n), Time: 5, Logged: b.logged, Incarnation: b.inc, PrevCRC: b.log.PrevCRC, Data: uint16(n)}
	data := make([]byte, n*chunk)
	for i := range n {
		p := data[i*chunk : (i+1)*chunk]
		copy(p, fmt.Sprintf("position %d", b.end+format.Position(i)))
		h.Entries = append(h.Entries, format.Entry{Birth: b.end + format.Position(i), LBA: uint64(b.end) + uint64(i) - 100,
			Kind: format.KindData, Count: 1, CRC: format.Sum(p)})
	}
	return h, data
}

// add appends a batch of n chunks, in the next segment when this one is full, and returns its place.
func (b *builder) add(n int, flags uint8) recovery.Place {
	return b.addChanged(n, flags, nil)
}

// addChanged lets change have the header and the data before they are written.
func (b *builder) addChanged(n int, flags uint8, change func(h *format.BatchHeader, data []byte)) recovery.Place {
	b.t.Helper()
	if !recovery.Fits(b.geo, b.log.Chunk) {
		b.log.Segment, b.log.Chunk, b.log.Next = b.log.Next, 0, b.free
		b.free++
	}
	h, data := b.header(n, flags)
	h.Next = b.log.Next
	if change != nil {
		change(&h, data)
	}
	if b.log.Chunk+h.Chunks() > b.geo.Slots() {
		b.t.Fatalf("a batch of %d chunks does not fit behind chunk %d", n, b.log.Chunk)
	}
	at := recovery.Place{Segment: b.log.Segment, Chunk: b.log.Chunk}
	p := make([]byte, chunk, chunk+len(data))
	crc := h.Encode(p)
	b.write(append(p, data...), b.off(at))
	b.log.Chunk, b.log.PrevCRC, b.log.Seq = b.log.Chunk+h.Chunks(), crc, h.Seq+1
	b.end, b.logged = h.End, h.Logged+uint64(h.Data)
	return at
}

// fill appends committed batches until none fits the segment any more.
func (b *builder) fill() {
	b.t.Helper()
	for recovery.Fits(b.geo, b.log.Chunk) {
		b.add(int(min(9, b.geo.Slots()-b.log.Chunk-1)), format.FlagCommit)
	}
}

func (b *builder) off(p recovery.Place) int64 {
	return int64(b.geo.Phys(p.Segment, p.Chunk)) * chunk
}

// damage flips one bit of a chunk.
func (b *builder) damage(p recovery.Place, chunks uint32, at int) {
	b.t.Helper()
	flip(b.t, b.d, b.off(p)+int64(chunks)*chunk+int64(at))
}

func flip(t testing.TB, d disk.Disk, off int64) {
	t.Helper()
	p := make([]byte, chunk)
	base := off / chunk * chunk
	if err := d.ReadAt(p, base); err != nil {
		t.Fatal(err)
	}
	p[off-base] ^= 0x40
	if err := d.WriteCached(p, base); err != nil {
		t.Fatal(err)
	}
}

// wipe makes n chunks what nobody has written.
func (b *builder) wipe(p recovery.Place, n int) { b.write(make([]byte, n*chunk), b.off(p)) }
