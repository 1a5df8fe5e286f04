package nbdsrv

import (
	"math/bits"
	"sync"
	"sync/atomic"

	"github.com/ncw/directio"
)

// Buffers come in powers of two, so that a buffer is never more than twice what was asked for.
const (
	smallestClass = 12 // 4 KiB
	largestClass  = 26 // 64 MiB = LargestMaxPayload
	// headroom lies before the data, so that a reply header can stand right in front of data that
	// is page-aligned: header and data leave in one piece, and the device may use O_DIRECT.
	headroom = directio.BlockSize
)

// buffer is a pooled block: headroom bytes, then its data, page-aligned.
type buffer struct {
	block []byte
	class int
}

var buffers [largestClass + 1]sync.Pool

// classOf is the class of the smallest buffer that holds n bytes of data.
func classOf(n int) int {
	return max(smallestClass, bits.Len(uint(max(n, 1)-1)))
}

// bufferSize is the data that a buffer for n bytes holds.
func bufferSize(n int) int64 { return 1 << classOf(n) }

// charge is the memory that a request with a buffer for n bytes is charged for.
func charge(n int) int64 { return bufferSize(n) + requestOverhead }

// newBuffer takes a buffer for n bytes of data; its content is whatever it last held.
func newBuffer(n int) *buffer {
	class := classOf(n)
	if b, ok := buffers[class].Get().(*buffer); ok {
		return b
	}
	return &buffer{block: directio.AlignedBlock(headroom + 1<<class), class: class}
}

func (b *buffer) data() []byte { return b.block[headroom:] }

// framed is the last before bytes of the headroom and the first n bytes of data.
func (b *buffer) framed(before, n int) []byte { return b.block[headroom-before : headroom+n] }

func (b *buffer) release() {
	if b != nil {
		buffers[b.class].Put(b)
	}
}

// memory is the budget that all connections of a server share for the payloads in flight.
type memory struct {
	used atomic.Int64
	max  int64
}

// take charges n bytes if they fit.
func (m *memory) take(n int64) bool {
	if m.used.Add(n) <= m.max {
		return true
	}
	m.used.Add(-n)
	return false
}

// force charges n bytes that every connection may have beyond the budget.
func (m *memory) force(n int64) { m.used.Add(n) }

func (m *memory) give(n int64) { m.used.Add(-n) }
