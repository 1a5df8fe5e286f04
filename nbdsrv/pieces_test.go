package nbdsrv_test

import (
	"bytes"
	"math/rand/v2"
	"syscall"
	"testing"

	"cawrm/nbdsrv"
)

// What a payload is charged for beside its data, and the piece that every connection may have.
const (
	overhead = 12 << 10
	piece    = 256 << 10
)

// scarce is a server whose shared budget is used up from the start.
func scarce(t testing.TB, size int64) (*harness, *memDev) {
	d := newMemDev(size)
	d.block.Store(true)
	return serve(t, nbdsrv.Config{MaxInflight: 1}, nbdsrv.Export{Name: "x", Device: d}), d
}

// TestPiecesCarryTheSame ensures that payloads which pass in pieces are the payloads that were sent and read,
// whatever their length, with other requests among them.
func TestPiecesCarryTheSame(t *testing.T) { // 33, 40
	h, d := scarce(t, 8*mib)
	seed := rand.Uint64()
	defer func() {
		if t.Failed() {
			t.Logf("seed %d", seed)
		}
	}()
	rng := rand.New(rand.NewPCG(seed, 0))
	eachMode(t, func(t *testing.T, mode int) {
		c := h.open(mode)
		for i, n := range []int{piece, piece + 1, 2 * piece, mib + 77} {
			off := rng.IntN(8*mib - n)
			p := pattern(i+rng.IntN(1000), n)
			flags := uint16(i % 2 * fFUA)
			w := c.start(req{typ: cmdWrite, off: uint64(off), payload: p, flags: flags})
			f := c.start(req{typ: cmdFlush})
			if c.wait(w).err != 0 || c.wait(f).err != 0 || !bytes.Equal(d.readAll(make([]byte, off+n))[off:], p) {
				t.Fatalf("a write of %d bytes at %d", n, off)
			}
			var cookies []uint64
			for range 4 { // the replies to the small ones are due while pieces are sent
				cookies = append(cookies, c.start(req{typ: cmdRead, off: uint64(off), length: uint64(n)}),
					c.start(req{typ: cmdFlush}), c.start(req{typ: cmdRead, off: uint64(off), length: 100}))
			}
			for _, k := range cookies {
				r := c.replies[k]
				if c.wait(k); r.err != 0 || r.req.typ == cmdRead && !bytes.Equal(r.data, p[:r.req.length]) {
					t.Fatalf("a read of %d bytes at %d: error %d", r.req.length, off, r.err)
				}
			}
		}
		if mode != compact {
			c.must(0, req{typ: cmdRead, flags: fDF, length: 2 * mib})
			c.must(0, req{typ: cmdStatus, length: 8 * mib})
		}
	})
}

// TestPiecesThatFail ensures that a device's error in any piece is told, or ends the connection where it can no
// longer be told.
func TestPiecesThatFail(t *testing.T) { // 21, 40
	h, d := scarce(t, 4*mib)
	nth := func(n int) { // the n-th call fails
		calls := 0
		f := func() error {
			if calls++; calls == n {
				return syscall.EIO
			}
			return nil
		}
		d.fail.Store(&f)
	}
	eachMode(t, func(t *testing.T, mode int) {
		c := h.open(mode)
		for n := 1; n <= 4; n++ {
			nth(n)
			c.must(eio, req{typ: cmdWrite, payload: pattern(n, mib)})
			c.must(0, req{typ: cmdFlush}) // the stream is in step
		}
		nth(1)
		c.must(eio, req{typ: cmdRead, length: mib})
		c.must(0, req{typ: cmdFlush})
		nth(3)
		c.start(req{typ: cmdRead, length: mib})
		got := 0
		for b := make([]byte, mib); ; {
			n, err := c.nc.Read(b)
			if got += n; err != nil {
				break
			}
		}
		if got >= mib {
			t.Errorf("%d bytes came of a read that failed", got)
		}
		d.fail.Store(nil)
	})
	eventually(t, "all is given back", func() bool { return h.s.Stats().InflightBytes == 0 })
}

// TestSharedBudget has the budget of all connections used up by one whose device hangs; another goes on, and
// neither has more than its piece beyond the budget.
func TestSharedBudget(t *testing.T) { // 40
	d, well := newMemDev(8*mib), newMemDev(8*mib)
	h := serve(t, nbdsrv.Config{MaxInflight: 4 * mib}, nbdsrv.Export{Name: "hangs", Device: d}, nbdsrv.Export{Name: "well", Device: plain{well}})
	open := d.shut()
	defer open()
	hog, other := h.openExport(compact, "hangs"), h.openExport(compact, "well")
	for i := range 8 {
		hog.start(req{typ: cmdRead, off: uint64(i) * mib, length: mib})
	}
	eventually(t, "what fits is in the device", func() bool { return d.calls.Load() == 3 })
	second := h.openExport(compact, "hangs")
	second.start(req{typ: cmdRead, length: 2 * mib})
	eventually(t, "and a piece", func() bool { return d.calls.Load() == 4 })
	if n := h.s.Stats().InflightBytes; n != 3*(mib+overhead)+piece+overhead {
		t.Errorf("%d bytes in flight", n)
	}
	for i := range 4 {
		p := pattern(i, 3*mib)
		other.write(uint64(i)*mib, p, 0)
		if !bytes.Equal(other.read(uint64(i)*mib, len(p)), p) {
			t.Fatal("read back")
		}
	}
	open()
	for i := range 8 {
		hog.wait(uint64(i + 1))
	}
	second.wait(1)
}
