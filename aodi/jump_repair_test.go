package aodi_test

import (
	"errors"
	"fmt"
	"io"
	"os"
	"testing"

	"cawrm/aodi"
	"cawrm/aodi/disk"
	"cawrm/aodi/format"
	recovery "cawrm/recover"
)

// TestJumpEpochGoesOnAfterARepair ensures that a container that lost its segment table in a crash is repaired whatever earlier
// lives have left in its segments, goes on with the jump epoch that it was in, has all of the log from its history_floor on
// and nothing else in it, and frees segments as before.
func TestJumpEpochGoesOnAfterARepair(t *testing.T) {
	rng := newRand(seedOf(t))
	repairs, whole := 0, 0
	hurt := func(p *jumpPair, d *disk.Memory) {
		c, err := recovery.Newest(d)
		if err != nil {
			t.Fatal(err)
		}
		if !c.Meta.SegRoot.HasData() {
			return
		}
		lost := make([]byte, chunk)
		if err := errors.Join(d.WriteCached(lost, int64(c.Meta.SegRoot.Phys())*chunk), d.Sync()); err != nil {
			t.Fatal(err)
		}
		over := disk.NewOverlay(d)
		if _, err := recovery.Rescue(over); err != nil {
			t.Fatal(err)
		}
		p.looksRight("rescued", over)
		rep, err := recovery.Repair(d, recovery.CheckOptions{})
		if err != nil || !rep.OK() {
			_ = rep.Print(os.Stderr)
			t.Fatalf("not repaired: %v", err)
		}
		p.looksRight("repaired", disk.NewOverlay(d))
		after, err := recovery.Newest(d)
		if err := errors.Join(err, d.Sync()); err != nil {
			t.Fatal(err)
		}
		if repairs++; after.Meta.HistoryFl == c.Meta.HistoryFl {
			whole++
		}
	}
	for range 3 {
		jumpInterrupted(t, newRand(rng.Uint64()), hurt)
	}
	if t.Logf("%d repairs, %d kept all of the log", repairs, whole); repairs == 0 {
		t.Error("nothing was repaired")
	}
}

// looksRight reads all of a container, and its log.
func (p *jumpPair) looksRight(what string, d disk.Disk) {
	p.t.Helper()
	v, err := aodi.OpenOn(d, aodi.Options{})
	if err != nil {
		p.t.Fatalf("%s: %v", what, err)
	}
	defer v.Close()
	if err := v.ReadAt(make([]byte, v.Size()), 0); err != nil {
		p.t.Errorf("%s: %v", what, err)
	}
	if err := p.readLog(v); err != nil {
		p.t.Errorf("%s: the log from %d on: %v", what, v.HistoryFloor(), err)
	}
}

// readLog compares the log with what was written.
func (p *jumpPair) readLog(v *aodi.Volume) error {
	r, err := v.ReadLog(v.HistoryFloor())
	if err != nil {
		return err
	}
	defer r.Close()
	end, _ := v.Pointers()
	var b aodi.LogBatch
	for {
		err := r.Next(end, 1<<20, &b)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		for i, e := range b.Entries {
			op := p.h.ops[b.First+aodi.Position(i)]
			if op.stamp == grown && e.Kind == format.KindSize && int(e.LBA)+int(e.Count) == op.chunk {
				continue
			}
			if e.Birth != b.First+aodi.Position(i) || int(e.LBA) != op.chunk || (op.stamp == 0) != (e.Kind != format.KindData) {
				return fmt.Errorf("at %d stands %+v, not %+v", b.First+aodi.Position(i), e, op)
			}
		}
	}
}
