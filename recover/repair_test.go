package recovery_test

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"

	"cawrm/aodi"
	"cawrm/aodi/disk"
	"cawrm/aodi/format"
	recovery "cawrm/recover"
)

// content is what a volume shows, without changing its container. Chunks that fail to be read are nil.
func content(t testing.TB, d disk.Disk) [][]byte {
	t.Helper()
	v := open(t, disk.NewOverlay(d), quiet)
	defer v.Close()
	return contentOf(v)
}

func contentOf(v *aodi.Volume) [][]byte {
	all := make([][]byte, v.Size()/chunk)
	for i := range all {
		b := make([]byte, chunk)
		if v.ReadAt(b, int64(i)*chunk) == nil {
			all[i] = b
		}
	}
	return all
}

// sameContent fails unless got is want, but for chunks that may be lost, which must fail to be read.
func sameContent(t testing.TB, when string, got, want [][]byte, lost ...uint64) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%s: %d chunks, not %d", when, len(got), len(want))
	}
	for i := range want {
		if slices.Contains(lost, uint64(i)) {
			if got[i] != nil {
				t.Errorf("%s: chunk %d is lost, and reads as %.20q", when, i, got[i])
			}
		} else if got[i] == nil || !bytes.Equal(got[i], want[i]) {
			t.Fatalf("%s: chunk %d reads as %.20q, not %.20q", when, i, got[i], want[i])
		}
	}
}

// snapshotOf is the whole disk.
func snapshotOf(t testing.TB, d disk.Disk) []byte {
	t.Helper()
	b := make([]byte, d.Size())
	if err := d.ReadAt(b, 0); err != nil {
		t.Fatal(err)
	}
	return b
}

type damage struct {
	name   string
	damage func(p *patient)
}

// repairable are damages that a repair mends wholly. Each breaks a rule, or keeps the volume from being opened.
var repairable = []damage{
	{"super chunk", func(p *patient) { p.flip(40) }},
	{"super chunk wiped", func(p *patient) { p.write(make([]byte, chunk), 0) }},
	{"newest meta chunk", func(p *patient) { p.flip(int64(1+p.meta.Seq%2)*chunk + 70) }},
	{"older meta chunk", func(p *patient) { p.flip(int64(2-p.meta.Seq%2)*chunk + 70) }},
	{"checkpoint in the wrong meta chunk", func(p *patient) {
		own := int64(1+p.meta.Seq%2) * chunk
		p.write(p.read(own, chunk), 3*chunk-own)
		p.write(make([]byte, chunk), own)
	}},
	{"root of the forward map", func(p *patient) { p.flip(int64(p.meta.MapRoot.Phys())*chunk + 5) }},
	{"a leaf of the forward map", func(p *patient) { p.flip(p.pageAt(p.meta.MapRoot, p.meta.MapHeight, 1) + 5) }},
	{"all leaves of the forward map", func(p *patient) {
		for leaf := range uint64(4) {
			p.flip(p.pageAt(p.meta.MapRoot, p.meta.MapHeight, leaf) + 5)
		}
	}},
	{"root of the segment table", func(p *patient) { p.flip(int64(p.meta.SegRoot.Phys())*chunk + 5) }},
	{"rows of the segment table", func(p *patient) { p.flip(p.pageAt(p.meta.SegRoot, p.meta.SegHeight, 0) + 5) }},
	{"both roots", func(p *patient) {
		p.flip(int64(p.meta.SegRoot.Phys())*chunk + 5)
		p.flip(int64(p.meta.MapRoot.Phys())*chunk + 5)
	}},
	{"catalog", func(p *patient) { p.flip(int64(p.meta.Catalog.Phys())*chunk + 30) }},
	{"live count", func(p *patient) { p.setRow(p.segment(sealedLog), func(r *format.SegmentRow) { r.Live++ }) }},
	{"row says free", func(p *patient) {
		p.setRow(p.segment(sealedLog), func(r *format.SegmentRow) { *r = format.SegmentRow{} })
	}},
	{"row with a state that does not exist", func(p *patient) { p.setRow(p.segment(sealedLog), func(r *format.SegmentRow) { r.State = 9 }) }},
	{"row with a kind that does not exist", func(p *patient) { p.setRow(p.segment(sealedLog), func(r *format.SegmentRow) { r.Kind = 9 }) }},
	{"row that is open and no head", func(p *patient) {
		p.setRow(p.segment(sealedLog), func(r *format.SegmentRow) { r.State = format.SegmentOpen })
	}},
	{"maximum position too small", func(p *patient) { p.setRow(p.segment(sealedLog), func(r *format.SegmentRow) { r.MaxPosition = 1 }) }},
	{"maximum position too large", func(p *patient) {
		p.setRow(p.segment(sealedLog), func(r *format.SegmentRow) { r.MaxPosition = 1 << 40 })
	}},
	{"free row that is not zero", func(p *patient) {
		p.setRow(p.segment(func(r format.SegmentRow) bool { return r.State == format.SegmentFree }), func(r *format.SegmentRow) { r.MaxPosition = 7 })
	}},
	{"mapped count", func(p *patient) { p.setMeta(func(m *format.Meta) { m.Mapped += 3 }) }},
	{"free count", func(p *patient) { p.setMeta(func(m *format.Meta) { m.Free++ }) }},
	{"summary", func(p *patient) { p.flip(p.off(p.segment(sealedLog), p.geo.Slots()) + 100) }},
	{"summary wiped", func(p *patient) { p.write(make([]byte, chunk), p.off(p.segment(sealedLog), p.geo.Slots())) }},
	{"summary of map pages", func(p *patient) {
		p.flip(p.off(p.segment(func(r format.SegmentRow) bool {
			return r.State == format.SegmentSealed && r.Kind == format.BatchMeta
		}), p.geo.Slots()) + 100)
	}},
	{"summary that says something else", func(p *patient) {
		p.editSummary(p.segment(sealedLog), func(s *format.Summary) { s.Slots[1].LBA ^= 1 })
	}},
	{"nearly everything", func(p *patient) {
		p.flip(40)
		p.flip(int64(2-p.meta.Seq%2)*chunk + 70)
		p.flip(int64(p.meta.MapRoot.Phys())*chunk + 5)
		p.flip(int64(p.meta.SegRoot.Phys())*chunk + 5)
		p.flip(int64(p.meta.Catalog.Phys())*chunk + 30)
		p.flip(p.off(p.segment(sealedLog), p.geo.Slots()) + 100)
	}},
}

