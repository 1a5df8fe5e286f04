package gc_test

import (
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"cawrm/aodi"
	"cawrm/aodi/disk"
	"cawrm/gc"
)

// TestComesToRest ensures that a cleaner which has less free space than it wants, and can gain none, leaves the disk alone: the map
// pages of snapshots can be moved about for ever.
func TestComesToRest(t *testing.T) {
	rng := rand.New(rand.NewPCG(seedOf(t), 0))
	for run := range 8 {
		synctest.Test(t, func(t *testing.T) {
			d := disk.NewMemory(64 << 20)
			defer d.Free()
			var writes atomic.Int64
			const most = 100000
			f := &disk.Faulty{Disk: d, Rule: func(op disk.Op, _ int64, _ int) error {
				if op == disk.OpWrite && writes.Add(1) > most {
					return syscall.EIO // else a cleaner that goes on would not let time pass
				}
				return nil
			}}
			if err := aodi.CreateOn(f, aodi.CreateOptions{Size: 40 * 512 * chunk, SegmentChunks: 32, Capacity: int64(29+run) * 32 * chunk}); err != nil {
				t.Fatal(err)
			}
			v, err := aodi.OpenOn(f, aodi.Options{})
			if err != nil {
				t.Fatal(err)
			}
			c := gc.Start(v, gc.Options{})
			for i := range 8 {
				for range 20 {
					_ = v.WriteAt(stamped(rng.Uint64()), rng.Int64N(40)*512*chunk, false)
				}
				_, _ = v.CreateSnapshot(fmt.Sprint(i))
			}
			time.Sleep(3 * time.Minute)
			before, s := writes.Load(), v.Space()
			time.Sleep(5 * time.Minute)
			if n := writes.Load(); n > before || n > most {
				t.Errorf("run %d: %d writes, and %d more though nobody does anything: %+v", run, before, n-before, s)
			}
			c.Close()
			_ = v.Close()
		})
		if t.Failed() {
			return
		}
	}
}
