package nbdsrv_test

import (
	"bytes"
	"fmt"
	"net"
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
