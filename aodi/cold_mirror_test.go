package aodi_test

import (
	"bytes"
	"testing"

	"cawrm/aodi"
)

// TestCleanedWhileTheMirrorWasAway ensures that a mirror which was away while every chunk of its source was moved, some more than once,
// gets exactly the chunks that it lacks, and the discards that it missed.
func TestCleanedWhileTheMirrorWasAway(t *testing.T) {
	rng := newRand(seedOf(t))
	for run := range 2 {
		const chunks = 1000
		ds, dm := newDisk(t, 1<<28), newDisk(t, 1<<28)
		create(t, ds, chunks*chunk, 32)
		src := open(t, ds, quiet)
		dst := newMirror(t, dm, 64, src, quiet)
		stamp := uint64(0)
		write := func(c int) {
			stamp++
			if err := src.WriteAt(stamped(stamp), int64(c)*chunk, false); err != nil {
				t.Fatal(err)
			}
		}
		for c := range chunks {
			write(c)
		}
		moveAll := func(want uint64) {
			t.Helper()
			for before := src.Space().Moved; src.Space().Moved < before+want; {
				if err := src.Checkpoint(); err != nil {
					t.Fatal(err)
				}
				cleanAll(t, src)
				if err := src.GiveBack(); err != nil { // nothing of the log is kept for a mirror a little behind
					t.Fatal(err)
				}
			}
		}
		moveAll(2 * chunks)
		if n := copyCut(t, src, dst, 1<<20); n != chunks*chunk {
			t.Fatalf("%d bytes shipped, of %d", n, chunks*chunk)
		}
		lacks := map[int]bool{}
		for range 200 + rng.IntN(300) {
			c := rng.IntN(chunks)
			write(c)
			lacks[c] = true
			if run%2 == 0 && rng.IntN(100) == 0 {
				moveAll(chunks / 2)
			}
		}
		for range 50 {
			c := rng.IntN(chunks)
			if err := src.Trim(int64(c)*chunk, chunk, false); err != nil {
				t.Fatal(err)
			}
			delete(lacks, c)
		}
		moveAll(2 * chunks)
		if src.HistoryFloor() == 0 {
			t.Fatal("the log is complete: nothing was freed")
		}
		if n := copyCut(t, src, dst, 1<<20); n != len(lacks)*chunk {
			t.Errorf("%d chunks were shipped, the mirror lacked %d", n/chunk, len(lacks))
		}
		a, b := make([]byte, chunks*chunk), make([]byte, chunks*chunk)
		for v, p := range map[*aodi.Volume][]byte{src: a, dst: b} {
			if err := v.ReadAt(p, 0); err != nil {
				t.Fatal(err)
			}
		}
		if !bytes.Equal(a, b) {
			t.Error("the mirror is not what its source is")
		}
		for _, v := range []*aodi.Volume{src, dst} {
			if err := v.Close(); err != nil {
				t.Fatal(err)
			}
		}
		check(t, ds)
		check(t, dm)
	}
}
