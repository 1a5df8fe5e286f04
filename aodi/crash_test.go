package aodi_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"cawrm/aodi"
	"cawrm/aodi/disk"
)

// history is what a single writer did, for the question which prefixes of it a disk may hold after a crash.
type history struct {
	chunks  int // at most
	first   int // at first; 0: it has not grown
	ops     []histOp
	flushed int          // all ops below this index were flushed
	durable atomic.Int64 // the same, for another goroutine
}

// crashTrap takes the picture of a power loss right before one of the disk's operations, whichever goroutine it belongs to.
type crashTrap struct {
	*disk.Memory
	h       *history
	mu      sync.Mutex
	rng     *rand.Rand
	after   int64 // operations until it springs
	crashed *disk.Memory
	flushed int // what was flushed by then
}

func (c *crashTrap) rule(disk.Op, int64, int) error {
	c.mu.Lock()
	c.after--
	now := c.after < 0
	c.mu.Unlock()
	if now {
		c.spring()
	}
	return nil
}

func (c *crashTrap) spring() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.crashed == nil {
		c.flushed = int(c.h.durable.Load())
		c.crashed = c.Crash(c.rng)
	}
}

// histOp is one record: stamp 0 is a discard, grown that the volume has so many chunks from there on.
type histOp struct {
	chunk int
	stamp uint64
}

const grown = ^uint64(0)

// until is the history of the first n records.
func (h *history) until(n int) *history {
	return &history{chunks: h.chunks, first: h.first, ops: h.ops[:n]}
}

// grow makes the volume larger.
func (h *history) grow(v *aodi.Volume, n int) error {
	if h.first == 0 {
		h.first = h.chunks
	}
	h.chunks = max(h.chunks, n)
	h.ops = append(h.ops, histOp{n, grown})
	return v.Resize(int64(n) * chunk)
}

func stamped(stamp uint64) []byte {
	b := make([]byte, chunk)
	binary.LittleEndian.PutUint64(b, stamp)
	binary.LittleEndian.PutUint64(b[chunk-8:], stamp)
	return b
}

// prefixOf tells which prefix of the history a volume holds, or fails the test.
func (h *history) prefixOf(t *testing.T, v *aodi.Volume) int {
	t.Helper()
	got := make([]uint64, h.chunks)
	b := make([]byte, chunk)
	has, size := int(v.Size()/chunk), h.chunks
	if h.first > 0 {
		size = h.first
	}
	if has > h.chunks {
		t.Fatalf("the volume has %d chunks, of at most %d", has, h.chunks)
	}
	holes := make([]bool, has) // of what is so large that reading all would take long
	if has > 1<<14 {
		at := 0
		if err := v.Extents(0, v.Size(), func(n int64, flags uint32) bool {
			for end := at + int(n/chunk); at < end; at++ {
				holes[at] = flags&aodi.ExtentHole != 0
			}
			return true
		}); err != nil {
			t.Fatal(err)
		}
	}
	for c := range has {
		if holes[c] {
			continue
		}
		if err := v.ReadAt(b, int64(c)*chunk); err != nil {
			t.Fatal(err)
		}
		got[c] = binary.LittleEndian.Uint64(b)
		if !bytes.Equal(b, stamped(got[c])) {
			t.Fatalf("chunk %d is torn", c)
		}
	}
	state := make([]uint64, h.chunks)
	differ := 0
	for c := range got {
		if got[c] != 0 {
			differ++
		}
	}
	best := -1
	if size != has {
		differ++
	}
	if differ == 0 {
		best = 0
	}
	for i, op := range h.ops {
		if op.stamp == grown {
			switch n := op.chunk; {
			case size != has && n == has:
				differ--
			case size == has && n != has:
				differ++
			}
			if size = op.chunk; differ == 0 {
				best = i + 1
			}
			continue
		}
		was := state[op.chunk] == got[op.chunk]
		state[op.chunk] = op.stamp
		if is := op.stamp == got[op.chunk]; is != was {
			if is {
				differ--
			} else {
				differ++
			}
		}
		if differ == 0 {
			best = i + 1
		}
	}
	if best < 0 {
		t.Fatalf("the volume holds no prefix of the %d records", len(h.ops))
	}
	return best
}

// TestCrashKeepsPrefix ensures that after a power loss at any moment the volume holds a prefix of the accepted records
// with all that was flushed, that recovering twice gives the same, and that it goes on from there.
func TestCrashKeepsPrefix(t *testing.T) {
	seed := seedOf(t)
	rng := newRand(seed)
	runs := 24
	if testing.Short() {
		runs = 6
	}
	for run := range runs {
		crashRun(t, newRand(rng.Uint64()), []uint32{32, 64, 512}[run%3])
	}
}

