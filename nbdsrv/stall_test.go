package nbdsrv_test

import (
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"cawrm/nbdsrv"
)

// pipes is a listener of connections without any buffer, in virtual time.
type pipes struct {
	arrive chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func newPipes() *pipes { return &pipes{arrive: make(chan net.Conn), closed: make(chan struct{})} }

func (l *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-l.arrive:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}
func (l *pipes) Close() error   { l.once.Do(func() { close(l.closed) }); return nil }
func (l *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipe", Net: "unix"} }

// inVirtualTime runs f with clients of a server with the default timeouts.
func inVirtualTime(t *testing.T, f func(t *testing.T, s *nbdsrv.Server, d *memDev, open func(mode int) *client)) {
	synctest.Test(t, func(t *testing.T) {
		l, d := newPipes(), newMemDev(64*mib)
		for i := range d.present {
			d.present[i] = true // reads send data
		}
		h := &harness{t: t, s: nbdsrv.New(nbdsrv.Config{})}
		if err := h.s.AddExport(nbdsrv.Export{Name: "x", Device: d}); err != nil {
			t.Fatal(err)
		}
		h.listen(l)
		defer h.stop()
		var all []net.Conn
		f(t, h.s, d, func(mode int) *client {
			near, far := net.Pipe()
			all = append(all, near)
			l.arrive <- far
			c := &client{t: t, nc: near, replies: map[uint64]*reply{}}
			c.greeting(3)
			c.negotiate(mode, "x")
			return c
		})
		for _, c := range all {
			c.Close()
		}
	})
}

// gone says whether the server has hung up, without waiting for it.
func gone(c *client) bool {
	synctest.Wait()
	c.nc.SetReadDeadline(time.Now().Add(time.Nanosecond))
	defer c.nc.SetReadDeadline(never)
	for b := make([]byte, mib); ; {
		if _, err := c.nc.Read(b); err != nil {
			return isEnd(err)
		}
	}
}

// TestStalledClientIsCut ensures that a client which leaves a request half sent, or its replies unread, holds memory
// for about a minute and no longer, however it drips.
func TestStalledClientIsCut(t *testing.T) { // 40
	const limit = time.Minute
	half := func(c *client) []byte {
		return append(c.header(req{typ: cmdWrite, length: 32 * mib, cookie: 1}), make([]byte, 300<<10)...)
	}
	drip := func(c *client, step func(b []byte) (int, error)) { // a byte a second, for an hour
		for range 3600 {
			if _, err := step(make([]byte, 1)); err != nil {
				return
			}
			time.Sleep(time.Second)
		}
		c.t.Error("it may drip for an hour")
	}
	for name, stall := range map[string]func(c *client){
		"half a header":          func(c *client) { c.send(c.header(req{typ: cmdWrite, length: 10})[:20]) },
		"half a small payload":   func(c *client) { c.send(append(c.header(req{typ: cmdWrite, length: 10}), 1)) },
		"half a large payload":   func(c *client) { c.send(half(c)) },
		"half a refused payload": func(c *client) { c.send(append(c.header(req{typ: cmdWrite, off: 1 << 40, length: 32 * mib}), 1)) },
		"a payload that drips":   func(c *client) { c.send(half(c)); drip(c, c.nc.Write) },
		"a small reply unread":   func(c *client) { c.send(c.header(req{typ: cmdFlush})) },
		"a large reply unread":   func(c *client) { c.send(c.header(req{typ: cmdRead, length: 32 * mib})) },
		"a reply read by drips": func(c *client) {
			c.send(c.header(req{typ: cmdRead, length: 32 * mib}))
			drip(c, c.nc.Read)
		},
	} {
		t.Run(name, func(t *testing.T) {
			inVirtualTime(t, func(t *testing.T, s *nbdsrv.Server, _ *memDev, open func(int) *client) {
				for mode := range modeNames {
					stall(open(mode))
				}
				time.Sleep(limit + limit/2)
				synctest.Wait()
				if st := s.Stats(); st.Stalled != 3 || st.Connections != 0 || st.InflightBytes != 0 {
					t.Errorf("%+v", st)
				}
			})
		})
	}
}

// TestPatientClientIsKept ensures that nobody is cut who has nothing outstanding, who waits for the device, or who is
// merely slow.
func TestPatientClientIsKept(t *testing.T) { // 40
	inVirtualTime(t, func(t *testing.T, s *nbdsrv.Server, d *memDev, open func(int) *client) {
		idle, waits, slow, bit := open(structured), open(compact), open(extended), open(compact)
		idle.write(0, []byte("x"), 0)
		for i := range uint64(20) { // a byte a second: each request is done in time
			bit.cookie++
			bit.replies[bit.cookie] = &reply{req: req{typ: cmdWrite, length: 5}}
			b := append(bit.header(req{typ: cmdWrite, off: i, length: 5, cookie: bit.cookie}), 1, 2, 3, 4, 5)
			for j := range b {
				bit.send(b[j : j+1])
				time.Sleep(time.Second)
			}
			bit.wait(bit.cookie)
		}
		unblock := d.shut()
		w := waits.start(req{typ: cmdWrite, payload: pattern(1, mib)})
		time.Sleep(10 * time.Hour)
		if gone(idle) || gone(waits) {
			t.Fatal("cut off without a fault of its own")
		}
		unblock()
		waits.wait(w)
		p := pattern(2, 8*mib) // at 10 KiB a second
		b := append(slow.header(req{typ: cmdWrite, length: uint64(len(p)), cookie: 1}), p...)
		slow.replies[1] = &reply{req: req{typ: cmdWrite}}
		for ; len(b) > 0; b = b[min(len(b), 10<<10):] {
			slow.send(b[:min(len(b), 10<<10)])
			time.Sleep(time.Second)
		}
		slow.wait(1)
		slow.send(slow.header(req{typ: cmdRead, length: 8 * mib, cookie: 2}))
		slow.replies[2] = &reply{req: req{typ: cmdRead, length: 8 * mib}}
		got := 0
		for b := make([]byte, 10<<10); got < 8*mib; time.Sleep(time.Second) {
			n, err := slow.nc.Read(b)
			if err != nil {
				t.Fatalf("after %d bytes: %v", got, err)
			}
			got += n
		}
		idle.write(0, []byte("y"), 0)
		if st := s.Stats(); st.Stalled != 0 {
			t.Errorf("%+v", st)
		}
	})
}
