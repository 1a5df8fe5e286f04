package nbd

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"syscall"

	"github.com/pojntfx/go-nbd/pkg/protocol"
)

// Transmission flags, what a server can do.
const (
	FlagReadOnly    = 1 << 1
	FlagFlush       = 1 << 2
	FlagFUA         = 1 << 3
	FlagTrim        = 1 << 5
	FlagWriteZeroes = 1 << 6
)

// Command is what a request asks for.
type Command uint16

// The commands.
const (
	Read        = Command(protocol.TRANSMISSION_TYPE_REQUEST_READ)
	Write       = Command(protocol.TRANSMISSION_TYPE_REQUEST_WRITE)
	disconnect  = Command(protocol.TRANSMISSION_TYPE_REQUEST_DISC)
	Flush       = Command(3)
	Trim        = Command(4)
	WriteZeroes = Command(6)
)

func (c Command) String() string {
	return map[Command]string{Read: "read", Write: "write", Flush: "flush", Trim: "trim", WriteZeroes: "write zeroes"}[c]
}

// Request is a request; Err is set when it comes out of Client.Done.
type Request struct {
	Command Command
	Offset  int64
	Length  uint32
	Data    []byte // of a write, or the place of a read: Length bytes, the client's until it is done
	Tag     int    // the caller's
	Err     error
}

// MaxPending is how many requests may be on their way.
const MaxPending = 64

// Client is a connection to an export.
type Client struct {
	conn    net.Conn
	r       *bufio.Reader // runReplies' after Open
	size    int64
	flags   uint16
	block   uint32
	payload uint32
	done    chan *Request
	ended   chan struct{}
	head    [28]byte

	mu      sync.Mutex
	pending map[uint64]*Request
	cookie  uint64
	err     error // why the connection is over
}

func newClient(conn net.Conn) *Client {
	return &Client{conn: conn, r: bufio.NewReader(conn), done: make(chan *Request, MaxPending), ended: make(chan struct{}),
		pending: map[uint64]*Request{}}
}

func (c *Client) begin() { go c.runReplies() }

// Size is the export's size in bytes.
func (c *Client) Size() int64 { return c.size }

// Can tells whether the server offers all of these flags.
func (c *Client) Can(flags uint16) bool { return c.flags&flags == flags }

// MaxPayload is how much one request may carry, in bytes.
func (c *Client) MaxPayload() int { return int(c.payload) }

// Done gives each request that was started, once, in the order of the answers. When the connection is over it gives the
// rest, with that error.
func (c *Client) Done() <-chan *Request { return c.done }

// Ended is closed when the connection is over.
func (c *Client) Ended() <-chan struct{} { return c.ended }

// Start sends a request. At most MaxPending may be started and not taken from Done. Errors: the connection is over; then the
// request does not come out of Done, or has already.
func (c *Client) Start(r *Request) error {
	c.mu.Lock()
	if c.err != nil {
		defer c.mu.Unlock()
		return c.err
	}
	c.cookie++
	cookie := c.cookie
	c.pending[cookie] = r
	c.mu.Unlock()
	b := c.head[:]
	be.PutUint32(b, protocol.TRANSMISSION_MAGIC_REQUEST)
	be.PutUint16(b[4:], 0)
	be.PutUint16(b[6:], uint16(r.Command))
	be.PutUint64(b[8:], cookie)
	be.PutUint64(b[16:], uint64(r.Offset))
	be.PutUint32(b[24:], r.Length)
	bufs := net.Buffers{b}
	if r.Command == Write {
		bufs = append(bufs, r.Data)
	}
	if _, err := bufs.WriteTo(c.conn); err != nil {
		c.fail(err)
		return err
	}
	return nil
}

// Close ends the connection and waits for its goroutine.
func (c *Client) Close() {
	c.fail(net.ErrClosed)
	<-c.ended
}

func (c *Client) runReplies() {
	defer close(c.ended)
	for {
		if err := c.reply(); err != nil {
			if errors.Is(err, io.EOF) {
				err = errors.New("the NBD server hung up")
			}
			c.fail(err)
			return
		}
	}
}

func (c *Client) reply() error {
	var h [16]byte
	if _, err := io.ReadFull(c.r, h[:]); err != nil {
		return err
	}
	c.mu.Lock()
	r := c.pending[be.Uint64(h[8:])]
	c.mu.Unlock()
	if be.Uint32(h[:]) != protocol.TRANSMISSION_MAGIC_REPLY || r == nil {
		return fmt.Errorf("the NBD server sends a malformed reply: magic %#x, cookie %d", be.Uint32(h[:]), be.Uint64(h[8:]))
	}
	if code := be.Uint32(h[4:]); code != 0 {
		r.Err = fmt.Errorf("the NBD server fails to %v %d bytes at %d: %w", r.Command, r.Length, r.Offset, syscall.Errno(code))
	} else if r.Command == Read {
		if _, err := io.ReadFull(c.r, r.Data[:r.Length]); err != nil {
			return err
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil { // else fail has given it back
		delete(c.pending, be.Uint64(h[8:]))
		c.done <- r
	}
	return nil
}

// fail ends the connection and gives back what waits for an answer.
func (c *Client) fail(err error) {
	c.conn.Close()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return
	}
	c.err = err
	for cookie, r := range c.pending {
		delete(c.pending, cookie)
		r.Err = err
		c.done <- r // there is room: at most MaxPending were started
	}
}

// Err is why the connection is over; nil while it is not.
func (c *Client) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}
