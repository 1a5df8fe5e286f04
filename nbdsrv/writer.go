package nbdsrv

import (
	"net"
	"runtime"
	"sync"
)

const (
	// smallReply is room for any reply that carries no data.
	smallReply = 256
	// maxQueued is how many bytes of inline replies may wait behind a write in progress before the
	// reader waits too.
	maxQueued = 1 << 20
)

// segment is a piece of output. Whoever has written it gives back what it holds.
type segment struct {
	b      []byte
	buf    *buffer // released; nil if the next segment holds it
	charge int64   // given back to the memory budgets
	ends   int     // requests answered with it
	grows  bool    // a block of small replies that more may be appended to
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
	writing  bool
	failed   error // the first write error; nothing is sent after it
	requests int   // handed over and not answered on the wire
	payloads int64 // bytes of payload buffers that they hold

	vec  [][]byte // the writing goroutine's
	bufs net.Buffers
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

// sendSmallLocked is sendLocked for the answer of a request without data, which is copied: it joins
// an earlier one that is still queued.
func (w *writer) sendSmallLocked(reply []byte, charge int64) {
	n := len(w.queue)
	if n > 0 && w.queue[n-1].grows && cap(w.queue[n-1].b)-len(w.queue[n-1].b) >= len(reply) {
		s := &w.queue[n-1]
		s.b = append(s.b, reply...)
		s.charge += charge
		s.ends++
		w.queued += len(reply)
	} else {
		buf := newBuffer(1)
		w.queue = append(w.queue, segment{
			b: append(buf.data()[:0], reply...), buf: buf, charge: charge, ends: 1, grows: true,
		})
		w.queued += len(reply)
	}
	w.writeLocked(charge >= largePayload)
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
		w.queue, w.spare, w.queued = w.spare[:0], nil, 0
		w.mu.Unlock()
		if err == nil {
			err = w.write(batch)
		}
		charge, ends := settle(batch)
		w.c.server.memory.give(charge)
		w.mu.Lock()
		w.payloads -= charge
		w.requests -= ends
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
		w.c.raw.Close() // wakes the reader
	}
	w.changed.Broadcast()
}

// settle gives back the buffers of a batch and adds up what it held.
func settle(batch []segment) (charge int64, ends int) {
	for i := range batch {
		batch[i].buf.release()
		charge += batch[i].charge
		ends += batch[i].ends
		batch[i] = segment{}
	}
	return charge, ends
}

// write sends a batch in as few system calls as it takes.
func (w *writer) write(batch []segment) error {
	if len(batch) == 1 {
		_, err := w.c.nc.Write(batch[0].b)
		return err
	}
	w.vec = w.vec[:0]
	for i := range batch {
		w.vec = append(w.vec, batch[i].b)
	}
	w.bufs = w.vec
	_, err := w.bufs.WriteTo(w.c.nc)
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
		_, err := w.c.nc.Write(c.out)
		c.out = c.out[:0]
		w.mu.Lock()
		w.noteLocked(err)
		w.runWriterLocked()
	default:
		w.queue = append(w.queue, segment{b: c.out, buf: c.outBuf})
		w.queued += len(c.out)
		c.outBuf = newBuffer(ioBuffer)
		c.out = c.outBuf.data()[:0]
		for w.writing && w.queued > maxQueued && w.failed == nil {
			w.changed.Wait()
		}
	}
	return w.failed
}

// begin admits one request with a payload buffer for n bytes (none for 0), or waits until it fits.
// A connection with no payload in flight always gets one: so the shared budget never makes one
// connection wait for another.
func (c *conn) begin(r *request, n int) *task {
	var charge int64
	if n > 0 {
		charge = bufferSize(n)
	}
	w := &c.writer
	w.mu.Lock()
	if !w.fitsLocked(charge) {
		w.mu.Unlock()
		_ = c.flush() // what the client waits for must not wait for this
		w.mu.Lock()
		for !w.fitsLocked(charge) {
			w.changed.Wait()
		}
	}
	w.requests++
	w.payloads += charge
	w.mu.Unlock()
	return newTask(r, n, charge)
}

// fitsLocked says whether a request with that charge may begin, and charges the shared budget.
func (w *writer) fitsLocked(charge int64) bool {
	if w.requests >= maxRequests {
		return false
	}
	if charge == 0 || w.payloads == 0 {
		return w.c.server.memory.take(charge, true)
	}
	return w.payloads+charge <= maxPayloads && w.c.server.memory.take(charge, false)
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
