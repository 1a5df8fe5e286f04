// Package disk is the seam below the volume: bytes at offsets, and what may be lost.
//
// What is written is durable only after a Sync that started after the write had returned; before, a crash
// may keep, lose or tear (at 512 bytes) any of it, in any order. File is the real thing, Memory the one for tests.
package disk

import "errors"

// ErrWouldBlock is what TryReadAt returns when the bytes are not in memory.
var ErrWouldBlock = errors.New("the read would wait for the disk")

// Disk is a container's storage. All methods may be called from any goroutine.
type Disk interface {
	// Name is for messages: the path of a file or device.
	Name() string
	// Size is the current size in bytes.
	Size() int64
	// Fixed tells that the size cannot change (a block device).
	Fixed() bool
	// ReadAt fills p or returns an error that names the disk and the offset.
	ReadAt(p []byte, off int64) error
	// TryReadAt is ReadAt when it need not wait for the medium, else ErrWouldBlock with p undefined.
	TryReadAt(p []byte, off int64) error
	// WriteAt writes all of p, past the page cache where the disk allows. p's address, its length and off are
	// multiples of 4096.
	WriteAt(p []byte, off int64) error
	// WriteCached writes all of p through the page cache, so that mappings of the range see it at once.
	WriteCached(p []byte, off int64) error
	// Sync makes durable all writes that have returned. After an error nothing more is known of any of them.
	Sync() error
	// Map maps a range read-only; it stays valid until unmap. Reading it can fault (see File).
	Map(off int64, n int) (b []byte, unmap func() error, err error)
	// Grow makes the size at least n.
	Grow(n int64) error
	// Reserve makes sure that writing the range, which may lie beyond the end, cannot run out of space. Errors: ENOSPC.
	Reserve(off, n int64) error
	// Zero writes zeroes over a range that holds nothing, past the page cache.
	Zero(off, n int64) error
	// Punch gives the range's space back; it reads as zeroes or as anything afterwards.
	Punch(off, n int64) error
	// Allocated is the space really held, in bytes.
	Allocated() int64
	// Direct tells whether WriteAt passes by the page cache, and if not, why.
	Direct() (bool, string)
	// Close releases the disk and its lock.
	Close() error
}
