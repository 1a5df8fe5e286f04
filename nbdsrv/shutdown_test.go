package nbdsrv_test

import (
	"bytes"
	"context"
	"errors"
	"net"
	"testing"
	"time"

	"cawrm/nbdsrv"
)

// begin runs f and returns a channel with its result.
func begin(f func() error) chan error {
	ch := make(chan error, 1)
	go func() { ch <- f() }()
	return ch
}

func shutdown(h *harness, d time.Duration) chan error {
	return begin(func() error {
		ctx, cancel := context.WithTimeout(context.Background(), d)
		defer cancel()
		return h.s.Shutdown(ctx)
	})
}

func TestShutdownAnswersInFlight(t *testing.T) { // 38
	eachMode(t, func(t *testing.T, mode int) {
		h, d := one(t, 4*mib)
		c := h.open(mode)
		open := d.shut()
		p := pattern(1, 100<<10)
		w := c.start(req{typ: cmdWrite, payload: p})
		r := c.start(req{typ: cmdRead, off: mib, length: mib})
		f := c.start(req{typ: cmdFlush, flags: fFUA})
		eventually(t, "all are in the device", func() bool { return d.calls.Load() == 3 })
		done := shutdown(h, patience)
		eventually(t, "the listener is gone", func() bool {
			nc, err := net.Dial("unix", h.addr)
			if err == nil {
				nc.Close()
			}
			return err != nil
		})
		d.block.Store(false)
		onItsWay := c.start(req{typ: cmdWrite, off: 2 * mib, payload: []byte("on its way")})
		time.Sleep(300 * time.Millisecond) // longer than a draining connection is served
		// Linux and qemu would take an error for the medium's; closed sees that no answer comes.
		c.start(req{typ: cmdWrite, payload: []byte("late")})
		c.start(req{typ: cmdRead, length: 10})
		time.Sleep(60 * time.Millisecond) // longer than one wait of a draining connection
		select {
		case err := <-done:
			t.Fatal("Shutdown returned with requests in flight: ", err)
		default:
		}
		open()
		for _, k := range []uint64{w, r, f, onItsWay} {
			if x := c.wait(k); x.err != 0 {
				t.Fatalf("%+v", x.req)
			}
		}
		c.closed()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if got := make([]byte, len(p)); !bytes.Equal(d.readAll(got), p) {
			t.Fatal("an acknowledged write is lost")
		}
	})
}

func TestShutdownIdle(t *testing.T) { // 38
	h, _ := one(t, mib)
	for mode := range modeNames {
		h.open(mode)
	}
	h.connect(3) // in the handshake
	h.raw()      // before it
	start := time.Now()
	if err := <-shutdown(h, patience); err != nil {
		t.Fatal(err)
	}
	if d := time.Since(start); d > 10*time.Second {
		t.Fatal(d)
	}
	if h.s.Serve(nil2()) != nbdsrv.ErrServerClosed {
		t.Fatal("Serve after Shutdown")
	}
}

// nil2 is a listener that nobody calls.
func nil2() net.Listener {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	return l
}

func TestShutdownInHandshake(t *testing.T) { // 38
	h, _ := one(t, mib)
	c := h.connect(3)
	c.ack(optStructured, nil)
	done := shutdown(h, patience)
	eventually(t, "the server drains", func() bool {
		nc, err := net.Dial("unix", h.addr)
		if err == nil {
			nc.Close()
		}
		return err != nil
	})
	// Either answer is in order: the refusal or, when the wait is over, the end.
	if _, err := c.nc.Write(optionBytes(optList, nil)); err == nil {
		b := make([]byte, 20)
		if n, _ := c.nc.Read(b); n == 20 && !bytes.Equal(b[12:16], []byte{0x80, 0, 0, 7}) {
			t.Fatalf("%x", b)
		}
	}
	c.nc.Close()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func TestShutdownForced(t *testing.T) { // 38
	h, d := one(t, mib)
	c := h.open(structured)
	open := d.shut()
	c.start(req{typ: cmdFlush})
	eventually(t, "the flush runs", func() bool { return d.calls.Load() == 1 })
	if err := <-shutdown(h, 50*time.Millisecond); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatal(err)
	}
	c.closed()
	open()
	if err := <-shutdown(h, patience); err != nil { // a second call waits for the rest
		t.Fatal(err)
	}
}

