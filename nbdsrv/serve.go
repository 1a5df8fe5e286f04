package nbdsrv

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// Serve accepts connections on l until Shutdown, which makes it return ErrServerClosed, or until l
// fails for good. Several listeners, TCP and unix, may be served at once. Serve closes l.
func (s *Server) Serve(l net.Listener) error {
	defer l.Close()
	s.mu.Lock()
	if s.draining.Load() {
		s.mu.Unlock()
		return ErrServerClosed
	}
	s.listeners[l] = struct{}{}
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.listeners, l)
		s.mu.Unlock()
	}()
	return s.runAccept(l)
}

func (s *Server) runAccept(l net.Listener) error {
	var pause time.Duration
	for {
		nc, err := l.Accept()
		switch {
		case s.draining.Load():
			if err == nil {
				nc.Close()
			}
			return ErrServerClosed
		case err == nil:
			pause = 0
			s.admit(nc)
		case errors.Is(err, unix.EMFILE), errors.Is(err, unix.ENFILE), errors.Is(err, unix.ENOBUFS),
			errors.Is(err, unix.ENOMEM), errors.Is(err, unix.ECONNABORTED):
			// A shortage passes when other connections end; the listener is sound.
			pause = min(max(2*pause, 5*time.Millisecond), time.Second)
			s.log.Warn("nbd accept", "err", err, "pause", pause)
			time.Sleep(pause)
		default:
			return err
		}
	}
}

// admit starts a connection, or closes it when there are too many.
func (s *Server) admit(nc net.Conn) {
	tune(nc)
	if s.full() {
		nc.Close()
		return
	}
	s.takeSlot()
	c := newConn(s, nc)
	s.mu.Lock()
	if s.draining.Load() {
		s.mu.Unlock()
		<-s.slots
		nc.Close()
		return
	}
	s.conns[c] = struct{}{}
	s.young = append(s.young, c)
	c.young = true
	s.total.Accepted++
	s.running.Add(1)
	s.mu.Unlock()
	go c.runReader()
}

// full says whether a further connection could not be served anyway.
func (s *Server) full() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.serving < s.cfg.MaxConns {
		return false
	}
	s.total.Refused++
	return true
}

// takeSlot takes a place in the handshake: from the connection that has been at it longest, of those from the
// address that has the most, if there is none left. So whoever fills all places gets in his own way only, and
// from one address too whoever is quick finds a place.
func (s *Server) takeSlot() {
	select {
	case s.slots <- struct{}{}:
		return
	default:
	}
	s.mu.Lock()
	count, most := map[netip.Addr]int{}, 0
	for _, c := range s.young {
		count[c.host]++
		most = max(most, count[c.host])
	}
	var oldest *conn
	if i := slices.IndexFunc(s.young, func(c *conn) bool { return count[c.host] == most }); i >= 0 {
		oldest = s.young[i]
		s.young = slices.Delete(s.young, i, i+1)
		s.total.Dropped++
	}
	s.mu.Unlock()
	if oldest != nil {
		oldest.cutOff(errCrowded)
	}
	s.slots <- struct{}{} // soon: what is dropped waits for nothing but its goroutine's turn
}

// grownLocked gives back c's place in the handshake.
func (s *Server) grownLocked(c *conn) {
	if !c.young {
		return
	}
	c.young = false
	s.young = slices.DeleteFunc(s.young, func(x *conn) bool { return x == c })
	<-s.slots
}

// forget is the end of a connection.
func (s *Server) forget(c *conn) {
	s.mu.Lock()
	delete(s.conns, c)
	if c.using != nil {
		s.serving--
	}
	s.grownLocked(c)
	s.total.add(&c.counts)
	if why := c.verdict.Load(); why != nil && *why == errStalled {
		s.total.Stalled++
	}
	s.mu.Unlock()
	c.letGo()
	close(c.ended)
	s.running.Done()
}

// hostOf is the client's address without its port; all clients of unix sockets have one.
func hostOf(nc net.Conn) netip.Addr {
	if a, ok := nc.RemoteAddr().(*net.TCPAddr); ok {
		return a.AddrPort().Addr()
	}
	return netip.Addr{}
}

const (
	// unixSendBuffer is what a unix socket holds, in bytes, before a write waits (the kernel doubles
	// it): more than one reply of 256 KiB, or the server would wait in the middle of each, and not
	// many more, or replies leave the processor's cache before the client reads them.
	unixSendBuffer = 384 << 10
	// userTimeout is when unacknowledged data of a dead TCP peer is given up, as keep-alive does
	// for an idle one.
	userTimeout = 2 * time.Minute
)

// tune sets what Go has not set already, which is TCP_NODELAY and keep-alive. TCP sizes its buffers
// by itself.
func tune(nc net.Conn) {
	switch t := nc.(type) {
	case *net.UnixConn:
		_ = t.SetWriteBuffer(unixSendBuffer)
	case *net.TCPConn:
		if rc, err := t.SyscallConn(); err == nil {
			_ = rc.Control(func(fd uintptr) {
				_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(userTimeout.Milliseconds()))
			})
		}
	}
}

// Shutdown ends the server in order: it closes the listeners, lets requests in flight be answered, also those that were on their
// way, leaves further ones to whoever serves the client next, and closes each connection once it has nothing to say. It
// returns nil when no goroutine of the server is left but callers of Serve; the devices are then
// idle, flushing them is their owner's business. When ctx ends first, the connections are cut and
// ctx's error is returned; calls that still run inside a device end when the device lets them.
func (s *Server) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	s.draining.Store(true)
	for l := range s.listeners {
		l.Close()
	}
	var all []*conn
	for c := range s.conns {
		all = append(all, c)
	}
	s.mu.Unlock()
	if err := drain(ctx, all); err != nil {
		return err
	}
	s.running.Wait()
	return nil
}

// drain ends connections in order and waits for them.
func drain(ctx context.Context, conns []*conn) error {
	for _, c := range conns {
		c.drain()
	}
	for _, c := range conns {
		select {
		case <-c.ended:
		case <-ctx.Done():
			for _, c := range conns {
				c.raw.Close()
			}
			return ctx.Err()
		}
	}
	return nil
}
