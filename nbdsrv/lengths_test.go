package nbdsrv_test

import (
	"bytes"
	"encoding/binary"
	"net"
	"testing"
	"time"

	"cawrm/nbdsrv"
)

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

// TestRefusedAfterItsPayload ensures that a write is not answered while its payload is still being sent: on a connection
// without a buffer an answer that nobody reads yet would hold up both sides.
func TestRefusedAfterItsPayload(t *testing.T) { // 30
	h := serve(t, nbdsrv.Config{}, nbdsrv.Export{Device: newMemDev(mib)})
	l := &pipeListener{conns: make(chan net.Conn), done: make(chan struct{})}
	h.listen(l)
	eachMode(t, func(t *testing.T, mode int) {
		near, far := net.Pipe()
		defer near.Close()
		_ = near.SetDeadline(time.Now().Add(patience))
		l.conns <- far
		c := &client{t: t, nc: near, replies: map[uint64]*reply{}}
		c.greeting(3)
		c.negotiate(mode, "")
		c.must(enospc, req{typ: cmdWrite, off: mib - 100, payload: make([]byte, 2*mib)})
		c.must(einval, req{typ: cmdWrite, flags: 1 << 9, payload: make([]byte, 2*mib)})
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

// TestGrows ensures that a client which stays connected can use what an export has grown by, and nothing beyond.
func TestGrows(t *testing.T) {
	d := newMemDev(2 * mib)
	d.data = d.data[:mib]
	h := serve(t, nbdsrv.Config{}, nbdsrv.Export{Device: d})
	for mode := range 3 {
		d.mu.Lock()
		d.data = d.data[:mib]
		d.mu.Unlock()
		c := h.open(mode)
		c.must(enospc, req{typ: cmdWrite, off: mib, payload: make([]byte, 4096)})
		c.must(einval, req{typ: cmdRead, off: mib, length: 4096})
		d.mu.Lock()
		d.data = d.data[:2*mib]
		d.mu.Unlock()
		c.must(0, req{typ: cmdWrite, off: 2*mib - 4096, payload: bytes.Repeat([]byte{9}, 4096)})
		c.must(0, req{typ: cmdRead, off: mib - 4096, length: 8192})
		c.must(einval, req{typ: cmdRead, off: 2*mib - 4096, length: 8192})
	}
}
