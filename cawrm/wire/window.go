package wire

import (
	"bytes"

	"cawrm/aodi/format"
)

// WindowChunks is how many chunks both sides remember, so that one that was sent lately need not be sent again: 4 MiB.
const WindowChunks = 1024

// window holds the last chunks that a stream carried as such, on either side of it. Its memory is taken with the first one.
type window struct {
	buf []byte
	n   uint64 // chunks that were ever added
}

func (w *window) add(chunk []byte) {
	if w.buf == nil {
		w.buf = make([]byte, WindowChunks*format.ChunkSize)
	}
	copy(w.slot(w.n), chunk)
	w.n++
}

func (w *window) slot(n uint64) []byte {
	at := n % WindowChunks * format.ChunkSize
	return w.buf[at : at+format.ChunkSize]
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

var zeroes [format.ChunkSize]byte

var zeroSum = format.Sum(zeroes[:])

// isZero tells of a chunk whether it holds zeroes only; crc is its checksum.
func isZero(crc uint32, chunk []byte) bool { return crc == zeroSum && bytes.Equal(chunk, zeroes[:]) }
