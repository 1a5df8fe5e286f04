package nbdsrv

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// ioBuffer is the size of a connection's read buffer and of each block of inline replies: the
	// largest inline request with what may stand before and behind it.
	ioBuffer = 2 * inlineMax
	// readAhead is how much one system call reads beyond what is needed: many small requests, but
	// little of the payload of a large one, which might have to be moved.
	readAhead = 128 << 10
	readMore  = 4 << 10
	// drainStep is how long a draining connection waits for another request before it looks
	// whether it may end; drainServe is how long at most it serves what still comes, which was on its way.
	drainStep  = 50 * time.Millisecond
	drainServe = 200 * time.Millisecond
	// lingerTime is how long a client may take to read the last replies once the server has
	// finished: closing a socket with unread input would take them away.
	lingerTime = time.Second
)

var (
	errShuttingDown = errors.New("the server is shutting down")
	errDisconnect   = errors.New("the client has disconnected")
	errTooLarge     = errors.New("absurd payload length")
	errDeaf         = errors.New("the client has gone without its replies")
	errStalled      = errors.New("cut off: the client stalled in the middle of a request, or did not read its replies")
	errCrowded      = errors.New("dropped for a newer one: too many connections in the handshake")
)

// conn is one client. The goroutine runReader owns everything that is not marked otherwise.
type conn struct {
	server  *Server
	raw     net.Conn // Close and SetReadDeadline may be called from any goroutine
	nc      net.Conn // raw, or TLS over it; settled by the end of the handshake
	host    netip.Addr
	using   *Export // guarded by server.mu, as young
	found   *Export // that the server's finder has opened for this connection; of runReader, until forget
	release func()
	young   bool // it holds one of server.slots

	fixed, zeroes, secure bool // what the greeting and STARTTLS brought
	haggle
	view view

	inBuf  *buffer
	in     []byte // inBuf's data; in[r:w] has been received and not yet been looked at
	r, w   int
	outBuf *buffer
	out    []byte // grows in outBuf: replies that the reader has not yet handed to the writer

	counts   counts
	draining atomic.Bool
	drainEnd atomic.Int64          // in Unix nanoseconds: requests that come later are not served
	verdict  atomic.Pointer[error] // why the server has cut it off
	ended    chan struct{}

	inside bool // the header of a request has been taken, and not yet all of its payload
	waited bool // for a part of this request
	pace   pace // of what the client sends

	tasks   chan *task   // to the workers
	handed  atomic.Int32 // tasks given to workers and not finished
	started int          // workers
	workers sync.WaitGroup

	writer
}

func newConn(s *Server, nc net.Conn) *conn {
	c := &conn{server: s, raw: nc, nc: nc, host: hostOf(nc), ended: make(chan struct{})}
	c.writer.init(c)
	return c
}

// runReader is the life of a connection: handshake, requests, end.
func (c *conn) runReader() {
	c.resize(handshakeBuffer)
	err := c.handshake()
	if err == nil {
		c.resize(ioBuffer)
		c.tasks = make(chan *task, maxRequests)
		c.server.running.Go(c.runWatch)
		err = c.serveRequests()
	}
	c.finish(err)
	c.inBuf.release()
	c.outBuf.release()
	c.server.forget(c)
}

// resize gives the connection buffers of n bytes. Nothing waits to be sent, and what was received fits.
func (c *conn) resize(n int) {
	c.widen(n)
	c.outBuf.release()
	c.outBuf = newBuffer(n)
	c.out = c.outBuf.data()[:0]
}

// widen gives the connection a read buffer of n bytes, with what was received.
func (c *conn) widen(n int) {
	old, left := c.inBuf, c.in[c.r:c.w]
	c.inBuf = newBuffer(n)
	c.in = c.inBuf.data()
	c.r, c.w = 0, copy(c.in, left)
	old.release()
}

// cutOff ends the connection now, for a reason. Any goroutine may call it; the first reason counts.
func (c *conn) cutOff(why error) {
	c.verdict.CompareAndSwap(nil, &why)
	c.raw.Close()
}

