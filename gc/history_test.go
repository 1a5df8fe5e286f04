package gc_test

import (
	"math/rand/v2"
	"sync/atomic"
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
			if err := v.WriteAt(stamped(stamp), rng.Int64N(80)*chunk, false); err != nil {
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
