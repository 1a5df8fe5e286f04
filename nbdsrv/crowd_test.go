package nbdsrv_test

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"cawrm/bench/crowd"
	"cawrm/nbdsrv"
)

// TestOldestHandshakeGoes ensures that connections which say nothing do not keep a later client out.
func TestOldestHandshakeGoes(t *testing.T) { // 18, 40
	h := serve(t, nbdsrv.Config{MaxHandshakes: 3}, two()...)
	serving := h.open(compact)
	var silent []*client
	for range 3 {
		c := &client{t: t, nc: h.raw()}
		c.recv(18)
		silent = append(silent, c)
	}
	h.open(structured).write(0, []byte("x"), 0)
	silent[0].closed()
	if s := h.s.Stats(); s.Dropped != 1 || s.Connections != 4 {
		t.Errorf("%+v", s)
	}
	h.open(extended).write(0, []byte("y"), 0) // the one before has given its place back
	silent[1].greets(3)
	silent[1].negotiate(compact, "")
	silent[1].write(0, []byte("z"), 0)
	serving.write(0, []byte("u"), 0)
}

// TestConnectionLimitAtTheEnd ensures that clients which are in the handshake together do not get beyond MaxConns.
func TestConnectionLimitAtTheEnd(t *testing.T) { // 18, 40
	h := serve(t, nbdsrv.Config{MaxConns: 1}, two()...)
	first, second, third := h.connect(3), h.connect(3), h.connect(3)
	first.negotiate(compact, "")
	second.refused(errPolicy, optGo, infoRequest(""))
	third.send(optionBytes(optExportName, nil))
	third.closed()
	first.nc.Close()
	eventually(t, "the place is free", func() bool { return h.s.Stats().Connections == 1 })
	second.negotiate(structured, "")
	second.write(0, []byte("x"), 0)
}

func (c *client) greets(flags byte) {
	c.replies = map[uint64]*reply{}
	c.send([]byte{0, 0, 0, flags})
}

// TestCrowdIsDroppedByAddress ensures that a crowd from one address gets in its own way, not in that of others.
func TestCrowdIsDroppedByAddress(t *testing.T) { // 18, 40
	h := serve(t, nbdsrv.Config{MaxHandshakes: 8}, two()...)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h.listen(l)
	from := func(host string) *client {
		d := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(host), 0))}
		nc, err := d.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { nc.Close() })
		nc.SetDeadline(time.Now().Add(patience))
		return &client{t: t, nc: nc, replies: map[uint64]*reply{}}
	}
	slow := from("127.0.0.1")
	slow.recv(18) // it is in
	for range 100 {
		from("127.0.0.2")
	}
	eventually(t, "all but the last are dropped", func() bool { return h.s.Stats().Dropped == 100+1-8 })
	slow.greets(3)
	slow.negotiate(structured, "")
	slow.write(0, []byte("x"), 0)
}

// TestTenThousandHalfOpen ensures that 10,000 connections which say nothing cost the server the memory and the files of
// MaxHandshakes, and that a client which comes in the middle of them is served.
func TestTenThousandHalfOpen(t *testing.T) { // 18, 40
	n := crowd.Allowed(t, 10_000)
	for _, network := range []string{"unix", "tcp"} {
		t.Run(network, func(t *testing.T) {
			cfg := nbdsrv.Config{MaxConns: 4, MaxInflight: mib}
			h := serve(t, cfg, two()...)
			addr := h.addr
			if network == "tcp" {
				l, err := net.Listen("tcp", "127.0.0.1:0")
				if err != nil {
					t.Fatal(err)
				}
				h.listen(l)
				addr = l.Addr().String()
			}
			honest := h.open(structured)
			memory, files := crowd.Held(), crowd.Files()
			done := make(chan struct{})
			go func() {
				defer close(done)
				crowd.Open(t, network, addr, n)
			}()
			var io, opens crowd.Latencies
			tries, again := 0, 0
			for alive := true; alive || len(opens) == 0; {
				select {
				case <-done:
					alive = false
				default:
				}
				io.Time(func() { honest.write(0, pattern(1, 100<<10), 0) })
				opens.Time(func() {
					for tries++; !visit(network, addr); tries++ {
						again++
					}
				})
			}
			held := crowd.Held() - memory - int64(n)*crowd.OwnSide
			t.Logf("%d connections: %d KiB and %d files on the server's side, %d dropped; %d of %d honest visits were dropped too",
				n, held>>10, crowd.Files()-files-n, h.s.Stats().Dropped, again, tries)
			io.Log(t, "writes of 100 KiB")
			opens.Log(t, "connect, handshake, write")
			if held > cfg.MemoryBound() {
				t.Errorf("%d bytes are held, the bound is %d", held, cfg.MemoryBound())
			}
			if more := crowd.Files() - files - n; files > 0 && more > 256+8 {
				t.Errorf("%d files are open on the server's side", more)
			}
			if s := h.s.Stats(); s.Connections > 256+1 {
				t.Errorf("%+v", s)
			}
		})
	}
}

// visit connects, writes, and says whether all of it was answered: not, when it was dropped for a newer connection.
func visit(network, addr string) bool {
	nc, err := net.Dial(network, addr)
	if err != nil {
		return false
	}
	defer nc.Close()
	nc.SetDeadline(time.Now().Add(patience))
	b := append([]byte{0, 0, 0, 3}, optionBytes(optGo, infoRequest(""))...)
	b = append(b, (&client{}).header(req{typ: cmdWrite, length: 5, cookie: 1})...)
	if _, err := nc.Write(append(b, 1, 2, 3, 4, 5)); err != nil {
		return false
	}
	_, err = readFull(nc, make([]byte, 18+20+12+20+16))
	return err == nil
}
