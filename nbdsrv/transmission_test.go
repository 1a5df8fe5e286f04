package nbdsrv_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"syscall"
	"testing"
	"time"

	"cawrm/nbdsrv"
)

// one is a server with one export on a memory device.
func one(t testing.TB, size int64) (*harness, *memDev) {
	d := newMemDev(size)
	return serve(t, nbdsrv.Config{}, nbdsrv.Export{Name: "x", Device: d, MultiConn: true}), d
}

func TestCookies(t *testing.T) { // 20
	h, d := one(t, mib)
	eachMode(t, func(t *testing.T, mode int) {
		c := h.open(mode)
		for _, cookie := range []uint64{1<<64 - 1, 1 << 63, 0x2560951325609513} {
			c.must(0, req{typ: cmdWrite, payload: []byte("a"), cookie: cookie})
		}
		// The same cookie twice in flight: two answers, both with it.
		open := d.shut()
		h := c.header(req{typ: cmdFlush, cookie: 7})
		c.send(append(h, h...))
		open()
		for range 2 {
			c.replies[7] = &reply{req: req{typ: cmdFlush}}
			c.wait(7)
		}
	})
}

func TestSplitAndMergedRequests(t *testing.T) { // 20
	h, _ := one(t, mib)
	eachMode(t, func(t *testing.T, mode int) {
		c := h.open(mode)
		var stream []byte
		var cookies []uint64
		for i := range 200 {
			p := pattern(i, 100+i*13)
			for _, r := range []req{
				{typ: cmdWrite, off: uint64(i) * 4096, payload: p, length: uint64(len(p))},
				{typ: cmdRead, off: uint64(i) * 4096, length: 512},
			} {
				c.cookie++
				r.cookie = c.cookie
				c.replies[r.cookie] = &reply{req: r}
				cookies = append(cookies, r.cookie)
				stream = append(append(stream, c.header(r)...), r.payload...)
			}
		}
		done := make(chan bool)
		go func() {
			defer close(done)
			for i := 0; len(stream) > 0; i++ { // ragged pieces: 1 byte to all sorts of sizes
				n := min(1+(i*i*37)%9001, len(stream))
				if _, err := c.nc.Write(stream[:n]); err != nil {
					t.Error(err)
					return
				}
				stream = stream[n:]
			}
		}()
		for _, k := range cookies {
			if r := c.wait(k); r.err != 0 {
				t.Fatalf("%+v", r)
			}
		}
		<-done
		for i := range 200 {
			if p := pattern(i, 100+i*13); !bytes.Equal(c.read(uint64(i)*4096, len(p)), p) {
				t.Fatalf("write %d", i)
			}
		}
	})
}

func TestOutOfOrder(t *testing.T) { // 20, 23
	h, d := one(t, mib)
	eachMode(t, func(t *testing.T, mode int) {
		c := h.open(mode)
		open := d.shut()
		slow := c.start(req{typ: cmdFlush})
		eventually(t, "the flush waits", func() bool { return d.calls.Load() == 1 })
		d.block.Store(false)
		for i := range 100 { // all overtake the flush
			c.write(uint64(i)*512, pattern(i, 512), 0)
			c.must(0, req{typ: cmdRead, off: uint64(i) * 512, length: 512})
		}
		if c.replies[slow].done {
			t.Fatal("flush answered before it was done")
		}
		open()
		if r := c.wait(slow); r.err != 0 {
			t.Fatal(r.err)
		}
	})
}

func TestReplyForms(t *testing.T) { // 21
	h, d := one(t, mib)
	eachMode(t, func(t *testing.T, mode int) {
		c := h.open(mode)
		// The client itself refuses forms that the mode does not allow; errors count too.
		for _, blocking := range []bool{false, true} {
			d.block.Store(blocking)
			c.must(0, req{typ: cmdRead, length: 10})
			c.must(0, req{typ: cmdRead, length: 200 << 10})
			c.must(einval, req{typ: cmdRead, off: mib, length: 10})
			c.must(einval, req{typ: cmdRead, flags: fNoHole, length: 10})
			d.failWith(syscall.EIO)
			c.must(eio, req{typ: cmdRead, length: 10})
			c.must(eio, req{typ: cmdRead, length: 200 << 10})
			c.must(eio, req{typ: cmdWrite, payload: []byte("a")})
			c.must(eio, req{typ: cmdFlush})
			d.failWith(nil)
			c.must(0, req{typ: cmdFlush})
		}
	})
}

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

