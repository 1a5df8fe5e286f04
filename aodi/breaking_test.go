package aodi_test

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"syscall"

	"cawrm/aodi/disk"
)

// fault is a way in which a disk fails.
type fault struct {
	name  string
	err   error
	stays bool // all I/Os from then on, until heal
	hits  string
}

// A write that fails leaves part of itself, a read that fails fills part of its buffer, and a sync that fails loses some of
// what was not synced, for good: what a kernel does that marks pages clean which it could not write.
var faults = []fault{
	{"EIO", syscall.EIO, false, "read write sync reserve grow punch"},
	{"EIO from then on", syscall.EIO, true, "read write sync reserve grow punch"},
	{"ENOSPC", syscall.ENOSPC, false, "write reserve grow"},
	{"ENOSPC from then on", syscall.ENOSPC, true, "write reserve grow"},
	{"short read", io.ErrUnexpectedEOF, false, "read"},
}

func (f *fault) takes(op disk.Op) bool { return slices.Contains(strings.Fields(f.hits), string(op)) }

const breakingName = "/path/of/the/container"

// breaking is a disk of which the i-th I/O fails. It takes a picture of a power loss right before.
type breaking struct {
	*disk.Memory
	rng   *rand.Rand
	acked func() int // what a crash must not lose

	mu       sync.Mutex
	fault    *fault
	was      *fault // the one that was healed
	left     int    // I/Os that the fault takes, until it does; negative: unarmed
	broken   bool
	hit      string
	crashed  *disk.Memory
	before   int // acked when it crashed
	unsynced []overwritten
}

type overwritten struct {
	off int64
	old []byte
}

// arm makes the i-th I/O from now on fail.
func (b *breaking) arm(f *fault, i int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.fault, b.left = f, i
}

// heal ends the fault and tells what it hit, "" for nothing.
func (b *breaking) heal() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.was, b.fault, b.broken = b.fault, nil, false
	return b.hit
}

// fails decides about one I/O. mu is held.
func (b *breaking) fails(op disk.Op, off int64, n int) error {
	if b.fault == nil || !b.fault.takes(op) {
		return nil
	}
	if b.left--; b.left >= 0 && !b.broken {
		return nil
	}
	if b.hit == "" {
		b.hit = string(op)
		b.broken = b.fault.stays
		b.crashed, b.before = b.Crash(b.rng), b.acked()
	} else if !b.broken {
		return nil
	}
	return fmt.Errorf("%s: %s %d bytes at %d: %w", breakingName, op, n, off, b.fault.err)
}

func (b *breaking) Name() string                    { return breakingName }
func (b *breaking) TryReadAt([]byte, int64) error   { return disk.ErrWouldBlock }
func (b *breaking) WriteAt(p []byte, o int64) error { return b.write(p, o, b.Memory.WriteAt) }
func (b *breaking) WriteCached(p []byte, off int64) error {
	return b.write(p, off, b.Memory.WriteCached)
}

func (b *breaking) Zero(off, n int64) error {
	return b.write(make([]byte, n), off, b.Memory.WriteCached)
}

func (b *breaking) ReadAt(p []byte, off int64) error {
	b.mu.Lock()
	err := b.fails(disk.OpRead, off, len(p))
	b.mu.Unlock()
	if err != nil {
		p = p[:len(p)/2]
	}
	return errors.Join(err, b.Memory.ReadAt(p, off))
}

func (b *breaking) write(p []byte, off int64, write func([]byte, int64) error) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.remember(off, len(p))
	if err := b.fails(disk.OpWrite, off, len(p)); err != nil {
		part := p[:len(p)/512*b.rng.IntN(4)/4*512]
		return errors.Join(err, b.Memory.WriteCached(part, off))
	}
	return write(p, off)
}

// remember keeps what a write is about to replace.
func (b *breaking) remember(off int64, n int) {
	old := make([]byte, n)
	if have := b.Size() - off; have > 0 {
		_ = b.Memory.ReadAt(old[:min(int64(n), have)], off) // it is there
	}
	b.unsynced = append(b.unsynced, overwritten{off, old})
}

func (b *breaking) Sync() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	err := b.fails(disk.OpSync, 0, 0)
	if err != nil {
		for i := len(b.unsynced) - 1; i >= 0; i-- {
			if w := b.unsynced[i]; b.rng.IntN(3) > 0 {
				err = errors.Join(err, b.Memory.WriteCached(w.old, w.off))
			}
		}
	}
	b.unsynced = nil
	return errors.Join(err, b.Memory.Sync())
}

func (b *breaking) Reserve(off, n int64) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.fails(disk.OpReserve, off, int(n)); err != nil {
		return err
	}
	return b.Memory.Reserve(off, n)
}

func (b *breaking) Grow(n int64) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.fails(disk.OpGrow, n, 0); err != nil {
		return err
	}
	return b.Memory.Grow(n)
}

func (b *breaking) Punch(off, n int64) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.fails(disk.OpPunch, off, int(n)); err != nil {
		return err
	}
	b.remember(off, int(max(0, min(n, b.Size()-off))))
	return b.Memory.Punch(off, n)
}

// free gives the memory of the disk and of its picture back.
func (b *breaking) free() {
	b.Memory.Free()
	if b.crashed != nil {
		b.crashed.Free()
	}
}
