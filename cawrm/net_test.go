package cawrm_test

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"
)

// network is a net in memory: what is dialled arrives at its listener, over connections that can be cut at a byte
// and stalled. Its connections wait on channels and timers only, so that virtual time works.
type network struct {
	mu      sync.Mutex
	arrive  chan net.Conn
	closed  chan struct{}
	refused bool // a dial finds nobody
	stalled bool
	rate    int // bytes a second that a reader gets, 0: no limit
	pairs   []*pair
	forward int64 // cut a connection after so many bytes from the dialler; < 0: never
	back    int64
	dials   int
	passed  [2]int64 // bytes delivered into buffers, dialler to listener and back
}

type pair struct {
	n    *network
	mu   sync.Mutex
	half [2]half // what the dialler wrote, what the listener wrote
}

// half is one direction.
type half struct {
	buf     []byte
	budget  int64 // bytes until the cut, < 0: none
	ended   bool  // the writer has closed
	broken  bool
	changed chan struct{} // closed and replaced at each change
}

const halfLimit = 128 << 10

func newNetwork() *network {
	return &network{arrive: make(chan net.Conn), closed: make(chan struct{}), forward: -1, back: -1}
}

func (n *network) dial(ctx context.Context, _ string) (net.Conn, error) {
	n.mu.Lock()
	n.dials++
	if n.refused {
		n.mu.Unlock()
		return nil, &net.OpError{Op: "dial", Net: "memory", Err: syscall.ECONNREFUSED}
	}
	p := &pair{n: n}
	p.half[0] = half{budget: n.forward, changed: make(chan struct{})}
	p.half[1] = half{budget: n.back, changed: make(chan struct{})}
	n.pairs = append(n.pairs, p)
	n.mu.Unlock()
	select {
	case n.arrive <- newMemConn(p, 1):
		return newMemConn(p, 0), nil
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-n.closed:
		return nil, net.ErrClosed
	}
}

// set changes what happens to connections from now on.
func (n *network) set(f func(n *network)) {
	n.mu.Lock()
	f(n)
	pairs := n.pairs
	n.mu.Unlock()
	for _, p := range pairs {
		p.mu.Lock()
		p.wakeLocked()
		p.mu.Unlock()
	}
}

// dialled counts the dials, carried the bytes from the dialler.
func (n *network) dialled() int   { n.mu.Lock(); defer n.mu.Unlock(); return n.dials }
func (n *network) carried() int64 { n.mu.Lock(); defer n.mu.Unlock(); return n.passed[0] }

// cut breaks all connections.
func (n *network) cut() {
	n.mu.Lock()
	pairs := n.pairs
	n.pairs = nil
	n.mu.Unlock()
	for _, p := range pairs {
		p.mu.Lock()
		p.breakLocked()
		p.mu.Unlock()
	}
}

func (n *network) forget(p *pair) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.pairs = slices.DeleteFunc(slices.Clone(n.pairs), func(q *pair) bool { return q == p })
}

// slice is what one read gets of what it asks for, pace is the time that it takes.
func (n *network) slice(want int) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.rate > 0 {
		want = min(want, n.rate/10)
	}
	return want
}

func (n *network) pace() {
	n.mu.Lock()
	rate := n.rate
	n.mu.Unlock()
	if rate > 0 {
		time.Sleep(100 * time.Millisecond)
	}
}

func (n *network) isStalled() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.stalled
}

func (n *network) Accept() (net.Conn, error) {
	select {
	case c := <-n.arrive:
		return c, nil
	case <-n.closed:
		return nil, net.ErrClosed
	}
}

func (n *network) Close() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	select {
	case <-n.closed:
	default:
		close(n.closed)
	}
	return nil
}

type memAddr string

func (memAddr) Network() string  { return "memory" }
func (a memAddr) String() string { return string(a) }

func (n *network) Addr() net.Addr { return memAddr("peer") }

func (p *pair) breakLocked() {
	p.half[0].broken, p.half[1].broken = true, true
	p.wakeLocked()
}

func (p *pair) wakeLocked() {
	for i := range p.half {
		close(p.half[i].changed)
		p.half[i].changed = make(chan struct{})
	}
}

// memConn is one end of a pair: side 0 dialled.
type memConn struct {
	p           *pair
	side        int
	read, write *deadline
	once        sync.Once
	gone        chan struct{}
}

func newMemConn(p *pair, side int) *memConn {
	return &memConn{p: p, side: side, read: newDeadline(), write: newDeadline(), gone: make(chan struct{})}
}