func crashRun(t *testing.T, rng *rand.Rand, segment uint32) {
	t.Helper()
	d := disk.NewMemory(1 << 30)
	defer func() { free(t, d) }()
	h := &history{chunks: 200 + rng.IntN(1400)}
	create(t, d, int64(h.chunks)*chunk, segment)
	stamp := uint64(0)
	opt := aodi.Options{CheckpointBytes: int64(1+rng.IntN(40)) * 64 << 10, DurableInterval: time.Duration(1+rng.IntN(50)) * time.Millisecond}
	if rng.IntN(3) == 0 {
		opt.MapMemory = 64 << 10
	}
	for range 4 {
		trap := &crashTrap{Memory: d, rng: newRand(rng.Uint64()), h: h, after: rng.Int64N(400)}
		v := open(t, &disk.Faulty{Disk: d, Rule: trap.rule}, opt)
		for range 50 + rng.IntN(400) {
			h.step(t, v, rng, &stamp)
		}
		if rng.IntN(4) > 0 { // the crash may also come while the volume closes
			trap.spring()
		}
		_ = v.Close()
		trap.spring()
		crashed := trap.crashed
		h.flushed = trap.flushed
		again := crashed.Crash(rng) // what a crash right after the crash leaves: the same
		check(t, crashed)
		v = open(t, crashed, quiet)
		prefix := h.prefixOf(t, v)
		if prefix < h.flushed {
			t.Fatalf("prefix of %d records, %d were flushed", prefix, h.flushed)
		}
		// What was shown once must not go away: crash again, with nothing written since.
		third := crashed.Crash(rng)
		if err := v.Close(); err != nil {
			t.Fatal(err)
		}
		v = open(t, third, quiet)
		if p := h.prefixOf(t, v); p != prefix {
			t.Fatalf("first recovery showed %d records, the one after it %d", prefix, p)
		}
		_ = v.Close()
		v = open(t, again, quiet)
		if p := h.prefixOf(t, v); p != prefix {
			t.Fatalf("one recovery found %d records, another of the same disk %d", prefix, p)
		}
		_ = v.Close()
		check(t, third)
		for _, old := range []*disk.Memory{d, crashed, again} {
			free(t, old)
		}
		d, h.ops, h.flushed = third, h.ops[:prefix], prefix
		h.durable.Store(int64(prefix))
	}
}

func (h *history) step(t *testing.T, v *aodi.Volume, rng *rand.Rand, stamp *uint64) {
	t.Helper()
	chunks := int(v.Size() / chunk)
	c := rng.IntN(chunks)
	var err error
	switch op := rng.IntN(100); {
	case op == 98 && rng.IntN(2) == 0 && (h.first == 0 || chunks < h.first+200):
		err = h.grow(v, chunks+1+rng.IntN(300))
		h.flushed = len(h.ops)
	case op < 80:
		n := 1
		if op < 10 {
			n = min(1+rng.IntN(300), chunks-c)
		}
		var p []byte
		for i := range n {
			*stamp++
			p = append(p, stamped(*stamp)...)
			h.ops = append(h.ops, histOp{c + i, *stamp})
		}
		if err = v.WriteAt(p, int64(c)*chunk, op == 79); op == 79 {
			h.flushed = len(h.ops)
		}
	case op < 90:
		before, _ := v.Pointers()
		err = v.Trim(int64(c)*chunk, chunk, false)
		if after, _ := v.Pointers(); after > before { // a discard of a hole is no record
			h.ops = append(h.ops, histOp{c, 0})
		}
	case op < 98:
		err = v.Flush()
		h.flushed = len(h.ops)
	default:
		err = v.Checkpoint()
		h.flushed = len(h.ops)
	}
	if err != nil {
		t.Fatal(err)
	}
	h.durable.Store(int64(h.flushed))
}

// TestFlushOfOneCoversAll ensures that a flush makes durable what other goroutines had been told was written.
func TestFlushOfOneCoversAll(t *testing.T) {
	seed := seedOf(t)
	d := newDisk(t, 1<<30)
	const workers, per = 8, 64
	create(t, d, workers*per*chunk, 64)
	v := open(t, d, quiet)
	var mu sync.Mutex // orders "acknowledged" against "flushed"
	acked := map[int]uint64{}
	durable := map[int]uint64{}
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			rng := newRand(seed + uint64(w))
			for i := range 200 {
				c := w*per + rng.IntN(per)
				stamp := uint64(w)<<32 | uint64(i+1)
				if err := v.WriteAt(stamped(stamp), int64(c)*chunk, false); err != nil {
					t.Error(err)
				}
				mu.Lock()
				acked[c] = stamp
				mu.Unlock()
				if rng.IntN(10) == 0 {
					mu.Lock()
					snap := map[int]uint64{}
					for k, x := range acked {
						snap[k] = x
					}
					mu.Unlock()
					if err := v.Flush(); err != nil {
						t.Error(err)
					}
					mu.Lock()
					for k, x := range snap {
						durable[k] = max(durable[k], x)
					}
					mu.Unlock()
				}
			}
		})
	}
	wg.Wait()
	crashed := d.Crash(newRand(seed))
	defer free(t, crashed)
	_ = v.Close()
	v = open(t, crashed, quiet)
	defer v.Close()
	b := make([]byte, chunk)
	for c, want := range durable {
		if err := v.ReadAt(b, int64(c)*chunk); err != nil {
			t.Fatal(err)
		}
		if got := binary.LittleEndian.Uint64(b); got < want {
			t.Fatalf("chunk %d holds %x, %x was flushed", c, got, want)
		}
	}
}

