package aodi

import (
	"encoding/binary"
	"fmt"
	"sync"
	"sync/atomic"

	"cawrm/aodi/disk"
	"cawrm/aodi/format"

	"github.com/edsrzf/mmap-go"
)

// A page of a tree is in one of two places. Pages of the last checkpoint are in the container, immutable,
// and read through a read-only mapping whose memory the kernel can take back. Pages newer than that are in
// an arena of anonymous memory outside the Go heap, where they are changed in place. The reference in the
// parent says which: bit 39 of the physical chunk marks a number in the arena.
//
// A page of the arena belongs to a generation. A checkpoint closes a generation: its pages are frozen, and
// who wants to change one copies it first.

const (
	memoryMark = 1 << 39
	arenaBlock = 1024 // pages that are mapped at a time
)

type ref = format.Ref

func memoryRef(page uint32) ref       { return ref(memoryMark | uint64(page)) }
func inMemory(r ref) bool             { return r.Phys()&memoryMark != 0 }
func memoryPage(r ref) uint32         { return uint32(r.Phys() &^ memoryMark) }
func refAt(page []byte, i uint64) ref { return ref(binary.LittleEndian.Uint64(page[i*8:])) }
func setRef(page []byte, i uint64, r ref) {
	binary.LittleEndian.PutUint64(page[i*8:], uint64(r))
}

// pageInfo says what an arena page is and which page on disk it replaces.
type pageInfo struct {
	gen   uint64
	tree  *tree
	level uint8
	index uint64 // number of the page in its level
	old   ref    // the page on disk that it replaces; Unmapped when there is none
	final ref    // frozen pages: where the checkpoint puts it
	more  int    // maps, or pages of maps, that share it beside the first; who writes to it copies it
}

// arena holds the pages that are newer than the last checkpoint. Guarded by Volume.mapMu.
type arena struct {
	blocks []mmap.MMap
	info   []pageInfo
	free   []uint32
	used   atomic.Int64 // pages in use, frozen ones included; read without the lock
	dirty  []uint32     // pages of the generation that is open, in the order in which they came
	gen    uint64
}

func (a *arena) page(i uint32) []byte {
	o := int(i%arenaBlock) * format.ChunkSize
	return a.blocks[i/arenaBlock][o : o+format.ChunkSize : o+format.ChunkSize]
}

// alloc returns a page of the open generation with undefined content.
func (a *arena) alloc(t *tree, level uint8, index uint64, old ref) (uint32, []byte, error) {
	if len(a.free) == 0 {
		m, err := mmap.MapRegion(nil, arenaBlock*format.ChunkSize, mmap.RDWR, mmap.ANON, 0)
		if err != nil {
			return 0, nil, fmt.Errorf("memory for map pages: %w", err)
		}
		first := uint32(len(a.blocks) * arenaBlock)
		a.blocks = append(a.blocks, m)
		a.info = append(a.info, make([]pageInfo, arenaBlock)...)
		for i := uint32(arenaBlock); i > 0; i-- {
			a.free = append(a.free, first+i-1)
		}
	}
	i := a.free[len(a.free)-1]
	a.free = a.free[:len(a.free)-1]
	a.used.Add(1)
	a.info[i] = pageInfo{gen: a.gen, tree: t, level: level, index: index, old: old}
	a.dirty = append(a.dirty, i)
	return i, a.page(i), nil
}

func (a *arena) release(i uint32) {
	a.info[i] = pageInfo{}
	a.free = append(a.free, i)
	a.used.Add(-1)
}

func (a *arena) close() {
	for _, m := range a.blocks {
		_ = m.Unmap()
	}
	a.blocks = nil
}

// pageReader reads pages of the last checkpoint through mappings, one a meta segment.
type pageReader struct {
	d   disk.Disk
	geo format.Geometry

	mu   sync.RWMutex
	maps map[uint32]*mappedSegment // by segment
}

type mappedSegment struct {
	b     []byte
	unmap func() error
	seen  []atomic.Uint64 // bit i: chunk i was read and its checksum verified
}

func newPageReader(d disk.Disk, geo format.Geometry) *pageReader {
	return &pageReader{d: d, geo: geo, maps: map[uint32]*mappedSegment{}}
}

// page returns the page that r leads to. The first use of a page reads it with a system call, which gives
// its processor back while it waits and returns an error where a mapping would raise a signal, and verifies it;
// without wait that is disk.ErrWouldBlock. Later uses do not wait, unless the kernel took the memory back since.
func (p *pageReader) page(r ref, wait bool) ([]byte, error) {
	if !r.HasData() {
		return nil, p.nowhere(r)
	}
	seg, chunk := p.geo.Locate(r.Phys())
	p.mu.RLock()
	m := p.maps[seg]
	p.mu.RUnlock()
	if m == nil {
		if int64(r.Phys()+1)*format.ChunkSize > p.d.Size() {
			return nil, p.nowhere(r)
		}
		var err error
		if m, err = p.mapSegment(seg); err != nil {
			return nil, err
		}
	}
	o := int(chunk) * format.ChunkSize
	b := m.b[o : o+format.ChunkSize : o+format.ChunkSize]
	if m.seen[chunk/64].Load()&(1<<(chunk%64)) != 0 {
		return b, nil
	}
	if !wait {
		return nil, disk.ErrWouldBlock
	}
	return b, p.firstTouch(m, chunk, r)
}

// nowhere says that a reference cannot be one to a page, though the page that holds it matches its checksum.
func (p *pageReader) nowhere(r ref) error {
	return &CorruptError{Disk: p.d.Name(), What: "reference to a map page", Offset: int64(r.Phys()) * format.ChunkSize}
}

func (p *pageReader) firstTouch(m *mappedSegment, chunk uint32, r ref) error {
	buf := chunkPool.Get().(*[]byte)
	defer chunkPool.Put(buf)
	off := int64(r.Phys()) * format.ChunkSize
	if err := p.d.ReadAt(*buf, off); err != nil {
		return err
	}
	if !r.Matches(format.Sum(*buf)) {
		return &CorruptError{Disk: p.d.Name(), What: "map page", Offset: off}
	}
	m.seen[chunk/64].Or(1 << (chunk % 64))
	return nil
}

func (p *pageReader) mapSegment(seg uint32) (*mappedSegment, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if m := p.maps[seg]; m != nil {
		return m, nil
	}
	b, unmap, err := p.d.Map(int64(p.geo.Phys(seg, 0))*format.ChunkSize, int(p.geo.SegmentBytes()))
	if err != nil {
		return nil, err
	}
	m := &mappedSegment{b: b, unmap: unmap, seen: make([]atomic.Uint64, (p.geo.SegmentChunks+63)/64)}
	p.maps[seg] = m
	return m, nil
}

// forget drops the mapping of a segment that was freed. No reference may lead to it any more.
func (p *pageReader) forget(seg uint32) {
	p.mu.Lock()
	m := p.maps[seg]
	delete(p.maps, seg)
	p.mu.Unlock()
	if m != nil {
		_ = m.unmap()
	}
}

func (p *pageReader) close() {
	for seg := range p.maps {
		p.forget(seg)
	}
}
