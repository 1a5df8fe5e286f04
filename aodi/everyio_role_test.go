package aodi_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"

	"cawrm/aodi"
	"cawrm/aodi/disk"
)

// The scenes in which the role of a volume changes. What is shown stays what it was, and the role is the one before or the
// one after; if the change was answered it is the one after.

// startMirrorInEpoch leaves a whole epoch, one that is committed by the promotion, and a part of one, which is given up.
func (x *trial) startMirrorInEpoch() {
	x.startMirror()
	x.must(x.epoch(1, 40<<10))
	x.must(x.stage(1, 30<<10, false))
	x.remember()
}

// startMirrorInJump leaves a jump epoch under way.
func (x *trial) startMirrorInJump() {
	x.startMirror()
	x.must(x.jump(false))
	x.remember()
}

func (x *trial) startPrimary() {
	x.startLoaded()
	x.must(x.flushAll())
	x.remember()
}

// startPast leaves a primary and a snapshot of what it was.
func (x *trial) startPast() {
	x.startLoaded()
	_, err := x.v.CreateSnapshot("then")
	x.must(err)
	x.remember()
	then := x.shown[0]
	x.must(x.steps(60))
	x.must(x.v.Trim(3*chunk, 30*chunk, false))
	x.must(x.flushAll())
	x.remember()
	x.shown = append(x.shown, then)
}

// rollback makes it what it was. One that was answered with an error, by a volume that goes on, was not made.
func (x *trial) rollback() error {
	then, err := x.v.OpenView("then")
	if err != nil {
		return err
	}
	defer then.Close()
	err = x.v.Rollback(then, fmt.Sprintf("before-%d", len(x.v.Snapshots())))
	b := make([]byte, x.v.Size())
	if err != nil && x.v.Status().Failed == nil && x.v.ReadAt(b, 0) == nil && !bytes.Equal(b, x.shown[0]) {
		x.fatalf("the rollback failed, and was made: %v", err)
	}
	return x.turned(err)
}

// startOnBranch leaves a mirror that was a primary and wrote what its source has not.
func (x *trial) startOnBranch() {
	source := x.fix.source
	x.fix.source = x.fix.branch
	x.startMirror()
	x.fix.source = source
	x.fork = x.end(x.v)
	x.must(x.v.Promote())
	for i := range 20 {
		x.must(x.v.WriteAt(stamped(1e6+uint64(i)), int64(i*7%trialChunks)*chunk, false))
	}
	x.must(x.v.Trim(0, 5*chunk, true))
	x.must(x.v.Demote(true))
	x.remember()
}

func (x *trial) end(v *aodi.Volume) aodi.Position { p, _ := v.Pointers(); return p }

// remember takes what the volume shows as what it may show.
func (x *trial) remember() {
	b := make([]byte, x.v.Size())
	x.must(x.v.ReadAt(b, 0))
	x.shown = [][]byte{b}
	x.acked.Store(0)
}

func (x *trial) promote() error { return x.turned(x.v.Promote()) }
func (x *trial) demote() error  { return x.turned(x.v.Demote(false)) }
func (x *trial) newTerm() error { return x.turned(x.v.NewTerm(1 << 60)) }

// leaveBranch becomes the source's mirror, with a jump epoch from the fork on.
func (x *trial) leaveBranch() error {
	b := make([]byte, x.source.Size())
	x.must(x.source.ReadAt(b, 0))
	x.shown = append(x.shown[:1], b)
	if _, err := x.v.Follow(x.source.Info().Lineage, true, false, ""); err != nil {
		return err
	}
	return x.turned(x.jump(true))
}

func (x *trial) turned(err error) error {
	if err == nil {
		x.acked.Store(1)
	}
	return err
}

// jump ships a jump epoch, or only the beginning of one.
func (x *trial) jump(whole bool) error {
	from := cutFrom(x.v)
	if x.fork > 0 {
		ranges, err := x.v.Branch(x.fork)
		if err != nil {
			return err
		}
		from.Diverged, from.Fork, from.Ranges = true, x.fork, ranges
	}
	return x.jumpFrom(x.source, from, whole)
}

