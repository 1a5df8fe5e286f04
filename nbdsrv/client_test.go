package nbdsrv_test

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"cawrm/nbdsrv"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// The numbers of the protocol stand here a second time, on purpose: a wrong constant in the server
// would not be found with its own constants.
const (
	iHaveOpt = 0x49484156454F5054

	optExportName, optAbort, optList, optStartTLS    = 1, 2, 3, 5
	optInfo, optGo, optStructured, optListMeta       = 6, 7, 8, 9
	optSetMeta, optExtended                          = 10, 11
	repAck, repServer, repInfo, repMeta              = 1, 2, 3, 4
	errUnsup, errPolicy, errInvalid                  = 1<<31 | 1, 1<<31 | 2, 1<<31 | 3
	errTLSReqd, errUnknown, errShutdown, errTooBig   = 1<<31 | 5, 1<<31 | 6, 1<<31 | 7, 1<<31 | 9
	errExtReqd                                       = 1<<31 | 10
	cmdRead, cmdWrite, cmdDisc, cmdFlush, cmdTrim    = 0, 1, 2, 3, 4
	cmdCache, cmdZeroes, cmdStatus                   = 5, 6, 7
	fFUA, fNoHole, fDF, fReqOne, fFastZero, fPayload = 1, 2, 4, 8, 16, 32
	eperm, eio, einval, enospc, eoverflow, enotsup   = 1, 5, 22, 28, 75, 95
	eshutdown                                        = 108
)

const (
	compact    = iota // simple replies
	structured        // structured replies
	extended          // extended headers
)

var modeNames = []string{"simple", "structured", "extended"}

// patience is how long a test waits for what should happen at once.
const patience = 20 * time.Second

// never is the deadline of a connection without one.
var never time.Time

// harness is a server on a unix socket that the test's end shuts down.
type harness struct {
	t    testing.TB
	s    *nbdsrv.Server
	addr string

	serving sync.WaitGroup
}

func serve(t testing.TB, cfg nbdsrv.Config, exports ...nbdsrv.Export) *harness {
	t.Helper()
	h := &harness{t: t, s: nbdsrv.New(cfg), addr: filepath.Join(t.TempDir(), "s")}
	for _, e := range exports {
		if err := h.s.AddExport(e); err != nil {
			t.Fatal(err)
		}
	}
	l, err := net.Listen("unix", h.addr)
	if err != nil {
		t.Fatal(err)
	}
	h.listen(l)
	t.Cleanup(h.stop)
	return h
}

func (h *harness) listen(l net.Listener) {
	h.serving.Go(func() {
		if err := h.s.Serve(l); err != nbdsrv.ErrServerClosed {
			h.t.Errorf("Serve: %v", err)
		}
	})
}

func (h *harness) stop() {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := h.s.Shutdown(ctx); err != nil {
		h.t.Errorf("Shutdown: %v", err)
	}
	h.serving.Wait()
	if n := h.s.Stats().InflightBytes; n != 0 {
		h.t.Errorf("%d bytes still in flight after Shutdown", n)
	}
}

// raw connects without a word.
func (h *harness) raw() net.Conn {
	h.t.Helper()
	nc, err := net.Dial("unix", h.addr)
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { nc.Close() })
	nc.SetDeadline(time.Now().Add(patience))
	return nc
}

// connect is a client that has read the greeting and sent its flags.
func (h *harness) connect(flags uint32) *client {
	h.t.Helper()
	c := &client{t: h.t, nc: h.raw(), replies: map[uint64]*reply{}}
	c.greeting(flags)
	return c
}

// open is a client in the transmission phase on the default export.
func (h *harness) open(mode int) *client {
	h.t.Helper()
	return h.openExport(mode, "")
}

func (h *harness) openExport(mode int, name string) *client {
	h.t.Helper()
	c := h.connect(3)
	c.negotiate(mode, name)
	return c
}

// client is a small and literal NBD client.
type client struct {
	t       testing.TB
	nc      net.Conn
	mode    int
	size    uint64
	flags   uint16
	metaID  uint32
	cookie  uint64
	replies map[uint64]*reply
}

type optReply struct {
	typ  uint32
	data []byte
}

func (c *client) greeting(flags uint32) {
	c.t.Helper()
	b := c.recv(18)
	if string(b[:16]) != "NBDMAGICIHAVEOPT" || binary.BigEndian.Uint16(b[16:]) != 3 {
		c.t.Fatalf("greeting %x", b)
	}
	c.send(binary.BigEndian.AppendUint32(nil, flags))
}

