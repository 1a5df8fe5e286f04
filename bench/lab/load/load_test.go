package load

import (
	"math/rand/v2"
	"testing"

	"cawrm/bench/internal/oracle"
)

// picture is the image that the first n changes leave.
func picture(seed uint64, blocks int64, n uint64) []byte {
	b := make([]byte, blocks*BlockSize)
	next := changes(seed, blocks)
	for range n {
		block, to := next()
		p := b[block*BlockSize:][:BlockSize]
		if clear(p); to != 0 {
			oracle.Stamp(p, to, block)
		}
	}
	return b
}

func reader(b []byte) func(p []byte, off int64) error {
	return func(p []byte, off int64) error { copy(p, b[off:]); return nil }
}

// TestBlocksAcceptPrefixesAndNothingElse ensures that each prefix that holds what was flushed passes, and that an
// image which lacks a flushed change, or one in the middle, does not.
func TestBlocksAcceptPrefixesAndNothingElse(t *testing.T) {
	const seed, blocks = 5, 60
	for n := uint64(0); n < 300; n++ {
		im := picture(seed, blocks, n)
		for durable := n - min(n, 20); durable <= n; durable++ {
			if _, err := CheckBlocks(reader(im), seed, blocks, durable); err != nil {
				t.Fatalf("%d changes, %d flushed: %v", n, durable, err)
			}
		}
	}
	if _, err := CheckBlocks(reader(picture(seed, blocks, 100)), seed, blocks, 130); err == nil {
		t.Error("an image without flushed changes passes")
	}
	rng := rand.New(rand.NewPCG(1, 1))
	for range 50 {
		im := picture(seed, blocks, 200)
		old := picture(seed, blocks, 100)
		b := rng.Int64N(blocks)
		if a, o := im[b*BlockSize:][:BlockSize], old[b*BlockSize:][:BlockSize]; string(a) != string(o) {
			copy(a, o)
			if n, err := CheckBlocks(reader(im), seed, blocks, 0); err == nil {
				t.Errorf("block %d of an older image passes as %d changes", b, n)
			}
		}
	}
}

// TestVersionsTellTornFiles ensures that a file is taken for a version only when it is that version, whole.
func TestVersionsTellTornFiles(t *testing.T) {
	for v := uint64(1); v < 40; v++ {
		b := Content("w0/f3", v)
		if got, err := ReadVersion("w0/f3", b); got != v || err != nil {
			t.Fatalf("version %d: %d, %v", v, got, err)
		}
		if _, err := ReadVersion("w0/f4", b); err == nil {
			t.Error("a file passes for another")
		}
		if _, err := ReadVersion("w0/f3", b[:len(b)-1]); err == nil {
			t.Error("a short file passes")
		}
		b[len(b)-1] ^= 1
		if _, err := ReadVersion("w0/f3", b); err == nil {
			t.Error("a changed file passes")
		}
	}
}
