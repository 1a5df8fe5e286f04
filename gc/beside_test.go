package gc_test

import (
	"encoding/binary"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"cawrm/aodi"
	"cawrm/aodi/disk"
	"cawrm/gc"
)

// TestReadsBesideCleaning ensures that a read gets what was written last when it began, or something newer, of its own chunk, whatever
// segments are moved, freed, given back to the file system and used again while it is under way: in a container so small that
// each segment is used again all the time.
func TestReadsBesideCleaning(t *testing.T) {
	t.Run("memory", func(t *testing.T) {
		d := disk.NewMemory(64 << 20)
		t.Cleanup(d.Free)
		readBesideCleaning(t, d, 1500, seedOf(t))
	})
	t.Run("file", func(t *testing.T) { // whose reads go through the page cache, and its writes beside it
		d, err := disk.CreateFile(filepath.Join(t.TempDir(), "disk"))
		if err != nil {
			t.Fatal(err)
		}
		readBesideCleaning(t, d, 1200, seedOf(t))
	})
}

func readBesideCleaning(t *testing.T, d disk.Disk, writes, seed uint64) {
	const capacity, chunks, writers, readers = 8 << 20, 800, 2, 2
	if err := aodi.CreateOn(d, aodi.CreateOptions{Size: chunks * chunk, SegmentChunks: 32, Capacity: capacity}); err != nil {
		t.Fatal(err)
	}
	v, err := aodi.OpenOn(d, aodi.Options{})
	if err != nil {
		t.Fatal(err)
	}
	c := gc.Start(v, gc.Options{})
	var written [chunks]atomic.Uint64 // what an answered write has left in each
	put := func(at int64, stamp uint64) {
		b := stamped(stamp)
		binary.LittleEndian.PutUint64(b[8:], uint64(at))
		if err := v.WriteAt(b, at*chunk, false); err != nil {
			t.Errorf("write %d: %v", stamp, err)
		}
		written[at].Store(stamp)
	}
	for at := range int64(chunks) {
		put(at, 1)
	}
	var writing, reading sync.WaitGroup
	var over atomic.Bool
	for i := range writers {
		writing.Go(func() {
			rng := rand.New(rand.NewPCG(seed, uint64(i)))
			for stamp := uint64(2); stamp < writes && !t.Failed(); stamp++ {
				at := rng.Int64N(chunks/writers)*writers + int64(i) // each has its own chunks
				if rng.IntN(4) > 0 {
					at %= chunks / 4 // of which some are hot: the others are moved, not overwritten
				}
				put(at, stamp)
				if rng.IntN(200) == 0 {
					if err := v.GiveBack(); err != nil {
						t.Errorf("give back: %v", err)
					}
				}
			}
		})
	}
	for i := range readers {
		reading.Go(func() {
			rng := rand.New(rand.NewPCG(seed, uint64(writers+i)))
			b := make([]byte, 16*chunk)
			for !over.Load() && !t.Failed() {
				at, n := rng.Int64N(chunks-16), 1+rng.Int64N(16)
				var least [16]uint64
				for k := range n {
					least[k] = written[at+k].Load()
				}
				if err := v.ReadAt(b[:n*chunk], at*chunk); err != nil {
					t.Errorf("read: %v", err)
				}
				for k := range n {
					p := b[k*chunk : (k+1)*chunk]
					stamp := binary.LittleEndian.Uint64(p)
					if of := binary.LittleEndian.Uint64(p[8:]); of != uint64(at+k) || stamp < least[k] || stamp != binary.LittleEndian.Uint64(p[chunk-8:]) {
						t.Errorf("chunk %d holds %d of chunk %d, want %d", at+k, stamp, of, least[k])
					}
				}
			}
		})
	}
	writing.Wait()
	over.Store(true)
	reading.Wait()
	s := v.Space()
	t.Logf("%d chunks logged, %d moved, %d segments cleaned", s.Logged, s.Moved, c.Cleaned())
	if c.Cleaned() == 0 {
		t.Error("nothing was cleaned")
	}
	if n := v.Status().ChecksumErrors; n > 0 {
		t.Errorf("%d chunks did not match their checksums", n)
	}
	c.Close()
	if err := v.Close(); err != nil {
		t.Error(err)
	}
}
