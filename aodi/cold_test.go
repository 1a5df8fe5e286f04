package aodi_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"testing"

	"cawrm/aodi"
	"cawrm/aodi/disk"
)

// victims lists the segments that can be cleaned.
func victims(t *testing.T, v *aodi.Volume) []uint32 {
	t.Helper()
	var all []uint32
	if err := v.Sealed(func(s aodi.SealedSegment) bool { all = append(all, s.Segment); return true }); err != nil {
		t.Fatal(err)
	}
	return all
}

// cleanAll moves the content of every segment that can be cleaned, and returns how many chunks and pages that were.
func cleanAll(t *testing.T, v *aodi.Volume) int {
	t.Helper()
	moved := 0
	for _, seg := range victims(t, v) {
		n, err := v.Relocate(seg, nil)
		if err != nil && !errors.Is(err, aodi.ErrNotCleanable) {
			t.Fatal(err)
		}
		moved += n
	}
	return moved
}

// shadow is what a volume, or a snapshot of it, must hold.
type shadow []uint64

func (s shadow) check(t *testing.T, what string, r interface {
	ReadAt(p []byte, off int64) error
}) {
	t.Helper()
	b := make([]byte, chunk)
	for c, stamp := range s {
		if stamp == 0 && c%64 > 0 { // of what was never written, a part will do
			continue
		}
		if err := r.ReadAt(b, int64(c)*chunk); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if !bytes.Equal(b, stamped(stamp)) {
			t.Fatalf("%s: chunk %d holds %d, want %d", what, c, binary.LittleEndian.Uint64(b), stamp)
		}
	}
}

// TestRelocateKeepsContent ensures that moving everything, again and again, beside writes, discards and checkpoints, changes
// nothing that can be read, in the volume and in its snapshots, also after a crash, and that the checker agrees.
func TestRelocateKeepsContent(t *testing.T) {
	seed := seedOf(t)
	rng := newRand(seed)
	runs := 6
	if raceEnabled {
		runs = 3
	}
	for run := range runs {
		d := disk.NewMemory(1 << 29)
		chunks := []int{300, 2000, 262144 + 3000}[run%3]
		create(t, d, int64(chunks)*chunk, []uint32{32, 64}[run%2])
		v := open(t, d, quiet)
		at := func() int { // few enough leaves
			if chunks > 4000 {
				return []int{0, 262144, 131072}[rng.IntN(3)] + rng.IntN(300)
			}
			return rng.IntN(chunks)
		}
		now, stamp := make(shadow, chunks), uint64(0)
		snaps, moved := map[string]shadow{}, 0
		for round := range 12 {
			for range 200 {
				c := at()
				stamp++
				if rng.IntN(10) == 0 {
					now[c] = 0
					if err := v.Trim(int64(c)*chunk, chunk, false); err != nil {
						t.Fatal(err)
					}
					continue
				}
				now[c] = stamp
				if err := v.WriteAt(stamped(stamp), int64(c)*chunk, false); err != nil {
					t.Fatal(err)
				}
			}
			if rng.IntN(2) == 0 {
				name := fmt.Sprint("s", round)
				if _, err := v.CreateSnapshot(name); err != nil {
					t.Fatal(err)
				}
				snaps[name] = bytes64(now)
			}
			if rng.IntN(3) == 0 {
				for name := range snaps {
					if err := v.DeleteSnapshot(name); err != nil {
						t.Fatal(err)
					}
					delete(snaps, name)
					break
				}
			}
			if rng.IntN(2) == 0 { // else pages that are newer than the checkpoint are in the way
				if err := v.Checkpoint(); err != nil {
					t.Fatal(err)
				}
			}
			moved += cleanAll(t, v)
			now.check(t, "the volume", v)
			for name, want := range snaps {
				w, err := v.OpenView(name)
				if err != nil {
					t.Fatal(err)
				}
				want.check(t, "snapshot "+name, w)
				w.Close()
			}
			switch rng.IntN(3) {
			case 0:
				if err := v.Flush(); err != nil {
					t.Fatal(err)
				}
				crashed := d.Crash(rng)
				_ = v.Close()
				d.Free()
				d = crashed
				check(t, d)
				v = open(t, d, quiet)
			case 1:
				if err := v.Close(); err != nil {
					t.Fatal(err)
				}
				check(t, d)
				v = open(t, d, quiet)
			}
		}
		now.check(t, "the volume", v)
		if moved == 0 {
			t.Error("nothing was moved")
		}
		if err := v.Close(); err != nil {
			t.Fatal(err)
		}
		check(t, d)
		d.Free()
	}
}

func bytes64(s shadow) shadow { return append(shadow(nil), s...) }
