package nbdsrv_test

import (
	"sync/atomic"
	"syscall"
	"testing"

	"cawrm/nbdsrv"
)

// countingDev is a device that counts its changes. Each of its flushes waits for a word.
type countingDev struct {
	*memDev
	changes atomic.Uint64
	apart   atomic.Bool // no flush may share a call
	called  chan uint64 // a flush has begun, after so many changes
	word    chan error
}

func newCountingDev() *countingDev {
	return &countingDev{memDev: newMemDev(mib), called: make(chan uint64, 100), word: make(chan error)}
}

func (d *countingDev) Changes() (uint64, bool) { return d.changes.Load(), !d.apart.Load() }

func (d *countingDev) TryWriteAt(p []byte, off int64) error {
	defer d.changes.Add(1)
	return d.memDev.TryWriteAt(p, off)
}

func (d *countingDev) Flush() error {
	d.called <- d.changes.Load()
	return <-d.word
}

// flushes sends so many flushes and returns their cookies. The read behind them is answered when the server has taken them all.
func (c *client) flushes(n int) (cookies []uint64) {
	for range n {
		cookies = append(cookies, c.start(req{typ: cmdFlush}))
	}
	c.must(0, req{typ: cmdRead, length: 1})
	return cookies
}

// TestFlushesShareACall ensures that flushes which come while one is under way are answered with it, and not before, when nothing has
// changed since it began; also with its error.
func TestFlushesShareACall(t *testing.T) {
	d := newCountingDev()
	h := serve(t, nbdsrv.Config{}, nbdsrv.Export{Name: "x", Device: d, MultiConn: true})
	eachMode(t, func(t *testing.T, mode int) {
		c := h.open(mode)
		for _, err := range []error{nil, syscall.EIO} {
			c.write(0, []byte("x"), 0)
			first := c.flushes(1)
			<-d.called
			rest := c.flushes(40)
			d.word <- err
			want := uint32(0)
			if err != nil {
				want = 5
			}
			for _, k := range append(first, rest...) {
				if r := c.wait(k); r.err != want {
					t.Fatalf("a flush is answered with error %d, want %d", r.err, want)
				}
			}
			if n := len(d.called); n > 0 {
				t.Fatalf("%d further flushes have reached the device", n)
			}
		}
	})
}

// TestFlushAfterAChangeIsAnother ensures that a flush which comes when something has changed since the one under way began is answered
// only when another has been made, also if it was on another connection; and that none shares a call where the device says so.
func TestFlushAfterAChangeIsAnother(t *testing.T) {
	d := newCountingDev()
	h := serve(t, nbdsrv.Config{}, nbdsrv.Export{Name: "x", Device: d, MultiConn: true})
	a, b := h.open(compact), h.open(compact)
	for _, change := range []func(){
		func() { a.write(0, []byte("x"), 0) },
		func() { b.write(0, []byte("x"), 0) },
		func() { d.apart.Store(true) },
	} {
		first := a.flushes(1)
		before := <-d.called
		change()
		changed := d.changes.Load()
		rest := a.flushes(2)
		d.word <- nil
		a.wait(first[0])
		for _, k := range rest {
			if a.replies[k].done {
				t.Fatal("a flush was answered with one that began before the last change")
			}
		}
		if after := <-d.called; after != changed || changed == before && !d.apart.Load() {
			t.Fatalf("the next flush has reached the device after %d changes, the one before after %d, %d were made", after, before, changed)
		}
		d.word <- nil
		if d.apart.Load() {
			<-d.called
			d.word <- nil
		}
		for _, k := range rest {
			if r := a.wait(k); r.err != 0 {
				t.Fatalf("%+v", r)
			}
		}
	}
}
