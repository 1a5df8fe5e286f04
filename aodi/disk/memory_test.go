package disk_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"syscall"
	"testing"

	"cawrm/aodi/disk"

	"pgregory.net/rapid"
)

const sector = 512

// stampedBlock is a block whose sectors tell the write and the place that they come from.
func stampedBlock(write, block_ uint64) []byte {
	b := make([]byte, block)
	for s := 0; s < block; s += sector {
		binary.LittleEndian.PutUint64(b[s:], write)
		binary.LittleEndian.PutUint64(b[s+8:], block_)
		binary.LittleEndian.PutUint64(b[s+16:], uint64(s))
	}
	return b
}

// TestMemoryCrash ensures what a power loss may do: each sector holds what the last sync found there, or what one of
// the writes since then put there, and never anything else.
func TestMemoryCrash(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const blocks = 8
		m := disk.NewMemory(1 << 20)
		defer m.Free()
		durable := map[uint64]uint64{}            // block -> write that is durable; 0: never written
		since := map[uint64]map[uint64]struct{}{} // block -> writes since the last sync
		last := map[uint64]uint64{}
		for i := range uint64(rapid.IntRange(1, 30).Draw(t, "operations")) {
			if rapid.IntRange(0, 5).Draw(t, "sync") == 0 {
				if err := m.Sync(); err != nil {
					t.Fatal(err)
				}
				for b, w := range last {
					durable[b] = w
				}
				clear(since)
				continue
			}
			at := rapid.Uint64Range(0, blocks-1).Draw(t, "block")
			write := m.WriteAt
			if rapid.Bool().Draw(t, "cached") {
				write = m.WriteCached
			}
			if err := write(stampedBlock(i+1, at), int64(at)*block); err != nil {
				t.Fatal(err)
			}
			if since[at] == nil {
				since[at] = map[uint64]struct{}{}
			}
			since[at][i+1] = struct{}{}
			last[at] = i + 1
		}
		seed := rapid.Uint64().Draw(t, "crash")
		c := m.Crash(rand.New(rand.NewPCG(seed, 1)))
		defer c.Free()
		same := m.Crash(rand.New(rand.NewPCG(seed, 1)))
		defer same.Free()
		if c.Size() != m.Size() {
			t.Fatalf("size %d, was %d", c.Size(), m.Size())
		}
		got, again := make([]byte, c.Size()), make([]byte, c.Size())
		if err := errors.Join(c.ReadAt(got, 0), same.ReadAt(again, 0)); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, again) {
			t.Fatal("the same seed gives another crash")
		}
		for off := 0; off < len(got); off += sector {
			at, s := uint64(off/block), got[off:off+sector]
			w := binary.LittleEndian.Uint64(s)
			want := make([]byte, sector)
			if w != 0 {
				want = stampedBlock(w, at)[off%block:][:sector]
			}
			if !bytes.Equal(s, want) {
				t.Fatalf("byte %d holds what was never written there", off)
			}
			if _, pending := since[at][w]; !pending && w != durable[at] {
				t.Fatalf("byte %d holds write %d, durable is %d", off, w, durable[at])
			}
		}
		// The disk itself went on unharmed.
		now := make([]byte, block)
		for at, w := range last {
			if err := m.ReadAt(now, int64(at)*block); err != nil || !bytes.Equal(now, stampedBlock(w, at)) {
				t.Fatalf("block %d changed by a crash that was only looked at: %v", at, err)
			}
		}
	})
}

// TestMemoryCrashReachesAll ensures that crashes are not tame: a write can be kept, lost, torn, and kept without the
// one before it.
func TestMemoryCrashReachesAll(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	seen := map[string]bool{}
	for range 2000 {
		m := disk.NewMemory(1 << 20)
		for at := range uint64(2) {
			if err := m.WriteAt(stampedBlock(1+at, at), int64(at)*block); err != nil {
				t.Fatal(err)
			}
		}
		c := m.Crash(rng)
		b := make([]byte, 2*block)
		if err := c.ReadAt(b, 0); err != nil {
			t.Fatal(err)
		}
		seen[fate(b[:block])+" then "+fate(b[block:])] = true
		m.Free()
		c.Free()
	}
	for _, a := range []string{"kept", "lost", "torn"} {
		for _, b := range []string{"kept", "lost", "torn"} {
			if !seen[a+" then "+b] {
				t.Errorf("in 2000 crashes never %s then %s", a, b)
			}
		}
	}
}

func fate(b []byte) string {
	n := 0
	for s := 0; s < block; s += sector {
		if binary.LittleEndian.Uint64(b[s:]) != 0 {
			n++
		}
	}
	switch n {
	case 0:
		return "lost"
	case block / sector:
		return "kept"
	}
	return "torn"
}

// TestMemoryIsStrict ensures that memory refuses what a real file system would.
func TestMemoryIsStrict(t *testing.T) {
	m := disk.NewMemory(1 << 20)
	defer m.Free()
	b := make([]byte, 2*block)
	if err := m.WriteAt(b[:block], 512); !errors.Is(err, syscall.EINVAL) {
		t.Errorf("unaligned offset: %v", err)
	}
	if err := m.WriteAt(b[:512], 0); !errors.Is(err, syscall.EINVAL) {
		t.Errorf("unaligned length: %v", err)
	}
	if err := m.WriteAt(b, 1<<20-block); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("beyond the limit: %v", err)
	}
	if err := m.Grow(1<<20 + 1); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("grow beyond the limit: %v", err)
	}
	if err := m.Reserve(1<<20, 1); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("reserve beyond the limit: %v", err)
	}
	if err := m.ReadAt(b, 0); err == nil {
		t.Error("a read beyond the end succeeded")
	}
	if err := m.Punch(10*block, block); err != nil {
		t.Errorf("punch beyond the end: %v", err)
	}
	must(t, m.Grow(4*block))
	must(t, m.WriteAt(stampedBlock(1, 1), block))
	must(t, m.Punch(block, block))
	must(t, m.ReadAt(b[:block], block))
	if !bytes.Equal(b[:block], make([]byte, block)) {
		t.Error("a hole does not read as zeroes")
	}
}

