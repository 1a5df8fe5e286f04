package aodi_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"slices"
	"sync/atomic"
	"syscall"
	"testing"

	"cawrm/aodi"
	"cawrm/aodi/disk"
)

// The scenes of a mirror, which is fed with the log of a source that does not fail.

func (x *trial) startNewMirror() {
	from := x.fix.source
	x.source, x.h = from.v, from.h
	x.cuts = map[int]bool{0: true}
	x.must(aodi.CreateOn(x.d, aodi.CreateOptions{Mirror: true, SegmentChunks: 32}))
}

func (x *trial) startMirror() {
	x.startNewMirror()
	x.must(x.adopt())
	x.must(x.epoch(1, 60<<10))
}

func (x *trial) adopt() error {
	if err := x.open(); err != nil {
		return err
	}
	id := x.source.Info()
	return x.v.Adopt(id.Volume, id.Size, id.Lineage)
}

// epoch stages n epochs of so many bytes and commits them.
func (x *trial) epoch(n, bytes int) error {
	err := x.stage(n, bytes, true)
	if err != nil {
		return err
	}
	p, err := x.v.Commit()
	if err == nil {
		x.acked.Store(int64(p))
	}
	return err
}

// stage stages n epochs, or parts of one, from where the mirror stands.
func (x *trial) stage(n, bytes int, whole bool) error {
	at, _ := x.v.Pointers()
	_, durable := x.source.Pointers()
	r, err := x.source.ReadLog(at)
	x.must(err)
	defer r.Close()
	var b aodi.LogBatch
	for range n {
		if err := r.Next(durable, bytes, &b); err == io.EOF {
			return nil
		} else {
			x.must(err)
		}
		if whole { // also if it fails: the commit may have reached the disk
			x.cuts[int(b.End)] = true
		}
		if err := x.v.Stage(&b, whole); err != nil {
			return err
		}
	}
	return nil
}

// epochs commits some, breaks off one, and goes on, with a checkpoint in between.
func (x *trial) epochs() error {
	for _, step := range []func() error{
		func() error { return x.epoch(3, 100<<10) },
		func() error { return x.stage(2, 30<<10, false) },
		x.unstage,
		func() error { return x.epoch(2, 1<<10) },
		x.v.Checkpoint,
		func() error { return x.epoch(2, 200<<10) },
	} {
		if err := step(); err != nil {
			return errors.Join(err, x.unstage())
		}
	}
	return nil
}

// startBetweenSources leaves a part of a jump epoch of a source that is another one's successor.
func (x *trial) startBetweenSources() {
	x.startMirror()
	at, _ := x.v.Pointers()
	_, err := x.v.Follow(x.fix.branch.v.Info().Lineage, true, false, "unsent")
	x.must(err)
	x.must(x.jumpFrom(x.fix.branch.v, aodi.CutFrom{Position: at, Diverged: true, Fork: 1, Ranges: []aodi.Range{{First: 0, End: trialChunks}}}, false))
	if x.v.Coming() == nil {
		x.fatalf("nothing is coming")
	}
}

// otherSource goes on in order with the first one.
func (x *trial) otherSource() error {
	if _, err := x.v.Follow(x.source.Info().Lineage, false, false, ""); err != nil {
		return err
	}
	at, _ := x.v.Pointers()
	x.moved = int(at)
	return x.epochs()
}

func (x *trial) unstage() error { return x.v.Unstage() }

// startStaged leaves whole epochs that nobody has committed and a part of one.
func (x *trial) startStaged() {
	x.startMirror()
	x.must(x.epoch(2, 100<<10))
	x.must(x.stage(2, 50<<10, true))
}

func (x *trial) startCrashedMirror() {
	x.startStaged()
	x.swap(x.d.Crash(x.rng))
}

func (x *trial) openMirror() error { return x.open() }

// judgeMirror: as judge, and what is shown is the source at the end of an epoch.
func (x *trial) judgeMirror(err error) {
	if x.v != nil {
		x.mirrorGoesOn()
	}
	if c := x.d.crashed; c != nil {
		x.reopenMirror(c, x.d.before)
	}
	now := x.d.Crash(x.rng)
	defer now.Free()
	x.reopenMirror(now, int(x.acked.Load()))
	if v := x.v; v != nil {
		failed := v.Status().Failed
		if err := x.close(); (err == nil) != (failed == nil) {
			x.fatalf("close: %v, though the volume's failure is %v", err, failed)
		}
	}
	x.reopenMirror(x.d, int(x.acked.Load()))
}

func (x *trial) mirrorGoesOn() {
	_ = x.v.Flush() // what is still queued is written now, or has failed the volume
	// A commit that failed half-way leaves a map that is no cut: then it must not be read.
	if failed := x.v.Status().Failed; failed != nil && errors.Is(x.v.ReadAt(make([]byte, chunk), 0), failed) {
		return
	}
	x.isCut(x.v)
	if x.v.Status().Failed == nil {
		x.finish(x.v)
		return
	}
	if _, err := x.v.Commit(); err == nil {
		at, _ := x.v.Pointers() // nothing was left to commit
		x.isCut(x.v)
		x.acked.Store(int64(at))
	}
}

