package nbdsrv_test

import (
	"bytes"
	"net"
	"sync"
	"testing"
	"time"

	"cawrm/bench/crowd"
	"cawrm/nbdsrv"
)

// TestMemoryBound ensures that clients who all do their worst, each kind in its own way, make the server hold no more
// than Config.MemoryBound, and that one among them who is honest is served, small and large.
func TestMemoryBound(t *testing.T) { // 40
	cfg := nbdsrv.Config{MaxConns: 24, MaxInflight: 64 * mib, MaxHandshakes: 16, Workers: 16, StallTimeout: time.Hour}
	d := newMemDev(96 * mib)
	for i := range 16384 { // as many extents as can be; the honest client has what is beyond
		d.present[i] = i%2 == 0
	}
	h := serve(t, cfg, nbdsrv.Export{Name: "quick", Device: d}, nbdsrv.Export{Name: "waits", Device: plain{d}})
	crowd.Held() // what earlier tests have left in pools goes
	before := crowd.Held()

	var attack sync.WaitGroup
	var stop []net.Conn
	for name, a := range map[string]struct {
		clients int
		export  string
		play    func(c *client)
	}{
		"half a payload": {5, "quick", func(c *client) {
			c.nc.Write(c.header(req{typ: cmdWrite, length: 32 * mib}))
			c.nc.Write(make([]byte, 31*mib))
		}},
		"large replies unread": {5, "waits", func(c *client) {
			flood(c, req{typ: cmdRead, length: 8*mib - 1})
		}},
		"inline replies unread": {4, "quick", func(c *client) {
			flood(c, req{typ: cmdRead, length: piece})
		}},
		"small payloads, replies unread": {3, "waits", func(c *client) {
			flood(c, req{typ: cmdRead, length: 1})
		}},
		"extents unread": {3, "quick", func(c *client) {
			flood(c, req{typ: cmdStatus, length: 64 * mib})
		}},
		"tiny replies behind a large one, one by one": {3, "quick", func(c *client) {
			c.nc.Write(c.header(req{typ: cmdRead, length: 8 * mib, flags: fDF}))
			time.Sleep(100 * time.Millisecond)
			for range 3000 {
				if _, err := c.nc.Write(c.header(req{typ: cmdCache, length: 1})); err != nil {
					return
				}
				time.Sleep(20 * time.Microsecond) // each is answered by itself
			}
		}},
	} {
		for range a.clients {
			c := h.openExport(structured, a.export)
			c.nc.SetDeadline(never)
			stop = append(stop, c.nc)
			attack.Go(func() { a.play(c) })
		}
		t.Logf("%d with %s", a.clients, name)
	}
	honest := h.openExport(extended, "quick")
	honest.nc.SetDeadline(time.Now().Add(3 * patience))
	eventually(t, "the budget is used up", func() bool { return h.s.Stats().InflightBytes > cfg.MaxInflight/2 })

	var most int64
	var small, large crowd.Latencies
	for i := range 40 {
		p := pattern(i, 4096)
		small.Time(func() {
			honest.write(64*mib, p, 0)
			if !bytes.Equal(honest.read(64*mib, len(p)), p) {
				t.Fatal("read back")
			}
		})
		if i%20 == 0 {
			p := pattern(i, 16*mib)
			large.Time(func() {
				honest.write(70*mib, p, fFUA)
				if !bytes.Equal(honest.read(70*mib, len(p)), p) {
					t.Fatal("read back")
				}
				honest.must(0, req{typ: cmdFlush})
			})
		}
		most = max(most, crowd.Held()-before)
		time.Sleep(10 * time.Millisecond)
	}
	t.Logf("held at most %d KiB, payloads now %d KiB, the bound is %d KiB", most>>10, h.s.Stats().InflightBytes>>10, cfg.MemoryBound()>>10)
	small.Log(t, "4 KiB written and read back")
	large.Log(t, "16 MiB written, read back, flushed")
	if most > cfg.MemoryBound() {
		t.Errorf("%d bytes are held, the bound is %d", most, cfg.MemoryBound())
	}
	if n := h.s.Stats().Connections; n != cfg.MaxConns {
		t.Errorf("%d connections", n)
	}
	for _, nc := range stop {
		nc.Close()
	}
	attack.Wait()
	eventually(t, "all is given back", func() bool { return h.s.Stats().InflightBytes == 0 })
}

// flood sends the same request again and again until the server takes no more, and reads nothing.
func flood(c *client, r req) {
	b := bytes.Repeat(c.header(r), 100)
	for {
		if _, err := c.nc.Write(b); err != nil {
			return
		}
	}
}