func TestCacheAndFlagCombinations(t *testing.T) { // 27, 31
	h, _ := one(t, mib)
	allowed := map[uint16]uint16{
		cmdRead: fFUA, cmdWrite: fFUA, cmdFlush: fFUA, cmdTrim: fFUA, cmdCache: fFUA,
		cmdZeroes: fFUA | fNoHole | fFastZero,
	}
	eachMode(t, func(t *testing.T, mode int) {
		c := h.open(mode)
		ok := map[uint16]uint16{}
		for k, v := range allowed {
			ok[k] = v
		}
		if mode != compact {
			ok[cmdRead] |= fDF
			ok[cmdStatus] = fFUA | fReqOne
		}
		for typ := range uint16(12) {
			if typ == cmdDisc {
				continue
			}
			for bit := range 16 {
				flag := uint16(1 << bit)
				if mode == extended && flag == fPayload {
					continue // TestPayloadLen
				}
				r := req{typ: typ, flags: flag, off: 4096, length: 4096}
				if typ == cmdWrite {
					r.payload = make([]byte, 4096)
				}
				want := uint32(einval)
				if ok[typ]&flag != 0 {
					want = 0
				}
				c.must(want, r)
			}
		}
		c.write(10, []byte("in sync"), 0)
		c.must(0, req{typ: cmdCache, length: mib})
		c.must(einval, req{typ: cmdCache, length: mib + 1})
		if string(c.read(10, 7)) != "in sync" {
			t.Fatal("not in sync")
		}
	})
}

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

// hugeDev has a size beyond 32 bits and forgets everything.
type hugeDev struct {
	*memDev
	size int64
	last chan [2]int64
}

func (d hugeDev) Size() int64 { return d.size }
func (d hugeDev) Extents(_, n int64, fn func(int64, uint32) bool) error {
	fn(n, nbdsrv.StateHole|nbdsrv.StateZero)
	return nil
}
func (d hugeDev) Trim(off, n int64, _ bool) error { d.last <- [2]int64{off, n}; return nil }
func (d hugeDev) WriteZeroes(off, n int64, _, _ bool) error {
	d.last <- [2]int64{off, n}
	return nil
}

func TestLengths64(t *testing.T) { // 29, 34
	const size = 1 << 50
	d := hugeDev{newMemDev(page), size, make(chan [2]int64, 1)}
	h := serve(t, nbdsrv.Config{}, nbdsrv.Export{Device: d})
	for mode, longest := range []uint64{1<<32 - 1, 1<<32 - 1, size - 4096} {
		c := h.open(mode)
		for _, n := range []uint64{1 << 31, 1<<32 - 512, 1<<32 - 1, longest} {
			for _, typ := range []uint16{cmdTrim, cmdZeroes} {
				c.must(0, req{typ: typ, off: 4096, length: n})
				if got := <-d.last; got != [2]int64{4096, int64(n)} {
					t.Errorf("%s: %v", modeNames[mode], got)
				}
			}
			c.must(0, req{typ: cmdCache, off: 4096, length: n})
			if mode != compact {
				if r := c.must(0, req{typ: cmdStatus, off: 4096, length: n}); r.extents[0][0] != n {
					t.Errorf("%s: %v", modeNames[mode], r.extents)
				}
			}
		}
	}
	c := h.open(extended)
	c.must(eoverflow, req{typ: cmdRead, length: 1 << 40})
	c.must(0, req{typ: cmdRead, length: 0})
}

