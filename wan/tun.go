package wan

import (
	"container/heap"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// tun is two TUN devices and a forwarder between them, for kernels without
// netem. Each direction is a forward with two goroutines.
type tun struct {
	files [2]*os.File
	ways  [2]*forward
	wg    sync.WaitGroup
}

func newTun(near, far *space, p Profile) (shaper, error) {
	t := &tun{}
	for i, end := range []struct {
		s  *space
		ip string
	}{{near, nearIP}, {far, farIP}} {
		f, err := openTun(end.s)
		if err == nil {
			t.files[i] = f
			err = end.s.address(device, end.ip)
		}
		if err != nil {
			t.close()
			return nil, fmt.Errorf("a TUN device (kernel option TUN, /dev/net/tun): %w", err)
		}
	}
	for i := range t.ways {
		t.ways[i] = newForward(p, uint64(i))
		t.wg.Go(func() { t.ways[i].runTake(t.files[i]) })
		t.wg.Go(func() { t.ways[i].runDeliver(t.files[1-i]) })
	}
	return t, nil
}

// openTun makes a TUN device in the namespace; it ends with its descriptor.
func openTun(s *space) (f *os.File, err error) {
	err = s.do(func() error {
		fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
		if err != nil {
			return err
		}
		req, err := unix.NewIfreq(device)
		if err == nil {
			req.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
			err = unix.IoctlIfreq(fd, unix.TUNSETIFF, req)
		}
		if err != nil {
			unix.Close(fd)
			return err
		}
		f = os.NewFile(uintptr(fd), "tun")
		return nil
	})
	if err != nil {
		return nil, err
	}
	return f, s.netlink(func(h *netlink.Handle) error {
		link, err := h.LinkByName(device)
		if err != nil {
			return err
		}
		// The device's own queue must not lose what the line would not.
		return errors.Join(h.LinkSetMTU(link, mtu), h.LinkSetTxQLen(link, 10_000))
	})
}

func (t *tun) set(p Profile) error {
	for _, w := range t.ways {
		w.set(p)
	}
	return nil
}

func (t *tun) close() error {
	var err error
	for _, w := range t.ways {
		if w != nil {
			w.close()
		}
	}
	for _, f := range t.files {
		if f != nil {
			err = errors.Join(err, f.Close())
		}
	}
	t.wg.Wait()
	return err
}

// packet is one that is under way.
type packet struct {
	b   []byte
	due time.Time
	nr  uint64 // of two that are due at the same time, the earlier goes first
}

// packets is a heap by due.
type packets []packet

func (q packets) Len() int { return len(q) }
func (q packets) Less(i, j int) bool {
	return q[i].due.Before(q[j].due) || q[i].due.Equal(q[j].due) && q[i].nr < q[j].nr
}
func (q packets) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *packets) Push(x any)   { *q = append(*q, x.(packet)) }
func (q *packets) Pop() any {
	old := *q
	p := old[len(old)-1]
	*q = old[:len(old)-1]
	return p
}

// forward is one direction of the line: a transmitter with a bounded queue,
// loss, delay.
type forward struct {
	mu      sync.Mutex
	profile Profile
	rng     *rand.Rand
	queue   packets
	free    time.Time // when the transmitter has sent all it was given
	last    time.Time // when the latest packet that keeps the order is due
	nr      uint64
	closed  bool
	ring    chan struct{} // something is queued, or it is closed
}

func newForward(p Profile, direction uint64) *forward {
	return &forward{profile: p, rng: rand.New(rand.NewPCG(p.Seed, direction)), ring: make(chan struct{}, 1)}
}

func (w *forward) set(p Profile) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.profile = p
}

func (w *forward) close() {
	w.mu.Lock()
	w.closed = true
	w.mu.Unlock()
	w.wake()
}

func (w *forward) wake() {
	select {
	case w.ring <- struct{}{}:
	default:
	}
}

// runTake reads packets until the device is closed.
func (w *forward) runTake(from *os.File) {
	buf := make([]byte, 1<<16)
	for {
		n, err := from.Read(buf)
		if err != nil {
			return
		}
		if w.take(buf[:n], time.Now()) {
			w.wake()
		}
	}
}

// take queues a packet, or loses it.
func (w *forward) take(b []byte, now time.Time) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	p := w.profile
	if p.Loss > 0 && w.rng.Float64() < p.Loss {
		return false
	}
	if w.free.Before(now) {
		w.free = now
	}
	if p.Rate > 0 && p.bytesIn(w.free.Sub(now))+len(b) > p.queue() {
		return false // the queue is full
	}
	w.free = w.free.Add(p.sending(len(b)))
	w.nr++
	q := packet{b: append([]byte(nil), b...), due: w.free.Add(p.Delay), nr: w.nr}
	if p.Jitter > 0 {
		q.due = q.due.Add(time.Duration(w.rng.Int64N(int64(p.Jitter) + 1)))
	}
	switch {
	case p.Reorder > 0 && w.rng.Float64() < p.Reorder:
		q.due = w.free // it overtakes those under way, as netem does it
	case q.due.Before(w.last):
		q.due = w.last
	default:
		w.last = q.due
	}
	heap.Push(&w.queue, q)
	return true
}

// runDeliver writes packets when they are due.
func (w *forward) runDeliver(to *os.File) {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		b, wait, closed := w.due(time.Now())
		switch {
		case closed:
			return
		case b != nil:
			to.Write(b) // a device that is full loses packets, as devices do
			continue
		}
		if wait < coarse && doze(wait) {
			continue
		}
		timer.Reset(max(wait-coarse, time.Microsecond))
		select {
		case <-timer.C:
		case <-w.ring:
		}
	}
}

// due takes the packet that is due, or says how long none is.
func (w *forward) due(now time.Time) (b []byte, wait time.Duration, closed bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.closed:
		return nil, 0, true
	case len(w.queue) == 0:
		return nil, time.Hour, false
	}
	if wait = w.queue[0].due.Sub(now); wait > 0 {
		return nil, wait, false
	}
	return heap.Pop(&w.queue).(packet).b, 0, false
}
