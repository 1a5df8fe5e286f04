package recovery_test

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"cawrm/aodi/disk"
	"cawrm/aodi/format"
	recovery "cawrm/recover"
)

// hurt flips bits at random places of the kinds that there are, but not in the newest meta chunk: without that one,
// an earlier state is right, too.
func (p *patient) hurt(rng *rand.Rand) {
	for n := 1 + rng.IntN(6); n > 0; n-- {
		seg, bit := uint32(rng.IntN(int(p.meta.Segments))), rng.IntN(chunk)
		switch rng.IntN(6) {
		case 0:
			p.flip(int64(bit)) // super chunk
		case 1:
			p.flip(int64(2-p.meta.Seq%2)*chunk + int64(bit)) // older meta chunk
		case 2:
			p.flip(p.off(seg, p.geo.Slots()) + int64(bit)) // a summary
		case 3:
			p.flip(p.off(seg, 0) + int64(bit)) // a batch header
		case 4: // map pages
			r := []format.Ref{p.meta.MapRoot, p.meta.SegRoot, p.meta.Catalog}[rng.IntN(3)]
			p.flip(int64(r.Phys())*chunk + int64(bit))
		default: // anything
			p.flip(p.off(seg, uint32(rng.IntN(int(p.geo.Slots())))) + int64(bit))
		}
	}
}

// Whatever is damaged, a rescue shows of each chunk what was written last or nothing; and a repair does not make
// anything worse: what could be read before can be read after it, and means the same.
func TestRandomDamageIsNeverShown(t *testing.T) {
	rng := newRand(seedOf(t))
	runs := 60
	if testing.Short() {
		runs = 30
	}
	whole := newPatient(t)
	want, image := content(t, whole.d), snapshotOf(t, whole.d)
	repaired, shownAll := 0, 0
	for range runs {
		d := disk.NewMemory(256 << 20)
		p := &patient{t: t, d: d}
		p.must(d.WriteCached(image, 0))
		p.load()
		p.hurt(rng)
		shown, all := shownBy(t, d, want)
		if all {
			shownAll++
		}
		rep, err := recovery.Repair(d, recovery.CheckOptions{})
		if err == nil {
			if rep.OK() {
				repaired++
			}
			if n, _ := shownBy(t, d, want); n < shown {
				t.Errorf("a rescue shows %d chunks, after the repair %d: mended %q", shown, n, rep.Mended)
			}
		}
		d.Free()
		if t.Failed() {
			return
		}
	}
	t.Logf("of %d damaged containers %d were repaired wholly, and %d shown wholly", runs, repaired, shownAll)
}

// shownBy counts the chunks that a rescue shows. Each must be right.
func shownBy(t *testing.T, d disk.Disk, want [][]byte) (n int, all bool) {
	t.Helper()
	over := disk.NewOverlay(d)
	res, err := recovery.Rescue(over)
	if err != nil {
		return 0, false
	}
	v := open(t, over, quiet)
	defer v.Close()
	for i, b := range contentOf(v) {
		if b == nil {
			continue
		}
		n++
		if !bytes.Equal(b, want[i]) {
			t.Errorf("chunk %d reads as %.20q, not %.20q; it says\n%s", i, b, want[i], said(res))
			return n, false
		}
	}
	return n, n == len(want)
}