func TestPayloadLen(t *testing.T) { // 29
	h, _ := one(t, 4*mib)
	c := h.open(extended)
	filter := func(n uint64, ids ...uint32) req {
		p := binary.BigEndian.AppendUint64(nil, n)
		for _, id := range ids {
			p = binary.BigEndian.AppendUint32(p, id)
		}
		return req{typ: cmdStatus, flags: fPayload, off: 4096, length: uint64(len(p)), payload: p}
	}
	if r := c.must(0, filter(2*mib, c.metaID)); r.extents[0] != [2]uint64{2 * mib, 3} || r.metaID != c.metaID {
		t.Errorf("%v", r.extents)
	}
	c.must(einval, filter(2*mib, c.metaID, c.metaID))
	c.must(einval, filter(2*mib, c.metaID+1))
	c.must(einval, filter(2*mib))
	c.must(einval, filter(4*mib, c.metaID))
	c.must(einval, filter(0, c.metaID))
	c.must(einval, filter(1<<63, c.metaID))
	c.must(einval, req{typ: cmdStatus, flags: fPayload, length: 5, payload: []byte("short")})
	for _, typ := range []uint16{cmdRead, cmdFlush, cmdTrim, cmdCache, cmdZeroes, 9} {
		for _, n := range []int{1, 100, 300 << 10} {
			c.must(einval, req{typ: typ, flags: fPayload, length: uint64(n), payload: make([]byte, n)})
		}
	}
	c.write(0, []byte("in sync"), 0)
	// A write without the flag has no payload.
	b := c.header(req{typ: cmdFlush, length: 100, cookie: 99})
	binary.BigEndian.PutUint16(b[6:], cmdWrite)
	c.replies[99] = &reply{req: req{typ: cmdFlush}}
	c.send(b)
	if r := c.wait(99); r.err != einval {
		t.Errorf("write without PAYLOAD_LEN: %d", r.err)
	}
	// Without a context the payload form is refused too.
	c = h.connect(3)
	c.ack(optExtended, nil)
	c.mode = extended
	c.enter("")
	c.must(einval, filter(4096, 1))
	c.write(0, []byte("in sync"), 0)
}

func TestOutOfRange(t *testing.T) { // 30
	h, d := one(t, mib)
	eachMode(t, func(t *testing.T, mode int) {
		c := h.open(mode)
		for _, blocking := range []bool{false, true} {
			d.block.Store(blocking)
			for _, off := range []uint64{mib - 99, mib, mib + 1, 1 << 40, 1<<63 - 50, 1 << 63, 1<<64 - 100, 1<<64 - 1} {
				for typ, want := range map[uint16]uint32{cmdRead: einval, cmdTrim: einval, cmdCache: einval, cmdZeroes: enospc, cmdWrite: enospc, cmdStatus: einval} {
					r := req{typ: typ, off: off, length: 100}
					if typ == cmdWrite {
						r.payload = pattern(3, 100)
					}
					c.must(want, r)
				}
			}
			c.must(0, req{typ: cmdRead, off: mib - 100, length: 100})
			c.write(mib-100, pattern(4, 100), 0)
			c.must(enospc, req{typ: cmdWrite, off: mib - 100, payload: make([]byte, 500<<10)})
			if !bytes.Equal(c.read(mib-100, 100), pattern(4, 100)) {
				t.Fatal("changed by a refused write")
			}
		}
	})
}

func TestUnknownCommands(t *testing.T) { // 31
	h, _ := one(t, mib)
	eachMode(t, func(t *testing.T, mode int) {
		c := h.open(mode)
		for _, typ := range []uint16{8, 9, 100, 0xffff} {
			c.must(einval, req{typ: typ, length: 4096})
		}
		c.write(0, []byte("in sync"), 0)
	})
}

func TestLengthZero(t *testing.T) { // 32
	h, d := one(t, mib)
	eachMode(t, func(t *testing.T, mode int) {
		c := h.open(mode)
		for _, blocking := range []bool{false, true} {
			d.block.Store(blocking)
			for _, off := range []uint64{0, 5, mib} {
				for _, typ := range []uint16{cmdRead, cmdWrite, cmdTrim, cmdZeroes, cmdCache} {
					c.must(0, req{typ: typ, off: off})
				}
			}
			if mode != compact {
				c.must(einval, req{typ: cmdStatus})
			}
		}
	})
}

func TestLargePayloads(t *testing.T) { // 33, 35
	h, _ := one(t, 80*mib)
	eachMode(t, func(t *testing.T, mode int) {
		c := h.open(mode)
		p := pattern(mode, 32*mib)
		c.write(5, p, 0)
		if !bytes.Equal(c.read(5, 32*mib), p) {
			t.Fatal("32 MiB read back")
		}
		c.must(einval, req{typ: cmdWrite, payload: make([]byte, 64*mib)})
		want := uint32(einval)
		if mode != compact {
			want = eoverflow
		}
		c.must(want, req{typ: cmdRead, length: 64 * mib})
		c.write(0, []byte("in sync"), 0)
	})
}

