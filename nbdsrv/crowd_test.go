package nbdsrv_test

import (
	"net"
	"net/netip"
	"testing"
	"time"

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
