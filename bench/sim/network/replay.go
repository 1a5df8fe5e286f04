package network

import (
	"io"
	"net"
	"time"
)

// taped is how much of what a dialler says is kept.
const taped = 64 << 10

// tape is what a dialler said.
type tape struct {
	from, to string
	b        []byte
}

func (t *tape) add(b []byte) {
	if t != nil {
		t.b = append(t.b, b[:min(len(b), taped-len(t.b))]...)
	}
}

// Replay says to a host what some earlier connection said to it, over a new connection that goes away by itself. It
// tells whether there was anything to say.
func (n *Network) Replay() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.tapes) == 0 {
		return false
	}
	t := n.tapes[n.rng.IntN(len(n.tapes))]
	to := n.hosts[t.to]
	if len(t.b) == 0 || to == nil || to.in == nil || to.in.closed {
		return false
	}
	n.stats.Replays++
	c := n.connectLocked(&Host{n: n, name: t.from}, to)
	n.tapes = n.tapes[:len(n.tapes)-1] // what it says is on a tape already
	c.tape = nil
	go play(c, append([]byte(nil), t.b...))
	return true
}

// play talks without listening, for a few seconds at most.
func play(c net.Conn, b []byte) {
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(3 * time.Second))
	if _, err := c.Write(b); err == nil {
		_, _ = io.Copy(io.Discard, c) // until the host hangs up, or the time is over
	}
}
