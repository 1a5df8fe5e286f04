package gc_test

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"path/filepath"
	"syscall"
	"testing"

	"cawrm/aodi"
	recovery "cawrm/recover"
)

// TestCapacityGrows ensures that a container that is full takes writes again when it is given more, also those that wait.
func TestCapacityGrows(t *testing.T) {
	const capacity = 16 << 20
	chunks := int64(4 * capacity / chunk)
	d, v, c := container(t, chunks, capacity, 32, nil)
	at := int64(0)
	fill := func() {
		t.Helper()
		for ; at < chunks; at++ {
			if err := v.WriteAt(stamped(uint64(at+1)), at*chunk, false); errors.Is(err, syscall.ENOSPC) {
				return
			} else if err != nil {
				t.Fatal(err)
			}
		}
	}
	fill()
	had := at
	if had == 0 || had == chunks {
		t.Fatalf("%d chunks fit", had)
	}
	if err := v.SetCapacity(3 * capacity); err != nil {
		t.Fatal(err)
	}
	fill()
	if at < had*5/2 || at == chunks {
		t.Errorf("%d chunks fit, %d into a third", at, had)
	}
	if err := v.SetCapacity(0); err != nil {
		t.Fatal(err)
	}
	if fill(); at < chunks {
		t.Errorf("%d chunks fit without a bound", at)
	}
	b := make([]byte, chunk)
	for i := range at {
		if err := v.ReadAt(b, i*chunk); err != nil || !bytes.Equal(b, stamped(uint64(i+1))) {
			t.Fatalf("chunk %d: %v", i, err)
		}
	}
	finish(t, d, v, c)
}

// TestCapacityShrinks ensures that a container can be bounded to little more than what is live, and not to less; that it keeps to that
// in overwrites that follow, also when it is opened again, and loses nothing.
func TestCapacityShrinks(t *testing.T) {
	rng := rand.New(rand.NewPCG(seedOf(t), 0))
	const chunks = 4096
	path := filepath.Join(t.TempDir(), "disk")
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(aodi.Create(path, aodi.CreateOptions{Size: chunks * chunk, SegmentChunks: 64}))
	v, err := aodi.Open(path, aodi.Options{})
	must(err)
	c := start(v)
	closed := func() {
		t.Helper()
		c.Close()
		must(v.Close())
		r, err := recovery.CheckFile(path, recovery.CheckOptions{})
		must(err)
		for _, v := range r.Violations {
			t.Errorf("check: %v", v)
		}
	}
	now := make([]uint64, chunks)
	stamp := uint64(0)
	write := func(n int) {
		t.Helper()
		for range n {
			at := rng.Int64N(chunks / 2)
			stamp++
			if err := v.WriteAt(stamped(stamp), at*chunk, false); err != nil {
				t.Fatalf("write %d: %v", stamp, err)
			}
			now[at] = stamp
		}
	}
	write(5 * chunks)
	clean := func() {
		t.Helper()
		if _, err := c.Run(context.Background(), nil); err != nil {
			t.Fatal(err)
		}
	}
	least, live := v.LeastCapacity()
	if least > 2*live {
		t.Errorf("%d bytes need %d", live, least)
	}
	if err := v.SetCapacity(live); !errors.Is(err, aodi.ErrLive) {
		t.Errorf("less than what is live: %v", err)
	}
	if err := v.SetCapacity(least); !errors.Is(err, aodi.ErrInUse) || v.Space().Capacity != 0 {
		t.Errorf("before it is cleaned: %v", err)
	}
	clean()
	if err := v.SetCapacity(least); err != nil {
		t.Fatal(err)
	}
	if n := v.Status().PhysicalBytes; n > least {
		t.Errorf("%d bytes on the disk, bounded to %d", n, least)
	}
	for range 2 {
		write(2 * chunks)
		if n := v.Status().PhysicalBytes; n > least || v.Space().Capacity != least {
			t.Errorf("%d bytes on the disk, bounded to %d", n, v.Space().Capacity)
		}
		b := make([]byte, chunk)
		for at, stamp := range now {
			if err := v.ReadAt(b, int64(at)*chunk); err != nil || !bytes.Equal(b, stamped(stamp)) {
				t.Fatalf("chunk %d: %v", at, err)
			}
		}
		closed()
		v, err = aodi.Open(path, aodi.Options{})
		must(err)
		c = start(v)
	}
	closed()
}
