package aodi_test

import (
	"bytes"
	"errors"
	"fmt"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"cawrm/aodi"
)

// high is a size whose map is higher than that of a small volume.
const high = (512*512 + 50) * chunk

// TestResizeRefuses ensures that only a primary grows, and only to what is a size.
func TestResizeRefuses(t *testing.T) {
	d := newDisk(t, 1<<30)
	create(t, d, 100*chunk, 32)
	v := open(t, d, quiet)
	m := newMirror(t, newDisk(t, 1<<30), 32, v, quiet)
	for size, want := range map[int64]error{99 * chunk: aodi.ErrShrink, 100*chunk + 1: syscall.EINVAL, 0: syscall.EINVAL, -chunk: syscall.EINVAL, 1 << 50: syscall.EINVAL, 100 * chunk: nil} {
		if err := v.Resize(size); !errors.Is(err, want) || (err == nil) != (want == nil) {
			t.Errorf("%d: %v, want %v", size, err, want)
		}
	}
	if err := m.Resize(200 * chunk); !errors.Is(err, syscall.EROFS) {
		t.Errorf("a mirror: %v", err)
	}
	if end, _ := v.Pointers(); v.Size() != 100*chunk || end != 0 {
		t.Errorf("size %d, end %d", v.Size(), end)
	}
	if err := errors.Join(v.Close(), m.Close()); err != nil {
		t.Fatal(err)
	}
}

// readAll reads a volume, or a view of one.
func readAll(t *testing.T, v interface {
	Size() int64
	ReadAt([]byte, int64) error
}) []byte {
	t.Helper()
	b := make([]byte, v.Size())
	if err := v.ReadAt(b, 0); err != nil {
		t.Fatal(err)
	}
	return b
}

// TestResizeKeepsSnapshots ensures that a volume that grows, over heights of its map, keeps its data and gets zeroes, that snapshots
// keep their size and content whichever are deleted, and that one can be rolled back to: the size stays.
func TestResizeKeepsSnapshots(t *testing.T) {
	rng := newRand(seedOf(t))
	d := newDisk(t, 1<<30)
	create(t, d, 150*chunk, 32)
	v := open(t, d, quiet)
	now := image{make([]byte, 150*chunk), make([]bool, 150)}
	snaps := map[string][]byte{}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	compare := func() {
		t.Helper()
		if !bytes.Equal(readAll(t, v), now.b) {
			t.Fatal("the volume is not what was written")
		}
		for name, want := range snaps {
			w, err := v.OpenView(name)
			must(err)
			if !bytes.Equal(readAll(t, w), want) {
				t.Fatalf("snapshot %s of %d bytes is not what it was, of %d", name, w.Size(), len(want))
			}
			w.Close()
		}
	}
	for i := range 8 {
		for range 60 {
			now.step(t, v, rng)
		}
		name := fmt.Sprint("s", i)
		_, err := v.CreateSnapshot(name)
		must(err)
		snaps[name] = bytes.Clone(now.b)
		more := 1 + rng.IntN(300)
		must(v.Resize(v.Size() + int64(more)*chunk))
		now.b, now.hole = append(now.b, make([]byte, more*chunk)...), append(now.hole, make([]bool, more)...)
		for range 20 {
			now.step(t, v, rng)
		}
		if rng.IntN(3) == 0 {
			for name := range snaps {
				must(v.DeleteSnapshot(name))
				delete(snaps, name)
				break
			}
		}
		if rng.IntN(2) == 0 {
			must(v.Close())
			check(t, d)
			v = open(t, d, quiet)
		}
		compare()
	}
	for name, was := range snaps {
		w, err := v.OpenView(name)
		must(err)
		must(v.Rollback(w, "kept-"+name))
		w.Close()
		snaps["kept-"+name] = bytes.Clone(now.b)
		clear(now.b)
		copy(now.b, was)
		compare()
		break
	}
	must(v.Close())
	check(t, d)
	v = open(t, d, quiet)
	compare()
	must(v.Close())
}

