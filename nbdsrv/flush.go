package nbdsrv

// Flushes that share one call of the device. A client that keeps many requests under way sends a flush for each of them, one after
// the other, and all but the first find that nothing has changed since that one began: it covers them, and they are answered with it.
// So they cost neither a worker each nor a wait each.
//
// A flush covers what was answered before it was sent. One that joins another is covered by that because
//
//	the other has not called the device yet, or
//	nothing has changed in the device since right before it did

// Counting is an optional part of a Device that can tell whether anything has changed between two moments.
type Counting interface {
	// Changes returns a number that is another one after every write, trim and zeroing that has returned. ok is false while flushes must
	// not share a call. Any goroutine; it must not wait.
	Changes() (n uint64, ok bool)
}

// flushing is a flush that a worker has, with those that joined it. Guarded by writer.mu.
type flushing struct {
	begun   bool   // the device has been called
	changes uint64 // right before
	shared  bool
	joined  []request
}

// flushDevice gives a flush to a worker, or joins it to the last one that was.
func (c *conn) flushDevice(r *request) {
	if !c.joinFlush(r) {
		t := c.begin(r, 0)
		c.mu.Lock()
		c.flusher = t
		c.mu.Unlock()
		c.handOver(t)
	}
}

func (c *conn) joinFlush(r *request) bool {
	dev := c.view.export.counting
	if dev == nil {
		return false
	}
	n, ok := dev.Changes()
	c.mu.Lock()
	defer c.mu.Unlock()
	if !ok || c.flusher == nil || c.requests >= maxRequests {
		return false
	}
	f := &c.flusher.flushing
	if f.begun && (!f.shared || n != f.changes) {
		return false
	}
	f.joined = append(f.joined, *r)
	c.requests++
	return true
}

// executeFlush calls the device, for all that join until it returns.
func (t *task) executeFlush(dev Device) {
	c, f := t.c, &t.flushing
	var n uint64
	var ok bool
	if d := c.view.export.counting; d != nil {
		n, ok = d.Changes()
	}
	c.mu.Lock()
	f.begun, f.changes, f.shared = true, n, ok
	c.mu.Unlock()
	err := dev.Flush()
	c.mu.Lock()
	if c.flusher == t {
		c.flusher = nil
	}
	var small [smallReply]byte
	for i := range f.joined {
		c.queueSmallLocked(c.result(small[:0], &f.joined[i], err), 0)
	}
	*f = flushing{joined: f.joined[:0]}
	reply := c.result(small[:0], &t.req, err)
	t.release()
	c.sendSmallLocked(reply, 0)
}