// misled are damages whose checksums match, as no disk makes them but a mistake in a program does. Reading does not
// find them; a check does, and the log knows better.
var misled = []damage{
	{"reference to another chunk's data", func(p *patient) { p.setRef(103, p.ref(108)) }},
	{"reference to a free segment", func(p *patient) {
		free := p.segment(func(r format.SegmentRow) bool { return r.State == format.SegmentFree })
		p.setRef(103, format.MakeRef(p.geo.Phys(free, 3), 9))
	}},
	{"reference beyond the end", func(p *patient) { p.setRef(103, format.MakeRef(p.geo.Phys(5000, 3), 9)) }},
	{"reference to a page", func(p *patient) { p.setRef(103, p.meta.MapRoot) }},
	{"reference that is missing", func(p *patient) { p.setRef(103, format.Unmapped) }},
}

// newestMeta is the meta chunk of the newest valid checkpoint.
func (p *patient) newestMeta() (newest []byte) {
	seq := uint64(0)
	for i := range int64(2) {
		b := p.read((1+i)*chunk, chunk)
		if m, err := format.DecodeMeta(b); err == nil && m.Seq > seq {
			newest, seq = b, m.Seq
		}
	}
	return newest
}

// pageAt is the byte at which a leaf stands.
func (p *patient) pageAt(root format.Ref, height uint32, leaf uint64) int64 {
	p.t.Helper()
	for level := int(height) - 1; level > 0; level-- {
		b := p.read(int64(root.Phys())*chunk, chunk)
		slot := leaf >> (9 * (level - 1)) & 511
		root = format.Ref(uint64(b[slot*8]) | uint64(b[slot*8+1])<<8 | uint64(b[slot*8+2])<<16 | uint64(b[slot*8+3])<<24 | uint64(b[slot*8+4])<<32 |
			uint64(b[slot*8+5])<<40 | uint64(b[slot*8+6])<<48 | uint64(b[slot*8+7])<<56)
		if !root.HasData() {
			p.t.Fatalf("leaf %d does not exist", leaf)
		}
	}
	return int64(root.Phys()) * chunk
}