// finish answers what is outstanding, ends the workers and closes the connection.
func (c *conn) finish(err error) {
	_ = c.flush()
	c.waitIdle()
	if c.tasks != nil {
		close(c.tasks)
		c.workers.Wait()
	}
	if !errors.Is(err, io.EOF) {
		c.linger()
	}
	c.nc.Close()
	if why := c.verdict.Load(); why != nil {
		err = *why
	}
	tell := func() { c.server.log.Info("nbd connection ended", "client", c.raw.RemoteAddr(), "err", err) }
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, errDisconnect), errors.Is(err, errAborted):
		c.server.log.Debug("nbd connection ended", "client", c.raw.RemoteAddr(), "err", err)
	case c.tasks == nil: // anybody can fail at the handshake, and often
		c.server.noise.Do(tell)
	default:
		tell()
	}
}

// linger lets the client read the last replies before the socket goes away.
func (c *conn) linger() {
	half, ok := c.nc.(interface{ CloseWrite() error })
	if !ok || half.CloseWrite() != nil || c.raw.SetReadDeadline(time.Now().Add(lingerTime)) != nil {
		return
	}
	for range 64 {
		if _, err := c.raw.Read(c.in); err != nil {
			return
		}
	}
}

// drain asks the connection to end. Any goroutine may call it.
func (c *conn) drain() {
	c.drainEnd.Store(time.Now().Add(drainServe).UnixNano())
	c.draining.Store(true)
	_ = c.raw.SetReadDeadline(time.Now().Add(drainStep))
}

// receive reads at least one byte into p. A draining connection ends here, when nothing is in
// flight and nothing arrives.
func (c *conn) receive(p []byte) (int, error) {
	inside := c.inside || c.r != c.w
	for {
		if inside {
			c.waited = true
			c.pace.wait()
		}
		n, err := c.nc.Read(p)
		if inside {
			c.pace.stop(n)
		}
		if n > 0 || err == nil {
			return n, nil
		}
		if !c.draining.Load() || !errors.Is(err, os.ErrDeadlineExceeded) {
			return 0, err
		}
		if c.idle() {
			return 0, errShuttingDown
		}
		_ = c.raw.SetReadDeadline(time.Now().Add(drainStep))
	}
}

// need makes sure that n bytes, which must fit the read buffer, can be taken. Replies go out before
// it waits for input.
func (c *conn) need(n int) error {
	for c.w-c.r < n {
		if c.r == c.w {
			c.r, c.w = 0, 0
		} else if len(c.in)-c.r < n {
			c.w = copy(c.in, c.in[c.r:c.w])
			c.r = 0
		}
		if err := c.flush(); err != nil {
			return err
		}
		ahead := readMore
		if n < readAhead {
			ahead = readAhead
		}
		m, err := c.receive(c.in[c.w:min(len(c.in), c.r+n+ahead)])
		if err != nil {
			return endOf(err, c.r != c.w)
		}
		c.w += m
	}
	return nil
}

// take returns the next n bytes; they stay valid until need is called again.
func (c *conn) take(n int) []byte {
	c.r += n
	return c.in[c.r-n : c.r]
}

// payload fills p: first with what the read buffer holds, then straight from the socket.
func (c *conn) payload(p []byte) error {
	n := copy(p, c.in[c.r:c.w])
	c.r += n
	for p = p[n:]; len(p) > 0; p = p[n:] {
		if err := c.flush(); err != nil {
			return err
		}
		var err error
		if n, err = c.receive(p); err != nil {
			return endOf(err, true)
		}
	}
	return nil
}

// skip takes n bytes and forgets them.
func (c *conn) skip(n uint64) error {
	for n > 0 {
		if err := c.need(1); err != nil {
			return endOf(err, true)
		}
		k := min(n, uint64(c.w-c.r))
		c.take(int(k))
		n -= k
	}
	return nil
}

// endOf tells an end between two messages from one inside a message.
func endOf(err error, inside bool) error {
	if inside && err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
