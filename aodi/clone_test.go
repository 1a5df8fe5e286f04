package aodi_test

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"cawrm/aodi"
	"cawrm/aodi/disk"
)

// image is what a volume must hold, byte by byte, and which chunks are holes.
type image struct {
	b    []byte
	hole []bool
}

func (m *image) write(p []byte, off int64) {
	copy(m.b[off:], p)
	for c := off / chunk; c <= (off+int64(len(p))-1)/chunk; c++ {
		m.hole[c] = false
	}
}

func (m *image) trim(c, n int64) {
	clear(m.b[c*chunk : (c+n)*chunk])
	for i := c; i < c+n; i++ {
		m.hole[i] = true
	}
}

func (m *image) clone() *image {
	return &image{bytes.Clone(m.b), append([]bool(nil), m.hole...)}
}

// step does one random operation.
func (m *image) step(t *testing.T, v *aodi.Volume, rng *rand.Rand) {
	t.Helper()
	size := int64(len(m.b))
	var err error
	switch rng.IntN(8) {
	case 0, 1, 2:
		p := fill(make([]byte, 1+rng.IntN(3*chunk)), rng)
		off := rng.Int64N(size - int64(len(p)))
		err = v.WriteAt(p, off, false)
		m.write(p, off)
	case 3, 4:
		c := rng.Int64N(size / chunk)
		p := fill(make([]byte, chunk), rng)
		err = v.WriteAt(p, c*chunk, false)
		m.write(p, c*chunk)
	case 5:
		c := rng.Int64N(size / chunk)
		n := 1 + rng.Int64N(min(size/chunk-c, 300))
		err = v.Trim(c*chunk, n*chunk, false)
		m.trim(c, n)
	case 6:
		c := rng.Int64N(size / chunk)
		n := 1 + rng.Int64N(min(size/chunk-c, 20))
		err = v.WriteZeroes(c*chunk, n*chunk, true, false)
		m.write(make([]byte, n*chunk), c*chunk)
	case 7:
		if rng.IntN(20) == 0 {
			err = v.Checkpoint()
		}
	}
	if err != nil {
		t.Fatal(err)
	}
}

// holds compares bytes and holes.
func (m *image) holds(t *testing.T, what string, v interface {
	ReadAt([]byte, int64) error
	Extents(int64, int64, func(int64, uint32) bool) error
}) {
	t.Helper()
	got := make([]byte, len(m.b))
	if err := v.ReadAt(got, 0); err != nil {
		t.Fatal(err)
	}
	for c := range m.hole {
		if !bytes.Equal(got[c*chunk:(c+1)*chunk], m.b[c*chunk:(c+1)*chunk]) {
			t.Fatalf("%s: chunk %d differs", what, c)
		}
	}
	at := int64(0)
	err := v.Extents(0, int64(len(m.b)), func(n int64, flags uint32) bool {
		for c := at / chunk; c < (at+n)/chunk; c++ {
			if hole := flags&aodi.ExtentHole != 0; hole != m.hole[c] {
				t.Fatalf("%s: chunk %d: hole %v, not %v", what, c, hole, m.hole[c])
			}
		}
		at += n
		return true
	})
	if err != nil || at != int64(len(m.b)) {
		t.Fatalf("extents end at %d: %v", at, err)
	}
}

// TestCloneEqualsModel ensures that a clone is the snapshot with what was done to it since, bytes and holes, while the volume
// that it was made of goes its own way, and over restarts of both.
func TestCloneEqualsModel(t *testing.T) {
	rng := newRand(seedOf(t))
	dir := t.TempDir()
	path, clonePath := filepath.Join(dir, "base"), filepath.Join(dir, "clone")
	const chunks = 1500
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(aodi.Create(path, aodi.CreateOptions{Size: chunks * chunk, SegmentChunks: 64}))
	v, err := aodi.Open(path, quiet)
	must(err)
	now := &image{make([]byte, chunks*chunk), make([]bool, chunks)}
	now.trim(0, chunks)
	for range 300 {
		now.step(t, v, rng)
	}
	_, err = v.CreateSnapshot("s")
	must(err)
	must(v.CreateClone("s", "c", clonePath))
	theirs := now.clone()
	if err := v.DeleteSnapshot("s"); !errors.Is(err, aodi.ErrSnapshotInUse) {
		t.Fatalf("a snapshot with a clone was deleted: %v", err)
	}
	if _, err := aodi.Open(clonePath, quiet); !errors.Is(err, aodi.ErrIsClone) {
		t.Fatalf("a clone was opened without its base: %v", err)
	}
	for range 4 {
		c, err := v.OpenClone("c", quiet)
		must(err)
		theirs.holds(t, "the clone, opened", c)
		for range 150 {
			now.step(t, v, rng)
			theirs.step(t, c, rng)
		}
		theirs.holds(t, "the clone", c)
		now.holds(t, "the volume", v)
		if rng.IntN(2) == 0 {
			_, err = c.CreateSnapshot("own")
			must(err)
			kept := theirs.clone()
			theirs.step(t, c, rng)
			w, err := c.OpenView("own")
			must(err)
			kept.holds(t, "the clone's snapshot", w)
			w.Close()
			must(c.DeleteSnapshot("own"))
		}
		must(c.Close())
		must(v.Close())
		for _, p := range []string{path, clonePath} {
			d, err := disk.OpenFile(p, true)
			must(err)
			check(t, d)
			must(d.Close())
		}
		v, err = aodi.Open(path, quiet)
		must(err)
	}
	must(v.ForgetClone("c"))
	must(v.DeleteSnapshot("s"))
	must(v.Close())
}

