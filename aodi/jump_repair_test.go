package aodi_test

import (
	"os"
	"testing"

	"cawrm/aodi"
	"cawrm/aodi/disk"
	recovery "cawrm/recover"
)

// A container that is repaired after a crash goes on with the jump epoch that it was in, and frees segments as before.
func TestJumpEpochGoesOnAfterARepair(t *testing.T) {
	rng := newRand(seedOf(t))
	repairs := 0
	for range 3 {
		jumpInterrupted(t, newRand(rng.Uint64()), func(d *disk.Memory) {
			c, err := recovery.Newest(d)
			if err != nil {
				t.Fatal(err)
			}
			if !c.Meta.SegRoot.HasData() {
				return
			}
			b := make([]byte, 4096)
			if err := d.WriteCached(b, int64(c.Meta.SegRoot.Phys())*4096); err != nil {
				t.Fatal(err)
			}
			over := disk.NewOverlay(d)
			if _, err := recovery.Rescue(over); err != nil {
				t.Fatal(err)
			}
			v, err := aodi.OpenOn(over, aodi.Options{})
			if err != nil {
				t.Fatal("rescued: ", err)
			}
			if err := v.ReadAt(make([]byte, v.Size()), 0); err != nil {
				t.Error("rescued: ", err)
			}
			_ = v.Close()
			rep, err := recovery.Repair(d, recovery.CheckOptions{})
			if err != nil || !rep.OK() {
				if rep != nil {
					_ = rep.Print(os.Stderr)
				}
				t.Fatalf("not repaired: %v", err)
			}
			if err := d.Sync(); err != nil {
				t.Fatal(err)
			}
			repairs++
		})
	}
	t.Logf("%d repairs", repairs)
}