// TestCrashInCheckpoint ensures that a power loss right before each operation of a checkpoint, whatever the disk kept of what
// was not synced, leaves all that was flushed.
func TestCrashInCheckpoint(t *testing.T) {
	rng := newRand(seedOf(t))
	for i, reached := int64(0), true; reached; i++ {
		for range 20 {
			reached = crashInCheckpoint(t, newRand(rng.Uint64()), i)
		}
	}
}

func crashInCheckpoint(t *testing.T, rng *rand.Rand, after int64) (reached bool) {
	t.Helper()
	d := disk.NewMemory(1 << 28)
	defer free(t, d)
	h := &history{chunks: 3000}
	create(t, d, int64(h.chunks)*chunk, 32)
	trap := &crashTrap{Memory: d, rng: rng, h: h, after: 1 << 60}
	v := open(t, &disk.Faulty{Disk: d, Rule: trap.rule}, quiet)
	stamp := uint64(0)
	for range 2 { // the first checkpoint of the two is what the second one falls back to
		for range 30 {
			h.step(t, v, rng, &stamp)
		}
		if err := v.Checkpoint(); err != nil {
			t.Fatal(err)
		}
	}
	for range 30 {
		h.step(t, v, rng, &stamp)
	}
	if err := v.Flush(); err != nil {
		t.Fatal(err)
	}
	h.durable.Store(int64(len(h.ops)))
	trap.mu.Lock()
	trap.after = after
	trap.mu.Unlock()
	if err := v.Checkpoint(); err != nil {
		t.Fatal(err)
	}
	trap.mu.Lock()
	reached = trap.crashed != nil
	trap.mu.Unlock()
	trap.spring()
	_ = v.Close()
	defer free(t, trap.crashed)
	check(t, trap.crashed)
	v = open(t, trap.crashed, quiet)
	defer v.Close()
	if p := h.prefixOf(t, v); p < trap.flushed {
		t.Fatalf("prefix of %d records, %d were flushed", p, trap.flushed)
	}
	return reached
}

// TestPartialWritesOfOneChunk ensures that writers of different sectors of a chunk, and of all of it, do not undo each other.
func TestPartialWritesOfOneChunk(t *testing.T) {
	d := newDisk(t, 1<<30)
	create(t, d, 16*chunk, 64)
	v := open(t, d, quiet)
	defer v.Close()
	const sectors, rounds, sector = 8, 5000, 512
	var wg sync.WaitGroup
	for s := range int64(sectors) {
		wg.Go(func() {
			b, got := make([]byte, sector), make([]byte, sector)
			for i := range uint64(rounds) {
				binary.LittleEndian.PutUint64(b, i+1)
				off := 3*chunk + s*sector
				if err := v.WriteAt(b, off, false); err != nil {
					t.Error(err)
				}
				if err := v.ReadAt(got, off); err != nil || !bytes.Equal(got, b) {
					t.Errorf("sector %d, round %d: a write was undone (%v)", s, i, err)
					return
				}
			}
		})
	}
	wg.Wait()
}

// TestPartialWriteBesideZeroing ensures that a write of part of a chunk does not bring back what a zeroing of the chunk has
// removed, though the map's entry is the same before and after.
func TestPartialWriteBesideZeroing(t *testing.T) {
	d := newDisk(t, 1<<30)
	create(t, d, 1<<20, 2048)
	v := open(t, d, quiet)
	defer v.Close()
	full, p := bytes.Repeat([]byte{0xee}, chunk), make([]byte, chunk)
	for round := range 4000 {
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				if err := v.WriteAt([]byte{1}, 0, false); err != nil {
					t.Error(err)
				}
			})
		}
		for range 3 {
			if err := errors.Join(v.WriteAt(full, 0, false), v.WriteZeroes(0, chunk, false, false)); err != nil {
				t.Fatal(err)
			}
		}
		wg.Wait()
		if err := v.ReadAt(p, 0); err != nil || p[100] != 0 {
			t.Fatalf("round %d: byte 100 is %#x after the chunk was zeroed (%v)", round, p[100], err)
		}
	}
}
