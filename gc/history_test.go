package gc_test

import (
	"errors"
	"math/rand/v2"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"cawrm/aodi"
	"cawrm/aodi/disk"
	"cawrm/aodi/format"
	"cawrm/gc"
)

// TestHistoryIsNoReasonToRefuse ensures that no write fails where what is live fills the container only since the history wants it: it
// gives way.
func TestHistoryIsNoReasonToRefuse(t *testing.T) {
	rng := rand.New(rand.NewPCG(seedOf(t), 0))
	for range 3 {
		d := disk.NewMemory(64 << 20)
		t.Cleanup(d.Free)
		if err := aodi.CreateOn(d, aodi.CreateOptions{Size: 600_000 * chunk, SegmentChunks: 32, Capacity: (format.DataStart + 29*32) * chunk}); err != nil {
			t.Fatal(err)
		}
		var clock atomic.Int64
		v, err := aodi.OpenOn(d, aodi.Options{History: aodi.HistoryWindow{Age: 24 * time.Hour}, DurableInterval: time.Hour,
			Now: func() time.Time { return time.Unix(0, clock.Load()) }})
		if err != nil {
			t.Fatal(err)
		}
		c := gc.Start(v, gc.Options{})
		for stamp := range uint64(4000) {
			at := rng.Int64N(80) * chunk
			if err := v.WriteAt(stamped(stamp), at, false); err != nil {
				v.Close()
				t.Fatalf("write %d: %v; %+v", stamp, err, v.Space())
			}
			if clock.Add(int64(time.Minute)); stamp%80 == 0 {
				if err := v.Checkpoint(); err != nil {
					t.Fatal(err)
				}
			}
		}
		c.Close()
		if err := v.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestHistoryEndsAWait ensures that a write which finds no space, and for which giving up the history gains nothing, is told so: the
// checkpoints that look for space make no new history, which would be given up for ever.
func TestHistoryEndsAWait(t *testing.T) {
	rng := rand.New(rand.NewPCG(seedOf(t), 0))
	for _, cleaned := range []bool{false, true} {
		d := disk.NewMemory(64 << 20)
		t.Cleanup(d.Free)
		if err := aodi.CreateOn(d, aodi.CreateOptions{Size: 600_000 * chunk, SegmentChunks: 32, Capacity: (format.DataStart + 20*32) * chunk}); err != nil {
			t.Fatal(err)
		}
		v, err := aodi.OpenOn(d, aodi.Options{History: aodi.HistoryWindow{Bytes: 256 << 10}, DurableInterval: time.Hour})
		if err != nil {
			t.Fatal(err)
		}
		var c *gc.Cleaner
		if cleaned {
			c = gc.Start(v, gc.Options{})
		}
		refused := 0
		for stamp := uint64(0); refused < 20 && stamp < 4000; stamp++ {
			err := v.WriteAt(stamped(stamp), rng.Int64N(1000)*600*chunk, false)
			if errors.Is(err, syscall.ENOSPC) {
				refused++
			} else if err != nil {
				t.Fatalf("write %d: %v", stamp, err)
			}
		}
		if refused == 0 {
			t.Error("the container was never full")
		}
		if cleaned {
			c.Close()
		}
		if err := v.Close(); err != nil && !errors.Is(err, syscall.ENOSPC) {
			t.Fatal(err)
		}
	}
}
