package disk

import (
	"fmt"
	"io"
	"math/bits"
	"math/rand/v2"
	"sync"
	"syscall"

	"github.com/edsrzf/mmap-go"
)

const sector = 512

// Memory is a disk in memory that can lose power: Crash keeps what was synced and any part of what was not. Its syncs
// can fail as real ones do (FailSync), and bits can flip in it (Flip).
type Memory struct {
	mu      sync.RWMutex
	arena   mmap.MMap // address space for the largest size; the kernel gives memory where it is touched
	size    int64
	limit   int64
	touched []uint64         // bit i: chunk i was written; the rest of the arena is never looked at
	undo    map[int64][]byte // sector number -> durable content, of each sector written since the last sync
	pending []pendingWrite
	dropped map[int64]struct{} // sectors that reads see as written and that no later sync will write
}

type pendingWrite struct {
	off  int64
	data []byte
}

// NewMemory makes an empty disk that can grow to limit bytes.
func NewMemory(limit int64) *Memory {
	freed.Lock()
	for i, m := range freed.disks {
		if m.limit == limit {
			freed.disks = append(freed.disks[:i], freed.disks[i+1:]...)
			freed.Unlock()
			return m
		}
	}
	freed.Unlock()
	m, err := mmap.MapRegion(nil, int(limit), mmap.RDWR, mmap.ANON, 0)
	if err != nil {
		panic(fmt.Sprintf("disk: %d bytes of address space: %v", limit, err))
	}
	return &Memory{arena: m, limit: limit, touched: make([]uint64, limit/blockAlign/64+1), undo: map[int64][]byte{}, dropped: map[int64]struct{}{}}
}

// Name is "memory".
func (m *Memory) Name() string { return "memory" }

// Size is the size in bytes.
func (m *Memory) Size() int64 { m.mu.RLock(); defer m.mu.RUnlock(); return m.size }

// Fixed is false.
func (m *Memory) Fixed() bool { return false }

// Direct is true: there is no page cache.
func (m *Memory) Direct() (bool, string) { return true, "" }

// Allocated is the size.
func (m *Memory) Allocated() int64 { return m.Size() }

// ReadAt reads.
func (m *Memory) ReadAt(p []byte, off int64) error {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if off < 0 || off+int64(len(p)) > m.size {
		return fmt.Errorf("memory: read %d bytes at %d: %w: the container ends at %d", len(p), off, io.ErrUnexpectedEOF, m.size)
	}
	copy(p, m.arena[off:])
	return nil
}

// TryReadAt is ReadAt.
func (m *Memory) TryReadAt(p []byte, off int64) error { return m.ReadAt(p, off) }

// WriteAt writes; it is strict about alignment, as a real file system is.
func (m *Memory) WriteAt(p []byte, off int64) error {
	if off%blockAlign != 0 || len(p)%blockAlign != 0 {
		return fmt.Errorf("memory: write %d bytes at %d: %w", len(p), off, syscall.EINVAL)
	}
	return m.WriteCached(p, off)
}

// WriteCached writes.
func (m *Memory) WriteCached(p []byte, off int64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	end := off + int64(len(p))
	if off%sector != 0 || len(p)%sector != 0 || end > m.limit {
		return fmt.Errorf("memory: write %d bytes at %d: %w", len(p), off, syscall.ENOSPC)
	}
	for s := off; s < end; s += sector {
		if _, ok := m.undo[s]; !ok {
			m.undo[s] = append([]byte(nil), m.arena[s:s+sector]...)
		}
		delete(m.dropped, s)
	}
	m.pending = append(m.pending, pendingWrite{off, append([]byte(nil), p...)})
	copy(m.arena[off:], p)
	for c := off / blockAlign; c*blockAlign < end; c++ {
		m.touched[c/64] |= 1 << (c % 64)
	}
	m.size = max(m.size, end)
	return nil
}

// Sync makes all writes durable, but for those of which an earlier one has told that it failed.
func (m *Memory) Sync() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.dropped) == 0 {
		clear(m.undo)
	}
	for s := range m.undo {
		if _, ok := m.dropped[s]; !ok {
			delete(m.undo, s)
		}
	}
	m.pending = m.pending[:0]
	return nil
}

// FailSync is a sync that fails as Linux's does: of what was written since the last one, the disk has any part, the
// page cache shows all of it, and takes it for written, so that no later sync writes the rest.
func (m *Memory) FailSync(rng *rand.Rand) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.somePending(rng, func(off int64, p []byte) {
		for s := int64(0); s < int64(len(p)); s += sector {
			copy(m.undo[off+s], p[s:s+sector])
		}
	})
	for s := range m.undo {
		m.dropped[s] = struct{}{}
	}
	m.pending = m.pending[:0]
	return fmt.Errorf("memory: sync: %w", syscall.EIO)
}