func (c *client) negotiate(mode int, name string) {
	c.t.Helper()
	c.mode = mode
	switch mode {
	case structured:
		c.ack(optStructured, nil)
	case extended:
		c.ack(optExtended, nil)
	}
	if mode != compact {
		r := c.option(optSetMeta, metaQuery(name, "base:allocation"))
		if len(r) != 2 || r[0].typ != repMeta || r[1].typ != repAck {
			c.t.Fatalf("SET_META_CONTEXT: %v", r)
		}
		c.metaID = binary.BigEndian.Uint32(r[0].data)
	}
	c.enter(name)
}

// enter is GO.
func (c *client) enter(name string) {
	c.t.Helper()
	r := c.option(optGo, infoRequest(name))
	if r[len(r)-1].typ != repAck {
		c.t.Fatalf("GO: %v", r)
	}
	c.size = binary.BigEndian.Uint64(r[0].data[2:])
	c.flags = binary.BigEndian.Uint16(r[0].data[10:])
}

func (c *client) send(b []byte) {
	c.t.Helper()
	if _, err := c.nc.Write(b); err != nil {
		c.t.Fatalf("send: %v", err)
	}
}

func (c *client) recv(n int) []byte {
	c.t.Helper()
	b := make([]byte, n)
	if _, err := io.ReadFull(c.nc, b); err != nil {
		c.t.Fatalf("receive %d bytes: %v", n, err)
	}
	return b
}

// closed fails unless the server closes the connection without another byte.
func (c *client) closed() {
	c.t.Helper()
	var b [1]byte
	if n, err := c.nc.Read(b[:]); n != 0 || !isEnd(err) {
		c.t.Fatalf("want the end, got %d bytes %x, %v", n, b[:n], err)
	}
}

func isEnd(err error) bool {
	var ne net.Error
	return err != nil && !(errors.As(err, &ne) && ne.Timeout())
}

func optionBytes(id uint32, data []byte) []byte {
	b := binary.BigEndian.AppendUint64(nil, iHaveOpt)
	b = binary.BigEndian.AppendUint32(b, id)
	b = binary.BigEndian.AppendUint32(b, uint32(len(data)))
	return append(b, data...)
}

// option sends an option and collects replies up to the final one.
func (c *client) option(id uint32, data []byte) []optReply {
	c.t.Helper()
	c.send(optionBytes(id, data))
	var all []optReply
	for {
		h := c.recv(20)
		if binary.BigEndian.Uint64(h) != 0x3e889045565a9 || binary.BigEndian.Uint32(h[8:]) != id {
			c.t.Fatalf("option %d: reply header %x", id, h)
		}
		r := optReply{binary.BigEndian.Uint32(h[12:]), c.recv(int(binary.BigEndian.Uint32(h[16:])))}
		all = append(all, r)
		if r.typ == repAck || r.typ>>31 == 1 {
			return all
		}
	}
}

// ack and refused are options with a single reply.
func (c *client) ack(id uint32, data []byte) { c.t.Helper(); c.refused(repAck, id, data) }

func (c *client) refused(want, id uint32, data []byte) {
	c.t.Helper()
	if r := c.option(id, data); len(r) != 1 || r[0].typ != want {
		c.t.Fatalf("option %d: got %x, want %x", id, r, want)
	}
}

func str(s string) []byte {
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(s))), s...)
}

func infoRequest(name string, infos ...uint16) []byte {
	b := binary.BigEndian.AppendUint16(str(name), uint16(len(infos)))
	for _, i := range infos {
		b = binary.BigEndian.AppendUint16(b, i)
	}
	return b
}

func metaQuery(name string, queries ...string) []byte {
	b := binary.BigEndian.AppendUint32(str(name), uint32(len(queries)))
	for _, q := range queries {
		b = append(b, str(q)...)
	}
	return b
}

// req is a request as a test spells it.
type req struct {
	typ     uint16
	flags   uint16
	off     uint64
	length  uint64
	payload []byte
	cookie  uint64 // 0: the next one
}

