package nbdsrv_test

import (
	"bytes"
	"math/rand/v2"
	"syscall"
	"testing"
	"time"

	"cawrm/nbdsrv"
)

func TestFlushAndFUA(t *testing.T) { // 23
	h, d := one(t, mib)
	eachMode(t, func(t *testing.T, mode int) {
		c := h.open(mode)
		f, u := d.flushes.Load(), d.fuas.Load()
		c.write(0, []byte("x"), fFUA)
		c.write(0, pattern(1, 100<<10), fFUA)
		c.must(0, req{typ: cmdTrim, flags: fFUA, length: 8192})
		c.must(0, req{typ: cmdZeroes, flags: fFUA | fNoHole, length: 8192})
		if got := d.fuas.Load() - u; got != 4 {
			t.Errorf("%d of 4 FUA reached the device", got)
		}
		c.must(0, req{typ: cmdFlush})
		c.must(0, req{typ: cmdFlush, flags: fFUA})
		if got := d.flushes.Load() - f; got != 2 {
			t.Errorf("%d of 2 flushes reached the device", got)
		}
		c.must(0, req{typ: cmdRead, flags: fFUA, length: 10})
		c.must(0, req{typ: cmdCache, flags: fFUA, length: 10})
		if mode != compact {
			c.must(0, req{typ: cmdStatus, flags: fFUA, length: 10})
		}
	})
}

// TestFlushCoversAnsweredWrites has the device note what had returned when a flush came.
func TestFlushCoversAnsweredWrites(t *testing.T) { // 23
	h, d := one(t, mib)
	c := h.open(compact)
	for i := range 50 {
		p := pattern(i, 4096)
		c.write(uint64(i)*4096, p, 0)
		var seen bool
		f := func() error { seen = bytes.Equal(d.data[i*4096:][:4096], p); return nil }
		d.fail.Store(&f)
		c.must(0, req{typ: cmdFlush})
		d.fail.Store(nil)
		if !seen {
			t.Fatal("flush reached the device before an answered write")
		}
	}
}

func TestMultiConn(t *testing.T) { // 24
	h, _ := one(t, mib)
	a, b := h.open(structured), h.open(extended)
	for i := range 20 {
		p := pattern(i, 5000)
		a.write(uint64(i), p, 0)
		a.must(0, req{typ: cmdFlush})
		if !bytes.Equal(b.read(uint64(i), 5000), p) {
			t.Fatal("not visible on the other connection")
		}
	}
	if h := serve(t, nbdsrv.Config{}, nbdsrv.Export{Device: newMemDev(mib)}); h.open(compact).flags&(1<<8) != 0 {
		t.Fatal("MULTI_CONN not asked for")
	}
}

// TestAgainstModel does random unaligned commands and compares with a plain slice.
func TestAgainstModel(t *testing.T) { // 25
	eachMode(t, func(t *testing.T, mode int) {
		h, d := one(t, mib)
		c := h.open(mode)
		seed := uint64(time.Now().UnixNano())
		rng := rand.New(rand.NewPCG(seed, 0))
		model := make([]byte, mib)
		for i := range 2000 {
			d.block.Store(rng.IntN(2) == 0)
			off := rng.IntN(mib)
			n := 1 + rng.IntN(min(mib-off, 1<<rng.IntN(20)))
			r := req{off: uint64(off), length: uint64(n), flags: uint16(rng.IntN(2))}
			switch rng.IntN(5) {
			case 0, 1:
				r.typ, r.payload = cmdWrite, pattern(i, n)
				copy(model[off:], r.payload)
			case 2:
				r.typ, r.flags = cmdZeroes, r.flags|uint16(rng.IntN(2))*fNoHole
				if r.flags&fNoHole == 0 {
					r.flags |= uint16(rng.IntN(2)) * fFastZero
				}
				clear(model[off : off+n])
			case 3: // only whole pages may change, and the device makes them zero
				r.typ = cmdTrim
				if first, end := (off+page-1)/page*page, (off+n)/page*page; first < end {
					clear(model[first:end])
				}
			case 4:
				r.typ = cmdRead
			}
			got := c.must(0, r)
			if r.typ == cmdRead && !bytes.Equal(got.data, model[off:off+n]) {
				t.Fatalf("seed %d step %d: read %d+%d", seed, i, off, n)
			}
		}
		if !bytes.Equal(c.read(0, mib), model) {
			t.Fatalf("seed %d: final content", seed)
		}
	})
}

func TestFastZero(t *testing.T) { // 26
	h, d := one(t, mib)
	eachMode(t, func(t *testing.T, mode int) {
		c := h.open(mode)
		p := pattern(1, 8192)
		c.write(0, p, 0)
		c.must(enotsup, req{typ: cmdZeroes, flags: fFastZero | fNoHole, length: 8192})
		if !bytes.Equal(c.read(0, 8192), p) {
			t.Fatal("a refused fast zero changed data")
		}
		c.must(0, req{typ: cmdZeroes, flags: fFastZero, length: 8192})
		if !bytes.Equal(c.read(0, 8192), make([]byte, 8192)) {
			t.Fatal("not zero")
		}
		d.failWith(syscall.ENOTSUP)
		c.must(enotsup, req{typ: cmdZeroes, flags: fFastZero, length: 8192})
		for _, typ := range []uint16{cmdZeroes, cmdTrim, cmdFlush, cmdRead} {
			c.must(einval, req{typ: typ, length: 8192})
		}
		d.failWith(nil)
	})
}

func TestReadOnly(t *testing.T) { // 37
	d := newMemDev(mib)
	h := serve(t, nbdsrv.Config{}, nbdsrv.Export{Device: d, ReadOnly: true})
	eachMode(t, func(t *testing.T, mode int) {
		c := h.open(mode)
		c.must(eperm, req{typ: cmdWrite, payload: pattern(1, 4096)})
		c.must(eperm, req{typ: cmdWrite, payload: pattern(1, 300<<10)})
		c.must(eperm, req{typ: cmdTrim, length: 4096})
		c.must(eperm, req{typ: cmdZeroes, length: 4096})
		c.must(0, req{typ: cmdRead, length: 4096})
		c.must(0, req{typ: cmdFlush})
	})
	if d.flushes.Load() != 0 || !bytes.Equal(d.data, make([]byte, mib)) {
		t.Fatal("the device was touched")
	}
}
