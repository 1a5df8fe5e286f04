package nbdsrv

import (
	"time"

	"github.com/pojntfx/go-nbd/pkg/protocol"
)

// inlineMax is the largest read or write, in bytes, that the reader serves by itself when the
// device can do it without waiting: its payload lies in the read buffer as a whole.
const inlineMax = 256 << 10

// overlapMin is the size, in bytes, from which a read is a worker's when another request is at hand: the device is read for the
// one while the other's data are sent. For less the two processors gain nothing over one with a warm cache.
const overlapMin = 256 << 10

// flushAt is how many bytes of inline replies are sent off while more requests are at hand: the
// client can go on, and the replies are still in the processor's cache.
const flushAt = 128 << 10

// serveRequests reads requests and serves them, or hands them to workers, until the end.
func (c *conn) serveRequests() error {
	if c.draining.Load() {
		c.drain() // the deadline that drain set was the handshake's to clear
	}
	header := c.view.mode.headerSize()
	for {
		if c.inside = false; c.waited {
			c.waited = false
			c.pace.done()
		}
		if err := c.need(header); err != nil {
			return err
		}
		c.inside = true
		r, err := c.view.mode.decode(c.take(header))
		if err != nil {
			return err
		}
		if r.typ == protocol.TRANSMISSION_TYPE_REQUEST_DISC {
			return errDisconnect
		}
		c.count(&r)
		if err := c.serve(&r); err != nil {
			return err
		}
	}
}

// serve serves one request. An error ends the connection; what is the client's business is
// answered instead.
func (c *conn) serve(r *request) error {
	n := c.view.mode.payload(r)
	if n > 2*uint64(c.view.export.MaxPayload) {
		c.refuse(r, refuseLarge)
		return errTooLarge
	}
	refused := c.view.check(r)
	if c.draining.Load() && time.Now().UnixNano() > c.drainEnd.Load() {
		// No answer, rather than ESHUTDOWN: Linux's driver and qemu take any error for the medium's, and the file system above gives up.
		// A request without an answer they send again to the server that comes next.
		return errShuttingDown
	}
	if refused.code != 0 {
		// The payload first: libnbd takes the answer to what it is still sending for one to nothing, and hangs up.
		if err := c.skip(n); err != nil {
			return err
		}
		c.refuse(r, refused)
		return nil
	}
	switch r.typ {
	case protocol.TRANSMISSION_TYPE_REQUEST_READ:
		if c.deaf.Load() {
			return errDeaf // thousands more may be at hand
		}
		return c.read(r)
	case protocol.TRANSMISSION_TYPE_REQUEST_WRITE:
		return c.write(r)
	case cmdBlockStatus:
		if c.deaf.Load() {
			return errDeaf
		}
		return c.blockStatus(r, n)
	case cmdTrim, cmdWriteZeroes:
		if r.length != 0 {
			c.handOver(c.begin(r, 0))
			return nil
		}
	case cmdFlush:
		if !c.view.export.ReadOnly {
			c.flushDevice(r)
			return nil
		}
	}
	c.done(r) // also NBD_CMD_CACHE, which has no effect here
	return nil
}

// read serves a read inline if it is small and the device can do it now.
func (c *conn) read(r *request) error {
	n := int(r.length)
	if n == 0 {
		c.done(r)
		return nil
	}
	overlap := n >= overlapMin && c.r < c.w
	if dev := c.view.export.nonblocking; dev != nil && n <= inlineMax && !overlap {
		head := c.view.mode.dataHeaderSize()
		c.room(head + n)
		at := len(c.out)
		err := dev.TryReadAt(c.out[at+head:at+head+n], int64(r.offset))
		switch {
		case err == nil:
			c.out = c.view.mode.appendData(c.out, r)[:at+head+n]
			c.counts.readBytes.Add(uint64(n))
			if len(c.out) >= flushAt {
				return c.flush()
			}
			return nil
		case err != ErrWouldBlock:
			c.failed(r, err)
			return nil
		}
	}
	c.handOver(c.begin(r, n))
	return nil
}

// write serves a write inline, straight from the read buffer, if it is small and the device can do
// it now. A large one is received into a buffer of its own.
func (c *conn) write(r *request) error {
	n := int(r.length)
	if n == 0 {
		c.done(r)
		return nil
	}
	dev := c.view.export.nonblocking
	if dev != nil && n <= inlineMax && r.flags&cmdFlagFUA == 0 {
		if err := c.need(n); err != nil {
			return endOf(err, true)
		}
		err := dev.TryWriteAt(c.in[c.r:c.r+n], int64(r.offset))
		if err != ErrWouldBlock {
			c.take(n)
			if err != nil {
				c.failed(r, err)
			} else {
				c.counts.writtenBytes.Add(uint64(n))
				c.done(r)
			}
			return nil
		}
	}
	t := c.begin(r, n)
	if t.partial() {
		return c.writePieces(t)
	}
	if err := c.payload(t.buf.data()[:n]); err != nil {
		c.abandon(t)
		return err
	}
	c.handOver(t)
	return nil
}

// done, failed and refuse queue an answer of the reader's own.

func (c *conn) done(r *request) {
	c.room(extReplySize)
	c.out = c.view.mode.appendDone(c.out, r)
}

func (c *conn) failed(r *request, err error) { c.refuse(r, deviceRefusal(r, err)) }

func (c *conn) refuse(r *request, why refusal) {
	c.counts.errors.Add(1)
	c.room(smallReply)
	c.out = c.view.mode.appendError(c.out, r, why.code, why.text)
}

// deviceRefusal is the answer to a request that the device has failed. Clients know ENOTSUP only as
// the answer to FAST_ZERO, so nothing else is answered with it.
func deviceRefusal(r *request, err error) refusal {
	code := wireError(err)
	if code == errNotSup && r.flags&cmdFlagFastZero == 0 {
		code = errInval
	}
	return refusal{code: code}
}

func (c *conn) count(r *request) {
	switch r.typ {
	case protocol.TRANSMISSION_TYPE_REQUEST_READ:
		c.counts.reads.Add(1)
	case protocol.TRANSMISSION_TYPE_REQUEST_WRITE:
		c.counts.writes.Add(1)
	case cmdFlush:
		c.counts.flushes.Add(1)
	case cmdTrim:
		c.counts.trims.Add(1)
	case cmdWriteZeroes:
		c.counts.zeroes.Add(1)
	default:
		c.counts.others.Add(1)
	}
}