// What can be derived is derived: afterwards every rule holds, the content is what it was, and the volume goes on.
func TestRepairMendsEachDamage(t *testing.T) {
	for _, c := range slices.Concat(repairable, misled) {
		t.Run(c.name, func(t *testing.T) {
			p := newPatient(t)
			want := content(t, p.d)
			c.damage(p)
			valid := p.newestMeta()
			rep, err := recovery.Repair(p.d, recovery.CheckOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if a, b := p.read(chunk, chunk), p.read(2*chunk, chunk); !bytes.Equal(a, valid) && !bytes.Equal(b, valid) {
				t.Error("the checkpoint that was valid is overwritten")
			}
			if !rep.OK() || len(rep.Mended) == 0 && rep.Before.OK() {
				t.Errorf("not repaired: mended %q, refused %q", rep.Mended, rep.Refused)
			}
			mustHold(t, p.d, "repaired")
			sameContent(t, "repaired", content(t, p.d), want)
			v := open(t, p.d, quiet)
			if m := v.Mirrors(); len(m) != 1 || m[0].ID != "b" {
				t.Errorf("mirrors are %v", m)
			}
			churn(t, v, newRand(7), 100)
			after := contentOf(v)
			p.must(v.Close())
			mustHold(t, p.d, "used after the repair")
			sameContent(t, "used after the repair", content(t, p.d), after)
		})
	}
}

// fixed is a disk that cannot grow.
type fixed struct{ disk.Disk }

func (fixed) Fixed() bool { return true }

func (f fixed) Grow(n int64) error {
	if n > f.Size() {
		return fmt.Errorf("grow to %d: %w", n, syscall.ENOSPC)
	}
	return nil
}

// On a device that has no room behind the last segment, a repair uses free ones, and never one of which only a damaged row
// says that it is free.
func TestRepairOfADeviceThatIsFull(t *testing.T) {
	p := newPatient(t)
	want := content(t, p.d)
	p.setRow(p.segment(sealedLog), func(r *format.SegmentRow) { *r = format.SegmentRow{} })
	p.flip(int64(p.meta.MapRoot.Phys())*chunk + 5)
	image := p.read(0, int(p.geo.Bytes(p.meta.Segments)))
	for left := range int64(5) { // segments of room behind the last
		q := &patient{t: t, d: newDisk(t)}
		q.must(q.d.WriteCached(image, 0))
		q.must(q.d.Grow(int64(len(image)) + left*p.geo.SegmentBytes()))
		rep, err := recovery.Repair(fixed{q.d}, recovery.CheckOptions{})
		switch {
		case left < 4 && errors.Is(err, syscall.ENOSPC):
			t.Logf("%d free: %v", left, err)
		case err != nil || rep.After == nil:
			t.Errorf("%d free: %v, %+v", left, err, rep)
		default:
			t.Logf("%d free: repaired, %d violations remain", left, rep.After.Total())
			sameContent(t, "repaired", content(t, q.d), want)
		}
	}
}

// A container in which every rule holds is not touched, and neither is one of which nothing can be derived.
func TestRepairLeavesAlone(t *testing.T) {
	for _, c := range []struct {
		name   string
		damage func(p *patient)
		refuse string // Repair's error; "" when it has none
	}{
		{"a healthy one", func(*patient) {}, ""},
		{"data", func(p *patient) { p.flip(int64(p.ref(105).Phys())*chunk + 9) }, ""},
		{"both meta chunks", func(p *patient) { p.flip(chunk + 70); p.flip(2*chunk + 70) }, "no valid checkpoint"},
		{"a cold leaf of the map and the log", func(p *patient) {
			p.flip(p.pageAt(p.meta.MapRoot, p.meta.MapHeight, 2) + 5)
			p.flip(p.off(0, 0) + 100)
		}, "the first batch of the log"},
		{"a cold leaf of the map and the middle of the log", func(p *patient) {
			p.flip(p.pageAt(p.meta.MapRoot, p.meta.MapHeight, 2) + 5)
			p.flip(p.off(p.segment(func(r format.SegmentRow) bool { return sealedLog(r) && r.MaxPosition > 200 }), 0) + 100)
		}, "cleaned away"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := newPatient(t)
			c.damage(p)
			before := snapshotOf(t, p.d)
			_, err := recovery.Repair(p.d, recovery.CheckOptions{})
			if c.refuse == "" && err != nil || c.refuse != "" && (err == nil || !strings.Contains(err.Error(), c.refuse)) {
				t.Errorf("Repair says %v, want %q in it", err, c.refuse)
			}
			if !bytes.Equal(before, snapshotOf(t, p.d)) {
				t.Error("the container was changed")
			}
		})
	}
}

// After a crash with records behind the checkpoint, a repair loses none of them, and power lost at any moment of a
// repair leaves a container that can be repaired.
func TestRepairAfterCrash(t *testing.T) {
	rng := newRand(seedOf(t))
	for run := range 6 {
		d := newDisk(t)
		if err := aodi.CreateOn(d, aodi.CreateOptions{Size: 2000 * chunk, SegmentChunks: 32}); err != nil {
			t.Fatal(err)
		}
		v := open(t, d, quiet)
		churn(t, v, rng, 150)
		if err := v.Flush(); err != nil {
			t.Fatal(err)
		}
		want := contentOf(v)
		crashed := d.Crash(rng)
		t.Cleanup(crashed.Free)
		_ = v.Close()
		p := &patient{t: t, d: crashed}
		p.load()
		if p.meta.MapRoot.HasData() {
			p.flip(int64(p.meta.MapRoot.Phys())*chunk + 5)
		}
		p.flip(int64(p.meta.SegRoot.Phys())*chunk + 5)
		p.must(p.d.Sync())
		cut := &disk.Faulty{Disk: p.d}
		n := rng.IntN(12)
		cut.Rule = func(op disk.Op, _ int64, _ int) error {
			if op == disk.OpWrite || op == disk.OpSync {
				if n--; n < 0 {
					return fmt.Errorf("power is lost: %w", disk.ErrInUse)
				}
			}
			return nil
		}
		_, _ = recovery.Repair(cut, recovery.CheckOptions{})
		again := p.d.Crash(rng)
		t.Cleanup(again.Free)
		rep, err := recovery.Repair(again, recovery.CheckOptions{})
		if err != nil || !rep.OK() {
			t.Fatalf("run %d: %v", run, err)
		}
		mustHold(t, again, "repaired")
		sameContent(t, "repaired", content(t, again), want)
	}
}
