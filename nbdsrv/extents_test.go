package nbdsrv_test

import (
	"slices"
	"syscall"
	"testing"

	"cawrm/nbdsrv"
)

func TestBlockStatus(t *testing.T) { // 28
	h, d := one(t, 4*mib)
	d.write(pattern(1, 8192), mib)
	d.write(pattern(2, 4096), 2*mib)
	const hole = 3
	for _, mode := range []int{structured, extended} {
		c := h.open(mode)
		for _, x := range []struct {
			off, n uint64
			want   [][2]uint64
		}{
			{0, 4 * mib, [][2]uint64{{mib, hole}, {8192, 0}, {mib - 8192, hole}, {4096, 0}, {2*mib - 4096, hole}}},
			{mib, 4096, [][2]uint64{{4096, 0}}},
			{mib + 1, 1, [][2]uint64{{1, 0}}},
			{mib + 100, 8192, [][2]uint64{{8092, 0}, {100, hole}}},
			{4*mib - 1, 1, [][2]uint64{{1, hole}}},
		} {
			r := c.must(0, req{typ: cmdStatus, off: x.off, length: x.n})
			if !slices.Equal(r.extents, x.want) || r.metaID != c.metaID {
				t.Errorf("%d+%d: %v, context %d", x.off, x.n, r.extents, r.metaID)
			}
			r = c.must(0, req{typ: cmdStatus, flags: fReqOne, off: x.off, length: x.n})
			if !slices.Equal(r.extents, x.want[:1]) {
				t.Errorf("REQ_ONE %d+%d: %v", x.off, x.n, r.extents)
			}
		}
		c.must(einval, req{typ: cmdStatus, off: 4 * mib, length: 1})
		c.must(einval, req{typ: cmdStatus, off: 0, length: 4*mib + 1})
		d.failWith(syscall.EIO)
		c.must(eio, req{typ: cmdStatus, length: 4096})
		d.failWith(nil)
	}
	h.open(compact).must(einval, req{typ: cmdStatus, length: 4096})
}

func TestBlockStatusManyExtents(t *testing.T) { // 28
	const size = 256 * mib
	h, d := one(t, size)
	for i := 0; i < len(d.present); i += 2 {
		d.present[i] = true
	}
	for _, mode := range []int{structured, extended} {
		c := h.open(mode)
		var at uint64
		asked := 0
		for ; at < size; asked++ {
			for _, x := range c.must(0, req{typ: cmdStatus, off: at, length: size - at}).extents {
				if want := 3 * (at / page % 2); x[0] != page || x[1] != want {
					t.Fatalf("at %d: %v", at, x)
				}
				at += x[0]
			}
		}
		if asked < 2 {
			t.Error("the answer was not bounded")
		}
	}
}

// oddDev reports extents in ways that the interface allows and in ways that it does not.
type oddDev struct {
	*memDev
	extents []int64
}

func (d oddDev) Extents(_, _ int64, fn func(int64, uint32) bool) error {
	for _, n := range d.extents {
		if !fn(n, 0xfffffff0) {
			break
		}
	}
	return nil
}

func TestBlockStatusOddDevice(t *testing.T) { // 28
	for _, x := range []struct {
		extents []int64
		want    uint64
	}{
		{[]int64{4096, 4096, 4096, 4096}, 16384}, // merged
		{[]int64{1 << 40}, 16384},                // cut
		{nil, 16384},                             // nothing is known
		{[]int64{0}, 16384},
		{[]int64{512, -1}, 512},
	} {
		h := serve(t, nbdsrv.Config{}, nbdsrv.Export{Device: oddDev{newMemDev(mib), x.extents}})
		for _, mode := range []int{structured, extended} {
			r := h.open(mode).must(0, req{typ: cmdStatus, length: 16384})
			if len(r.extents) != 1 || r.extents[0] != [2]uint64{x.want, 0} {
				t.Errorf("%v: %v", x.extents, r.extents)
			}
		}
	}
}