// TestCloneOfThePresent ensures that a clone of what a volume holds now needs no snapshot of the user's, and takes the one that was
// made for it with it; a snapshot of the user's that is called so is not taken for it.
func TestCloneOfThePresent(t *testing.T) {
	rng := newRand(seedOf(t))
	dir := t.TempDir()
	const chunks = 500
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(aodi.Create(filepath.Join(dir, "base"), aodi.CreateOptions{Size: chunks * chunk, SegmentChunks: 64}))
	v, err := aodi.Open(filepath.Join(dir, "base"), quiet)
	must(err)
	defer v.Close()
	now := &image{make([]byte, chunks*chunk), make([]bool, chunks)}
	now.trim(0, chunks)
	for range 50 {
		now.step(t, v, rng)
	}
	must(v.CreateCloneNow("c", filepath.Join(dir, "clone")))
	theirs := now.clone()
	now.step(t, v, rng)
	c, err := v.OpenClone("c", quiet)
	must(err)
	theirs.holds(t, "the clone", c)
	must(c.Close())
	if err := v.CreateCloneNow("c", filepath.Join(dir, "again")); !errors.Is(err, aodi.ErrSnapshotExists) {
		t.Errorf("a second clone c: %v", err)
	}
	must(v.ForgetClone("c"))
	if all := v.Snapshots(); len(all) > 0 {
		t.Errorf("left behind: %v", all)
	}
	if err := v.CreateCloneNow("d", filepath.Join(dir, "clone")); err == nil || len(v.Snapshots()) > 0 {
		t.Errorf("a clone where there is a file: %v, and %v stays", err, v.Snapshots())
	}
	_, err = v.CreateSnapshot("of-e")
	must(err)
	if err := v.CreateClone("of-e", "e", filepath.Join(dir, "e")); !errors.Is(err, syscall.EINVAL) {
		t.Errorf("a clone that would take the user's snapshot with it: %v", err)
	}
}

// TestCloneRecovers ensures that what a clone has logged behind its checkpoint, discards over its base among it, is rolled
// forward over the same base.
func TestCloneRecovers(t *testing.T) {
	rng := newRand(seedOf(t))
	dir := t.TempDir()
	path, clonePath := filepath.Join(dir, "base"), filepath.Join(dir, "clone")
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	const chunks = 700
	must(aodi.Create(path, aodi.CreateOptions{Size: chunks * chunk, SegmentChunks: 64}))
	v, err := aodi.Open(path, quiet)
	must(err)
	defer v.Close()
	now := &image{make([]byte, chunks*chunk), make([]bool, chunks)}
	now.trim(0, chunks)
	for range 200 {
		now.step(t, v, rng)
	}
	_, err = v.CreateSnapshot("s")
	must(err)
	must(v.CreateClone("s", "c", clonePath))
	base, err := v.OpenView("s")
	must(err)
	opt := quiet
	opt.Base = base
	d, err := disk.OpenFile(clonePath, false)
	must(err)
	c, err := aodi.OpenOn(d, opt)
	must(err)
	for range 200 {
		now.step(t, c, rng)
	}
	must(c.Flush())
	crashed := copyOf(t, clonePath)
	must(c.Close())
	base, err = v.OpenView("s")
	must(err)
	opt.Base = base
	c, err = aodi.Open(crashed, opt)
	must(err)
	now.holds(t, "the clone after a crash", c)
	must(c.Close())
}

// copyOf copies a container as a crash of its process would leave it.
func copyOf(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path+".copy", b, 0o600); err != nil {
		t.Fatal(err)
	}
	return path + ".copy"
}