// finish feeds a mirror the rest of the log.
func (x *trial) finish(v *aodi.Volume) {
	x.t.Helper()
	id := x.source.Info()
	if !v.Info().HasIdentity {
		x.must(v.Adopt(id.Volume, id.Size, id.Lineage))
	}
	if v.Coming() != nil || !slices.Equal(v.ComingLineage(), id.Lineage) {
		_, err := v.Follow(id.Lineage, false, false, "")
		x.must(err)
	}
	_, durable := x.source.Pointers()
	err := x.rest(v)
	if err != nil && errors.Is(err, x.d.was.err) { // what is made ready ahead had failed: told once, then tried again
		err = x.rest(v)
	}
	x.must(err)
	a, b := make([]byte, v.Size()), make([]byte, v.Size())
	x.must(errors.Join(v.ReadAt(a, 0), x.source.ReadAt(b, 0)))
	if end, _ := v.Pointers(); end != durable || !bytes.Equal(a, b) {
		x.fatalf("the mirror stands at %d of %d, and differs", end, durable)
	}
	x.cuts[int(durable)] = true
}

func (x *trial) rest(v *aodi.Volume) error {
	if err := v.Unstage(); err != nil {
		return err
	}
	if _, err := v.Commit(); err != nil {
		return err
	}
	if v != x.v { // a copy of the mirror acknowledges for itself
		acked, mine := x.acked.Load(), x.v
		defer func() { x.v = mine; x.acked.Store(acked) }()
		x.v = v
	}
	return x.epoch(1<<30, 100<<10)
}

// isCut ensures that a mirror is its source at a position at which an epoch ended, and returns it.
func (x *trial) isCut(v *aodi.Volume) int {
	x.t.Helper()
	p, _ := v.Pointers()
	if !x.cuts[int(p)] {
		x.fatalf("the mirror stands at %d, where no epoch ends", p)
	}
	state := map[int]uint64{}
	for _, op := range x.h.ops[:p] {
		state[op.chunk] = op.stamp
	}
	b := make([]byte, chunk)
	for c := range int(v.Size() / chunk) {
		x.must(v.ReadAt(b, int64(c)*chunk))
		if got := binary.LittleEndian.Uint64(b); got != state[c] {
			x.fatalf("the mirror stands at %d, and chunk %d is %d, not %d", p, c, got, state[c])
		}
	}
	return int(p)
}

func (x *trial) reopenMirror(d disk.Disk, acked int) {
	x.t.Helper()
	x.check(d)
	v, err := aodi.OpenOn(d, quiet)
	if err != nil {
		x.fatalf("opening again: %v", err)
	}
	if p := x.isCut(v); p < acked {
		x.fatalf("the mirror stands at %d after opening again, it had acknowledged %d", p, acked)
	}
	if x.moved > 0 && acked > x.moved && v.Coming() != nil {
		x.fatalf("the mirror goes on with an epoch that it had given up at %d, and had acknowledged %d since", x.moved, acked)
	}
	x.finish(v)
	x.must(v.Close())
	x.check(d)
}

// TestEpochThatFillsItsSegment ensures that an epoch that is staged is committed, or refused, also when its last record has
// filled a segment and there is no other one for the commit: the source would wait for an acknowledgement for ever.
func TestEpochThatFillsItsSegment(t *testing.T) {
	ds := newDisk(t, 1<<28)
	create(t, ds, 1<<20, 64)
	src := open(t, ds, quiet)
	defer src.Close()
	refused := 0
	for reserves := range int64(12) { // so many can be made ready, then the disk is full
		dm := newDisk(t, 1<<28)
		newMirror(t, dm, 32, src, quiet).Close()
		var left atomic.Int64
		left.Store(reserves)
		f := &disk.Faulty{Disk: dm, Rule: func(op disk.Op, _ int64, _ int) error {
			if op == disk.OpReserve && left.Add(-1) < 0 {
				return syscall.ENOSPC
			}
			return nil
		}}
		v, err := aodi.OpenOn(f, quiet)
		if errors.Is(err, syscall.ENOSPC) {
			continue
		} else if err != nil {
			t.Fatal(err)
		}
		at := aodi.Position(0)
		for _, n := range []int{30, 29, 29, 29} { // a header and so many chunks fill what is left
			err := v.Stage(stagedBatch(at, n, func(i int) uint64 { return uint64(i) }, 1), true)
			if errors.Is(err, syscall.ENOSPC) {
				refused++
				break
			} else if err != nil {
				t.Fatal(err)
			}
			at += aodi.Position(n)
			if p, err := v.Commit(); p != at || err != nil {
				t.Errorf("%d reserved: an epoch that ends at %d was staged, and the mirror stands at %d: %v", reserves, at, p, err)
			}
		}
		if err := v.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	}
	if refused == 0 {
		t.Error("the disk was never full")
	}
}
