package wan

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// Mode says how a line is made.
type Mode string

const (
	Auto  Mode = "auto"  // a relay, or packets where the profile asks for loss or reordering and this user may
	Relay Mode = "relay" // byte streams in this process: no root, no loss
	Netem Mode = "netem" // the kernel's TCP over a veth pair with netem
	TUN   Mode = "tun"   // the kernel's TCP over two TUN devices and a forwarder in this process
)

// Modes lists them for people.
func Modes() []string { return []string{string(Auto), string(Relay), string(Netem), string(TUN)} }

// The ends of a line of packets, in namespaces of their own.
const (
	device = "wan0"
	nearIP = "10.75.0.1"
	farIP  = "10.75.0.2"
	mtu    = 1500

	dialTime = 10 * time.Second // that the target has to answer
)

// ListenIn is Listen with a choice of how the line is made.
func ListenIn(ctx context.Context, mode Mode, addr, target string, p Profile) (*Link, error) {
	n, err := netFor(mode, p)
	if err != nil {
		return nil, err
	}
	l, err := listen(ctx, addr, target, p, n)
	if err != nil && n != nil {
		n.Close()
	}
	return l, err
}

// NewIn is New with a choice of how the line is made.
func NewIn(ctx context.Context, mode Mode, dial Dialer, p Profile) (*Link, error) {
	n, err := netFor(mode, p)
	if err != nil {
		return nil, err
	}
	l, err := newLink(ctx, nil, dial, p, n)
	if err != nil && n != nil {
		n.Close()
	}
	return l, err
}

// netFor makes the line of packets that the mode asks for; nil for a relay.
func netFor(mode Mode, p Profile) (*Net, error) {
	switch mode {
	case Relay, "":
		return nil, nil
	case Auto:
		if !p.packets() || os.Geteuid() != 0 {
			return nil, nil
		}
		for _, m := range []Mode{Netem, TUN} {
			if n, err := NewNet(m, p); err == nil {
				return n, nil
			}
		}
		return nil, nil
	}
	return NewNet(mode, p)
}

// Net is two network namespaces joined by one emulated line of packets, so
// that the kernel's own TCP meets delay, rate, a bounded queue and loss.
//
//	near: 10.75.0.1 on wan0 ==[ netem, or TUN + forwarder ]== wan0 10.75.0.2 :far
type Net struct {
	mode       Mode
	near, far  *space
	line       shaper
	congestion string

	mu     sync.Mutex
	closed bool
	open   map[io.Closer]struct{} // listeners and connections at the far end
	wg     sync.WaitGroup
}

// shaper is what makes the packets late.
type shaper interface {
	set(Profile) error
	close() error
}

// NewNet makes the namespaces and joins them. It needs root; the error says
// what is missing.
func NewNet(mode Mode, p Profile) (*Net, error) {
	if err := p.validate(); err != nil {
		return nil, err
	}
	join, ok := map[Mode]func(near, far *space, p Profile) (shaper, error){Netem: newNetem, TUN: newTun}[mode]
	if !ok {
		return nil, fmt.Errorf("there is no way %q to make a line, there are %v", mode, Modes())
	}
	if os.Geteuid() != 0 {
		return nil, fmt.Errorf("%s makes network namespaces, which needs root; relay needs none", mode)
	}
	congestion, err := Congestion(p.Congestion)
	if err != nil {
		return nil, err
	}
	n := &Net{mode: mode, congestion: congestion, open: map[io.Closer]struct{}{}}
	if n.near, err = newSpace(); err != nil {
		return nil, err
	}
	if n.far, err = newSpace(); err != nil {
		return nil, errors.Join(err, n.near.close())
	}
	if n.line, err = join(n.near, n.far, p); err != nil {
		return nil, errors.Join(err, n.near.close(), n.far.close())
	}
	return n, nil
}

// Set changes the line under its connections.
func (n *Net) Set(p Profile) error { return n.line.set(p) }

// through returns a dialer onto the near end of the line, whose far end leads
// to what dial connects to.
func (n *Net) through(dial Dialer) (Dialer, error) {
	ln, err := n.listenFar()
	if err != nil {
		return nil, err
	}
	n.wg.Go(func() { n.runAccept(ln, dial) })
	return func(ctx context.Context) (c net.Conn, err error) {
		d := net.Dialer{Control: controlCongestion(n.congestion)}
		err = n.near.do(func() error {
			c, err = d.DialContext(ctx, "tcp4", ln.Addr().String())
			return err
		})
		return c, err
	}, nil
}

func (n *Net) listenFar() (ln net.Listener, err error) {
	lc := net.ListenConfig{Control: controlCongestion(n.congestion)}
	err = n.far.do(func() error {
		ln, err = lc.Listen(context.Background(), "tcp4", net.JoinHostPort(farIP, "0"))
		return err
	})
	if err == nil && !n.keep(ln) {
		return nil, net.ErrClosed
	}
	return ln, err
}

// keep lets Close close c; false when it is too late for that.
func (n *Net) keep(c io.Closer) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		c.Close()
		return false
	}
	n.open[c] = struct{}{}
	return true
}

func (n *Net) drop(c io.Closer) {
	n.mu.Lock()
	delete(n.open, c)
	n.mu.Unlock()
	c.Close()
}

func (n *Net) runAccept(ln net.Listener, dial Dialer) {
	for {
		near, err := ln.Accept()
		if err != nil {
			return
		}
		n.wg.Go(func() { n.runFar(near, dial) })
	}
}

// runFar leads one connection on from the far end of the line.
func (n *Net) runFar(near net.Conn, dial Dialer) {
	if !n.keep(near) {
		return
	}
	defer n.drop(near)
	ctx, cancel := context.WithTimeout(context.Background(), dialTime)
	defer cancel()
	far, err := dial(ctx)
	if err != nil || !n.keep(far) {
		discard(near)
		return
	}
	defer n.drop(far)
	var both sync.WaitGroup
	for _, way := range [][2]net.Conn{{near, far}, {far, near}} {
		both.Go(func() {
			_, err := io.Copy(way[1], way[0])
			half, ok := way[1].(interface{ CloseWrite() error })
			if err != nil || !ok || half.CloseWrite() != nil {
				discard(near)
				discard(far)
			}
		})
	}
	both.Wait()
}

// Close ends the line and everything on it.
func (n *Net) Close() error {
	n.mu.Lock()
	n.closed = true
	for c := range n.open {
		c.Close()
	}
	n.mu.Unlock()
	n.wg.Wait()
	return errors.Join(n.line.close(), n.near.close(), n.far.close())
}
