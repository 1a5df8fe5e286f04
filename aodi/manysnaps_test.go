package aodi_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"testing"

	"cawrm/aodi"
	recovery "cawrm/recover"
)

// TestManySnapshots ensures that there can be more snapshots than one part of the catalog holds: they are read, deleted, found again
// when the volume is opened, and kept by a mirror; damage of any part is found, and in large segments mended from the checkpoint before.
// Parts are small where segments are. CAWRM_SNAPSHOTS=12000 tries so many, in segments of 8 MiB.
func TestManySnapshots(t *testing.T) {
	segment, n := uint32(32), 1700 // two parts
	if text := os.Getenv("CAWRM_SNAPSHOTS"); text != "" {
		var err error
		if n, err = strconv.Atoi(text); err != nil {
			t.Fatal(err)
		}
		segment = 2048
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	ds, dm := newDisk(t, 16<<30), newDisk(t, 16<<30)
	create(t, ds, 64*chunk, segment)
	src := open(t, ds, quiet)
	dst := newMirror(t, dm, segment, src, quiet)
	name := func(i int) string { return fmt.Sprintf("every-%06d", i) }
	made := []aodi.SnapshotInfo{}
	for i := range n {
		must(src.WriteAt(stamped(uint64(i+1)), int64(i%64)*chunk, false))
		s, err := src.CreateSnapshot(name(i))
		must(err)
		made = append(made, s)
	}
	kept := n / 10 // of the mirror's
	copyCut(t, src, dst, 1<<20)
	for i := range kept {
		s := made[n-1]
		s.Name = name(i)
		must(dst.MirrorSnapshot(s))
	}
	holds := func(v *aodi.Volume, i int) {
		t.Helper()
		w, err := v.OpenView(name(i))
		must(err)
		defer w.Close()
		b := make([]byte, chunk)
		for back := range min(i+1, 64) {
			must(w.ReadAt(b, int64((i-back)%64)*chunk))
			if !bytes.Equal(b, stamped(uint64(i-back+1))) {
				t.Fatalf("snapshot %d has not what was written %d before it", i, back)
			}
		}
	}
	gone := n / 3
	for _, i := range []int{0, 70, gone, n / 2, n - 1} {
		holds(src, i)
	}
	must(src.DeleteSnapshot(name(gone)))
	waitReaped(t, src)
	if _, err := src.CreateSnapshot(name(n - 1)); !errors.Is(err, aodi.ErrSnapshotExists) {
		t.Errorf("the same name again: %v", err)
	}
	must(errors.Join(src.Close(), dst.Close()))
	places := check(t, ds).Catalog.Places
	check(t, dm)
	if len(places) < 2 {
		t.Fatalf("the catalog has %d part", len(places))
	}
	for i, p := range places {
		b := make([]byte, chunk)
		off := int64(p.Ref.Phys()) * chunk
		must(ds.ReadAt(b, off))
		was := bytes.Clone(b)
		b[i]++
		must(ds.WriteAt(b, off))
		r, err := recovery.Check(ds, recovery.CheckOptions{})
		must(err)
		if r.Broken[3] == 0 {
			t.Errorf("damage of part %d of the catalog is not found", i)
		}
		must(ds.WriteAt(was, off))
		if i == 1 && segment > 32 { // small segments are used again too soon
			must(ds.WriteAt(b, off))
			if _, err = recovery.Repair(ds, recovery.CheckOptions{}); err != nil {
				t.Fatal(err)
			}
			break
		}
	}
	check(t, ds)
	src, dst = open(t, ds, quiet), open(t, dm, quiet)
	if a, b := len(src.Snapshots()), len(dst.Snapshots()); a != n-1 || b != kept {
		t.Errorf("%d and %d snapshots, want %d and %d", a, b, n-1, kept)
	}
	for _, i := range []int{0, gone - 1, gone + 1, n - 1} {
		holds(src, i)
	}
	must(errors.Join(src.Close(), dst.Close()))
}
