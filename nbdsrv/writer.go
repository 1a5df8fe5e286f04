package nbdsrv

import (
	"net"
	"runtime"
	"sync"
	"sync/atomic"
)

const (
	// smallReply is room for any reply that carries no data.
	smallReply = 256
	// maxBlocks is how many blocks of inline replies may wait behind a write in progress before the
	// reader waits too.
	maxBlocks = 2
)

// segment is a piece of output. Whoever has written it gives back what it holds.
type segment struct {
	b      []byte
	buf    *buffer // released; nil if the next segment holds it
	charge int64   // given back to the memory budgets
	ends   int     // requests answered with it
	blocks int     // blocks of inline replies
}

// writer is the sending half of a connection and its accounts. Whoever queues a segment while
// nobody writes becomes the one that writes, until the queue is empty: completions that come in
// meanwhile leave together, in one system call.
type writer struct {
	c *conn

	mu       sync.Mutex // guards all below; nothing else is locked under it
	changed  sync.Cond  // something was sent or given back
	queue    []segment
	spare    []segment // the other half of a double buffer
	queued   int       // bytes in queue
	open     int       // 1 + the index in queue of a block that more replies may be appended to; 0: none
	blocks   int       // blocks of inline replies that are queued or being written
	writing  bool
	failed   error // the first write error; nothing is sent after it
	requests int   // handed over and not answered on the wire
	payloads int64 // bytes of payload buffers that they hold
	flusher  *task // the last flush that a worker was given, until the device has done it; nil: none

	vec  [][]byte // the writing goroutine's
	bufs net.Buffers
	pace pace        // of what the client reads
	deaf atomic.Bool // failed is set: nothing that is answered is heard
}

func (w *writer) init(c *conn) {
	w.c = c
	w.changed.L = &w.mu
}

// largePayload is the size, in bytes, from which a payload is worth a system call of its own.
const largePayload = 32 << 10

// sendLocked queues s. It returns with w.mu unlocked, after writing if nobody else did.
func (w *writer) sendLocked(s ...segment) {
	for _, s := range s {
		w.queue = append(w.queue, s)
		w.queued += len(s.b)
	}
	w.writeLocked(w.queued >= largePayload)
}

// sendSmallLocked is sendLocked for the answer of a request without data, which is copied.
func (w *writer) sendSmallLocked(reply []byte, charge int64) {
	w.queueSmallLocked(reply, charge)
	w.writeLocked(charge >= largePayload)
}

func (w *writer) queueSmallLocked(reply []byte, charge int64) {
	if !w.joinLocked(reply, charge, 1) {
		buf := newBuffer(1)
		w.queue = append(w.queue, segment{b: append(buf.data()[:0], reply...), buf: buf, charge: charge, ends: 1})
		w.queued += len(reply)
		w.open = len(w.queue)
	}
}

// joinLocked appends replies to a block that is queued already, if one has room: replies may leave in any
// order, and a block each would make many small ones cost a slow client's server very much.
func (w *writer) joinLocked(b []byte, charge int64, ends int) bool {
	if w.open == 0 {
		return false
	}
	s := &w.queue[w.open-1]
	if cap(s.b)-len(s.b) < len(b) {
		return false
	}
	s.b = append(s.b, b...)
	s.charge += charge
	s.ends += ends
	w.queued += len(b)
	return true
}

// writeLocked writes the queue until it is empty, unless somebody does. It unlocks w.mu. After a small
// request it lets other workers go first: those about to finish get their replies into the same
// batch. After a large one that would only let its data grow cold.
func (w *writer) writeLocked(large bool) {
	if w.writing {
		w.mu.Unlock()
		return
	}
	w.writing = true
	if !large {
		w.mu.Unlock()
		runtime.Gosched()
		w.mu.Lock()
	}
	w.runWriterLocked()
	w.mu.Unlock()
}

// runWriterLocked writes the queue until it is empty; the caller has set w.writing.
func (w *writer) runWriterLocked() {
	for len(w.queue) > 0 {
		batch, err := w.queue, w.failed
		w.queue, w.spare, w.queued, w.open = w.spare[:0], nil, 0, 0
		w.mu.Unlock()
		if err == nil {
			err = w.write(batch)
		}
		held := settle(batch)
		w.c.server.memory.give(held.charge)
		w.mu.Lock()
		w.payloads -= held.charge
		w.requests -= held.ends
		w.blocks -= held.blocks
		w.spare = batch[:0]
		w.noteLocked(err)
	}
	w.writing = false
	w.changed.Broadcast()
}

// noteLocked keeps the first error and wakes who waits for the writer.
func (w *writer) noteLocked(err error) {
	if err != nil && w.failed == nil {
		w.failed = err
		w.deaf.Store(true)
		w.c.raw.Close() // wakes the reader
	}
	w.changed.Broadcast()
}

