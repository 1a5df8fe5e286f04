package lab

import (
	"math/rand/v2"
	"net"
	"path/filepath"
	"sync"
	"syscall"
	"testing"

	"cawrm/aodi/disk"
	"cawrm/nbdsrv"
)

// powerDisk is a disk of the virtual machine that can lose power: what was not
// flushed then may be kept, lost or torn, in any order. The emulator reaches
// it over NBD.
type powerDisk struct {
	mem *disk.Memory
	bus *bus
}

// bus is what the disks of a machine share: the power.
type bus struct {
	mu      sync.Mutex
	left    int           // writes and flushes until the power goes; negative: it stays
	cut     chan struct{} // closed when it goes
	pending bool
}

// cutAfter makes the power go at the n-th write or flush from now on.
func (b *bus) cutAfter(n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.left = n
}

// use returns EIO when there is no power.
func (b *bus) use(changes bool) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.left > 0 && changes {
		if b.left--; b.left == 0 {
			close(b.cut)
		}
	}
	if b.left == 0 {
		return syscall.EIO
	}
	return nil
}

func (d *powerDisk) Size() int64 { return d.mem.Size() }

func (d *powerDisk) ReadAt(p []byte, off int64) error {
	if err := d.bus.use(false); err != nil {
		return err
	}
	return d.mem.ReadAt(p, off)
}

func (d *powerDisk) WriteAt(p []byte, off int64, fua bool) error {
	if err := d.bus.use(true); err != nil {
		return err
	}
	if err := d.mem.WriteCached(p, off); err != nil || !fua {
		return err
	}
	return d.mem.Sync() // stronger than FUA is; a kernel with a container on a disk sends none
}

func (d *powerDisk) Flush() error {
	if err := d.bus.use(true); err != nil {
		return err
	}
	return d.mem.Sync()
}

func (d *powerDisk) Trim(off, n int64, fua bool) error { return d.WriteZeroes(off, n, false, fua) }

func (d *powerDisk) WriteZeroes(off, n int64, _, fua bool) error {
	return d.WriteAt(make([]byte, n), off, fua)
}

func (d *powerDisk) Extents(_, n int64, fn func(int64, uint32) bool) error {
	fn(n, 0)
	return nil
}

// serveDisks shows memories as NBD exports until the test ends, and returns
// the power they hang on and their addresses for vm.sh.
func serveDisks(t *testing.T, mems []*disk.Memory) (*bus, []string) {
	t.Helper()
	b := &bus{left: -1, cut: make(chan struct{})}
	s := nbdsrv.New(nbdsrv.Config{})
	path := filepath.Join(t.TempDir(), "disks.sock")
	var uris []string
	for i, m := range mems {
		name := string(rune('a' + i))
		if err := s.AddExport(nbdsrv.Export{Name: name, Device: &powerDisk{m, b}, MinBlock: 512}); err != nil {
			t.Fatal(err)
		}
		uris = append(uris, "nbd+unix:///"+name+"?socket="+path)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Serve(l) }()
	t.Cleanup(func() {
		_ = s.Shutdown(t.Context()) // cancelled by now: connections are cut
		<-done
	})
	return b, uris
}

// newDisks are n empty disks.
func newDisks(t *testing.T, n int, size int64) []*disk.Memory {
	t.Helper()
	var mems []*disk.Memory
	for range n {
		m := disk.NewMemory(size)
		if err := m.Grow(size); err != nil {
			t.Fatal(err)
		}
		mems = append(mems, m)
	}
	return mems
}

// crash returns the disks as a power cut leaves them, and frees the old ones.
func crash(rng *rand.Rand, mems []*disk.Memory) []*disk.Memory {
	left := make([]*disk.Memory, len(mems))
	for i, m := range mems {
		left[i] = m.Crash(rng)
		m.Free()
	}
	return left
}
