package disk

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// fiemap is what FS_IOC_FIEMAP asks, and where it puts the answer (linux/fiemap.h).
type fiemap struct {
	start, length   uint64
	flags           uint32
	mapped, extents uint32
	_               uint32
	extent          [32]fiemapExtent
}

type fiemapExtent struct {
	logical, physical, length uint64
	_                         [2]uint64
	flags                     uint32
	_                         [3]uint32
}

const (
	fiemapRequest  = 0xc020660b // FS_IOC_FIEMAP
	fiemapSync     = 1
	fiemapDelalloc = 4 // no place was given to it yet
)

// has tells whether the file system is known to have given the whole range its space. Written or not makes no difference.
func (f *File) has(off, n int64) bool {
	for end := off + n; off < end; {
		m := fiemap{start: uint64(off), length: uint64(end - off), flags: fiemapSync}
		m.extents = uint32(len(m.extent))
		if _, _, e := unix.Syscall(unix.SYS_IOCTL, f.cachedFd(), fiemapRequest, uintptr(unsafe.Pointer(&m))); e != 0 || m.mapped == 0 {
			return false
		}
		for _, x := range m.extent[:m.mapped] {
			if int64(x.logical) > off || x.flags&fiemapDelalloc != 0 {
				return false
			}
			off = max(off, int64(x.logical+x.length))
		}
	}
	return true
}
