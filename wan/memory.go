package wan

import (
	"context"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// memoryBuffer is what each direction of a connection in memory holds before
// a writer waits, as a socket's buffer would.
const memoryBuffer = 128 << 10

// Memory is a listener in this process: Dial makes a connection that Accept
// returns the other end of. Nothing of it waits on the kernel, so the virtual
// time of testing/synctest works.
type Memory struct {
	queue chan net.Conn
	done  chan struct{}
	once  sync.Once
}

// NewMemory makes a listener in this process.
func NewMemory() *Memory {
	return &Memory{queue: make(chan net.Conn), done: make(chan struct{})}
}

// Dial connects to the listener.
func (m *Memory) Dial(ctx context.Context) (net.Conn, error) {
	near, far := memoryPipe()
	select {
	case m.queue <- far:
		return near, nil
	case <-m.done:
		return nil, &net.OpError{Op: "dial", Net: "memory", Err: syscall.ECONNREFUSED}
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Accept waits for the next connection.
func (m *Memory) Accept() (net.Conn, error) {
	select {
	case c := <-m.queue:
		return c, nil
	case <-m.done:
		return nil, net.ErrClosed
	}
}

// Close stops listening. Connections stay.
func (m *Memory) Close() error {
	m.once.Do(func() { close(m.done) })
	return nil
}

// Addr is a name for messages.
func (m *Memory) Addr() net.Addr { return memoryAddr{} }

type memoryAddr struct{}

func (memoryAddr) Network() string { return "memory" }
func (memoryAddr) String() string  { return "memory" }

// memoryPipe makes the two ends of a connection.
func memoryPipe() (near, far *memoryConn) {
	a, b := newHalf(), newHalf()
	return &memoryConn{in: a, out: b}, &memoryConn{in: b, out: a}
}

// half is one direction of a connection in memory.
type half struct {
	mu     sync.Mutex
	moved  sync.Cond // on mu
	buf    []byte
	ended  bool  // the writer is done
	broken error // of both sides, at once
	read   limit
	write  limit
}

func newHalf() *half {
	h := &half{}
	h.moved.L = &h.mu
	return h
}

// limit is a deadline.
type limit struct {
	timer  *time.Timer
	passed bool
}

func (h *half) setLimit(l *limit, t time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if l.timer != nil {
		l.timer.Stop()
		l.timer = nil
	}
	l.passed = !t.IsZero() && !time.Now().Before(t)
	if !t.IsZero() && !l.passed {
		var timer *time.Timer
		timer = time.AfterFunc(time.Until(t), func() {
			h.mu.Lock()
			defer h.mu.Unlock()
			if l.timer == timer {
				l.passed = true
				h.moved.Broadcast()
			}
		})
		l.timer = timer
	}
	h.moved.Broadcast()
}

// end tells both sides: err at once, nil an end behind the bytes.
func (h *half) end(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ended = true
	if h.broken == nil {
		h.broken = err
	}
	h.moved.Broadcast()
}

// memoryConn is one end of a connection in memory.
type memoryConn struct {
	in, out *half
	mu      sync.Mutex
	linger  bool // a Close is a reset
	closed  bool
}

func (c *memoryConn) Read(p []byte) (int, error) {
	h := c.in
	h.mu.Lock()
	defer h.mu.Unlock()
	for {
		switch {
		case c.isClosed():
			return 0, c.fail("read", net.ErrClosed)
		case h.read.passed:
			return 0, c.fail("read", os.ErrDeadlineExceeded)
		case h.broken != nil:
			return 0, c.fail("read", h.broken)
		case len(h.buf) > 0:
			n := copy(p, h.buf)
			h.buf = h.buf[:copy(h.buf, h.buf[n:])]
			h.moved.Broadcast()
			return n, nil
		case h.ended:
			return 0, io.EOF
		case len(p) == 0:
			return 0, nil
		}
		h.moved.Wait()
	}
}

func (c *memoryConn) Write(p []byte) (n int, err error) {
	h := c.out
	h.mu.Lock()
	defer h.mu.Unlock()
	for {
		switch {
		case c.isClosed():
			return n, c.fail("write", net.ErrClosed)
		case h.broken != nil:
			return n, c.fail("write", h.broken)
		case h.ended:
			return n, c.fail("write", syscall.EPIPE)
		case h.write.passed:
			return n, c.fail("write", os.ErrDeadlineExceeded)
		}
		if room := memoryBuffer - len(h.buf); room > 0 {
			k := min(room, len(p))
			h.buf = append(h.buf, p[:k]...)
			p, n = p[k:], n+k
			h.moved.Broadcast()
		}
		if len(p) == 0 {
			return n, nil
		}
		h.moved.Wait()
	}
}

func (c *memoryConn) fail(op string, err error) error {
	return &net.OpError{Op: op, Net: "memory", Err: err}
}

func (c *memoryConn) isClosed() bool { c.mu.Lock(); defer c.mu.Unlock(); return c.closed }

// CloseWrite ends the stream behind what was written.
func (c *memoryConn) CloseWrite() error { c.out.end(nil); return nil }

// SetLinger makes a Close with 0 a reset, as of a TCP connection.
func (c *memoryConn) SetLinger(sec int) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.linger = sec == 0
	return nil
}

// Close ends the connection. What was written still arrives; what the other
// side writes from now on finds nobody.
func (c *memoryConn) Close() error {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return c.fail("close", net.ErrClosed)
	}
	c.closed = true
	reset := c.linger
	c.mu.Unlock()
	c.SetDeadline(time.Time{}) // no timer outlives the connection
	if reset {
		c.out.end(syscall.ECONNRESET)
	} else {
		c.out.end(nil)
	}
	c.in.end(syscall.ECONNRESET)
	return nil
}

func (c *memoryConn) LocalAddr() net.Addr  { return memoryAddr{} }
func (c *memoryConn) RemoteAddr() net.Addr { return memoryAddr{} }

func (c *memoryConn) SetDeadline(t time.Time) error {
	c.SetReadDeadline(t)
	return c.SetWriteDeadline(t)
}

func (c *memoryConn) SetReadDeadline(t time.Time) error  { c.in.setLimit(&c.in.read, t); return nil }
func (c *memoryConn) SetWriteDeadline(t time.Time) error { c.out.setLimit(&c.out.write, t); return nil }
