package aodi_test

import (
	"bytes"
	"errors"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"cawrm/aodi"
	"cawrm/aodi/disk"
)

// fixed is a memory disk that cannot grow.
type fixed struct {
	*disk.Memory
	size int64
}

func (f fixed) Fixed() bool { return true }
func (f fixed) Size() int64 { return f.size }
func (f fixed) Grow(n int64) error {
	if n > f.size {
		return syscall.ENOSPC
	}
	return f.Memory.Grow(n)
}

// TestFullDevice ensures that a device that random writes have filled can be closed and opened again.
func TestFullDevice(t *testing.T) {
	m := newDisk(t, 256<<20)
	if err := m.Grow(256 << 20); err != nil {
		t.Fatal(err)
	}
	d := fixed{m, 256 << 20}
	fillAndReopen(t, d)
}

// fillAndReopen writes at random until there is no space, closes, and opens again.
func fillAndReopen(t *testing.T, d disk.Disk) {
	t.Helper()
	create(t, d, 100<<30, 0)
	v := open(t, d, aodi.Options{CheckpointInterval: time.Hour})
	rng := newRand(7)
	n := 0
	for {
		err := v.WriteAt(stamped(uint64(n)), int64(rng.Uint64N(100<<30/chunk))*chunk, false)
		if errors.Is(err, syscall.ENOSPC) {
			t.Log(n, "writes, then", err)
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		n++
	}
	if err := v.Flush(); err != nil {
		t.Fatal(err)
	}
	if err := v.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
	v, err := aodi.OpenOn(d, quiet)
	if err != nil {
		t.Fatalf("open again: %v", err)
	}
	v.Close()
}

// TestFullFileSystem ensures the same of a file on a file system that is full.
func TestFullFileSystem(t *testing.T) {
	m := newDisk(t, 1<<30)
	d := &disk.Faulty{Disk: m, Rule: func(op disk.Op, off int64, n int) error {
		if op == disk.OpReserve && off+int64(n) > 256<<20 {
			return syscall.ENOSPC
		}
		return nil
	}}
	fillAndReopen(t, d)
}

// TestCloseOnFullDisk ensures that closing keeps what was accepted, also when there is no space for a checkpoint.
func TestCloseOnFullDisk(t *testing.T) {
	d := newDisk(t, 1<<30)
	create(t, d, 64<<20, 32)
	var full atomic.Bool
	f := &disk.Faulty{Disk: d, Rule: func(op disk.Op, off int64, n int) error {
		if op == disk.OpReserve && full.Load() {
			return syscall.ENOSPC
		}
		return nil
	}}
	v := open(t, f, quiet)
	if err := v.WriteAt(stamped(1), 0, true); err != nil {
		t.Fatal(err)
	}
	full.Store(true)
	n := 0
	for i := range 40 {
		if v.WriteAt(stamped(uint64(2+i)), int64(i)*512*chunk, false) != nil {
			break
		}
		n++
	}
	err := v.Close()
	t.Log(n, "accepted, close:", err)
	v = open(t, d, quiet)
	defer v.Close()
	p := make([]byte, chunk)
	for i := range n {
		if err := v.ReadAt(p, int64(i)*512*chunk); err != nil || !bytes.Equal(p, stamped(uint64(2+i))) {
			t.Fatalf("chunk %d of %d that were accepted is lost by Close: %v", i, n, err)
		}
	}
}

// TestPostponedCheckpoints ensures that checkpoints that find no space do not use any up.
func TestPostponedCheckpoints(t *testing.T) {
	d := newDisk(t, 1<<30)
	create(t, d, 1<<30, 32)
	var full atomic.Bool
	f := &disk.Faulty{Disk: d, Rule: func(op disk.Op, off int64, n int) error {
		if op == disk.OpReserve && full.Load() {
			return syscall.ENOSPC
		}
		return nil
	}}
	v := open(t, f, quiet)
	defer v.Close()
	for i := range 100 { // 100 map pages
		if err := v.WriteAt(stamped(1), int64(i)*512*chunk, true); err != nil {
			t.Fatal(err)
		}
	}
	before := d.Size()
	full.Store(true)
	failed := 0
	for range 1000 {
		if v.Checkpoint() != nil {
			failed++
		}
	}
	full.Store(false)
	if err := v.Checkpoint(); err != nil {
		t.Fatal(err)
	}
	told := 0 // a try to reserve the next segment that found no space is told to one write
	for i := range 100 {
		err := v.WriteAt(stamped(1), int64(i)*512*chunk, true)
		if errors.Is(err, syscall.ENOSPC) && told == 0 {
			told++
			err = v.WriteAt(stamped(1), int64(i)*512*chunk, true)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	t.Log("postponed:", failed, "size before", before, "after", d.Size())
	if d.Size() > before+20<<20 {
		t.Errorf("the container went from %d to %d bytes", before, d.Size())
	}
}

// TestWritesGoWhereSpaceIs ensures that nothing is written but where space was reserved before, from the first write of a new
// container on: what was accepted finds its place on a disk that has become full.
func TestWritesGoWhereSpaceIs(t *testing.T) {
	d := newDisk(t, 1<<30)
	var mu sync.Mutex
	reserved := map[int64]bool{}
	f := &disk.Faulty{Disk: d}
	f.Rule = func(op disk.Op, off int64, n int) error {
		mu.Lock()
		defer mu.Unlock()
		for at := off / chunk; at*chunk < off+int64(n); at++ {
			if op == disk.OpWrite && !reserved[at] {
				t.Errorf("chunk %d of the disk is written, and was never reserved", at)
				return nil
			}
		}
		return nil
	}
	f.After = func(op disk.Op, off int64, n int) {
		mu.Lock()
		defer mu.Unlock()
		for at := off / chunk; at*chunk < off+int64(n); at++ {
			reserved[at] = reserved[at] && op != disk.OpPunch || op == disk.OpReserve
		}
	}
	create(t, f, 4<<20, 32)
	v := open(t, f, quiet)
	for i := range int64(1000) {
		if err := v.WriteAt(stamped(uint64(i)+1), i%1024*chunk, i%50 == 0); err != nil {
			t.Fatal(err)
		}
		if i%100 == 0 {
			if err := v.Checkpoint(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
}
