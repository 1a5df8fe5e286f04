package nbdsrv_test

import (
	"bytes"
	"encoding/binary"
	"net"
	"runtime"
	"testing"
	"time"
)

// slowReader never reads replies: it fills what the server holds for one connection.
func TestClientThatDoesNotReadReplies(t *testing.T) { // 40
	h, d := one(t, 64*mib)
	for _, blocking := range []bool{false, true} {
		d.block.Store(blocking)
		for mode := range modeNames {
			bad := h.open(mode)
			stop := make(chan struct{})
			sent := 0
			go func() { // requests until the server takes no more
				defer close(stop)
				b := append(bad.header(req{typ: cmdRead, length: 4096, cookie: 1}), bad.header(req{typ: cmdRead, length: mib - 1, cookie: 2})...)
				bad.nc.SetWriteDeadline(time.Now().Add(400 * time.Millisecond))
				for {
					if _, err := bad.nc.Write(b); err != nil {
						return
					}
					sent++
				}
			}()
			good := h.open(structured)
			for i := range 50 {
				good.write(uint64(i), pattern(i, 1+i*5000), 0)
				good.read(uint64(i), 1+i*5000)
			}
			<-stop
			if n := h.s.Stats().InflightBytes; n > 68*mib {
				t.Errorf("%d bytes in flight", n)
			}
			good.must(0, req{typ: cmdFlush})
			bad.nc.Close()
			good.nc.Close()
		}
	}
	eventually(t, "everything is given back", func() bool { return h.s.Stats().InflightBytes == 0 })
}

func TestStalledPayload(t *testing.T) { // 40
	h, _ := one(t, 64*mib)
	var bad []*client
	for i := range 12 {
		c := h.open(i % 3)
		c.send(append(c.header(req{typ: cmdWrite, length: 32 * mib, cookie: 1}), make([]byte, 100<<10)...))
		bad = append(bad, c)
	}
	eventually(t, "all are taken in", func() bool { return h.s.Stats().InflightBytes == 12*(32*mib+overhead) })
	good := h.open(compact)
	good.write(0, pattern(1, 32*mib), 0)
	for _, c := range bad {
		c.nc.Close()
	}
	eventually(t, "everything is given back", func() bool { return h.s.Stats().InflightBytes == 0 })
}

func TestDisconnectInTheMiddle(t *testing.T) { // 40
	h, d := one(t, 4*mib)
	before := runtime.NumGoroutine()
	for mode := range modeNames {
		for cut := range 60 {
			c := h.connect(3)
			var s []byte
			if mode == extended {
				s = append(s, optionBytes(optExtended, nil)...)
			}
			s = append(s, optionBytes(optGo, infoRequest("x", 3))...)
			c.mode = mode
			s = append(s, c.header(req{typ: cmdWrite, length: 100, cookie: 1})...)
			s = append(s, make([]byte, 100)...)
			s = append(s, c.header(req{typ: cmdWrite, off: mib, length: mib, cookie: 2})...)
			s = append(s, make([]byte, 4000)...)
			c.send(s[:cut*len(s)/60])
			c.nc.Close()
		}
	}
	// Cut off while the device works and replies are due.
	for range 5 {
		open := d.shut()
		c := h.open(structured)
		for i := range 100 {
			c.start(req{typ: cmdRead, off: uint64(i), length: 300 << 10})
		}
		c.nc.Close()
		open()
	}
	eventually(t, "all are gone", func() bool { return h.s.Stats().Connections == 0 })
	eventually(t, "no goroutine is left", func() bool { return runtime.NumGoroutine() <= before+1 })
}

func TestSlowLoris(t *testing.T) { // 18, 40
	h, _ := one(t, mib)
	c := h.open(extended)
	var s []byte
	for i := range uint64(20) {
		c.cookie++
		c.replies[c.cookie] = &reply{req: req{typ: cmdWrite, off: i * 10, length: 10}}
		s = append(s, c.header(req{typ: cmdWrite, off: i * 10, length: 10, cookie: c.cookie})...)
		s = append(s, pattern(int(i), 10)...)
	}
	for i := range s {
		c.send(s[i : i+1])
	}
	for i := range uint64(20) {
		c.wait(i + 1)
	}
	for i := range 20 {
		if !bytes.Equal(c.read(uint64(i)*10, 10), pattern(i, 10)) {
			t.Fatal("read back")
		}
	}
}

// TestRequestFlood sends more requests than may be in flight and reads the answers only then.
func TestRequestFlood(t *testing.T) { // 40
	h, d := one(t, mib)
	c := h.open(compact)
	open := d.shut()
	const n = 2000
	go func() {
		for i := range uint64(n) {
			if _, err := c.nc.Write(c.header(req{typ: cmdFlush, cookie: i + 1})); err != nil {
				t.Error(err)
				return
			}
		}
	}()
	eventually(t, "all workers are busy", func() bool { return d.calls.Load() == 64 })
	open()
	for i := range uint64(n) {
		c.replies[i+1] = &reply{req: req{typ: cmdFlush}}
	}
	for i := range uint64(n) {
		c.wait(i + 1)
	}
}

// TestHostileLengths sends headers with lengths chosen to overflow; the server answers or closes,
// and allocates nothing for them.
func TestHostileLengths(t *testing.T) { // 17, 30, 35, 40
	h, _ := one(t, mib)
	var m0, m1 runtime.MemStats
	runtime.ReadMemStats(&m0)
	for mode := range modeNames {
		for _, n := range []uint64{1<<31 - 1, 1 << 31, 1<<32 - 1, 1 << 32, 1<<63 - 1, 1 << 63, 1<<64 - 1} {
			for typ := range uint16(10) {
				for _, flags := range []uint16{0, 0xffff} {
					c := h.open(mode)
					c.mode = compact // header() must not add PAYLOAD_LEN
					b := c.header(req{typ: typ, flags: flags, length: n, off: n, cookie: 1})
					if mode == extended {
						binary.BigEndian.PutUint32(b, 0x21e41c71)
						b = binary.BigEndian.AppendUint64(b[:24], n)
					}
					c.send(b)
					c.nc.(*net.UnixConn).CloseWrite()
					var p [256]byte
					for {
						if k, err := c.nc.Read(p[:]); k == 0 && err != nil {
							if !isEnd(err) {
								t.Fatalf("%s: command %d with length %#x hangs", modeNames[mode], typ, n)
							}
							break
						}
					}
					c.nc.Close()
				}
			}
		}
	}
	runtime.ReadMemStats(&m1)
	if grown := m1.TotalAlloc - m0.TotalAlloc; grown > 1<<30 {
		t.Errorf("%d bytes allocated", grown)
	}
}
