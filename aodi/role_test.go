package aodi_test

import (
	"bytes"
	"errors"
	"slices"
	"sync/atomic"
	"syscall"
	"testing"

	"cawrm/aodi"
	"cawrm/aodi/disk"
	"cawrm/aodi/format"
)

// TestPromotedLogIsOfItsOwnHistory ensures that what a mirror had got of an epoch which never came in whole is not in its log
// once it is the primary: its mirrors would hold what only the old primary has. Where the batch that was given up ends the
// log, and where it begins below the place of the promotion.
func TestPromotedLogIsOfItsOwnHistory(t *testing.T) {
	for name, before := range map[string]int{"behind the last epoch": 0, "across the end of the next one": 3} {
		t.Run(name, func(t *testing.T) {
			ds, dm, dn := newDisk(t, 1<<30), newDisk(t, 1<<30), newDisk(t, 1<<30)
			create(t, ds, 64*chunk, 32)
			src := open(t, ds, quiet)
			write := func(v *aodi.Volume, lba int64, stamp uint64) {
				t.Helper()
				if err := v.WriteAt(stamped(stamp), lba*chunk, true); err != nil {
					t.Fatal(err)
				}
			}
			for i := range int64(10) {
				write(src, i, 100+uint64(i))
			}
			m, n := newMirror(t, dm, 32, src, quiet), newMirror(t, dn, 32, src, quiet)
			end, _ := src.Pointers()
			copyLog(t, src, m, end-aodi.Position(before), 1<<20, 100)
			copyLog(t, src, n, end-aodi.Position(before), 1<<20, 100)
			for i := range int64(8) { // the tail of the old primary
				write(src, i, 200+uint64(i))
			}
			at, _ := m.Pointers()
			stagePart(t, src, m, at)
			if before > 0 { // the source sends it again up to where it was when another took its place
				copyLog(t, src, m, end, 1<<20, 100)
			}
			if err := m.Promote(); err != nil {
				t.Fatal(err)
			}
			write(m, 20, 300)
			if err := m.Close(); err != nil { // nothing of the log is in memory then
				t.Fatal(err)
			}
			m = open(t, dm, quiet)
			_, durable := m.Pointers()
			if _, err := n.Follow(m.Info().Lineage, false, false, ""); err != nil {
				t.Fatal(err)
			}
			copyLog(t, m, n, durable, 1<<20, 100)
			want, got := make([]byte, 64*chunk), make([]byte, 64*chunk)
			if err := errors.Join(m.ReadAt(want, 0), n.ReadAt(got, 0)); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(want, got) {
				t.Error("a mirror that was fed from the log is not what its source is")
			}
			for _, v := range []*aodi.Volume{src, m, n} {
				if err := v.Close(); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// stagePart stages all that the source has from a position on as a part of an epoch, and gives it up.
func stagePart(t *testing.T, src, dst *aodi.Volume, from aodi.Position) {
	t.Helper()
	_, durable := src.Pointers()
	r, err := src.ReadLog(from)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var b aodi.LogBatch
	for r.Position() < durable {
		if err := r.Next(durable, 8<<20, &b); err != nil {
			t.Fatal(err)
		}
		if err := dst.Stage(&b, false); err != nil {
			t.Fatal(err)
		}
	}
	if err := dst.Unstage(); err != nil {
		t.Fatal(err)
	}
}

// TestRoleChangeWithoutSpace ensures that a role which cannot be made durable for want of space, at whichever request for it, is
// the old one, and that it has changed when the answer says so: also after a crash, and nothing that was flushed is lost.
func TestRoleChangeWithoutSpace(t *testing.T) {
	for _, to := range []aodi.Role{aodi.RoleMirror, aodi.RolePrimary} {
		changed := false
		for i := 0; !changed && i < 400; i++ {
			m := newDisk(t, 1<<30)
			create(t, m, 64*512*chunk, 32)
			var left atomic.Int64
			left.Store(1 << 40)
			v := open(t, &disk.Faulty{Disk: m, Rule: func(op disk.Op, _ int64, _ int) error {
				if (op == disk.OpReserve || op == disk.OpGrow) && left.Add(-1) < 0 {
					return syscall.ENOSPC
				}
				return nil
			}}, quiet)
			for k := range 26 + int64(i%20) { // so that now this, now that checkpoint needs another segment
				if err := v.WriteAt(stamped(1), k*512*chunk, k%7 == 0); err != nil {
					t.Fatal(err)
				}
			}
			change := func() error { return v.Demote(false) }
			if to == aodi.RolePrimary {
				if err := v.Demote(false); err != nil {
					t.Fatal(err)
				}
				change = v.Promote
			}
			was := v.Role()
			left.Store(int64(i / 20))
			err := change()
			none := left.Swap(1<<40) < 0
			changed = err == nil && !none && i%20 == 19 // it needed no more
			now := v.Role()
			if (err == nil) != (now == to) || err != nil && now != was {
				t.Fatalf("request %d: from %s to %s: %v, and it is a %s", i, was, to, err, now)
			}
			if now == aodi.RolePrimary {
				if err := v.WriteAt(stamped(2), 2*chunk, true); err != nil {
					t.Fatalf("request %d: %v", i, err)
				}
			}
			after := m.Crash(newRand(uint64(i)))
			_ = v.Close()
			check(t, after)
			v = open(t, after, quiet)
			got := make([]byte, chunk)
			if err := v.ReadAt(got, 2*chunk); err != nil || v.Role() != now || now == aodi.RolePrimary && !bytes.Equal(got, stamped(2)) {
				t.Fatalf("request %d: to %s: it was a %s, and comes up as a %s: %v", i, to, now, v.Role(), err)
			}
			if err := v.Close(); err != nil {
				t.Fatal(err)
			}
			free(t, after)
		}
		if !changed {
			t.Errorf("it never became a %s", to)
		}
	}
}

// TestEmptyPrimaryIsDemoted ensures that a volume to which nothing was written is demoted, also when power fails right then, and can be
// promoted again, as can a mirror that has got nothing but that from it.
func TestEmptyPrimaryIsDemoted(t *testing.T) {
	d := newDisk(t, 1<<30)
	create(t, d, 64*chunk, 32)
	v := open(t, d, quiet)
	if err := v.Demote(false); err != nil || v.Role() != aodi.RoleMirror {
		t.Fatalf("%v, and it is a %s", err, v.Role())
	}
	after := d.Crash(newRand(1))
	_ = v.Close()
	check(t, after)
	v = open(t, after, quiet)
	if v.Role() != aodi.RoleMirror {
		t.Errorf("it comes up as a %s", v.Role())
	}
	if err := errors.Join(v.Promote(), v.WriteAt(stamped(2), 0, false), v.Demote(false), v.Promote(), v.Close()); err != nil {
		t.Error(err)
	}
}

// TestFollowWithoutSpace ensures that a mirror which takes over its source's lineage, and has no space to make that durable, does not
// believe that it has: the next session says it again, and what comes up after a crash is what was said to be done.
func TestFollowWithoutSpace(t *testing.T) {
	failed := false
	for n := int64(1); n < 80 && !failed; n++ {
		ds, dm := newDisk(t, 1<<30), newDisk(t, 1<<30)
		create(t, ds, 80*512*chunk, 32)
		src := open(t, ds, quiet)
		for k := range n {
			if err := src.WriteAt(stamped(1), k*512*chunk, true); err != nil {
				t.Fatal(err)
			}
		}
		var full atomic.Bool
		m := newMirror(t, dm, 32, src, quiet)
		end, _ := src.Pointers()
		copyLog(t, src, m, end, 1<<20, 100)
		if err := m.Close(); err != nil {
			t.Fatal(err)
		}
		v := open(t, &disk.Faulty{Disk: fixed{dm, 1 << 30}, Rule: func(op disk.Op, _ int64, _ int) error {
			if full.Load() && (op == disk.OpReserve || op == disk.OpGrow) {
				return syscall.ENOSPC
			}
			return nil
		}}, quiet)
		for k := range n {
			if err := src.WriteAt(stamped(2), k*512*chunk+chunk, true); err != nil {
				t.Fatal(err)
			}
		}
		end, _ = src.Pointers()
		copyLog(t, src, v, end, 1<<20, 100)
		if err := errors.Join(src.Demote(false), src.Promote()); err != nil {
			t.Fatal(err)
		}
		full.Store(true)
		lineage := src.Info().Lineage
		_, err := v.Follow(lineage, false, false, "")
		if failed = err != nil; failed {
			_, err = v.Follow(lineage, false, false, "")
		}
		after := dm.Crash(newRand(uint64(n)))
		_ = v.Close()
		again := open(t, after, quiet)
		if got := len(again.Info().Lineage); err == nil && got != 2 {
			t.Errorf("after %d leaves it said that it follows, and comes up with a lineage of %d links", n, got)
		}
		if err := errors.Join(again.Close(), src.Close()); err != nil {
			t.Fatal(err)
		}
		free(t, after)
	}
	if !failed {
		t.Error("there was always space")
	}
}

// TestFollowDropsAnEpochDurably ensures that a mirror which has got a part of one source's jump epoch, and goes on with another source,
// has given up that part when the first record may come: with a crash in between, also one that takes the newest checkpoint, it would come
// up with both, and would leave its branch later as if nothing had come since.
func TestFollowDropsAnEpochDurably(t *testing.T) {
	for _, older := range []bool{false, true} {
		ds, dm := newDisk(t, 1<<30), newDisk(t, 1<<30)
		create(t, ds, 1<<30, 32)
		src := open(t, ds, quiet)
		m := newMirror(t, dm, 32, src, quiet)
		must := func(err error) {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
		}
		for i := range int64(20) {
			must(src.WriteAt(stamped(uint64(i)), i*chunk, true))
		}
		end, _ := src.Pointers()
		copyLog(t, src, m, end, 1<<20, 100)
		own := src.Info().Lineage
		other := append(slices.Clone(own), format.Lineage{ID: format.UUID{1}, Start: 10})
		_, err := m.Follow(other, true, false, "unsent-1")
		must(err)
		const term = aodi.Position(1 << 48)
		part := stagedBatch(0, 3, func(i int) uint64 { return uint64(i) }, 1000)
		part.First, part.End, part.Jump = end, term+500, true
		for i := range part.Entries {
			part.Entries[i].Birth = term + aodi.Position(i)
		}
		must(m.Stage(part, false))
		must(errors.Join(m.Unstage(), m.Checkpoint()))
		if m.Coming() == nil || !slices.Equal(m.ComingLineage(), other) {
			t.Fatal("nothing is coming")
		}
		_, err = m.Follow(own, false, false, "")
		must(err)
		must(src.WriteAt(stamped(77), chunk, true))
		end, _ = src.Pointers()
		copyLog(t, src, m, end, 1<<20, 100)
		after := dm.Crash(newRand(1))
		_ = m.Close()
		if older {
			loseNewestMeta(t, after)
		}
		m = open(t, after, quiet)
		if m.Coming() != nil || !slices.Equal(m.ComingLineage(), own) {
			t.Errorf("older checkpoint %v: comes up with an epoch of %v", older, m.ComingLineage())
		}
		if kept, err := m.Follow(other, true, false, "unsent-2"); err != nil || !kept {
			t.Errorf("older checkpoint %v: leaves its branch again, and what has come since is kept: %v, %v", older, kept, err)
		}
		must(errors.Join(m.Close(), src.Close()))
		check(t, after)
		free(t, after)
	}
}
