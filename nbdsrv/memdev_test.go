package nbdsrv_test

import (
	"sync"
	"sync/atomic"
	"syscall"

	"cawrm/nbdsrv"
)

const page = 4096

// memDev is a sparse volume in memory. It keeps what the last flush had seen, so that a test can
// tell what is durable, and it can be told to fail, to wait, and to refuse the quick path.
type memDev struct {
	mu      sync.RWMutex
	data    []byte
	present []bool // by page: was written and not trimmed since

	flushes atomic.Int64
	fuas    atomic.Int64
	block   atomic.Bool                   // TryXxx say ErrWouldBlock
	fail    atomic.Pointer[func() error]  // asked before each call
	gate    atomic.Pointer[chan struct{}] // blocking calls wait until it is closed
	calls   atomic.Int64                  // blocking calls that run now
}

func newMemDev(size int64) *memDev {
	return &memDev{data: make([]byte, size), present: make([]bool, (size+page-1)/page)}
}

func (d *memDev) Size() int64 { d.mu.RLock(); defer d.mu.RUnlock(); return int64(len(d.data)) }

func (d *memDev) enter() error {
	d.calls.Add(1)
	if g := d.gate.Load(); g != nil {
		<-*g
	}
	return d.failure()
}

func (d *memDev) leave() { d.calls.Add(-1) }

func (d *memDev) failure() error {
	if f := d.fail.Load(); f != nil {
		return (*f)()
	}
	return nil
}

func (d *memDev) failWith(err error) {
	if err == nil {
		d.fail.Store(nil)
		return
	}
	f := func() error { return err }
	d.fail.Store(&f)
}

// shut makes blocking calls wait until the function that it returns is called.
func (d *memDev) shut() (open func()) {
	g := make(chan struct{})
	d.gate.Store(&g)
	d.block.Store(true)
	var once sync.Once
	return func() {
		once.Do(func() { d.gate.Store(nil); d.block.Store(false); close(g) })
	}
}

func (d *memDev) TryReadAt(p []byte, off int64) error {
	if d.block.Load() {
		return nbdsrv.ErrWouldBlock
	}
	if err := d.failure(); err != nil {
		return err
	}
	d.read(p, off)
	return nil
}

func (d *memDev) TryWriteAt(p []byte, off int64) error {
	if d.block.Load() {
		return nbdsrv.ErrWouldBlock
	}
	if err := d.failure(); err != nil {
		return err
	}
	d.write(p, off)
	return nil
}

func (d *memDev) ReadAt(p []byte, off int64) error {
	defer d.leave()
	if err := d.enter(); err != nil {
		return err
	}
	d.read(p, off)
	return nil
}

func (d *memDev) WriteAt(p []byte, off int64, fua bool) error {
	defer d.leave()
	if err := d.enter(); err != nil {
		return err
	}
	d.write(p, off)
	d.note(fua)
	return nil
}

func (d *memDev) Flush() error {
	defer d.leave()
	if err := d.enter(); err != nil {
		return err
	}
	d.flushes.Add(1)
	return nil
}

func (d *memDev) Trim(off, length int64, fua bool) error {
	defer d.leave()
	if err := d.enter(); err != nil {
		return err
	}
	first, end := (off+page-1)/page*page, (off+length)/page*page
	if first < end {
		d.zero(first, end-first, true)
	}
	d.note(fua)
	return nil
}

func (d *memDev) WriteZeroes(off, length int64, noHole, fua bool) error {
	defer d.leave()
	if err := d.enter(); err != nil {
		return err
	}
	d.zero(off, length, !noHole)
	d.note(fua)
	return nil
}

func (d *memDev) Extents(off, length int64, fn func(int64, uint32) bool) error {
	defer d.leave()
	if err := d.enter(); err != nil {
		return err
	}
	d.mu.RLock()
	defer d.mu.RUnlock()
	for end := off + length; off < end; {
		at, is := off, d.present[off/page]
		for off < end && d.present[off/page] == is {
			off = min(off/page*page+page, end)
		}
		flags := nbdsrv.StateHole | nbdsrv.StateZero
		if is {
			flags = 0
		}
		if !fn(off-at, flags) {
			return nil
		}
	}
	return nil
}

func (d *memDev) note(fua bool) {
	if fua {
		d.fuas.Add(1)
	}
}

func (d *memDev) read(p []byte, off int64) {
	d.mu.RLock()
	copy(p, d.data[off:off+int64(len(p))])
	d.mu.RUnlock()
}

// readAll fills p from the start, under the lock as any other read: that a client has ended orders nothing for the race detector.
func (d *memDev) readAll(p []byte) []byte {
	d.read(p, 0)
	return p
}

func (d *memDev) write(p []byte, off int64) {
	d.mu.Lock()
	copy(d.data[off:], p)
	for i := off / page; i <= (off+int64(len(p))-1)/page; i++ {
		d.present[i] = true
	}
	d.mu.Unlock()
}

func (d *memDev) zero(off, length int64, hole bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	clear(d.data[off : off+length])
	for i := off / page; i <= (off+length-1)/page; i++ {
		whole := i*page >= off && (i+1)*page <= off+length
		if !hole || whole {
			d.present[i] = !hole
		}
	}
}

// plain is memDev without its quick path.
type plain struct{ d *memDev }

func (p plain) Size() int64                               { return p.d.Size() }
func (p plain) ReadAt(b []byte, off int64) error          { return p.d.ReadAt(b, off) }
func (p plain) WriteAt(b []byte, off int64, f bool) error { return p.d.WriteAt(b, off, f) }
func (p plain) Flush() error                              { return p.d.Flush() }
func (p plain) Trim(off, n int64, f bool) error           { return p.d.Trim(off, n, f) }
func (p plain) WriteZeroes(off, n int64, h, f bool) error { return p.d.WriteZeroes(off, n, h, f) }
func (p plain) Extents(off, n int64, fn func(int64, uint32) bool) error {
	return p.d.Extents(off, n, fn)
}

var (
	_ nbdsrv.Nonblocking = (*memDev)(nil)
	_ nbdsrv.Device      = plain{}
	_ error              = syscall.EIO
)
