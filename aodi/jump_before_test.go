package aodi_test

import (
	"errors"
	"strings"
	"testing"

	"cawrm/aodi"
	"cawrm/aodi/disk"
	recovery "cawrm/recover"
)

// TestJumpEpochFromTheCheckpointBefore ensures that a container in whose log a jump epoch stands, and which has lost its newest meta
// chunk, shows what it showed, or is refused and repaired to that, or refused for good: never a part of the epoch.
func TestJumpEpochFromTheCheckpointBefore(t *testing.T) {
	rng := newRand(seedOf(t))
	opened, refused := 0, 0
	hurt := func(p *jumpPair, d *disk.Memory) {
		lost := d.Crash(p.rng)
		defer free(t, lost)
		loseNewestMeta(t, lost)
		if p.showsWhatItShowed(lost) == nil {
			opened++
			return
		}
		refused++
		if rep, err := recovery.Repair(lost, recovery.CheckOptions{}); err == nil && rep.OK() {
			// Not mended: where records in order lie between that checkpoint and the epoch, the mirror has to be made anew.
			if err := p.showsWhatItShowed(lost); err != nil && !strings.Contains(err.Error(), "a jump epoch begins where a checkpoint stood that is lost") {
				t.Fatalf("repaired: %v", err)
			}
		}
	}
	for range 6 {
		jumpInterrupted(t, newRand(rng.Uint64()), hurt)
	}
	t.Logf("%d opened, %d refused", opened, refused)
}

// loseNewestMeta takes a container's newest meta chunk: the next opening begins with the checkpoint before.
func loseNewestMeta(t *testing.T, d *disk.Memory) {
	t.Helper()
	c, err := recovery.Newest(d)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(d.WriteCached(make([]byte, chunk), int64(1+c.Meta.Seq%2)*chunk), d.Sync()); err != nil {
		t.Fatal(err)
	}
}

// showsWhatItShowed opens a container and holds its content against the model as of where it stands.
func (p *jumpPair) showsWhatItShowed(d disk.Disk) error {
	v, err := aodi.OpenOn(d, p.opt)
	if err != nil {
		return err
	}
	defer v.Close()
	at, _ := v.Pointers()
	upTo := p.h.until(int(at))
	if got := upTo.prefixOf(p.t, v); !sameState(upTo, got) {
		p.t.Fatalf("without its newest meta chunk, at %d, it shows the first %d records", at, got)
	}
	return nil
}
