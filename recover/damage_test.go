package recovery_test

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"cawrm/aodi"
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
	runs := 25
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

// forge changes a structure at random and mends its checksums, which is worse than what disks do.
func (p *patient) forge(rng *rand.Rand) {
	seg := uint32(rng.IntN(int(p.meta.Segments)))
	switch rng.IntN(4) {
	case 0:
		p.setRef(uint64(rng.IntN(2000)), format.MakeRef(format.Phys(rng.Uint64()>>(24+rng.IntN(40))), rng.Uint32()))
	case 1:
		p.setRow(seg, func(r *format.SegmentRow) {
			*r = format.SegmentRow{Live: uint32(rng.IntN(40)), State: format.SegmentState(rng.IntN(4)), Kind: format.BatchKind(rng.IntN(5)),
				MaxPosition: format.Position(rng.Uint64() >> rng.IntN(64))}
		})
	case 2:
		p.setMeta(func(m *format.Meta) {
			for _, f := range []*uint32{&m.Log.Segment, &m.Log.Chunk, &m.Log.Next, &m.MetaSegment, &m.MetaChunk, &m.MetaNext, &m.CatalogLen} {
				if rng.IntN(4) == 0 {
					*f = rng.Uint32() >> rng.IntN(32)
				}
			}
			for _, f := range []*uint64{&m.Log.Seq, &m.Logged, &m.Mapped, &m.Free, (*uint64)(&m.Position), (*uint64)(&m.Catalog), (*uint64)(&m.SegRoot)} {
				if rng.IntN(4) == 0 {
					*f = rng.Uint64() >> rng.IntN(64)
				}
			}
			m.CatalogLen = min(m.CatalogLen, format.MaxCatalog)
		})
	default:
		p.flip(int64(p.meta.MapRoot.Phys())*chunk + int64(rng.IntN(chunk)))
	}
}

// Structures that say nonsense with the right checksums end in an answer or an error, and never in a panic.
func TestForgedStructuresDoNoHarm(t *testing.T) {
	rng := newRand(seedOf(t))
	whole := newPatient(t)
	image := snapshotOf(t, whole.d)
	mended := 0
	for range 25 {
		d := disk.NewMemory(256 << 20)
		p := &patient{t: t, d: d}
		p.must(d.WriteCached(image, 0))
		p.load()
		p.forge(rng)
		if _, err := recovery.Newest(d); err == nil {
			over := disk.NewOverlay(d)
			if _, err := recovery.Rescue(over); err == nil {
				if v, err := aodi.OpenOn(over, quiet); err == nil {
					contentOf(v)
					_ = v.Close()
				}
			}
			if rep, err := recovery.Repair(d, recovery.CheckOptions{}); err == nil && rep.OK() {
				mended++
			}
		}
		d.Free()
	}
	t.Logf("%d of 25 were repaired", mended)
}
