package nbdsrv

import (
	"errors"
	"fmt"
	"math/bits"

	"github.com/pojntfx/go-nbd/pkg/protocol"
)

// Device is what an export shows. Offsets and lengths are bytes; the server has already checked
// bounds, read-only and overflow. All methods may be called from many goroutines. An error that
// holds a syscall.Errno reaches the client as that error (EROFS as EPERM), any other as EIO.
type Device interface {
	// Size is the export's size in bytes, read once for each negotiation: a device that has grown
	// shows its new size to the next connection.
	Size() int64
	// ReadAt fills p fully or fails.
	ReadAt(p []byte, off int64) error
	// WriteAt writes all of p or fails; p must not be kept after return. With fua the data is on
	// stable storage on return.
	WriteAt(p []byte, off int64, fua bool) error
	// Flush puts every write, trim and zeroing that returned before the call on stable storage.
	Flush() error
	// Trim is a hint; it rounds inward itself.
	Trim(off, length int64, fua bool) error
	// WriteZeroes makes the range read as zeroes; with noHole it stays provisioned.
	WriteZeroes(off, length int64, noHole, fua bool) error
	// Extents calls fn for consecutive extents from off, covering length exactly, with StateHole
	// and StateZero; it stops when fn returns false.
	Extents(off, length int64, fn func(length int64, flags uint32) bool) error
}

// ErrWouldBlock is what a Nonblocking device returns for a call that would wait for a disk, a lock
// held for long, or the network. Nothing has happened then.
var ErrWouldBlock = errors.New("nbdsrv: the call would block")

// Nonblocking is an optional part of a Device that can tell that a call would wait. The server then
// serves requests up to 256 KiB in the goroutine that reads the socket, and runs the blocking call
// elsewhere when it gets ErrWouldBlock. TryReadAt may leave anything in p when it fails.
type Nonblocking interface {
	TryReadAt(p []byte, off int64) error
	TryWriteAt(p []byte, off int64) error
}

// Sizes that an export has unless it says otherwise, in bytes.
const (
	DefaultMinBlock       = 1
	DefaultPreferredBlock = 4096
	DefaultMaxPayload     = 32 << 20
	// LargestMaxPayload is the largest payload that an export can be configured to take.
	LargestMaxPayload = 64 << 20
)

// Finder knows exports that are not worth a place in the server's list, since there can be thousands: snapshots. Called
// from any goroutine.
type Finder interface {
	// Find opens an export for one connection, which calls release when it needs it no more. ok is false when there is none
	// of that name.
	Find(name string) (e Export, release func(), ok bool)
	// List tells the names and descriptions, for NBD_OPT_LIST.
	List() []Listed
}

// Listed is one line of a list of exports.
type Listed struct {
	Name, Description string
	Of                string // what it is a part of, as Export.Of
}

// Export is a Device under a name. It must not be changed after AddExport.
type Export struct {
	Name        string // 0 to 4096 bytes of UTF-8; the first export added is also the default one
	Description string // 0 to 4096 bytes for people to read
	Device      Device
	ReadOnly    bool
	// Admit says what a client may do with the export and its parts; nil: all what the export allows. It is asked in the
	// handshake, from any goroutine, and must not wait.
	Admit      func(Client) Access
	Rotational bool
	// MultiConn says that a flush or FUA on one connection covers what all connections have
	// written, which is true of any Device that keeps no state for each caller.
	MultiConn bool

	MinBlock       uint32 // bytes, a power of two up to 64 KiB; 0 means 1
	PreferredBlock uint32 // bytes, a power of two from 512; 0 means 4096
	MaxPayload     uint32 // bytes in one read or write, up to 64 MiB; 0 means 32 MiB

	// Of is the name of the export that this one is a part of: RemoveExport of that one ends this one's connections, too.
	Of string

	nonblocking Nonblocking
	counting    Counting
}

// prepare fills in the defaults and checks what "Size constraints" asks of the three sizes.
func (e *Export) prepare() error {
	if e.Device == nil {
		return fmt.Errorf("nbdsrv: export %q has no device", e.Name)
	}
	if len(e.Name) > maxString || len(e.Description) > maxString {
		return fmt.Errorf("nbdsrv: name or description longer than %d bytes", maxString)
	}
	e.nonblocking, _ = e.Device.(Nonblocking)
	e.counting, _ = e.Device.(Counting)
	if e.MinBlock == 0 {
		e.MinBlock = DefaultMinBlock
	}
	if e.PreferredBlock == 0 {
		e.PreferredBlock = max(DefaultPreferredBlock, e.MinBlock)
	}
	if e.MaxPayload == 0 {
		e.MaxPayload = DefaultMaxPayload
	}
	switch {
	case bits.OnesCount32(e.MinBlock) != 1 || e.MinBlock > 64<<10:
		return fmt.Errorf("nbdsrv: export %q: minimum block %d", e.Name, e.MinBlock)
	case bits.OnesCount32(e.PreferredBlock) != 1 || e.PreferredBlock < max(512, e.MinBlock):
		return fmt.Errorf("nbdsrv: export %q: preferred block %d", e.Name, e.PreferredBlock)
	case e.MaxPayload < max(e.PreferredBlock, 1<<20) || e.MaxPayload > LargestMaxPayload:
		return fmt.Errorf("nbdsrv: export %q: maximum payload %d", e.Name, e.MaxPayload)
	}
	return nil
}

// size is what a client may address: whole minimum blocks, as the last few bytes of an uneven
// device could not be reached anyway.
func (e *Export) size() uint64 {
	return uint64(max(e.Device.Size(), 0)) &^ uint64(e.MinBlock-1)
}

// transmissionFlags are the features of the export for a connection with these reply headers.
func (e *Export) transmissionFlags(m mode, metaSelected, readOnly bool) uint16 {
	f := protocol.NEGOTIATION_REPLY_FLAGS_HAS_FLAGS | flagSendFlush | flagSendFUA | flagSendCache
	if readOnly {
		f |= flagReadOnly
	} else {
		f |= flagSendTrim | flagSendWriteZeroes | flagSendFastZero
	}
	if e.Rotational {
		f |= flagRotational
	}
	if e.MultiConn {
		f |= protocol.NEGOTIATION_REPLY_FLAGS_CAN_MULTI_CONN
	}
	if m != simple {
		f |= flagSendDF
	}
	if m == extended && metaSelected {
		f |= flagBlockStatusPayload
	}
	return f
}
