package network

import (
	"cmp"
	"errors"
	"io"
	"net"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"
)

// buffered is what a line takes before a writer waits: both sides' socket buffers together.
const buffered = 128 << 10

// conn is one end of a connection. Everything is guarded by the network's mutex; cond is on it.
type conn struct {
	n       *Network
	nr      int
	host    *Host
	to      string // the other side's name
	peer    *conn
	dialled bool
	cond    *sync.Cond
	tape    *tape

	in       []piece // what the other side has written and this one has not read
	queued   int     // bytes in it
	last     time.Time
	budget   int64 // bytes that may be written until the cut, < 0: any number
	ended    bool  // the other side will write no more
	broken   bool  // reset: this side has heard of the end
	vanished bool  // the other side is gone, and nobody said so
	closed   bool
	read     deadline
	write    deadline
}

// piece is bytes that arrive at some time.
type piece struct {
	at time.Time
	b  []byte
}

var serial struct {
	sync.Mutex
	n int
}

func newConn(n *Network, h *Host, to string, dialled bool) *conn {
	serial.Lock()
	serial.n++
	nr := serial.n
	serial.Unlock()
	c := &conn{n: n, nr: nr, host: h, to: to, dialled: dialled, budget: -1}
	c.cond = sync.NewCond(&n.mu)
	return c
}

func sortConns(all []*conn) {
	slices.SortFunc(all, func(a, b *conn) int { return cmp.Compare(a.nr, b.nr) })
}

// end tells this side that the connection is over, or, silent, makes the other one vanish. It is called locked.
func (c *conn) end(silent bool) {
	if silent {
		c.vanished = true
	} else {
		c.broken = true
	}
	c.cond.Broadcast()
	c.peer.cond.Broadcast()
}

func (c *conn) Read(b []byte) (int, error) {
	c.n.mu.Lock()
	defer c.n.mu.Unlock()
	for {
		stalled := c.n.weather.Stalled
		switch {
		case c.closed:
			return 0, net.ErrClosed
		case c.read.passed():
			return 0, os.ErrDeadlineExceeded
		case stalled: // neither bytes nor the news of an end
		case len(c.in) > 0:
			if wait := time.Until(c.in[0].at); wait > 0 {
				c.wakeAfter(wait)
				break
			}
			return c.takeLocked(b), nil
		case c.broken:
			return 0, syscall.ECONNRESET
		case c.ended:
			return 0, io.EOF
		}
		c.cond.Wait()
	}
}

// takeLocked gives the reader some of what has arrived.
func (c *conn) takeLocked(b []byte) int {
	if most := c.n.weather.Pieces; most > 0 && len(b) > most {
		b = b[:1+c.n.rng.IntN(most)]
	}
	p := &c.in[0]
	n := copy(b, p.b)
	p.b = p.b[n:]
	if len(p.b) == 0 {
		c.in = c.in[1:]
	}
	c.queued -= n
	c.n.stats.Bytes += int64(n)
	c.peer.cond.Broadcast()
	return n
}

func (c *conn) Write(b []byte) (int, error) {
	c.n.mu.Lock()
	defer c.n.mu.Unlock()
	done := 0
	for {
		switch {
		case c.closed:
			return done, net.ErrClosed
		case c.write.passed():
			return done, os.ErrDeadlineExceeded
		case c.broken && !c.n.weather.Stalled:
			return done, syscall.EPIPE
		case len(b) == 0:
			return done, nil
		}
		n := min(len(b), buffered-c.peer.queued)
		if n > 0 && !c.broken {
			n = c.sendLocked(b[:n])
			b, done = b[n:], done+n
			continue
		}
		c.cond.Wait()
	}
}

// sendLocked puts bytes on the line, as far as the cut allows.
func (c *conn) sendLocked(b []byte) int {
	cut := c.budget >= 0 && int64(len(b)) >= c.budget
	if cut {
		b = b[:c.budget]
	}
	if c.budget >= 0 {
		c.budget -= int64(len(b))
	}
	if p := c.peer; len(b) > 0 {
		p.queued += len(b)
		if !c.vanished { // else it waits in a buffer for an acknowledgement that does not come
			at := time.Now().Add(c.n.someLocked(c.n.weather.Delay))
			if at.Before(p.last) {
				at = p.last // bytes of one connection stay in order
			}
			p.last = at
			p.in = append(p.in, piece{at, append([]byte(nil), b...)})
			p.cond.Broadcast()
		}
		c.tape.add(b)
	}
	if c.peer.closed && !c.vanished {
		c.broken = true // nobody reads it any more: the answer is a reset
	}
	if cut {
		c.budget = -1
		c.n.cutLocked(c)
	}
	return len(b)
}

// CloseWrite says that no more will come.
func (c *conn) CloseWrite() error {
	c.n.mu.Lock()
	defer c.n.mu.Unlock()
	if !c.vanished {
		c.peer.ended = true
		c.peer.cond.Broadcast()
	}
	return nil
}

// Close ends this side. With bytes that it never read, the other one is reset.
func (c *conn) Close() error {
	c.n.mu.Lock()
	defer c.n.mu.Unlock()
	if c.closed {
		return nil
	}
	c.closed = true
	delete(c.n.conns, c)
	if !c.vanished {
		c.peer.ended = true
		if len(c.in) > 0 {
			c.peer.broken = true
		}
	}
	c.cond.Broadcast()
	c.peer.cond.Broadcast()
	c.read.stop()
	c.write.stop()
	return nil
}

func (c *conn) wakeAfter(d time.Duration) {
	time.AfterFunc(d, func() {
		c.n.mu.Lock()
		defer c.n.mu.Unlock()
		c.cond.Broadcast()
	})
}

func (c *conn) LocalAddr() net.Addr  { return address(c.host.name) }
func (c *conn) RemoteAddr() net.Addr { return address(c.to) }

func (c *conn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

func (c *conn) SetReadDeadline(t time.Time) error  { return c.setDeadline(&c.read, t) }
func (c *conn) SetWriteDeadline(t time.Time) error { return c.setDeadline(&c.write, t) }

func (c *conn) setDeadline(d *deadline, t time.Time) error {
	c.n.mu.Lock()
	defer c.n.mu.Unlock()
	if c.closed {
		return net.ErrClosed
	}
	d.set(c, t)
	return nil
}

// deadline is a moment, and the timer that wakes who waits for it.
type deadline struct {
	at    time.Time
	timer *time.Timer
}

func (d *deadline) passed() bool { return !d.at.IsZero() && !time.Now().Before(d.at) }

func (d *deadline) stop() {
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
}

func (d *deadline) set(c *conn, t time.Time) {
	d.stop()
	d.at = t
	switch {
	case t.IsZero():
	case d.passed():
		c.cond.Broadcast()
	default:
		d.timer = time.AfterFunc(time.Until(t), func() {
			c.n.mu.Lock()
			defer c.n.mu.Unlock()
			c.cond.Broadcast()
		})
	}
}
