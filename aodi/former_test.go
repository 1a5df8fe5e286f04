package aodi_test

import (
	"bytes"
	"testing"

	"cawrm/aodi"
	"cawrm/aodi/format"
)

// TestReadFormer ensures that what a chunk held is found where it stands, in a batch, on the disk, in a snapshot or in the history, and that nothing
// else is taken for it.
func TestReadFormer(t *testing.T) {
	d := newDisk(t, 64<<20)
	create(t, d, 64*chunk, 256)
	v := open(t, d, aodi.Options{History: aodi.HistoryWindow{Bytes: 1 << 20}})
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	put := func(stamp uint64) {
		t.Helper()
		must(v.WriteAt(stamped(stamp), 7*chunk, false))
	}
	has := func(when string, want bool, stamp uint64, below aodi.Position) {
		t.Helper()
		p := make([]byte, chunk)
		got := v.ReadFormer(7, format.Sum(stamped(stamp)), below, p)
		if got != want || got && !bytes.Equal(p, stamped(stamp)) {
			t.Errorf("%s: content %d: %v", when, stamp, got)
		}
	}
	put(1)
	has("in memory", true, 1, 0)
	has("in memory", false, 2, 0)
	must(v.Flush())
	has("on the disk", true, 1, 0)
	s, err := v.CreateSnapshot("s")
	must(err)
	put(2)
	must(v.Flush())
	has("replaced", true, 2, 0)
	has("replaced, in a snapshot", true, 1, s.Position)
	has("replaced, before the snapshot", false, 1, s.Position-1)
	must(v.Checkpoint()) // with a cut of the history
	end, _ := v.Pointers()
	put(3)
	must(v.Flush())
	has("in the history", true, 2, end)
	has("nowhere the newest", false, 1, end)
	must(v.Trim(7*chunk, chunk, false))
	has("discarded", false, 3, end)
	must(v.DeleteSnapshot("s"))
	has("the snapshot is deleted", false, 1, s.Position)
	p := make([]byte, chunk)
	if v.ReadFormer(64, format.Sum(p), end, p) || v.ReadFormer(1<<50, format.Sum(p), end, p) {
		t.Error("content beyond the end")
	}
	v.Close()
	has("closed", false, 2, end)
}
