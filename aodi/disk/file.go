package disk

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync/atomic"
	"unsafe"

	"github.com/edsrzf/mmap-go"
	"github.com/ncw/directio"
	"golang.org/x/sys/unix"
)

// ErrInUse is returned when another process, or another volume of this one, holds the container.
var ErrInUse = errors.New("in use by another process")

const blockAlign = 4096

// File is a container in a regular file or on a block device.
//
// It keeps two descriptors: one past the page cache for the log, which is written once and read from memory
// while it is hot, and one through the page cache for reads and for map pages. The kernel keeps the two
// coherent: a direct write drops the cached pages of its range after it is done, and the volume reads no chunk
// before its write has returned.
//
// A mapping is backed by the page cache. Reading a page that was reclaimed is a fault that holds the
// goroutine's processor until the disk answers, so the volume reads each page once with ReadAt before it
// touches it through the mapping.
type File struct {
	name   string
	cached *os.File
	direct *os.File // nil: the file system refuses O_DIRECT
	why    string
	device bool
	size   atomic.Int64
}

// OpenFile opens a container that exists, for reading and writing, with an exclusive lock, or with
// readOnly for reading beside whoever holds it. Errors: the path and what to do; ErrInUse.
func OpenFile(path string, readOnly bool) (*File, error) {
	return openFile(path, readOnly, false)
}

// CreateFile opens path for a new container: a file that does not exist or is empty, or a block device.
// The caller decides whether what a device holds may be overwritten.
func CreateFile(path string) (*File, error) {
	return openFile(path, false, true)
}

func openFile(path string, readOnly, create bool) (*File, error) {
	flags := os.O_RDWR
	if readOnly {
		flags = os.O_RDONLY
	}
	st, err := os.Stat(path)
	device := err == nil && st.Mode()&os.ModeDevice != 0
	switch {
	case err != nil && !(create && errors.Is(err, os.ErrNotExist)):
		return nil, err
	case err == nil && !st.Mode().IsRegular() && st.Mode().Type() != os.ModeDevice: // a pipe would wait for whoever writes to it
		return nil, fmt.Errorf("%s: a container is a regular file or a block device", path)
	case device && !readOnly:
		flags |= unix.O_EXCL // the kernel refuses a device that is mounted or part of something
	case create && err == nil && st.Size() > 0:
		return nil, errNotEmpty(path)
	case create && err != nil:
		flags |= os.O_CREATE | os.O_EXCL
	}
	f := &File{name: path, device: device}
	if f.cached, err = os.OpenFile(path, flags, 0o600); err != nil {
		if errors.Is(err, unix.EBUSY) {
			err = fmt.Errorf("%s: %w (mounted, or part of another device)", path, ErrInUse)
		}
		return nil, err
	}
	if err := f.prepareOpen(readOnly); err != nil {
		f.Close()
		return nil, err
	}
	if create && !device && f.Size() > 0 { // somebody made one between the look and the lock
		f.Close()
		return nil, errNotEmpty(path)
	}
	return f, nil
}

func errNotEmpty(path string) error {
	return fmt.Errorf("%s: file exists and is not empty; remove it or choose another path", path)
}

func (f *File) prepareOpen(readOnly bool) error {
	if !readOnly {
		if err := unix.Flock(int(f.cached.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
			return fmt.Errorf("%s: %w; stop it first", f.name, ErrInUse)
		}
	}
	size, err := f.cached.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	f.size.Store(size)
	if !readOnly {
		f.direct, f.why = openDirect(f.name)
		f.dropCache()
	}
	return nil
}

// dropCache lets reads see what the medium holds. When a sync fails, Linux keeps what it could not write in the page cache
// and takes it for written, so an opening that found it there would roll it forward and call it durable.
func (f *File) dropCache() {
	_ = unix.Fadvise(int(f.cached.Fd()), 0, 0, unix.FADV_DONTNEED) // a hint: where there is no cache it has no meaning
}

// openDirect tries what the log will do, since some file systems accept the flag and refuse the I/O.
func openDirect(path string) (*os.File, string) {
	d, err := directio.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, err.Error()
	}
	if _, err := d.ReadAt(directio.AlignedBlock(blockAlign), 0); err != nil && err != io.EOF {
		d.Close()
		return nil, err.Error()
	}
	return d, ""
}

func (f *File) wrap(op string, off int64, n int, err error) error {
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		err = fmt.Errorf("%w: the container ends at %d", io.ErrUnexpectedEOF, f.Size())
	}
	return fmt.Errorf("%s: %s %d bytes at %d: %w", f.name, op, n, off, err)
}

// Name is the path.
func (f *File) Name() string { return f.name }

// Size is the size in bytes.
func (f *File) Size() int64 { return f.size.Load() }

// Fixed is true for a block device.
func (f *File) Fixed() bool { return f.device }

// Direct tells whether the log is written with O_DIRECT.
func (f *File) Direct() (bool, string) { return f.direct != nil, f.why }

// ReadAt reads through the page cache.
func (f *File) ReadAt(p []byte, off int64) error {
	if _, err := f.cached.ReadAt(p, off); err != nil {
		return f.wrap("read", off, len(p), err)
	}
	return nil
}

