package gc_test

import (
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"cawrm/aodi"
	"cawrm/aodi/disk"
	"cawrm/gc"
)

// TestReadErrorIsNoReasonToRefuse ensures that no write is refused where cleaning meets segments that cannot be read now: the others are
// cleaned, and these when they can be read.
func TestReadErrorIsNoReasonToRefuse(t *testing.T) {
	rng := rand.New(rand.NewPCG(seedOf(t), 0))
	const capacity = 16 << 20
	m := disk.NewMemory(64 << 20)
	t.Cleanup(m.Free)
	var reads, failed atomic.Int64
	d := &disk.Faulty{Disk: m, Rule: func(op disk.Op, off int64, n int) error {
		if op == disk.OpRead && n > chunk && reads.Add(1)%20 == 0 {
			failed.Add(1)
			return fmt.Errorf("read %d bytes at %d: %w", n, off, syscall.EIO)
		}
		return nil
	}} // not of a map page, without which a write cannot be
	chunks := int64(capacity / 3 * 2 / chunk)
	if err := aodi.CreateOn(d, aodi.CreateOptions{Size: chunks * chunk, Capacity: capacity, SegmentChunks: 64}); err != nil {
		t.Fatal(err)
	}
	v, err := aodi.OpenOn(d, aodi.Options{DurableInterval: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	c := gc.Start(v, gc.Options{})
	for stamp := range 3 * chunks {
		at := rng.Int64N(chunks)
		if stamp < chunks {
			at = stamp
		}
		if err := v.WriteAt(stamped(uint64(stamp)+1), at*chunk, false); err != nil {
			v.Close()
			t.Fatalf("write %d: %v; %d of %d reads have failed", stamp, err, failed.Load(), reads.Load())
		}
	}
	if failed.Load() == 0 {
		t.Error("no read has failed")
	}
	t.Logf("%d of %d reads have failed, %d segments cleaned", failed.Load(), reads.Load(), c.Cleaned())
	c.Close()
	if err := v.Close(); err != nil {
		t.Error(err)
	}
}