// TestFaulty ensures that a rule sees each operation and that its errors arrive.
func TestFaulty(t *testing.T) {
	m := disk.NewMemory(1 << 20)
	defer m.Free()
	must(t, m.Grow(4*block))
	boom := errors.New("boom")
	var seen []disk.Op
	f := &disk.Faulty{Disk: m}
	b := make([]byte, block)
	calls := []struct {
		op   disk.Op
		call func() error
	}{
		{disk.OpRead, func() error { return f.ReadAt(b, 0) }},
		{disk.OpWrite, func() error { return f.WriteAt(b, 0) }},
		{disk.OpWrite, func() error { return f.WriteCached(b, 0) }},
		{disk.OpSync, f.Sync},
		{disk.OpReserve, func() error { return f.Reserve(0, block) }},
	}
	for _, c := range calls {
		f.Rule = nil
		must(t, c.call())
		f.Rule = func(op disk.Op, _ int64, _ int) error { seen = append(seen, op); return boom }
		if err := c.call(); !errors.Is(err, boom) || seen[len(seen)-1] != c.op {
			t.Errorf("%s: %v, rule saw %v", c.op, err, seen)
		}
	}
	if err := f.TryReadAt(b, 0); !errors.Is(err, disk.ErrWouldBlock) {
		t.Errorf("TryReadAt: %v", err)
	}
}

// TestFailedSync ensures that what a sync has failed to write stays unwritten, whatever later syncs say, until it is
// written again, and that reads see it all the same.
func TestFailedSync(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	lost := 0
	for range 200 {
		m := disk.NewMemory(1 << 20)
		must(t, m.WriteAt(stampedBlock(1, 0), 0))
		must(t, m.WriteAt(stampedBlock(1, 1), block))
		must(t, m.Sync())
		must(t, m.WriteAt(stampedBlock(2, 0), 0))
		must(t, m.WriteAt(stampedBlock(2, 1), block))
		if err := m.FailSync(rng); !errors.Is(err, syscall.EIO) {
			t.Fatal(err)
		}
		must(t, m.WriteAt(stampedBlock(3, 1), block))
		must(t, m.Sync())
		b := make([]byte, block)
		must(t, m.ReadAt(b, 0))
		if !bytes.Equal(b, stampedBlock(2, 0)) {
			t.Fatal("the cache forgot what was written")
		}
		c := m.Crash(rng)
		must(t, c.ReadAt(b, 0))
		for s := 0; s < block; s += sector {
			switch w := binary.LittleEndian.Uint64(b[s:]); w {
			case 1:
				lost++
			case 2:
			default:
				t.Fatalf("sector %d holds write %d", s/sector, w)
			}
		}
		must(t, c.ReadAt(b, block))
		if !bytes.Equal(b, stampedBlock(3, 1)) {
			t.Fatal("what was written and synced after the failure is not durable")
		}
		m.Free()
		c.Free()
	}
	if lost == 0 {
		t.Fatal("no failed sync ever lost anything")
	}
}

// TestFlip ensures that a flipped bit is one bit of what was written, and survives a crash.
func TestFlip(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	m := disk.NewMemory(1 << 20)
	defer m.Free()
	if at := m.Flip(rng); at != -1 {
		t.Fatalf("an empty disk flipped byte %d", at)
	}
	must(t, m.WriteAt(stampedBlock(1, 1), block))
	for range 2 {
		at := m.Flip(rng)
		if at < block || at >= 2*block {
			t.Fatalf("flipped byte %d, which was never written", at)
		}
		c := m.Crash(rng)
		got, again := make([]byte, block), make([]byte, block)
		must(t, m.ReadAt(got, block))
		must(t, c.ReadAt(again, block))
		if m.Sync(); got[at-block] == stampedBlock(1, 1)[at-block] {
			t.Fatalf("byte %d is as it was", at)
		}
		c.Free()
	}
}

// TestShortRead ensures that a rule can let a read end early.
func TestShortRead(t *testing.T) {
	m := disk.NewMemory(1 << 20)
	defer m.Free()
	must(t, m.WriteAt(stampedBlock(1, 0), 0))
	after := 0
	f := &disk.Faulty{Disk: m, After: func(disk.Op, int64, int) { after++ }}
	f.Rule = func(disk.Op, int64, int) error { return &disk.ShortRead{N: 100, Err: syscall.EIO} }
	b := make([]byte, block)
	if err := f.ReadAt(b, 0); !errors.Is(err, syscall.EIO) {
		t.Fatal(err)
	}
	if !bytes.Equal(b[:100], stampedBlock(1, 0)[:100]) || !bytes.Equal(b[100:], make([]byte, block-100)) || after != 0 {
		t.Fatalf("not the first 100 bytes, or After was called (%d)", after)
	}
	f.Rule = nil
	if must(t, f.ReadAt(b, 0)); after != 1 {
		t.Fatalf("After was called %d times", after)
	}
}
