package nbdsrv

import "errors"

// When the memory that all connections share is used up, a payload larger than pieceSize passes through a
// buffer of that size instead of waiting for what others hold: slower, one such payload a connection, but as
// sure as ever. A client sees no difference, except that a read which fails after its first piece ends the
// connection: the header, which has left, says that it did not fail.

var errHalfRead = errors.New("the device failed in the middle of a read that was sent in pieces")

// partial says whether the task's buffer holds only a piece of its payload.
func (t *task) partial() bool { return len(t.buf.data()) < int(t.req.length) }

// writePieces takes a write's payload and gives it to the device piece by piece, in the reader.
func (c *conn) writePieces(t *task) error {
	dev, r := c.view.export.Device, &t.req
	var failed error
	for off, end := r.offset, r.offset+r.length; off < end; {
		p := t.buf.data()
		p = p[:min(uint64(len(p)), end-off)]
		if err := c.payload(p); err != nil {
			c.abandon(t)
			return err
		}
		if failed == nil {
			failed = dev.WriteAt(p, int64(off), r.flags&cmdFlagFUA != 0)
		}
		off += uint64(len(p))
	}
	if failed == nil {
		c.counts.writtenBytes.Add(r.length)
	}
	t.c = c
	t.answer(failed)
	return nil
}

// readPieces reads from the device and sends piece by piece. No other reply leaves meanwhile.
func (t *task) readPieces() {
	r, c := &t.req, t.c
	dev, m := c.view.export.Device, c.view.mode
	piece := uint64(len(t.buf.data()))
	if err := dev.ReadAt(t.buf.data(), int64(r.offset)); err != nil {
		t.answer(err)
		return
	}
	c.counts.readBytes.Add(r.length)
	head := m.dataHeaderSize()
	b := t.buf.framed(head, int(piece))
	m.appendData(b[:0], r)

	w := &c.writer
	w.mu.Lock()
	for w.writing {
		w.changed.Wait()
	}
	w.writing = true
	err := w.failed
	w.mu.Unlock()
	for off, end := r.offset, r.offset+r.length; err == nil; {
		if err = w.send(b); err != nil {
			break
		}
		if off += piece; off >= end {
			break
		}
		b = t.buf.data()[:min(piece, end-off)]
		if dev.ReadAt(b, int64(off)) != nil {
			err = errHalfRead
		}
	}
	w.mu.Lock()
	w.noteLocked(err)
	w.queue = append(w.queue, segment{buf: t.buf, charge: t.charge, ends: 1})
	t.release()
	w.runWriterLocked()
	w.mu.Unlock()
}
