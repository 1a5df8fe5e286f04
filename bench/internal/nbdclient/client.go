package nbdclient

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

// ErrClosed is the error of requests on a client that was closed.
var ErrClosed = errors.New("the NBD client is closed")

// Client is one connection to one export. Make it with Dial.
type Client struct {
	conn  net.Conn
	r     *bufio.Reader // owned by runReplies after the handshake
	size  int64
	flags uint16
	ended chan struct{} // closed when runReplies has ended

	send sync.Mutex // one request at a time on the socket; taken before mu

	mu      sync.Mutex
	waiting map[uint64]*Request // by cookie
	cookie  uint64
	failed  error // of the connection; every request fails with it
}

// Request is one request and, once it was sent to Done, its result.
type Request struct {
	Command Command
	Flags   Flags
	Offset  int64
	Length  uint32 // of the range; for Read and Write it is len(Data)
	Data    []byte // what is written, or where the read goes; the client's until Done

	// Done gets the request when it is answered or has failed. Its buffer
	// must have room for all requests that use it, or replies stop.
	Done chan<- *Request
	Err  error // nil, an Error from the server, or the connection's end
}

// Size is the export's size in bytes.
func (c *Client) Size() int64 { return c.size }

// Flags are the export's transmission flags, as the server sent them.
func (c *Client) Flags() uint16 { return c.flags }

// Start sends the request and returns once the kernel has it. The result goes
// to r.Done, also when sending fails.
func (c *Client) Start(r *Request) {
	if r.Command == Read || r.Command == Write {
		r.Length = uint32(len(r.Data))
	}
	c.send.Lock()
	defer c.send.Unlock()
	cookie, err := c.register(r)
	if err != nil {
		r.Err = err
		r.Done <- r
		return
	}
	if err := c.transmit(r, cookie); err != nil {
		c.fail(err)
	}
}

func (c *Client) register(r *Request) (uint64, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.failed != nil {
		return 0, c.failed
	}
	c.cookie++
	c.waiting[c.cookie] = r
	return c.cookie, nil
}

func (c *Client) transmit(r *Request, cookie uint64) error {
	b := make([]byte, 0, 28)
	b = binary.BigEndian.AppendUint32(b, magicRequest)
	b = binary.BigEndian.AppendUint16(b, uint16(r.Flags))
	b = binary.BigEndian.AppendUint16(b, uint16(r.Command))
	b = binary.BigEndian.AppendUint64(b, cookie)
	b = binary.BigEndian.AppendUint64(b, uint64(r.Offset))
	b = binary.BigEndian.AppendUint32(b, r.Length)
	bufs := net.Buffers{b}
	if r.Command == Write {
		bufs = append(bufs, r.Data)
	}
	_, err := bufs.WriteTo(c.conn)
	return err
}

// runReplies reads replies until the connection ends.
func (c *Client) runReplies() {
	defer close(c.ended)
	for {
		if err := c.reply(); err != nil {
			c.fail(err)
			return
		}
	}
}

func (c *Client) reply() error {
	var head [16]byte
	if _, err := io.ReadFull(c.r, head[:]); err != nil {
		return fmt.Errorf("the NBD connection ended: %w", err)
	}
	magic := binary.BigEndian.Uint32(head[:])
	code := binary.BigEndian.Uint32(head[4:])
	cookie := binary.BigEndian.Uint64(head[8:])
	if magic != magicReply {
		return fmt.Errorf("malformed reply: magic %#x", magic)
	}
	c.mu.Lock()
	r := c.waiting[cookie]
	delete(c.waiting, cookie) // from here on r is ours alone, whatever fails
	c.mu.Unlock()
	if r == nil {
		return fmt.Errorf("malformed reply: cookie %d is not outstanding", cookie)
	}
	var ended error
	switch {
	case code != 0:
		r.Err = Error(code)
	case r.Command == Read:
		if _, err := io.ReadFull(c.r, r.Data); err != nil {
			ended = fmt.Errorf("the NBD connection ended within a read: %w", err)
			r.Err = ended
		}
	}
	r.Done <- r
	return ended
}

// fail ends the connection and answers everything that waits with err.
func (c *Client) fail(err error) {
	c.mu.Lock()
	if c.failed == nil {
		c.failed = err
	}
	err = c.failed
	waiting := c.waiting
	c.waiting = map[uint64]*Request{}
	c.mu.Unlock()
	c.conn.Close()
	for _, r := range waiting {
		r.Err = err
		r.Done <- r
	}
}

// Close says goodbye, closes the connection and waits for its goroutine.
// Requests that are outstanding fail with ErrClosed.
func (c *Client) Close() error {
	c.mu.Lock()
	alive := c.failed == nil
	if alive {
		c.failed = ErrClosed
	}
	c.mu.Unlock()
	if alive {
		// A server that has stopped reading must not hold us here.
		c.conn.SetWriteDeadline(time.Now().Add(time.Second))
		c.send.Lock()
		c.transmit(&Request{Command: disconnect}, 0)
		c.send.Unlock()
	}
	c.conn.Close()
	<-c.ended
	return nil
}
