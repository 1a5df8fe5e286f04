package recovery_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"cawrm/aodi"
	"cawrm/aodi/disk"
	"cawrm/aodi/format"
	recovery "cawrm/recover"
)

// lostCheckpoint is a disk whose newest checkpoint began an incarnation and is damaged, with records before and behind it.
func lostCheckpoint(t *testing.T) (d *disk.Memory, want [][]byte) {
	t.Helper()
	rng := newRand(5)
	d = newDisk(t)
	if err := aodi.CreateOn(d, aodi.CreateOptions{Size: 1500 * chunk, SegmentChunks: 32}); err != nil {
		t.Fatal(err)
	}
	var v *aodi.Volume
	for range 2 { // the second time it is opened after a crash
		v = open(t, d, quiet)
		for i := range 60 {
			b := make([]byte, 3*chunk)
			copy(b, fmt.Sprint("write ", i, rng.Uint64()))
			if err := v.WriteAt(b, int64(rng.IntN(1400))*chunk, i%9 == 0); err != nil {
				t.Fatal(err)
			}
		}
		if err := v.Flush(); err != nil {
			t.Fatal(err)
		}
		want = contentOf(v)
		crashed := d.Crash(rng)
		t.Cleanup(crashed.Free)
		_ = v.Close()
		d = crashed
	}
	p := &patient{t: t, d: d}
	p.load()
	p.flip(int64(1+p.meta.Seq%2)*chunk + 70)
	return d, want
}

// A checkpoint that began an incarnation and is lost keeps the volume from being opened; a repair goes on across it and
// loses nothing.
func TestRepairAcrossALostCheckpoint(t *testing.T) {
	d, want := lostCheckpoint(t)
	if _, err := aodi.OpenOn(disk.NewOverlay(d), quiet); !errors.Is(err, recovery.ErrLostCheckpoint) {
		t.Fatalf("it opens with %v", err)
	}
	rep, err := recovery.Repair(d, recovery.CheckOptions{})
	if err != nil || !rep.OK() {
		t.Fatalf("%v: %+v", err, rep)
	}
	mustHold(t, d, "repaired")
	sameContent(t, "repaired", content(t, d), want)
}

