package aodi_test

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"cawrm/aodi"
	"cawrm/aodi/disk"
)

// TestWritersTakeTurns ensures that writes which wait for the log go on in the order in which they came: when there is room for a few
// hundred records again, each of the writers that waited has one before any has two.
func TestWritersTakeTurns(t *testing.T) {
	const writers, each = 8, 1000 // chunks
	m := newDisk(t, 1<<30)
	create(t, m, writers*each*chunk, 0)
	synctest.Test(t, func(t *testing.T) {
		gate := make(chan struct{})
		var shut atomic.Bool
		d := &disk.Faulty{Disk: m, Rule: func(op disk.Op, _ int64, _ int) error {
			if op == disk.OpWrite && shut.Load() {
				<-gate
			}
			return nil
		}}
		v := open(t, d, aodi.Options{CheckpointInterval: time.Hour, DurableInterval: time.Hour, CheckpointBytes: 1 << 40})
		shut.Store(true)
		var stop atomic.Bool
		for w := range int64(writers) {
			go func() {
				for i := int64(0); !stop.Load(); i++ {
					if err := v.WriteAt(stamped(uint64(i)), (w*each+i%each)*chunk, false); err != nil {
						t.Error(err)
						return
					}
				}
			}()
		}
		synctest.Wait() // all buffers are full
		var from []aodi.Position
		for len(from) < 20 {
			at, _ := v.Pointers()
			gate <- struct{}{}
			synctest.Wait()
			if now, _ := v.Pointers(); now > at { // it was the oldest batch, whose buffer is used again
				from = append(from, at)
			}
		}
		stop.Store(true)
		shut.Store(false)
		close(gate)
		if err := v.Flush(); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		end, _ := v.Pointers()
		for _, at := range from {
			r, err := v.ReadLog(at)
			if err != nil {
				t.Fatal(err)
			}
			var b aodi.LogBatch
			if err := r.Next(end, writers*chunk, &b); err != nil {
				t.Fatal(err)
			}
			r.Close()
			had := map[uint64]bool{}
			for _, e := range b.Entries[:writers] {
				had[e.LBA/each] = true
			}
			if len(had) < writers {
				t.Errorf("from position %d on, the first %d records are of %d of %d writers", at, writers, len(had), writers)
			}
		}
		if err := v.Close(); err != nil {
			t.Fatal(err)
		}
	})
}