// TestResizeClone ensures that a clone can become larger than the snapshot that it is made of, and is zeroes there.
func TestResizeClone(t *testing.T) {
	rng := newRand(seedOf(t))
	d := newDisk(t, 1<<30)
	create(t, d, 300*chunk, 32)
	v := open(t, d, quiet)
	now := image{make([]byte, 300*chunk), make([]bool, 300)}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for range 100 {
		now.step(t, v, rng)
	}
	_, err := v.CreateSnapshot("s")
	must(err)
	must(v.CreateClone("s", "c", filepath.Join(t.TempDir(), "c")))
	c, err := v.OpenClone("c", quiet)
	must(err)
	must(c.Resize(900 * chunk))
	now.b, now.hole = append(now.b, make([]byte, 600*chunk)...), append(now.hole, make([]bool, 600)...)
	must(c.Trim(290*chunk, 100*chunk, false))
	now.trim(290, 100)
	for range 300 {
		now.step(t, c, rng)
	}
	for range 2 {
		if !bytes.Equal(readAll(t, c), now.b) {
			t.Fatal("the clone is not what was written")
		}
		must(c.Close())
		c, err = v.OpenClone("c", quiet)
		must(err)
	}
	end := int64(0)
	must(c.Extents(0, c.Size(), func(n int64, _ uint32) bool { end += n; return true }))
	if end != 900*chunk {
		t.Errorf("extents of %d bytes", end)
	}
	must(c.Close())
	must(v.Close())
}

// TestResizeHistory ensures that a moment has the size that the volume had then, and a clone of it too.
func TestResizeHistory(t *testing.T) {
	d := newDisk(t, 1<<30)
	create(t, d, 100*chunk, 32)
	opt := quiet
	now, seconds := time.Unix(1e9, 0), atomic.Int64{} // its goroutines ask too
	opt.Now = func() time.Time { return now.Add(time.Duration(seconds.Load()) * time.Second) }
	opt.History = aodi.HistoryWindow{Age: time.Hour}
	v := open(t, d, opt)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	step := func(err error) time.Time {
		t.Helper()
		must(err)
		must(v.Flush())
		at := opt.Now()
		seconds.Add(1)
		return at
	}
	must(v.Checkpoint())
	seconds.Add(1)
	before := step(v.WriteAt(stamped(1), 0, false))
	grew := step(v.Resize(high))
	after := step(v.WriteAt(stamped(2), high-chunk, false))
	for at, want := range map[time.Time]struct {
		size int64
		last []byte
	}{before: {100 * chunk, stamped(0)}, grew: {high, stamped(0)}, after: {high, stamped(2)}} {
		w, err := v.OpenMoment(at)
		must(err)
		b := make([]byte, chunk)
		if w.Size() != want.size {
			t.Errorf("%v: size %d, want %d", at, w.Size(), want.size)
		} else if must(w.ReadAt(b, want.size-chunk)); !bytes.Equal(b, want.last) {
			t.Errorf("%v: another content", at)
		}
		w.Close()
	}
	must(v.CreateCloneAt(after, "c", filepath.Join(t.TempDir(), "c")))
	c, err := v.OpenClone("c", quiet)
	must(err)
	b := make([]byte, chunk)
	if must(c.ReadAt(b, high-chunk)); c.Size() != high || !bytes.Equal(b, stamped(2)) {
		t.Errorf("the clone has %d bytes", c.Size())
	}
	must(c.Close())
	must(v.Close())
	check(t, d)
}

