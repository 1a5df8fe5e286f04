package wan

import (
	"net"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// relayBuffer is the size asked for the relay's own socket buffers. Left to
// itself the kernel grows them to megabytes, which would be a second queue.
const relayBuffer = 128 << 10

// pair is one connection through the link: two endpoints, a line each way.
type pair struct {
	near, far net.Conn
	lines     [2]*line
	done      chan struct{}
	once      sync.Once
}

func newPair(l *Link, near, far net.Conn) *pair {
	p := &pair{near: near, far: far, done: make(chan struct{})}
	p.lines[ToTarget] = newLine(l.ways[ToTarget], near, far, p.done)
	p.lines[FromTarget] = newLine(l.ways[FromTarget], far, near, p.done)
	for _, ln := range p.lines {
		ln.abort = p.reset
		ln.cut = func(dst net.Conn) {
			drain(dst)
			l.Cut()
		}
	}
	return p
}

// run carries the connection until both directions have ended or it is reset.
func (p *pair) run() {
	var wg sync.WaitGroup
	for _, ln := range p.lines {
		wg.Go(ln.runTake)
		wg.Go(ln.runDeliver)
	}
	wg.Wait()
	p.end(func(c net.Conn) { c.Close() })
}

// reset breaks both connections at once, with RST where the kernel can.
func (p *pair) reset() {
	p.end(func(c net.Conn) {
		discard(c)
	})
}

func (p *pair) end(closeConn func(net.Conn)) {
	p.once.Do(func() {
		close(p.done)
		closeConn(p.near)
		closeConn(p.far)
		for _, ln := range p.lines {
			ln.close()
		}
	})
}

// tune keeps the relay's share of buffering small and lets nothing linger.
func tune(c net.Conn, congestion string) {
	if t, ok := c.(*net.TCPConn); ok {
		t.SetNoDelay(true)
		t.SetReadBuffer(relayBuffer)
		t.SetWriteBuffer(relayBuffer)
		setCongestion(t, congestion)
	}
}

// drain waits until the kernel has handed all that was written to c to the
// other end, so that a reset behind it takes none of it back. It gives up
// after a second: a receiver that does not read has its window closed.
func drain(c net.Conn) {
	t, ok := c.(*net.TCPConn)
	if !ok {
		return
	}
	raw, err := t.SyscallConn()
	if err != nil {
		return
	}
	for range 1000 {
		unsent := 0
		raw.Control(func(fd uintptr) { unsent, err = unix.IoctlGetInt(int(fd), unix.SIOCOUTQ) })
		if err != nil || unsent == 0 {
			return
		}
		time.Sleep(time.Millisecond)
	}
}