func (x *trial) jumpFrom(source *aodi.Volume, from aodi.CutFrom, whole bool) error {
	c, err := source.OpenCut(from)
	x.must(err)
	defer c.Close()
	var b aodi.LogBatch
	for err == nil {
		if err = c.Next(16<<10, &b); err != nil && err != io.EOF {
			x.must(err)
		}
		if serr := x.v.Stage(&b, err == io.EOF); serr != nil {
			return errors.Join(serr, x.v.Unstage())
		}
		if !whole {
			return x.v.Unstage()
		}
	}
	_, err = x.v.Commit()
	return err
}

// judgeRole looks at the volume as it goes on, and at its disk after a power loss at the fault, after one now, and as it is.
func judgeRole(again func(*trial) error) func(*trial, error) {
	return func(x *trial, err error) {
		if x.v != nil && x.v.Status().Failed == nil {
			x.shows(x.v, err == nil)
		}
		if c := x.d.crashed; c != nil {
			x.reopenRole(c, x.d.before > 0, again)
		}
		now := x.d.Crash(x.rng)
		defer now.Free()
		x.reopenRole(now, err == nil, again)
		turned := err == nil
		if v := x.v; v != nil {
			failed := v.Status().Failed
			if err := x.close(); (err == nil) != (failed == nil) {
				x.fatalf("close: %v, though the volume's failure is %v", err, failed)
			}
		}
		x.reopenRole(x.d, turned, again)
	}
}

// shows ensures that a volume shows what it did before, or after, and has the role that belongs to it.
func (x *trial) shows(v *aodi.Volume, turned bool) {
	x.t.Helper()
	b := make([]byte, v.Size())
	x.must(v.ReadAt(b, 0))
	last := x.shown[len(x.shown)-1]
	if !bytes.Equal(b, last) && (turned || !bytes.Equal(b, x.shown[0])) {
		x.fatalf("the content has changed (turned: %v)", turned)
	}
	lineage := v.Info().Lineage
	if link := lineage[len(lineage)-1]; v.Role() == aodi.RolePrimary && len(lineage) > 1 && x.end(v) < link.Start+1<<40 {
		x.fatalf("a primary stands at %d, where its link %v begins", x.end(v), link)
	}
}

// reopenRole opens a disk twice, which must give the same, and makes the change again, which must succeed.
func (x *trial) reopenRole(d disk.Disk, turned bool, again func(*trial) error) {
	x.t.Helper()
	var before aodi.Info
	for i := range 3 {
		x.check(d)
		v, err := aodi.OpenOn(d, quiet)
		if err != nil {
			x.fatalf("opening again: %v", err)
		}
		x.shows(v, turned)
		info := v.Info()
		if i > 0 && (info.Role != before.Role || len(info.Lineage) != len(before.Lineage)) {
			x.fatalf("opening once gives %+v, twice %+v", before, info)
		}
		if turned && v.Role() != x.becomes {
			x.fatalf("opened %d times: the change was answered, and the volume is a %s", i+1, v.Role())
		}
		if before = info; i == 1 {
			x.retry(v, again)
			before = v.Info()
			turned = true
		}
		x.must(v.Close())
	}
	x.check(d)
}

func (x *trial) retry(v *aodi.Volume, again func(*trial) error) {
	x.t.Helper()
	mine, acked := x.v, x.acked.Load()
	defer func() { x.v = mine; x.acked.Store(acked) }()
	x.v = v
	if x.fork > 0 && slices.Equal(v.Info().Lineage, x.source.Info().Lineage) {
		return // it has left its branch
	}
	x.must(again(x))
	x.shows(v, true)
}

func roleScene(name string, before func(*trial), during func(*trial) error, becomes aodi.Role) scene {
	return scene{name, func(x *trial) { before(x); x.becomes = becomes }, during, judgeRole(during)}
}
