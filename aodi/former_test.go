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

// TestReadReplaced ensures that content which was replaced is found while it stands in the log, without a snapshot, once somebody has asked
// for that to be remembered; and that what took its place there is not taken for it.
func TestReadReplaced(t *testing.T) {
	d := newDisk(t, 64<<20)
	create(t, d, 64*chunk, 32)
	v := open(t, d, quiet)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	has := func(stamp uint64) bool {
		p := make([]byte, chunk)
		got := v.ReadFormer(7, format.Sum(stamped(stamp)), 0, p)
		if got && !bytes.Equal(p, stamped(stamp)) {
			t.Errorf("content %d is another", stamp)
		}
		return got
	}
	put := func(stamp uint64) {
		t.Helper()
		must(v.WriteAt(stamped(stamp), 7*chunk, true))
	}
	put(1)
	put(2)
	if has(1) {
		t.Error("remembered, though nobody has asked")
	}
	v.RememberReplaced()
	put(3)
	if !has(2) || has(1) || !has(3) {
		t.Error("in memory: what was replaced last is not found, or more than that")
	}
	fill := func() { // its batch leaves the memory
		t.Helper()
		for i := range uint64(5000) {
			must(v.WriteAt(stamped(100+i), int64(8+i%32)*chunk, false))
			if i%500 == 0 {
				must(v.Checkpoint())
			}
		}
		must(v.Flush())
	}
	if fill(); !has(2) || !has(3) {
		t.Error("it is not found on the disk")
	}
	put(4)
	if !has(3) {
		t.Error("what was replaced last is not found on the disk")
	}
	if fill(); has(3) || !has(4) {
		t.Error("its segment was not used again: this test tries nothing")
	}
	must(v.Close())
}
