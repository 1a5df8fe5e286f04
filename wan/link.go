package wan

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"
)

// Dialer connects to the target of a link.
type Dialer func(ctx context.Context) (net.Conn, error)

// Link is one emulated line. Make it with Listen or New.
type Link struct {
	dial Dialer
	ln   net.Listener // nil: only Dial leads onto the line
	net  *Net         // the line of packets that dial goes through; nil: the ways have delay and rate
	mode Mode

	congestion string
	clock      *clock
	ways       [2]*way
	ctx        context.Context
	cancel     context.CancelFunc
	wg         sync.WaitGroup

	mu       sync.Mutex
	pairs    map[*pair]struct{}
	refuse   bool
	isCut    bool
	shutdown bool
	profile  Profile
	counts   Counters // the bytes are filled in from ways
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

// Listen opens a link: connections to addr ("127.0.0.1:0" picks a port,
// "unix:/path" is a socket) are carried to target, as p says. The link closes
// with ctx or by Close.
func Listen(ctx context.Context, addr, target string, p Profile) (*Link, error) {
	return listen(ctx, addr, target, p, nil)
}

func listen(ctx context.Context, addr, target string, p Profile, n *Net) (*Link, error) {
	ln, err := new(net.ListenConfig).Listen(ctx, network(addr), strings.TrimPrefix(addr, "unix:"))
	if err != nil {
		return nil, fmt.Errorf("listen for the link to %s: %w", target, err)
	}
	l, err := newLink(ctx, ln, dialTo(target), p, n)
	if err != nil {
		ln.Close()
		return nil, err
	}
	return l, nil
}

// network is the kind of an address.
func network(addr string) string {
	if strings.HasPrefix(addr, "unix:") {
		return "unix"
	}
	return "tcp"
}

func dialTo(target string) Dialer {
	return func(ctx context.Context) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network(target), strings.TrimPrefix(target, "unix:"))
	}
}

// New makes a link without a listener, for use within this process: Dial is
// how one gets onto the line, dial what its far end leads to.
func New(ctx context.Context, dial Dialer, p Profile) (*Link, error) {
	return newLink(ctx, nil, dial, p, nil)
}

// newLink makes a link over a line of packets, if there is one, else with the
// delay and the rate of its own.
func newLink(ctx context.Context, ln net.Listener, dial Dialer, p Profile, n *Net) (*Link, error) {
	if err := p.validate(); err != nil {
		return nil, err
	}
	congestion, err := Congestion(p.Congestion)
	if err != nil {
		return nil, err
	}
	l := &Link{dial: dial, ln: ln, mode: Relay, congestion: congestion, clock: newClock(), profile: p, pairs: map[*pair]struct{}{}}
	own := p
	if n != nil {
		l.net, l.mode, own = n, n.mode, passing
		if l.dial, err = n.through(dial); err != nil {
			return nil, err
		}
	}
	l.ctx, l.cancel = context.WithCancel(ctx)
	for d := range l.ways {
		l.ways[d] = newWay(l.clock, own, Direction(d))
	}
	if ln != nil {
		l.wg.Go(l.runAccept)
	}
	context.AfterFunc(l.ctx, l.shut)
	return l, nil
}

// passing is a relay that only passes on: the packets below have the delay.
var passing = Profile{Queue: 64 << 10}

// Addr is the address to connect to; empty without a listener.
func (l *Link) Addr() string {
	if l.ln == nil {
		return ""
	}
	return l.ln.Addr().String()
}

// Mode says how the line is made.
func (l *Link) Mode() Mode { return l.mode }

// Congestion is the TCP congestion control of all connections of the link.
func (l *Link) Congestion() string { return l.congestion }

// Dial connects over the line from within this process.
func (l *Link) Dial(ctx context.Context) (net.Conn, error) {
	near, far := memoryPipe()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.shutdown || l.ctx.Err() != nil {
		return nil, net.ErrClosed
	}
	l.wg.Go(func() { l.runConn(far) })
	return near, nil
}

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
	if l.net != nil {
		return l.net.Set(p)
	}
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
	if l.net != nil {
		return l.net.Close()
	}
	return nil
}

// shut ends listening and all connections; it may run more than once.
func (l *Link) shut() {
	if l.ln != nil {
		l.ln.Close()
	}
	l.mu.Lock()
	l.refuse, l.shutdown = true, true
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
	// The kernel, or the memory, has said yes at once; on a line it takes a round trip until bytes can follow. A
	// stalled line does not even carry the request to connect.
	if !l.admit() || !l.clock.wait(l.clock.now()+l.handshake(), l.ctx.Done()) {
		discard(near)
		return
	}
	far, err := l.dial(l.ctx)
	if err != nil {
		l.count(func(c *Counters) { c.Refused++ })
		discard(near)
		return
	}
	tune(near, l.congestion)
	if l.net == nil { // else the kernel finds the size of the buffers at the ends of a long line
		tune(far, l.congestion)
	}
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

// handshake is what connecting takes.
func (l *Link) handshake() time.Duration {
	if l.net != nil {
		return 0 // the kernel does it
	}
	return 2 * l.Profile().Delay
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
	if t, ok := c.(interface{ SetLinger(int) error }); ok {
		t.SetLinger(0)
	}
	c.Close()
}
