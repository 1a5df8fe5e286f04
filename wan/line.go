package wan

import (
	"errors"
	"io"
	"net"
	"sync"
	"time"
)

// segment is what travels: bytes, or the end of the stream behind them.
type segment struct {
	data []byte
	due  time.Duration // link time of arrival
	end  error         // io.EOF: the sender is done; another error: the sender is gone
}

// segmentOverhead is charged for each queued segment besides its bytes, so
// that a stream of one-byte segments is bounded in memory as well.
const segmentOverhead = 64

// line is one direction of one connection: a delay line.
type line struct {
	way   *way
	src   net.Conn
	dst   net.Conn
	done  <-chan struct{} // closed when the connection is closed
	abort func()          // resets the connection, both directions
	cut   func(dst net.Conn)

	mu     sync.Mutex
	moved  sync.Cond // on mu: queue, held or closed changed
	queue  []segment
	held   int
	closed bool
}

func newLine(w *way, src, dst net.Conn, done <-chan struct{}) *line {
	l := &line{way: w, src: src, dst: dst, done: done}
	l.moved.L = &l.mu
	return l
}

// close wakes both goroutines; they return without touching the queue again.
func (l *line) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	l.moved.Broadcast()
}

// runTake reads from src until its end and queues what it reads.
func (l *line) runTake() {
	buf := make([]byte, maxSegment)
	for {
		size, ok := l.room()
		if !ok {
			return
		}
		n, err := l.src.Read(buf[:size])
		if n > 0 {
			// The queue keeps its own copy of the exact length: small
			// reads must not pin large buffers.
			l.put(segment{data: append([]byte(nil), buf[:n]...), due: l.way.depart(n)})
		}
		if err != nil {
			l.put(segment{due: l.way.depart(0), end: err})
			return
		}
	}
}

// room waits until the line may take more and returns how much to read at
// once; false when the line is closed.
func (l *line) room() (int, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for {
		capacity, size := l.way.limits()
		if l.closed {
			return 0, false
		}
		if l.held == 0 || l.held+size <= capacity {
			return size, true
		}
		l.moved.Wait()
	}
}

func (l *line) put(s segment) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if n := len(l.queue); n > 0 {
		s.due = max(s.due, l.queue[n-1].due) // jitter never reorders
	}
	l.queue = append(l.queue, s)
	l.held += len(s.data) + segmentOverhead
	l.moved.Broadcast()
}

// first waits for a segment and returns it; it stays queued, and counted,
// until drop. False when the line is closed.
func (l *line) first() (segment, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(l.queue) == 0 && !l.closed {
		l.moved.Wait()
	}
	if l.closed {
		return segment{}, false
	}
	return l.queue[0], true
}

func (l *line) drop() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.held -= len(l.queue[0].data) + segmentOverhead
	l.queue[0] = segment{}
	l.queue = l.queue[1:]
	l.moved.Broadcast()
}

// runDeliver writes each segment to dst when it is due, until the stream's
// end, an error or a cut.
func (l *line) runDeliver() {
	for {
		s, ok := l.first()
		if !ok || !l.way.clock.wait(s.due, l.done) {
			return
		}
		if s.end != nil {
			l.finish(s.end)
			return
		}
		n, cut := l.way.allow(len(s.data))
		_, err := l.dst.Write(s.data[:n])
		if cut {
			l.cut(l.dst)
			return
		}
		if err != nil {
			l.abort()
			return
		}
		l.drop()
	}
}

// finish passes the end of the stream on: a half-close as a half-close, a
// broken connection as a broken one.
func (l *line) finish(end error) {
	half, ok := l.dst.(interface{ CloseWrite() error })
	if !errors.Is(end, io.EOF) || !ok {
		l.abort()
		return
	}
	if half.CloseWrite() != nil {
		l.abort()
	}
}
