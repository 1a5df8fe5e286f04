package wire

import (
	"bytes"
	"encoding/binary"
	"sync"

	"cawrm/aodi/format"
)

// WindowChunks is how many chunks both sides remember, so that one that was sent lately need not be sent again, and only what is new
// of one that has changed since: 16 MiB.
const WindowChunks = 4096

// pieceChunks is how many of them memory is taken for at a time.
const pieceChunks = 256

type piece [pieceChunks * format.ChunkSize]byte

// pool has the pieces of streams that have ended: the next one comes soon when a link is cut.
var pool = sync.Pool{New: func() any { return new(piece) }}

// window holds the last chunks that a stream carried as such, on either side of it.
type window struct {
	pieces [WindowChunks / pieceChunks]*piece
	n      uint64 // chunks that were ever added
}

// release gives the memory back. The window is empty then.
func (w *window) release() {
	for _, p := range w.pieces {
		if p != nil {
			pool.Put(p)
		}
	}
	*w = window{}
}

func (w *window) add(chunk []byte) {
	copy(w.slot(w.n), chunk)
	w.n++
}

func (w *window) slot(n uint64) []byte {
	at := n % WindowChunks
	p := w.pieces[at/pieceChunks]
	if p == nil {
		p = pool.Get().(*piece)
		w.pieces[at/pieceChunks] = p
	}
	at = at % pieceChunks * format.ChunkSize
	return p[at : at+format.ChunkSize]
}

// back is the chunk that was added as the d-th last, nil when the window does not reach so far.
func (w *window) back(d uint64) []byte {
	if d == 0 || d > min(w.n, WindowChunks) {
		return nil
	}
	return w.slot(w.n - d)
}

// index finds chunks of a window by their checksums. An entry that another has taken over is only a repeat that is not seen.
type index [4 * WindowChunks]uint64

// find is how far back a chunk with the same bytes lies; 0: none is known.
func (x *index) find(w *window, crc uint32, chunk []byte) uint64 {
	d := w.n - x[crc%uint32(len(x))]
	if old := w.back(d); old != nil && bytes.Equal(old, chunk) {
		return d
	}
	return 0
}

// note says that the chunk which is about to be added has that checksum.
func (x *index) note(w *window, crc uint32) { x[crc%uint32(len(x))] = w.n }

// places finds the content that a logical chunk had when it was last sent. An entry that another has taken over is only a delta that
// is not seen.
type places [4 * WindowChunks]struct{ lba, n uint64 }

// find is how far back the last content of a logical chunk lies, if most of it is the content that it has now; 0: there is none.
func (x *places) find(w *window, lba uint64, chunk []byte) uint64 {
	at := &x[lba%uint64(len(x))]
	d := w.n - at.n
	if at.lba != lba || d >= WindowChunks { // of the oldest the place is the next one's
		return 0
	}
	if old := w.back(d); old != nil && alike(old, chunk) {
		return d
	}
	return 0
}

// note says that the chunk which is about to be added is the content of a logical chunk.
func (x *places) note(w *window, lba uint64) {
	at := &x[lba%uint64(len(x))]
	at.lba, at.n = lba, w.n
}

// alike tells whether at least half of the words of two chunks are the same: then what is left of their difference is small.
func alike(a, b []byte) bool {
	same := 0
	for i := 0; i < format.ChunkSize; i += 8 {
		if binary.LittleEndian.Uint64(a[i:]) == binary.LittleEndian.Uint64(b[i:]) {
			same++
		}
	}
	return same >= format.ChunkSize/8/2
}

var zeroes [format.ChunkSize]byte

var zeroSum = format.Sum(zeroes[:])

// isZero tells of a chunk whether it holds zeroes only; crc is its checksum.
func isZero(crc uint32, chunk []byte) bool { return crc == zeroSum && bytes.Equal(chunk, zeroes[:]) }