func (c *client) header(r req) []byte {
	magic := uint32(0x25609513)
	if c.mode == extended {
		magic = 0x21e41c71
		if r.typ == cmdWrite {
			r.flags |= fPayload
		}
	}
	b := binary.BigEndian.AppendUint32(nil, magic)
	b = binary.BigEndian.AppendUint16(b, r.flags)
	b = binary.BigEndian.AppendUint16(b, r.typ)
	b = binary.BigEndian.AppendUint64(b, r.cookie)
	b = binary.BigEndian.AppendUint64(b, r.off)
	if c.mode == extended {
		return binary.BigEndian.AppendUint64(b, r.length)
	}
	return binary.BigEndian.AppendUint32(b, uint32(r.length))
}

// start sends a request and returns its cookie.
func (c *client) start(r req) uint64 {
	c.t.Helper()
	if r.cookie == 0 {
		c.cookie++
		r.cookie = c.cookie
	}
	if r.typ == cmdWrite && r.length == 0 {
		r.length = uint64(len(r.payload))
	}
	c.replies[r.cookie] = &reply{req: r}
	c.send(append(c.header(r), r.payload...))
	return r.cookie
}

// reply is all that came for a request.
type reply struct {
	req     req
	err     uint32
	text    string
	data    []byte // of a read, holes filled in
	covered uint64 // bytes of the read that chunks have described
	chunks  int    // content chunks
	holes   int
	extents [][2]uint64 // length, flags
	metaID  uint32
	simple  bool
	done    bool
}

// next reads one message and returns its reply, which may not be done.
func (c *client) next() *reply {
	c.t.Helper()
	b := c.recv(16)
	switch magic := binary.BigEndian.Uint32(b); {
	case magic == 0x67446698 && c.mode != extended:
		r := c.find(binary.BigEndian.Uint64(b[8:]))
		if c.mode == structured && r.req.typ == cmdRead {
			c.t.Fatalf("simple reply to a read")
		}
		r.err, r.done, r.simple = binary.BigEndian.Uint32(b[4:]), true, true
		if r.req.typ == cmdRead && r.err == 0 {
			r.data = c.recv(int(r.req.length))
			r.covered = r.req.length
		}
		return r
	case magic == 0x668e33ef && c.mode == structured:
		n := binary.BigEndian.Uint32(c.recv(4))
		return c.chunk(b, uint64(n))
	case magic == 0x6e8a278c && c.mode == extended:
		x := c.recv(16)
		r := c.find(binary.BigEndian.Uint64(b[8:]))
		if off := binary.BigEndian.Uint64(x); off != r.req.off {
			c.t.Fatalf("offset %d not echoed: %d", r.req.off, off)
		}
		return c.chunk(b, binary.BigEndian.Uint64(x[8:]))
	}
	c.t.Fatalf("%s: reply header %x", modeNames[c.mode], b)
	return nil
}

func (c *client) find(cookie uint64) *reply {
	c.t.Helper()
	r := c.replies[cookie]
	if r == nil || r.done {
		c.t.Fatalf("reply to no request: cookie %#x", cookie)
	}
	return r
}

// chunk reads the payload of a chunk and checks what the protocol says about it.
func (c *client) chunk(h []byte, n uint64) *reply {
	c.t.Helper()
	flags, typ := binary.BigEndian.Uint16(h[4:]), binary.BigEndian.Uint16(h[6:])
	r := c.find(binary.BigEndian.Uint64(h[8:]))
	p := c.recv(int(n))
	r.done = flags&1 != 0
	if flags > 1 {
		c.t.Fatalf("chunk flags %x", flags)
	}
	switch typ {
	case 0:
		if n != 0 || !r.done {
			c.t.Fatalf("NONE with %d bytes, done %v", n, r.done)
		}
	case 1, 2:
		c.content(r, typ, p)
	case 5, 6:
		c.status(r, typ, p)
	case 1<<15 | 1:
		r.err = binary.BigEndian.Uint32(p)
		r.text = string(p[6:])
		if r.err == 0 || int(binary.BigEndian.Uint16(p[4:])) != len(r.text) {
			c.t.Fatalf("error chunk %x", p)
		}
	default:
		c.t.Fatalf("chunk type %d", typ)
	}
	if r.done && r.req.typ == cmdRead && r.err == 0 && r.covered != r.req.length {
		c.t.Fatalf("chunks cover %d of %d bytes", r.covered, r.req.length)
	}
	return r
}

