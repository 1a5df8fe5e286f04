package nbdsrv_test

import (
	"encoding/binary"
	"io"
	"net"
	"runtime"
	"testing"

	"cawrm/nbdsrv"
)

// pump keeps depth requests of one kind in flight over nc, n in all, without allocating: it sends
// as many as have been answered, in one write.
type pump struct {
	nc      net.Conn
	write   bool
	bs      int
	size    uint64
	request []byte // depth requests, one after the other
	in      []byte
	at      uint64
}

func newPump(c *client, write bool, bs, depth int) *pump {
	p := &pump{nc: c.nc, write: write, bs: bs, size: c.size, in: make([]byte, depth*(16+bs))}
	r := req{typ: cmdRead, length: uint64(bs)}
	if write {
		r.typ, r.payload = cmdWrite, make([]byte, bs)
	}
	for range depth {
		p.request = append(append(p.request, c.header(r)...), r.payload...)
	}
	return p
}

func (p *pump) send(k int) error {
	each := 28
	if p.write {
		each += p.bs
	}
	for i := range k {
		p.at = (p.at + uint64(p.bs)*7919) % (p.size - uint64(p.bs))
		binary.BigEndian.PutUint64(p.request[i*each+16:], p.at&^4095)
	}
	_, err := p.nc.Write(p.request[:k*each])
	return err
}

func (p *pump) run(n, depth int) error {
	each := 16
	if !p.write {
		each += p.bs
	}
	sent, got, have := min(n, depth), 0, 0
	if err := p.send(sent); err != nil {
		return err
	}
	for got < n {
		k, err := io.ReadAtLeast(p.nc, p.in[have:], each-have)
		if err != nil {
			return err
		}
		have += k
		whole := have / each
		copy(p.in, p.in[whole*each:have])
		have -= whole * each
		got += whole
		if more := min(whole, n-sent); more > 0 {
			sent += more
			if err := p.send(more); err != nil {
				return err
			}
		}
	}
	return nil
}

type benchCase struct {
	name      string
	write     bool
	bs, depth int
}

var benchCases = []benchCase{
	{"read4k", false, 4 << 10, 32},
	{"write4k", true, 4 << 10, 32},
	{"read4k-depth1", false, 4 << 10, 1},
	{"read256k", false, 256 << 10, 32},
	{"write256k", true, 256 << 10, 32},
}

const benchSize = 64 * mib

func runBench(b *testing.B, x benchCase, c *client) {
	p := newPump(c, x.write, x.bs, x.depth)
	b.SetBytes(int64(x.bs))
	b.ReportAllocs()
	b.ResetTimer()
	if err := p.run(b.N, x.depth); err != nil {
		b.Fatal(err)
	}
	b.StopTimer()
}

// BenchmarkServe compares three servers on a unix socket: this one with a device that never waits,
// this one with a device that may (everything through workers), and go-nbd's.
func BenchmarkServe(b *testing.B) {
	for _, x := range benchCases {
		b.Run(x.name+"/inline", func(b *testing.B) {
			h := serve(b, nbdsrv.Config{}, nbdsrv.Export{Device: newMemDev(benchSize)})
			c := h.open(compact)
			c.nc.SetDeadline(never)
			runBench(b, x, c)
		})
		b.Run(x.name+"/workers", func(b *testing.B) {
			h := serve(b, nbdsrv.Config{}, nbdsrv.Export{Device: plain{newMemDev(benchSize)}})
			c := h.open(compact)
			c.nc.SetDeadline(never)
			runBench(b, x, c)
		})
		b.Run(x.name+"/go-nbd", func(b *testing.B) { runBench(b, x, oracle(b, benchSize)) })
	}
}

// TestNoAllocations asserts that a request costs no allocation in the steady state. The client's
// own allocations would count too; it makes none.
func TestNoAllocations(t *testing.T) {
	if raceEnabled {
		t.Skip("sync.Pool drops buffers at random under the race detector")
	}
	d := newMemDev(benchSize)
	for i := range d.present {
		d.present[i] = true
	}
	h := serve(t, nbdsrv.Config{}, nbdsrv.Export{Name: "inline", Device: d}, nbdsrv.Export{Name: "workers", Device: plain{d}})
	for _, x := range benchCases {
		for _, name := range []string{"inline", "workers"} {
			c := h.openExport(compact, name)
			p := newPump(c, x.write, x.bs, x.depth)
			run := func(n int) {
				if err := p.run(n, x.depth); err != nil {
					t.Fatal(err)
				}
			}
			const n = 4000
			run(n)
			var a, b runtime.MemStats
			runtime.ReadMemStats(&a)
			run(n)
			runtime.ReadMemStats(&b)
			// A collection empties the pools, and goroutines started late cost a few.
			if got := float64(b.Mallocs-a.Mallocs) / n; got > 0.1 {
				t.Errorf("%s %s: %.3f allocations a request", x.name, name, got)
			}
			c.nc.Close()
		}
	}
}