// TestJumpBringsSize ensures that a mirror has its source's size when a jump epoch is whole and not before, wherever it was
// interrupted; and that one that is given up leaves nothing.
func TestJumpBringsSize(t *testing.T) {
	for parts := range 6 {
		ds, dm := newDisk(t, 1<<30), newDisk(t, 1<<30)
		create(t, ds, 100*chunk, 32)
		src := open(t, ds, quiet)
		dst := newMirror(t, dm, 32, src, quiet)
		must := func(err error) {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
		}
		for i := range int64(50) {
			must(src.WriteAt(stamped(uint64(i+1)), i*chunk, false))
		}
		copyCut(t, src, dst, 1<<20)
		must(src.Resize(high))
		for i := range int64(200) {
			must(src.WriteAt(stamped(uint64(i+100)), high-(i*997+1)*chunk, false))
		}
		must(src.Flush())
		c, err := src.OpenCut(cutFrom(dst))
		must(err)
		var b aodi.LogBatch
		for range parts {
			must(c.Next(10*chunk, &b))
			must(dst.Stage(&b, false))
			if parts%2 == 1 {
				must(dst.Checkpoint())
			}
		}
		c.Close()
		must(dst.Unstage())
		if parts > 2 { // the epoch goes on after a crash
			crashed := dm.Crash(newRand(uint64(parts)))
			t.Cleanup(func() { free(t, crashed) })
			_ = dst.Close()
			check(t, crashed)
			dm, dst = crashed, open(t, crashed, quiet)
		}
		if dst.Size() != 100*chunk {
			t.Fatalf("%d parts: the mirror has %d bytes too early", parts, dst.Size())
		}
		if parts == 4 {
			must(dst.Promote()) // gives up what has come
			if dst.Size() != 100*chunk {
				t.Errorf("the new primary has %d bytes", dst.Size())
			}
			must(dst.Resize(200 * chunk))
		} else {
			copyCut(t, src, dst, 1<<20)
			if dst.Size() != high {
				t.Fatalf("%d parts: the mirror has %d bytes, not %d", parts, dst.Size(), high)
			}
			got := make([]byte, chunk)
			for i := range int64(200) {
				must(dst.ReadAt(got, high-(i*997+1)*chunk))
				if !bytes.Equal(got, stamped(uint64(i+100))) {
					t.Fatalf("%d parts: chunk %d from the end is another one", parts, i*997+1)
				}
			}
		}
		must(dst.Close())
		check(t, dm)
		must(src.Close())
	}
}

// TestUnstageForgetsSize ensures that a size that came with an epoch that broke off does not count.
func TestUnstageForgetsSize(t *testing.T) {
	ds, dm := newDisk(t, 1<<30), newDisk(t, 1<<30)
	create(t, ds, 100*chunk, 32)
	src := open(t, ds, quiet)
	dst := newMirror(t, dm, 32, src, quiet)
	if err := errors.Join(src.Resize(200*chunk), src.WriteAt(stamped(1), 150*chunk, true)); err != nil {
		t.Fatal(err)
	}
	r, err := src.ReadLog(0)
	if err != nil {
		t.Fatal(err)
	}
	var size, both aodi.LogBatch
	if err := errors.Join(r.Next(1, 1<<20, &size), dst.Stage(&size, false), dst.Unstage()); err != nil {
		t.Fatal(err)
	}
	r.Close()
	if r, err = src.ReadLog(0); err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if err := r.Next(2, 1<<20, &both); err != nil {
		t.Fatal(err)
	}
	only := both
	only.Entries = both.Entries[1:]
	only.Entries[0].Birth, only.End = 0, 1
	if err := dst.Stage(&only, true); !errors.Is(err, syscall.EINVAL) {
		t.Errorf("a record beyond the end: %v", err)
	}
	only.Entries[0].Birth = 1
	if err := errors.Join(dst.Unstage(), dst.Stage(&both, true)); err != nil {
		t.Fatal(err)
	}
	if dst.Size() != 100*chunk {
		t.Errorf("%d bytes before the epoch is committed", dst.Size())
	}
	if _, err := dst.Commit(); err != nil || dst.Size() != 200*chunk {
		t.Errorf("%d bytes, %v", dst.Size(), err)
	}
	if err := errors.Join(dst.Close(), src.Close()); err != nil {
		t.Fatal(err)
	}
	check(t, dm)
}

// TestMirrorSnapshotOfALaterSize ensures that a mirror keeps a snapshot of its source which says a size that the volume got only
// later: the source was an empty mirror, and took its source's newest at once.
func TestMirrorSnapshotOfALaterSize(t *testing.T) {
	ds, dm := newDisk(t, 1<<30), newDisk(t, 1<<30)
	create(t, ds, 100*chunk, 32)
	src := open(t, ds, quiet)
	dst := newMirror(t, dm, 32, src, quiet)
	if err := src.WriteAt(stamped(1), 0, true); err != nil {
		t.Fatal(err)
	}
	copyCut(t, src, dst, 1<<20)
	late := aodi.SnapshotInfo{Name: "late", Position: 1, Size: 200 * chunk}
	if err := dst.MirrorSnapshot(late); err != nil {
		t.Fatal(err)
	}
	if s := dst.Snapshots(); len(s) != 1 || s[0].Size != 100*chunk {
		t.Errorf("the snapshot is of %d bytes, the mirror of %d", s[0].Size, dst.Size())
	}
	if err := errors.Join(dst.Close(), src.Close()); err != nil {
		t.Fatal(err)
	}
	check(t, dm)
}
