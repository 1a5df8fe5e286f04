package wan

import (
	"context"
	"fmt"
	"net"
	"sync"
	"time"
)

// Link is one emulated line. Make it with Listen.
type Link struct {
	target string
	ln     net.Listener
	clock  *clock
	ways   [2]*way
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu      sync.Mutex
	pairs   map[*pair]struct{}
	refuse  bool
	isCut   bool
	profile Profile
	counts  Counters // the bytes are filled in from ways
}

// Counters says what went through a link since it was made.
type Counters struct {
	ToTarget    int64 // bytes delivered to the target
	FromTarget  int64 // bytes delivered back
	TakenTo     int64 // bytes taken for the target: delivered, under way, or lost in a cut
	TakenFrom   int64
	Connections int64 // carried, ever
	Open        int64 // carried now
	Refused     int64 // reset at once: link cut or refusing, or no answer from the target
	Cuts        int64
}

// Listen opens a link: connections to addr ("127.0.0.1:0" picks a port) are
// carried to target, as p says. The link closes with ctx or by Close.
func Listen(ctx context.Context, addr, target string, p Profile) (*Link, error) {
	if err := p.validate(); err != nil {
		return nil, err
	}
	ln, err := new(net.ListenConfig).Listen(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("listen for the link to %s: %w", target, err)
	}
	l := &Link{target: target, ln: ln, clock: newClock(), profile: p, pairs: map[*pair]struct{}{}}
	l.ctx, l.cancel = context.WithCancel(ctx)
	for d := range l.ways {
		l.ways[d] = newWay(l.clock, p, Direction(d))
	}
	l.wg.Go(l.runAccept)
	context.AfterFunc(l.ctx, l.shut)
	return l, nil
}

// Addr is the address to connect to.
func (l *Link) Addr() string { return l.ln.Addr().String() }

// Profile is what the line is like now.
func (l *Link) Profile() Profile {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.profile
}

// SetProfile changes the line, also under open connections. Bytes under way
// keep the time they were given.
func (l *Link) SetProfile(p Profile) error {
	if err := p.validate(); err != nil {
		return err
	}
	l.mu.Lock()
	l.profile = p
	pairs := l.pairsLocked()
	l.mu.Unlock()
	for d, w := range l.ways {
		w.set(p, Direction(d))
	}
	for _, p := range pairs { // a reader may wait for room that the new profile has
		for _, ln := range p.lines {
			ln.mu.Lock()
			ln.moved.Broadcast()
			ln.mu.Unlock()
		}
	}
	return nil
}

// Cut resets all connections, drops what is under way and resets new
// connections at once, until Heal.
func (l *Link) Cut() {
	l.mu.Lock()
	if !l.isCut {
		l.counts.Cuts++
	}
	l.isCut = true
	pairs := l.pairsLocked()
	l.mu.Unlock()
	for _, w := range l.ways {
		w.arm(-1)
	}
	for _, p := range pairs {
		p.reset()
	}
}

// CutAfter cuts the link when exactly n more bytes have been delivered in
// direction d, over all connections. It replaces an earlier CutAfter of d.
func (l *Link) CutAfter(d Direction, n int64) {
	if n <= 0 {
		l.Cut()
		return
	}
	l.ways[d].arm(n)
}

// Refuse resets new connections at once and leaves open ones alone.
func (l *Link) Refuse(on bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.refuse = on
}

// Stall stops all bytes in both directions, or lets them go on. Connections
// stay open, and new ones are accepted but carry nothing.
func (l *Link) Stall(on bool) { l.clock.stop(on) }

// Heal undoes Cut, CutAfter, Refuse and Stall. Connections that were reset
// stay so.
func (l *Link) Heal() {
	l.mu.Lock()
	l.refuse, l.isCut = false, false
	l.mu.Unlock()
	for _, w := range l.ways {
		w.arm(-1)
	}
	l.clock.stop(false)
}

// Counters returns what went through so far.
func (l *Link) Counters() Counters {
	l.mu.Lock()
	c := l.counts
	c.Open = int64(len(l.pairs))
	l.mu.Unlock()
	c.TakenTo, c.ToTarget = l.ways[ToTarget].counts()
	c.TakenFrom, c.FromTarget = l.ways[FromTarget].counts()
	return c
}

// Close stops listening, resets all connections and waits for the link's
// goroutines.
func (l *Link) Close() error {
	l.cancel()
	l.shut()
	l.wg.Wait()
	return nil
}

// shut ends listening and all connections; it may run more than once.
func (l *Link) shut() {
	l.ln.Close()
	l.mu.Lock()
	l.refuse = true
	pairs := l.pairsLocked()
	l.mu.Unlock()
	for _, p := range pairs {
		p.reset()
	}
}

func (l *Link) pairsLocked() []*pair {
	pairs := make([]*pair, 0, len(l.pairs))
	for p := range l.pairs {
		pairs = append(pairs, p)
	}
	return pairs
}

func (l *Link) runAccept() {
	for {
		conn, err := l.ln.Accept()
		if err != nil {
			if l.ctx.Err() != nil {
				return
			}
			time.Sleep(10 * time.Millisecond) // out of descriptors: wait for some
			continue
		}
		l.wg.Go(func() { l.runConn(conn) })
	}
}

// runConn carries one connection from accept to its end.
func (l *Link) runConn(near net.Conn) {
	// A stalled line does not even carry the request to connect.
	if !l.admit() || !l.clock.wait(0, l.ctx.Done()) {
		discard(near)
		return
	}
	far, err := new(net.Dialer).DialContext(l.ctx, "tcp", l.target)
	if err != nil {
		l.count(func(c *Counters) { c.Refused++ })
		discard(near)
		return
	}
	tune(near)
	tune(far)
	p := newPair(l, near, far)
	if !l.add(p) {
		p.reset()
		return
	}
	p.run()
	l.mu.Lock()
	delete(l.pairs, p)
	l.mu.Unlock()
}

// admit says whether the link takes connections, and counts it if not.
func (l *Link) admit() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.admitLocked()
}

func (l *Link) admitLocked() bool {
	if l.refuse || l.isCut {
		l.counts.Refused++
		return false
	}
	return true
}

// add registers p unless the link has come to refuse connections meanwhile.
func (l *Link) add(p *pair) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.admitLocked() {
		return false
	}
	l.counts.Connections++
	l.pairs[p] = struct{}{}
	return true
}

func (l *Link) count(f func(*Counters)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f(&l.counts)
}

// discard resets a connection that is not carried.
func discard(c net.Conn) {
	if t, ok := c.(*net.TCPConn); ok {
		t.SetLinger(0)
	}
	c.Close()
}
