// Package network is a network in memory that misbehaves as real ones do, from one seed.
//
// Hosts listen and dial by name. A connection carries bytes both ways, with a delay, in pieces of any size, and may be
//
//	cut      at any byte, by chance or by Cut: both sides hear of it, or one, or neither (half-open)
//	stalled  nothing arrives, and no news of an end either, until the line moves again
//	late     a dial succeeds at once, and is accepted later: connections can overtake each other
//	replayed what an earlier connection carried arrives once more, over a new one
//
// A host ends by Kill (its process is gone, the kernel says so to the other sides) or PowerOff (nobody says anything).
// Everything waits on time and condition variables alone, so that the virtual time of testing/synctest works.
package network

import (
	"context"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Weather is how lines behave from now on; connections that are there already feel delay and stalls, too.
type Weather struct {
	Delay   time.Duration // of each piece, at most
	Late    time.Duration // until a dial is accepted, at most
	Stalled bool          // nothing arrives
	Down    bool          // a dial finds nobody
	CutOdds int           // one connection of so many is cut at a random byte, 0: none
	Pieces  int           // a read gets at most so many bytes, 0: all that is there
}

// Network is the lines and the hosts at their ends.
type Network struct {
	mu      sync.Mutex
	rng     *rand.Rand
	weather Weather
	hosts   map[string]*Host // that are up
	conns   map[*conn]struct{}
	tapes   []*tape
	stats   Stats
}

// Stats counts what happened.
type Stats struct {
	Dials, Accepted, Refused, Cuts, HalfOpen, Overtaken, Stalls, Replays int
	Bytes                                                                int64
}

// New makes a network in which everything follows from rng.
func New(rng *rand.Rand) *Network {
	return &Network{rng: rng, hosts: map[string]*Host{}, conns: map[*conn]struct{}{}}
}

// SetWeather changes the weather.
func (n *Network) SetWeather(w Weather) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if w.Stalled && !n.weather.Stalled {
		n.stats.Stalls++
	}
	n.weather = w
	n.wakeLocked()
}

// Weather is the weather now.
func (n *Network) Weather() Weather { n.mu.Lock(); defer n.mu.Unlock(); return n.weather }

// Stats counts what happened so far.
func (n *Network) Stats() Stats { n.mu.Lock(); defer n.mu.Unlock(); return n.stats }

func (n *Network) wakeLocked() {
	for _, c := range n.sortedLocked() {
		c.cond.Broadcast()
	}
}

// Cut breaks every connection: each side hears of it or does not, by chance.
func (n *Network) Cut() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, c := range n.sortedLocked() {
		if c.dialled {
			n.cutLocked(c)
		}
	}
}

// Close ends every connection, and all sides hear of it.
func (n *Network) Close() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.weather = Weather{}
	for _, c := range n.sortedLocked() {
		c.end(false)
	}
}

// cutLocked ends a connection; both hear of it mostly, else one or neither.
func (n *Network) cutLocked(c *conn) {
	n.stats.Cuts++
	k := n.rng.IntN(8)
	if k < 3 {
		n.stats.HalfOpen++
	}
	c.end(k == 0 || k == 2)
	c.peer.end(k == 1 || k == 2)
}

// sortedLocked lists the connections in the order in which they were made: map order would not replay.
func (n *Network) sortedLocked() []*conn {
	all := make([]*conn, 0, len(n.conns))
	for c := range n.conns {
		all = append(all, c)
	}
	sortConns(all)
	return all
}

// Host is one life of a machine.
type Host struct {
	n    *Network
	name string
	down bool
	in   *listener
}

// Up brings a host up, with an empty memory: what the other side of an old connection sends is answered with a
// reset, or, as by a router in between that drops it, with nothing.
func (n *Network) Up(name string) *Host {
	n.mu.Lock()
	defer n.mu.Unlock()
	h := &Host{n: n, name: name}
	n.hosts[name] = h
	for _, c := range n.sortedLocked() {
		if c.to == name && c.vanished && n.rng.IntN(2) == 0 {
			c.end(false)
		}
	}
	return h
}

// Kill ends the host's process: its connections are reset.
func (h *Host) Kill() { h.stop(false) }

// PowerOff ends the host: nobody is told.
func (h *Host) PowerOff() { h.stop(true) }

