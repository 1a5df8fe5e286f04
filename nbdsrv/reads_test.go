package nbdsrv_test

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"syscall"
	"testing"
)

func TestReadsEverySize(t *testing.T) { // 21, 22
	h, d := one(t, 40*mib)
	rng := rand.New(rand.NewPCG(1, 2))
	for i := 0; i < len(d.data); i += 8 {
		binary.LittleEndian.PutUint64(d.data[i:], rng.Uint64())
	}
	for i := range d.present {
		d.present[i] = true
	}
	eachMode(t, func(t *testing.T, mode int) {
		c := h.open(mode)
		for _, blocking := range []bool{false, true} {
			d.block.Store(blocking)
			for _, n := range []int{1, 511, 4096, 4097, 65535, 65536, 65537, 256 << 10, mib + 16, 2*mib + 32, 32 * mib} {
				off := uint64(rng.IntN(len(d.data) - n + 1))
				if !bytes.Equal(c.read(off, n), d.data[off:][:n]) {
					t.Fatalf("%d bytes at %d", n, off)
				}
			}
		}
	})
}

func TestSparseReads(t *testing.T) { // 22
	h, d := one(t, 4*mib)
	for _, at := range []int64{0, 512 << 10, 520 << 10, 2*mib - 4096} {
		d.write(pattern(int(at>>10), 4096), at)
	}
	d.block.Store(true) // inline reads do not ask for holes
	eachMode(t, func(t *testing.T, mode int) {
		c := h.open(mode)
		for _, x := range []struct{ off, n, holes int }{
			{0, 4 * mib, 3},            // data, hole, data (a small hole within), hole, data, hole
			{mib, 512 << 10, 1},        // all hole
			{512 << 10, 64 << 10, 1},   // data, hole
			{512 << 10, 16 << 10, 0},   // too small to ask
			{4096, 508 << 10, 1},       // all hole, next to data
			{100, mib, 2},              // unaligned
			{3*mib + 1, mib - 1, 1},    // to the end
			{2*mib - 4096, 5 << 10, 0}, // small
		} {
			r := c.must(0, req{typ: cmdRead, off: uint64(x.off), length: uint64(x.n)})
			if !bytes.Equal(r.data, d.data[x.off:x.off+x.n]) {
				t.Fatalf("%+v: wrong data", x)
			}
			if mode == compact {
				x.holes = 0
			}
			if r.holes != x.holes {
				t.Errorf("%+v: %d holes in %d chunks", x, r.holes, r.chunks)
			}
			if mode == compact {
				continue
			}
			r = c.must(0, req{typ: cmdRead, flags: fDF, off: uint64(x.off), length: uint64(x.n)})
			if r.holes != 0 || r.chunks != 1 || !bytes.Equal(r.data, d.data[x.off:x.off+x.n]) {
				t.Errorf("%+v with DF: %d holes, %d chunks", x, r.holes, r.chunks)
			}
		}
	})
}

func TestSparseReadFails(t *testing.T) { // 21, 22
	h, d := one(t, 4*mib)
	d.write(pattern(1, 4096), mib)
	for _, mode := range []int{structured, extended} {
		c := h.open(mode)
		calls := 0
		f := func() error {
			if calls++; calls > 1 { // Extents is well, the read is not
				return syscall.EIO
			}
			return nil
		}
		d.fail.Store(&f)
		r := c.must(eio, req{typ: cmdRead, length: 4 * mib})
		if r.chunks != 0 || calls != 2 {
			t.Fatalf("%d chunks, %d calls", r.chunks, calls)
		}
		// A device that cannot say where its holes are is read as a whole.
		calls = 0
		g := func() error {
			if calls++; calls == 1 {
				return syscall.EIO
			}
			return nil
		}
		d.fail.Store(&g)
		if r := c.must(0, req{typ: cmdRead, length: 4 * mib}); r.chunks != 1 {
			t.Fatalf("%d chunks", r.chunks)
		}
		d.failWith(nil)
	}
}