// settle gives back the buffers of a batch and adds up what it held.
func settle(batch []segment) (held segment) {
	for i := range batch {
		batch[i].buf.release()
		held.charge += batch[i].charge
		held.ends += batch[i].ends
		held.blocks += batch[i].blocks
		batch[i] = segment{}
	}
	return held
}

// write sends a batch in as few system calls as it takes, each of at most sendStep bytes.
func (w *writer) write(batch []segment) error {
	size := 0
	for i := range batch {
		for b := batch[i].b; len(b) > 0; {
			k := min(len(b), sendStep-size)
			w.vec = append(w.vec, b[:k])
			if b, size = b[k:], size+k; size == sendStep {
				if err := w.sendVec(); err != nil {
					return err
				}
				size = 0
			}
		}
	}
	return w.sendVec()
}

// sendVec sends what is in w.vec.
func (w *writer) sendVec() (err error) {
	switch len(w.vec) {
	case 0:
	case 1:
		err = w.send(w.vec[0])
	default:
		w.bufs = w.vec
		w.pace.wait()
		_, err = w.bufs.WriteTo(w.c.nc)
		w.pace.done()
	}
	w.vec = w.vec[:0]
	return err
}

// send sends one piece of at most sendStep bytes.
func (w *writer) send(b []byte) error {
	w.pace.wait()
	_, err := w.c.nc.Write(b)
	w.pace.done()
	return err
}

// room makes sure that n bytes can be appended to c.out.
func (c *conn) room(n int) {
	if cap(c.out)-len(c.out) < n {
		_ = c.flush() // a write error comes back from the next flush, at the latest before a read
	}
}

// flush sends c.out. While another goroutine writes, c.out joins the queue instead, and the reader
// waits only when too much is queued behind a slow client.
func (c *conn) flush() error {
	w := &c.writer
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case len(c.out) == 0:
	case w.failed != nil:
		c.out = c.out[:0]
	case !w.writing: // the usual case: c.out is written in place and used again
		w.writing = true
		w.mu.Unlock()
		err := w.send(c.out)
		c.out = c.out[:0]
		w.mu.Lock()
		w.noteLocked(err)
		w.runWriterLocked()
	case w.joinLocked(c.out, 0, 0):
		c.out = c.out[:0]
	default:
		w.queue = append(w.queue, segment{b: c.out, buf: c.outBuf, blocks: 1})
		w.queued += len(c.out)
		w.open = len(w.queue)
		w.blocks++
		c.outBuf = newBuffer(ioBuffer)
		c.out = c.outBuf.data()[:0]
		for w.writing && w.blocks > maxBlocks && w.failed == nil {
			w.changed.Wait()
		}
	}
	return w.failed
}

// begin admits one request with a payload buffer for n bytes (none for 0), or waits until it fits. A
// connection waits for its own requests only: with no payload in flight it gets one however much the others
// hold, but only a piece of it when the budget of all is used up.
func (c *conn) begin(r *request, n int) *task {
	var want int64
	if n > 0 {
		want = charge(n)
	}
	return c.beginCharged(r, n, want)
}

func (c *conn) beginCharged(r *request, n int, want int64) *task {
	w := &c.writer
	w.mu.Lock()
	granted, ok := w.admitLocked(want)
	if !ok {
		w.mu.Unlock()
		_ = c.flush() // what the client waits for must not wait for this
		w.mu.Lock()
		for granted, ok = w.admitLocked(want); !ok; granted, ok = w.admitLocked(want) {
			w.changed.Wait()
		}
	}
	w.requests++
	w.payloads += granted
	w.mu.Unlock()
	if granted < want {
		n = pieceSize
	}
	return newTask(r, n, granted)
}

// admitLocked charges a request that may begin now, for all that it wants or for a piece.
func (w *writer) admitLocked(want int64) (granted int64, ok bool) {
	shared := &w.c.server.memory
	switch {
	case w.requests >= maxRequests:
		return 0, false
	case want == 0:
		return 0, true
	case w.payloads > 0 && w.payloads+want > maxPayloads:
		return 0, false
	case shared.take(want):
		return want, true
	case w.payloads > 0:
		return 0, false
	}
	granted = min(want, charge(pieceSize))
	shared.force(granted)
	return granted, true
}

// abandon takes back a request that was begun and cannot be served.
func (c *conn) abandon(t *task) {
	w := &c.writer
	w.mu.Lock()
	w.requests--
	w.payloads -= t.charge
	w.mu.Unlock()
	c.server.memory.give(t.charge)
	t.buf.release()
	t.release()
}

// idle says whether everything is answered and sent, as far as the writer knows.
func (w *writer) idle() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.idleLocked()
}

func (w *writer) idleLocked() bool { return w.requests == 0 && len(w.queue) == 0 && !w.writing }

// waitIdle waits until everything is answered and sent, or dropped after a write error.
func (w *writer) waitIdle() {
	w.mu.Lock()
	for !w.idleLocked() {
		w.changed.Wait()
	}
	w.mu.Unlock()
}