// TestShutdownUnderLoad checks that every write that was answered with success is there.
func TestShutdownUnderLoad(t *testing.T) { // 38
	h, d := one(t, 16*mib)
	c := h.open(extended)
	acked := make(chan uint64, 1<<16)
	go func() {
		for i := uint64(0); ; i++ {
			b := c.header(req{typ: cmdWrite, off: i % 4096 * page, length: 512, cookie: i})
			if _, err := c.nc.Write(append(b, bytes.Repeat([]byte{byte(i)}, 512)...)); err != nil {
				return
			}
		}
	}()
	go func() {
		defer close(acked)
		for {
			var b [64]byte
			if _, err := readFull(c.nc, b[:32]); err != nil {
				return
			}
			if n := int(b[31]); n != 0 {
				readFull(c.nc, b[:n])
				continue
			}
			acked <- be64(b[8:])
		}
	}()
	time.Sleep(50 * time.Millisecond)
	if err := <-shutdown(h, patience); err != nil {
		t.Fatal(err)
	}
	last := map[uint64]uint64{}
	n := 0
	for i := range acked {
		last[i%4096] = max(last[i%4096], i)
		n++
	}
	if n == 0 {
		t.Fatal("nothing was answered")
	}
	// A later write of the same page may have been done and not answered; then its value is newer.
	for at, i := range last {
		one := make([]byte, 1)
		d.read(one, int64(at)*page)
		if got := one[0]; byte(i) != got && byte(i+4096) != got {
			t.Fatalf("write %d: page %d holds %d", i, at, got)
		}
	}
}

func TestRemoveExport(t *testing.T) {
	h := serve(t, nbdsrv.Config{}, two()...)
	a, b := h.openExport(structured, "alpha"), h.openExport(structured, "beta")
	late := h.connect(3)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := h.s.RemoveExport(ctx, "alpha"); err != nil {
		t.Fatal(err)
	}
	a.closed()
	b.read(0, 512)
	late.refused(errUnknown, optGo, infoRequest("alpha"))
	if r := late.option(optList, nil); len(r) != 2 {
		t.Fatalf("%x", r)
	}
	if h.s.RemoveExport(ctx, "alpha") == nil {
		t.Fatal("removed twice")
	}
	if err := h.s.AddExport(nbdsrv.Export{Name: "alpha", Device: newMemDev(4 * mib)}); err != nil {
		t.Fatal(err)
	}
	late.enter("alpha")
	if late.size != 4*mib {
		t.Fatal(late.size)
	}
}

func TestSeveralListeners(t *testing.T) {
	h, _ := one(t, mib)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Skip("no TCP here: ", err)
	}
	h.listen(l)
	nc, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	c := &client{t: t, nc: nc, replies: map[uint64]*reply{}}
	c.greeting(3)
	c.negotiate(extended, "x")
	c.write(0, []byte("over TCP"), 0)
	if got := h.open(compact).read(0, 8); string(got) != "over TCP" {
		t.Fatalf("%q", got)
	}
}

// TestPlainConn has the server on a net.Conn that is neither TCP nor unix.
func TestPlainConn(t *testing.T) {
	d := newMemDev(4 * mib)
	h := serve(t, nbdsrv.Config{}, nbdsrv.Export{Device: plain{d}})
	l := &pipeListener{conns: make(chan net.Conn), done: make(chan struct{})}
	h.listen(l)
	near, far := net.Pipe()
	l.conns <- far
	c := &client{t: t, nc: near, replies: map[uint64]*reply{}}
	c.greeting(3)
	c.negotiate(structured, "")
	c.write(5, pattern(1, 300<<10), 0)
	if !bytes.Equal(c.read(5, 300<<10), pattern(1, 300<<10)) {
		t.Fatal("read back")
	}
	near.Close()
}

type pipeListener struct {
	conns chan net.Conn
	done  chan struct{}
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error {
	select {
	case <-l.done:
	default:
		close(l.done)
	}
	return nil
}

func (l *pipeListener) Addr() net.Addr { return &net.UnixAddr{Name: "pipe"} }