func TestMaxPayload64(t *testing.T) { // 33
	h := serve(t, nbdsrv.Config{}, nbdsrv.Export{Device: newMemDev(80 * mib), MaxPayload: 64 * mib})
	c := h.open(structured)
	p := pattern(9, 64*mib)
	c.write(100, p, 0)
	if !bytes.Equal(c.read(100, 64*mib), p) {
		t.Fatal("64 MiB read back")
	}
}

func TestAbsurdWrite(t *testing.T) { // 35
	h, _ := one(t, mib)
	eachMode(t, func(t *testing.T, mode int) {
		for _, n := range []uint64{1<<32 - 1, 1<<64 - 1} {
			c := h.open(mode)
			c.replies[5] = &reply{req: req{typ: cmdWrite}}
			c.send(c.header(req{typ: cmdWrite, length: n, cookie: 5}))
			if r := c.wait(5); r.err != einval {
				t.Fatalf("error %d", r.err)
			}
			c.closed()
		}
	})
}

func TestBadMagic(t *testing.T) { // 35
	h, _ := one(t, mib)
	eachMode(t, func(t *testing.T, mode int) {
		c := h.open(mode)
		c.send(bytes.Repeat([]byte{0x25}, 32))
		c.closed()
	})
}

func TestDisconnectAnswersOutstanding(t *testing.T) { // 36
	h, d := one(t, mib)
	eachMode(t, func(t *testing.T, mode int) {
		c := h.open(mode)
		open := d.shut()
		var cookies []uint64
		for i := range 20 {
			cookies = append(cookies, c.start(req{typ: cmdWrite, off: uint64(i), payload: []byte("x")}))
		}
		cookies = append(cookies, c.start(req{typ: cmdRead, length: 100}))
		c.send(c.header(req{typ: cmdDisc}))
		c.send([]byte("what follows is ignored"))
		eventually(t, "all wait in the device", func() bool { return d.calls.Load() == 21 })
		open()
		for _, k := range cookies {
			if r := c.wait(k); r.err != 0 {
				t.Fatalf("%+v", r)
			}
		}
		c.closed()
	})
}

func TestHalfClosedClient(t *testing.T) { // 36, 40
	h, d := one(t, mib)
	c := h.open(structured)
	open := d.shut()
	k := c.start(req{typ: cmdRead, length: 100 << 10})
	c.nc.(*net.UnixConn).CloseWrite()
	time.Sleep(20 * time.Millisecond)
	open()
	c.wait(k)
	c.closed()
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

func TestManyExports(t *testing.T) {
	var all []nbdsrv.Export
	for i := range 50 {
		all = append(all, nbdsrv.Export{Name: fmt.Sprint("disk", i), Device: newMemDev(int64(i+1) * page)})
	}
	h := serve(t, nbdsrv.Config{}, all...)
	for i := range all {
		c := h.openExport(i%3, all[i].Name)
		if c.size != uint64(i+1)*page {
			t.Fatalf("export %d has size %d", i, c.size)
		}
		c.write(0, []byte(all[i].Name), 0)
	}
	for i := range all {
		if got := all[i].Device.(*memDev).data[:len(all[i].Name)]; string(got) != all[i].Name {
			t.Fatalf("export %d holds %q", i, got)
		}
	}
}

func TestStats(t *testing.T) {
	h, _ := one(t, mib)
	c := h.open(structured)
	c.write(0, make([]byte, 1000), 0)
	c.write(0, make([]byte, 100<<10), 0)
	c.read(0, 10)
	c.read(0, 100<<10)
	c.must(0, req{typ: cmdFlush})
	c.must(0, req{typ: cmdTrim, length: 1})
	c.must(0, req{typ: cmdZeroes, length: 1})
	c.must(einval, req{typ: 99})
	want := nbdsrv.Stats{
		Connections: 1, Accepted: 1, Reads: 2, Writes: 2, Flushes: 1, Trims: 1, Zeroes: 1, Others: 1,
		ReadBytes: 10 + 100<<10, WrittenBytes: 1000 + 100<<10, Errors: 1,
	}
	eventually(t, "figures", func() bool { return h.s.Stats() == want })
	c.nc.Close()
	want.Connections = 0
	eventually(t, "figures outlive the connection", func() bool { return h.s.Stats() == want })
}