func (h *Host) stop(silent bool) {
	n := h.n
	n.mu.Lock()
	defer n.mu.Unlock()
	if h.down {
		return
	}
	h.down = true
	if n.hosts[h.name] == h {
		delete(n.hosts, h.name)
	}
	if h.in != nil {
		h.in.closeLocked()
	}
	for _, c := range n.sortedLocked() {
		if c.host == h {
			c.end(false)
			c.peer.end(silent)
		}
	}
}

// Listen makes the host's listener. One host has one.
func (h *Host) Listen() net.Listener {
	h.n.mu.Lock()
	defer h.n.mu.Unlock()
	l := &listener{h: h}
	l.cond = sync.NewCond(&h.n.mu)
	if h.down {
		l.closed = true
	}
	h.in = l
	return l
}

// Dial connects to the host that addr names; the port is for people.
func (h *Host) Dial(ctx context.Context, addr string) (net.Conn, error) {
	n := h.n
	n.mu.Lock()
	n.stats.Dials++
	name, _, _ := strings.Cut(addr, ":")
	to := n.hosts[name]
	fail := func(err error) (net.Conn, error) {
		n.stats.Refused++
		n.mu.Unlock()
		return nil, &net.OpError{Op: "dial", Net: "sim", Addr: address(addr), Err: err}
	}
	switch {
	case h.down:
		return fail(syscall.ENETUNREACH)
	case to == nil || n.weather.Stalled: // nobody answers
		n.mu.Unlock()
		<-ctx.Done()
		n.mu.Lock()
		return fail(os.ErrDeadlineExceeded)
	case n.weather.Down || to.in == nil || to.in.closed:
		return fail(syscall.ECONNREFUSED)
	}
	c := n.connectLocked(h, to)
	n.mu.Unlock()
	return c, nil
}

func (n *Network) connectLocked(from, to *Host) *conn {
	a := newConn(n, from, to.name, true)
	b := newConn(n, to, from.name, false)
	a.peer, b.peer = b, a
	t := &tape{from: from.name, to: to.name}
	a.tape = t
	n.tapes = append(n.tapes, t)
	if w := n.weather; w.CutOdds > 0 && n.rng.IntN(w.CutOdds) == 0 {
		victim := a
		if n.rng.IntN(3) == 0 {
			victim = b
		}
		victim.budget = int64(n.rng.IntN(1 << (4 + n.rng.IntN(16))))
	}
	n.conns[a], n.conns[b] = struct{}{}, struct{}{}
	to.in.offerLocked(b, n.someLocked(n.weather.Late))
	return a
}

// someLocked is a random part of d.
func (n *Network) someLocked(d time.Duration) time.Duration {
	if d <= 0 {
		return 0
	}
	return time.Duration(n.rng.Int64N(int64(d)))
}

type listener struct {
	h      *Host
	cond   *sync.Cond
	queue  []*conn
	offers int // connections that were dialled
	passed int // the newest that has arrived
	closed bool
}

// offerLocked lets a connection arrive after d.
func (l *listener) offerLocked(c *conn, d time.Duration) {
	l.offers++
	nr := l.offers
	arrive := func() {
		if nr < l.passed {
			l.h.n.stats.Overtaken++
		}
		l.passed = max(l.passed, nr)
		if l.closed {
			c.peer.end(false)
			return
		}
		l.queue = append(l.queue, c)
		l.cond.Signal()
	}
	if d == 0 {
		arrive()
		return
	}
	time.AfterFunc(d, func() {
		l.h.n.mu.Lock()
		defer l.h.n.mu.Unlock()
		arrive()
	})
}

func (l *listener) Accept() (net.Conn, error) {
	l.h.n.mu.Lock()
	defer l.h.n.mu.Unlock()
	for len(l.queue) == 0 && !l.closed {
		l.cond.Wait()
	}
	if l.closed {
		return nil, net.ErrClosed
	}
	c := l.queue[0]
	l.queue = l.queue[1:]
	l.h.n.stats.Accepted++
	return c, nil
}

func (l *listener) Close() error {
	l.h.n.mu.Lock()
	defer l.h.n.mu.Unlock()
	l.closeLocked()
	return nil
}

func (l *listener) closeLocked() {
	l.closed = true
	for _, c := range l.queue {
		c.peer.end(false)
	}
	l.queue = nil
	l.cond.Broadcast()
}

func (l *listener) Addr() net.Addr { return address(l.h.name) }

type address string

func (address) Network() string  { return "sim" }
func (a address) String() string { return string(a) }