// DropCache is what OpenFile asks for: reads see what the medium holds of the sectors that a sync has failed to write.
func (m *Memory) DropCache() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for s := range m.dropped {
		copy(m.arena[s:s+sector], m.undo[s])
		delete(m.undo, s)
	}
	clear(m.dropped)
}

// Flip flips one bit of something that was written, on the medium and in what reads see, and tells at which byte; -1
// when there is nothing yet.
func (m *Memory) Flip(rng *rand.Rand) int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	var chunks []int64
	m.eachTouched(func(at int64) { chunks = append(chunks, at) })
	if len(chunks) == 0 {
		return -1
	}
	off, bit := chunks[rng.IntN(len(chunks))]+rng.Int64N(blockAlign), byte(1)<<rng.IntN(8)
	m.arena[off] ^= bit
	if old, ok := m.undo[off/sector*sector]; ok {
		old[off%sector] ^= bit
	}
	return off
}

// Map shows the memory itself.
func (m *Memory) Map(off int64, n int) ([]byte, func() error, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if off+int64(n) > m.limit {
		return nil, nil, fmt.Errorf("memory: map %d bytes at %d: %w", n, off, io.ErrUnexpectedEOF)
	}
	return m.arena[off : off+int64(n)], func() error { return nil }, nil
}

// Grow extends the disk; like a file system's, its new size survives a crash.
func (m *Memory) Grow(n int64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if n > m.limit {
		return fmt.Errorf("memory: grow to %d bytes: %w", n, syscall.ENOSPC)
	}
	m.size = max(m.size, n)
	return nil
}

// Reserve is Grow to the end of the range.
func (m *Memory) Reserve(off, n int64) error { return m.Grow(off + n) }

// Zero writes zeroes.
func (m *Memory) Zero(off, n int64) error { return m.WriteCached(make([]byte, n), off) }

// Punch writes zeroes, which a crash may undo, where anything else can be.
func (m *Memory) Punch(off, n int64) error {
	end := off + max(0, min(n, m.Size()-off))
	for ; off < end; off += blockAlign {
		m.mu.RLock()
		touched := m.touched[off/blockAlign/64]&(1<<(off/blockAlign%64)) != 0
		m.mu.RUnlock()
		if !touched {
			continue
		}
		if err := m.Zero(off, min(blockAlign, end-off)); err != nil {
			return err
		}
	}
	return nil
}

// Close does nothing: the content stays, for Crash and Copy.
func (m *Memory) Close() error { return nil }

// freed holds disks for the next NewMemory: a simulation makes thousands, and fresh memory is slow to come by.
var freed struct {
	sync.Mutex
	disks []*Memory
}

// Free gives the memory back. The disk must not be used afterwards.
func (m *Memory) Free() {
	m.eachTouched(func(at int64) { clear(m.arena[at : at+blockAlign]) })
	clear(m.touched)
	clear(m.undo)
	clear(m.dropped)
	m.pending, m.size = nil, 0
	freed.Lock()
	defer freed.Unlock()
	if len(freed.disks) < 8 {
		freed.disks = append(freed.disks, m)
	} else {
		_ = m.arena.Unmap()
	}
}

// Pending tells whether a crash could lose anything now.
func (m *Memory) Pending() bool { m.mu.RLock(); defer m.mu.RUnlock(); return len(m.undo) > 0 }

func (m *Memory) eachTouched(do func(at int64)) {
	for i, word := range m.touched {
		for ; word != 0; word &= word - 1 {
			do(int64(i*64+bits.TrailingZeros64(word)) * blockAlign)
		}
	}
}

// Crash is the disk after a power loss at this moment: what was synced, and of the rest any sectors of any
// writes in any order, chosen by rng. The disk itself goes on unharmed.
func (m *Memory) Crash(rng *rand.Rand) *Memory {
	m.mu.RLock()
	defer m.mu.RUnlock()
	c := NewMemory(m.limit)
	c.size = m.size
	copy(c.touched, m.touched)
	m.eachTouched(func(at int64) { copy(c.arena[at:at+blockAlign], m.arena[at:]) })
	for s, old := range m.undo {
		copy(c.arena[s:], old)
	}
	m.somePending(rng, func(off int64, p []byte) { copy(c.arena[off:], p) })
	return c
}

// somePending gives to keep what a disk may have of the writes that were not synced: any of them in any order, whole
// or some sectors of it.
func (m *Memory) somePending(rng *rand.Rand, keep func(off int64, p []byte)) {
	odds := rng.Float64() // sometimes nearly all, sometimes nearly nothing
	for _, i := range rng.Perm(len(m.pending)) {
		w := m.pending[i]
		switch {
		case rng.Float64() >= odds:
		case rng.IntN(4) > 0:
			keep(w.off, w.data)
		default:
			for s := 0; s < len(w.data); s += sector {
				if rng.IntN(2) == 0 {
					keep(w.off+int64(s), w.data[s:s+sector])
				}
			}
		}
	}
}
