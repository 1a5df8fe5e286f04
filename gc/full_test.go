package gc_test

import (
	"bytes"
	"errors"
	"fmt"
	"sync"
	"syscall"
	"testing"

	"cawrm/aodi"
	"cawrm/aodi/disk"
	"cawrm/gc"
)

// thin is a file on a file system that has only so many blocks.
type thin struct {
	*disk.Memory
	mu   sync.Mutex
	has  map[int64]bool // blocks
	most int
}

const block = 4096

func (d *thin) take(off, n int64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	var fresh []int64
	for b := off / block; b*block < off+n; b++ {
		if !d.has[b] {
			fresh = append(fresh, b)
		}
	}
	if len(d.has)+len(fresh) > d.most {
		return fmt.Errorf("thin: %d bytes at %d: %w", n, off, syscall.ENOSPC)
	}
	for _, b := range fresh {
		d.has[b] = true
	}
	return nil
}

func (d *thin) WriteAt(p []byte, off int64) error {
	if err := d.take(off, int64(len(p))); err != nil {
		return err
	}
	return d.Memory.WriteAt(p, off)
}

func (d *thin) WriteCached(p []byte, off int64) error {
	if err := d.take(off, int64(len(p))); err != nil {
		return err
	}
	return d.Memory.WriteCached(p, off)
}

func (d *thin) Zero(off, n int64) error {
	if err := d.take(off, n); err != nil {
		return err
	}
	return d.Memory.Zero(off, n)
}

func (d *thin) Reserve(off, n int64) error {
	if err := d.take(off, n); err != nil {
		return err
	}
	return d.Memory.Reserve(off, n)
}

func (d *thin) Punch(off, n int64) error {
	d.mu.Lock()
	for b := off / block; b*block < off+n; b++ {
		delete(d.has, b)
	}
	d.mu.Unlock()
	return d.Memory.Punch(off, n)
}

// TestFullFileSystem ensures that a volume whose file system is full refuses writes with ENOSPC and does not fail, goes on with reads
// and discards, and takes writes again after a discard; and that it can be closed and opened in that state.
func TestFullFileSystem(t *testing.T) {
	m := disk.NewMemory(256 << 20)
	t.Cleanup(m.Free)
	d := &thin{Memory: m, has: map[int64]bool{}, most: 16 << 20 / block}
	const chunks = 64 << 20 / chunk
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(aodi.CreateOn(d, aodi.CreateOptions{Size: chunks * chunk, SegmentChunks: 32}))
	v, err := aodi.OpenOn(d, aodi.Options{})
	must(err)
	c := gc.Start(v, gc.Options{})
	for round := range 3 {
		n := int64(0)
		for ; n < chunks; n++ {
			if err := v.WriteAt(stamped(uint64(n+1)), n*chunk, false); errors.Is(err, syscall.ENOSPC) {
				break
			} else if err != nil {
				t.Fatal(err)
			}
		}
		t.Logf("round %d: %d chunks were taken, of %d blocks", round, n, d.most)
		if n < int64(d.most)*6/10 {
			t.Errorf("round %d: %d chunks were taken, of %d blocks", round, n, d.most)
		}
		must(v.Flush())
		b := make([]byte, chunk)
		for at := range n {
			if err := v.ReadAt(b, at*chunk); err != nil || !bytes.Equal(b, stamped(uint64(at+1))) {
				t.Fatalf("full, chunk %d: %v", at, err)
			}
		}
		if round == 1 { // the daemon is started again on a full file system
			c.Close()
			must(v.Close())
			v, err = aodi.OpenOn(d, aodi.Options{})
			must(err)
			c = gc.Start(v, gc.Options{})
		}
		step := n / 16
		for at := int64(0); at+step <= n; at += step {
			if err := v.Trim(at*chunk, step/2*chunk, true); err != nil {
				t.Fatalf("discard from chunk %d on: %v", at, err)
			}
		}
		for at := range n / 8 {
			if err := v.WriteAt(stamped(7), at*chunk, false); err != nil {
				t.Fatalf("write %d after the discards: %v", at, err)
			}
		}
		must(v.Trim(0, chunks*chunk, true))
	}
	finish(t, d, v, c)
}