func (c *memConn) LocalAddr() net.Addr  { return memAddr([]string{"source", "peer"}[c.side]) }
func (c *memConn) RemoteAddr() net.Addr { return memAddr([]string{"peer", "source"}[c.side]) }

func (c *memConn) wait(changed chan struct{}, d *deadline) error {
	select {
	case <-c.gone:
		return net.ErrClosed
	case <-d.wait():
		return os.ErrDeadlineExceeded
	case <-changed:
		return nil
	}
}

func (c *memConn) Read(b []byte) (int, error) {
	for {
		select {
		case <-c.gone:
			return 0, net.ErrClosed
		case <-c.read.wait():
			return 0, os.ErrDeadlineExceeded
		default:
		}
		stalled := c.p.n.isStalled()
		c.p.mu.Lock()
		h := &c.p.half[1-c.side]
		switch {
		case len(h.buf) > 0 && !stalled:
			n := copy(b[:c.p.n.slice(len(b))], h.buf)
			h.buf = h.buf[n:]
			c.p.wakeLocked()
			c.p.mu.Unlock()
			c.p.n.pace()
			return n, nil
		case h.broken && !stalled: // a stalled line does not carry the news of its end either
			c.p.mu.Unlock()
			return 0, syscall.ECONNRESET
		case h.ended && !stalled:
			c.p.mu.Unlock()
			return 0, io.EOF
		}
		changed := h.changed
		c.p.mu.Unlock()
		if err := c.wait(changed, c.read); err != nil {
			return 0, err
		}
	}
}

func (c *memConn) Write(b []byte) (int, error) {
	done := 0
	for done < len(b) {
		select {
		case <-c.gone:
			return done, net.ErrClosed
		case <-c.write.wait():
			return done, os.ErrDeadlineExceeded
		default:
		}
		stalled := c.p.n.isStalled()
		c.p.mu.Lock()
		h := &c.p.half[c.side]
		if h.broken && !stalled {
			c.p.mu.Unlock()
			return done, syscall.EPIPE
		}
		room := min(halfLimit-len(h.buf), len(b)-done)
		cut := h.budget >= 0 && int64(room) >= h.budget
		if cut {
			room = int(h.budget)
		}
		if h.budget >= 0 {
			h.budget -= int64(room)
		}
		h.buf = append(h.buf, b[done:done+room]...)
		done += room
		if cut && !h.broken {
			c.p.breakLocked()
		} else if room > 0 {
			c.p.wakeLocked()
		}
		changed := h.changed
		c.p.mu.Unlock()
		c.p.n.count(c.side, room)
		if room == 0 && (!cut || stalled) {
			if err := c.wait(changed, c.write); err != nil {
				return done, err
			}
		}
	}
	return done, nil
}

func (n *network) count(side, bytes int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.passed[side] += int64(bytes)
}

func (c *memConn) CloseWrite() error {
	c.p.mu.Lock()
	defer c.p.mu.Unlock()
	c.p.half[c.side].ended = true
	c.p.wakeLocked()
	return nil
}

func (c *memConn) Close() error {
	c.once.Do(func() {
		close(c.gone)
		_ = c.CloseWrite()
		c.p.mu.Lock()
		c.p.half[1-c.side].broken = true // nobody reads it any more: a writer is reset
		c.p.wakeLocked()
		over := c.p.half[c.side].broken
		c.p.mu.Unlock()
		if over {
			c.p.n.forget(c.p)
		}
	})
	return nil
}

func (c *memConn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}
func (c *memConn) SetReadDeadline(t time.Time) error  { c.read.set(t); return nil }
func (c *memConn) SetWriteDeadline(t time.Time) error { c.write.set(t); return nil }

// deadline is a channel that is closed when the time has come.
type deadline struct {
	mu    sync.Mutex
	timer *time.Timer
	ch    chan struct{}
}

func newDeadline() *deadline { return &deadline{ch: make(chan struct{})} }

func (d *deadline) wait() chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.ch
}

func (d *deadline) set(t time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.timer != nil && !d.timer.Stop() {
		<-d.ch // it has fired, or is about to
	}
	d.timer = nil
	passed := false
	select {
	case <-d.ch:
		passed = true
	default:
	}
	if t.IsZero() {
		if passed {
			d.ch = make(chan struct{})
		}
		return
	}
	if wait := time.Until(t); wait > 0 {
		if passed {
			d.ch = make(chan struct{})
		}
		ch := d.ch
		d.timer = time.AfterFunc(wait, func() { close(ch) })
	} else if !passed {
		close(d.ch)
	}
}