// TryReadAt asks the kernel for what is in the page cache (RWF_NOWAIT) and nothing else.
func (f *File) TryReadAt(p []byte, off int64) error {
	if len(p) == 0 {
		return nil
	}
	iov := unix.Iovec{Base: unsafe.SliceData(p)}
	iov.SetLen(len(p))
	n, _, errno := unix.Syscall6(unix.SYS_PREADV2, f.cachedFd(), uintptr(unsafe.Pointer(&iov)), 1,
		uintptr(off), uintptr(off>>32>>32), unix.RWF_NOWAIT)
	switch {
	case errno == 0 && int(n) == len(p):
		return nil
	case errno == 0, errno == unix.EAGAIN, errno == unix.EOPNOTSUPP, errno == unix.EINTR:
		return ErrWouldBlock
	}
	return f.wrap("read", off, len(p), errno)
}

func (f *File) cachedFd() uintptr { return f.cached.Fd() }

// WriteAt writes with O_DIRECT where the file system has it.
func (f *File) WriteAt(p []byte, off int64) error {
	w := f.direct
	if w == nil {
		w = f.cached
	}
	if _, err := w.WriteAt(p, off); err != nil {
		return f.wrap("write", off, len(p), err)
	}
	return nil
}

// WriteCached writes through the page cache.
func (f *File) WriteCached(p []byte, off int64) error {
	if _, err := f.cached.WriteAt(p, off); err != nil {
		return f.wrap("write", off, len(p), err)
	}
	return nil
}

// Sync is fdatasync, of both descriptors since they are one inode.
func (f *File) Sync() error {
	for {
		err := unix.Fdatasync(int(f.cachedFd()))
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return fmt.Errorf("%s: fdatasync: %w", f.name, err)
		}
		return nil
	}
}

// Map maps a range of the page cache.
func (f *File) Map(off int64, n int) ([]byte, func() error, error) {
	m, err := mmap.MapRegion(f.cached, n, mmap.RDONLY, 0, off)
	if err != nil {
		return nil, nil, f.wrap("map", off, n, err)
	}
	_ = unix.Madvise(m, unix.MADV_RANDOM) // a hint: pages are looked up one by one
	return m, m.Unmap, nil
}

// mapPrivate maps a range so that what is changed in it stays in memory.
func (f *File) mapPrivate(off int64, n int) (mmap.MMap, error) {
	return mmap.MapRegion(f.cached, n, mmap.COPY, 0, off)
}

// Grow extends a file; a device is as large as it is.
func (f *File) Grow(n int64) error {
	if n <= f.Size() {
		return nil
	}
	if f.device {
		return fmt.Errorf("%s: the device ends at %d bytes: %w", f.name, f.Size(), unix.ENOSPC)
	}
	if err := f.cached.Truncate(n); err != nil {
		return fmt.Errorf("%s: grow to %d bytes: %w", f.name, n, err)
	}
	f.grown(n)
	return nil
}

// grown notes that the file is at least n long.
func (f *File) grown(n int64) {
	for {
		if old := f.size.Load(); n <= old || f.size.CompareAndSwap(old, n) {
			return
		}
	}
}

// Reserve allocates a range, so that writing it later cannot run out of space. A full xfs refuses that also for a range that has all
// its space; then it is looked at.
func (f *File) Reserve(off, n int64) error {
	if f.device {
		return nil
	}
	err := unix.Fallocate(int(f.cachedFd()), 0, off, n)
	if errors.Is(err, unix.EOPNOTSUPP) {
		return f.Zero(off, n)
	}
	if err != nil && !(errors.Is(err, unix.ENOSPC) && f.has(off, n)) {
		return fmt.Errorf("%s: reserve %d bytes at %d: %w", f.name, n, off, err)
	}
	f.grown(off + n)
	return nil
}

const zeroBlock = 1 << 20

// Zero writes zeroes over a range, so that a later flush of it has no file system metadata to commit.
func (f *File) Zero(off, n int64) error {
	z := directio.AlignedBlock(zeroBlock)
	for n > 0 {
		k := min(n, zeroBlock)
		if err := f.WriteAt(z[:k], off); err != nil {
			return err
		}
		off, n = off+k, n-k
	}
	f.grown(off)
	return nil
}

// Punch frees a range: a hole in a file, a discard on a device. Where neither is to be had it does nothing.
func (f *File) Punch(off, n int64) error {
	var err error
	if f.device {
		r := [2]uint64{uint64(off), uint64(n)}
		if _, _, e := unix.Syscall(unix.SYS_IOCTL, f.cachedFd(), unix.BLKDISCARD, uintptr(unsafe.Pointer(&r))); e != 0 {
			err = e
		}
	} else {
		err = unix.Fallocate(int(f.cachedFd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, n)
	}
	if err != nil && !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.ENOTTY) {
		return f.wrap("punch", off, int(n), err)
	}
	return nil
}

// Allocated is the space that the file system holds for a file; a device's size.
func (f *File) Allocated() int64 {
	if f.device {
		return f.Size()
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(f.cachedFd()), &st); err != nil {
		return f.Size()
	}
	return st.Blocks * 512
}

// Close closes both descriptors, which frees the lock.
func (f *File) Close() error {
	err := f.cached.Close()
	if f.direct != nil {
		err = errors.Join(err, f.direct.Close())
	}
	return err
}