// A batch header that is damaged in the head of the log keeps the volume from being opened. The log goes on in another
// segment; what the header said stays lost, and is said.
func TestRepairOfTheHeadOfTheLog(t *testing.T) {
	p := newPatient(t)
	want := content(t, p.d)
	head := p.meta.Log.Segment
	if p.meta.Log.Chunk == 0 {
		t.Fatal("the head is empty")
	}
	p.flip(p.off(head, 0) + 50)
	if v, err := aodi.OpenOn(disk.NewOverlay(p.d), quiet); err == nil {
		_ = v.Close()
		t.Fatal("it opens")
	}
	rep, err := recovery.Repair(p.d, recovery.CheckOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if rep.OK() {
		t.Error("a header that is lost is said to be repaired")
	}
	sameContent(t, "repaired", content(t, p.d), want)
	v := open(t, p.d, quiet)
	churn(t, v, newRand(1), 50)
	after := contentOf(v)
	p.must(v.Close())
	sameContent(t, "used", content(t, p.d), after)
}

// The same damages on a mirror, with epochs that were given up: it comes back at its last whole epoch. Where a segment between
// the two checkpoints was used again, the log does not tell what was in the map: then nothing is changed, and without that
// damage the rest is repaired.
func TestRepairOfAMirror(t *testing.T) {
	rng := newRand(seedOf(t))
	refused := 0
	for range 8 {
		d := newDisk(t)
		if err := aodi.CreateOn(d, aodi.CreateOptions{Mirror: true, SegmentChunks: 32}); err != nil {
			t.Fatal(err)
		}
		v := open(t, d, quiet)
		if err := v.Adopt(format.UUID{1}, 1000*chunk, []format.Lineage{{ID: format.UUID{1}}}); err != nil {
			t.Fatal(err)
		}
		stage(t, v, rng)
		crashed := d.Crash(rng)
		t.Cleanup(crashed.Free)
		_ = v.Close()
		want := content(t, crashed)
		p := &patient{t: t, d: crashed}
		p.load()
		root := int64(p.meta.MapRoot.Phys())*chunk + 5
		if p.meta.MapRoot.HasData() {
			p.flip(root)
		}
		p.flip(int64(p.meta.SegRoot.Phys())*chunk + 5)
		before := snapshotOf(t, crashed)
		rep, err := recovery.Repair(crashed, recovery.CheckOptions{})
		if err != nil && strings.Contains(err.Error(), "cleaned away") {
			if !bytes.Equal(before, snapshotOf(t, crashed)) {
				t.Error("the container was changed")
			}
			p.flip(root)
			rep, err = recovery.Repair(crashed, recovery.CheckOptions{})
			refused++
		}
		if err != nil || !rep.OK() {
			t.Fatalf("%v: %+v", err, rep)
		}
		mustHold(t, crashed, "repaired")
		sameContent(t, "repaired", content(t, crashed), want)
	}
	t.Logf("%d of 8 refused", refused)
}

// Pages of the map that the last checkpoint wrote are made anew also when the beginning of the log is lost, as it is for good
// where segments are freed: the checkpoint before has them, and the log from there on.
func TestRepairFromTheCheckpointBefore(t *testing.T) {
	p := newPatient(t)
	want := content(t, p.d)
	p.flip(p.pageAt(p.meta.MapRoot, p.meta.MapHeight, 0) + 5)
	p.flip(int64(p.meta.MapRoot.Phys())*chunk + 5)
	p.flip(p.off(0, 0) + 100) // the first batch
	got, found := rescue(t, p.d)
	sameContent(t, "rescued", got, want)
	rep, err := recovery.Repair(p.d, recovery.CheckOptions{})
	if err != nil || rep.After == nil || rep.After.Broken[4] > 0 {
		t.Fatalf("%v, %+v; a rescue found\n%s", err, rep, found)
	}
	sameContent(t, "repaired", content(t, p.d), want)
}

// A checkpoint that says that the map pages reach beyond their segment does not lead a repair there, though a batch stands at
// their end that would. The simulation found it by a panic (seed 90000688).
func TestRepairStaysWithinASegment(t *testing.T) {
	p := newPatient(t)
	want := content(t, p.d)
	h := format.BatchHeader{Kind: format.BatchMeta, Flags: format.FlagCommit, Tag: recovery.Tag(p.meta.Container), Seq: p.meta.Seq,
		Incarnation: p.meta.Incarnation, Data: uint16(p.geo.SegmentChunks)}
	for i := range uint64(p.geo.SegmentChunks) {
		h.Entries = append(h.Entries, format.Entry{Birth: format.Position(h.Seq), LBA: i, Kind: format.KindPage, Count: 1, CRC: 1})
	}
	b := make([]byte, chunk)
	h.Encode(b)
	p.write(b, p.off(p.meta.MetaSegment, p.meta.MetaChunk))
	p.setMeta(func(m *format.Meta) { m.MetaChunk = 10 * p.geo.SegmentChunks })
	rep, err := recovery.Repair(p.d, recovery.CheckOptions{})
	if err != nil || !rep.OK() {
		t.Fatalf("%v: %+v", err, rep)
	}
	mustHold(t, p.d, "repaired")
	sameContent(t, "repaired", content(t, p.d), want)
}

// The newest meta chunk may be lost at any time, also where all that was written since the checkpoint before is dead and its
// segments were wanted again: the volume opens with all that was flushed, and a repair leaves nothing to wish for.
func TestNewestMetaChunkIsNotNeeded(t *testing.T) {
	rng := newRand(seedOf(t))
	for run := range 8 {
		d := newDisk(t)
		if err := aodi.CreateOn(d, aodi.CreateOptions{Size: 60 * chunk, SegmentChunks: 32}); err != nil {
			t.Fatal(err)
		}
		opt := quiet
		opt.CheckpointBytes = int64(2+rng.IntN(3)) << 20
		v := open(t, d, opt)
		churn(t, v, rng, 1000+rng.IntN(600))
		if err := v.Flush(); err != nil {
			t.Fatal(err)
		}
		want := contentOf(v)
		crashed := d.Crash(rng)
		t.Cleanup(crashed.Free)
		_ = v.Close()
		p := &patient{t: t, d: crashed}
		p.load()
		p.flip(int64(1+p.meta.Seq%2)*chunk + 70)
		sameContent(t, fmt.Sprintf("run %d, opened", run), content(t, crashed), want)
		rep, err := recovery.Repair(crashed, recovery.CheckOptions{})
		if err != nil || !rep.OK() {
			_ = rep.Print(os.Stderr)
			t.Fatalf("run %d: %v", run, err)
		}
		sameContent(t, fmt.Sprintf("run %d, repaired", run), content(t, crashed), want)
	}
}
