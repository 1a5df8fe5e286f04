package peers

import (
	"os"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"

	"cawrm/bench/internal/nbdclient"
)

// device is a block device of this kernel as a volume, past the page cache: as many requests are under way as have been started, up
// to the depth of the clients.
type device struct {
	f      *os.File
	offset int64 // where the volume begins on it
	work   chan *nbdclient.Request
	wg     sync.WaitGroup
}

func openDevice(path string, offset int64) (*device, error) {
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_DIRECT, 0)
	if err != nil {
		return nil, err
	}
	return newDevice(f, offset), nil
}

// readDevice opens one that something else holds.
func readDevice(path string, offset int64) (*device, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_DIRECT, 0)
	if err != nil {
		return nil, err
	}
	return newDevice(f, offset), nil
}

func newDevice(f *os.File, offset int64) *device {
	d := &device{f: f, offset: offset, work: make(chan *nbdclient.Request, 64)}
	for range depth {
		d.wg.Go(d.runRequests)
	}
	return d
}

// runRequests does one request after the other, through memory that the device can reach.
func (d *device) runRequests() {
	buf := aligned(chunk)
	for r := range d.work {
		copy(buf, r.Data)
		_, r.Err = d.f.WriteAt(buf[:len(r.Data)], d.offset+r.Offset)
		r.Done <- r
	}
}

// Start starts a write of a chunk.
func (d *device) Start(r *nbdclient.Request) { d.work <- r }

func (d *device) Write(off int64, p []byte, _ nbdclient.Flags) error {
	buf := aligned(len(p))
	copy(buf, p)
	_, err := d.f.WriteAt(buf, d.offset+off)
	return err
}

func (d *device) Read(off int64, p []byte) error {
	buf := aligned(len(p))
	_, err := d.f.ReadAt(buf, d.offset+off)
	copy(p, buf)
	return err
}

func (d *device) Flush() error { return d.f.Sync() }

func (d *device) Close() error {
	close(d.work)
	d.wg.Wait()
	return d.f.Close()
}

// aligned returns n bytes that begin on a page, as O_DIRECT wants.
func aligned(n int) []byte {
	b := make([]byte, n+chunk)
	skip := -uintptr(unsafe.Pointer(&b[0])) & (chunk - 1)
	return b[skip:][:n:n]
}