func (c *client) content(r *reply, typ uint16, p []byte) {
	c.t.Helper()
	if r.data == nil {
		r.data = make([]byte, r.req.length)
		for i := range r.data {
			r.data[i] = 0xdb
		}
	}
	off := binary.BigEndian.Uint64(p)
	n := uint64(len(p)) - 8
	if typ == 2 {
		n = uint64(binary.BigEndian.Uint32(p[8:]))
		r.holes++
	}
	if r.req.typ != cmdRead || n == 0 || off < r.req.off || off+n > r.req.off+r.req.length {
		c.t.Fatalf("chunk %d+%d in answer to %+v", off, n, r.req)
	}
	if r.chunks > 0 && r.req.flags&fDF != 0 {
		c.t.Fatalf("fragments despite DF")
	}
	r.chunks++
	r.covered += n // chunks of this server come in order; overlap would exceed the length
	at := r.data[off-r.req.off:][:n]
	clear(at)
	if typ == 1 {
		copy(at, p[8:])
	}
}

func (c *client) status(r *reply, typ uint16, p []byte) {
	c.t.Helper()
	if r.req.typ != cmdStatus || (typ == 6) != (c.mode == extended) || r.extents != nil {
		c.t.Fatalf("chunk type %d in answer to %+v", typ, r.req)
	}
	r.metaID = binary.BigEndian.Uint32(p)
	p = p[4:]
	if typ == 6 {
		if n := binary.BigEndian.Uint32(p); int(n)*16 != len(p)-4 {
			c.t.Fatalf("%d extents in %d bytes", n, len(p))
		}
		for p = p[4:]; len(p) > 0; p = p[16:] {
			r.extents = append(r.extents, [2]uint64{binary.BigEndian.Uint64(p), binary.BigEndian.Uint64(p[8:])})
		}
	}
	for ; len(p) > 0; p = p[8:] {
		r.extents = append(r.extents, [2]uint64{
			uint64(binary.BigEndian.Uint32(p)), uint64(binary.BigEndian.Uint32(p[4:])),
		})
	}
	if len(r.extents) == 0 {
		c.t.Fatal("no extents")
	}
	var sum uint64
	for i, x := range r.extents {
		if x[0] == 0 || sum >= c.statusLength(r.req) {
			c.t.Fatalf("extents %v for %+v", r.extents, r.req)
		}
		if i > 0 && r.extents[i-1][1] == x[1] {
			c.t.Fatalf("equal neighbours in %v", r.extents)
		}
		sum += x[0]
	}
	if r.req.flags&fReqOne != 0 && (len(r.extents) != 1 || sum > c.statusLength(r.req)) {
		c.t.Fatalf("REQ_ONE: %v", r.extents)
	}
}

// statusLength is the effect length of a BLOCK_STATUS, which may be in the payload.
func (c *client) statusLength(r req) uint64 {
	if r.flags&fPayload != 0 && len(r.payload) >= 8 {
		return binary.BigEndian.Uint64(r.payload)
	}
	return r.length
}

// wait reads until the request is answered.
func (c *client) wait(cookie uint64) *reply {
	c.t.Helper()
	r := c.replies[cookie]
	for !r.done {
		c.next()
	}
	delete(c.replies, cookie)
	return r
}

// do sends a request and waits for the answer.
func (c *client) do(r req) *reply { c.t.Helper(); return c.wait(c.start(r)) }

// must is do with the error value wanted.
func (c *client) must(want uint32, r req) *reply {
	c.t.Helper()
	got := c.do(r)
	if got.err != want {
		c.t.Fatalf("%s: command %d flags %x %d+%d: error %d %q, want %d",
			modeNames[c.mode], r.typ, r.flags, r.off, r.length, got.err, got.text, want)
	}
	return got
}

func (c *client) write(off uint64, p []byte, flags uint16) {
	c.t.Helper()
	c.must(0, req{typ: cmdWrite, flags: flags, off: off, payload: p})
}

func (c *client) read(off uint64, n int) []byte {
	c.t.Helper()
	return c.must(0, req{typ: cmdRead, off: off, length: uint64(n)}).data
}

// eachMode runs a test once for each kind of headers.
func eachMode(t *testing.T, f func(t *testing.T, mode int)) {
	for mode, name := range modeNames {
		t.Run(name, func(t *testing.T) { f(t, mode) })
	}
}

// pattern is n bytes that tell where they came from.
func pattern(seed, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i*7+seed*31+i>>8) | 1
	}
	return b
}

// eventually waits for a condition that another goroutine brings about.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("never: " + what)
		}
	}
}

func be64(b []byte) uint64 { return binary.BigEndian.Uint64(b) }

func readFull(r io.Reader, b []byte) (int, error) { return io.ReadFull(r, b) }
