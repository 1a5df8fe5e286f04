package oracle

import (
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
)

// Op is one write, trim or zeroing of consecutive blocks.
type Op struct {
	Seq   uint64 // number of the request; it is in the stamps of its blocks
	First int64  // block
	Count int64
	Zero  bool // leaves zeroes, not stamps

	fua      bool
	sent     int64 // event
	answered int64 // event; unanswered while there is no answer
}

const unanswered = math.MaxInt64

// content is what a block reads as when op was the last on it.
func (op *Op) content() uint64 {
	if op.Zero {
		return 0
	}
	return op.Seq
}

// Oracle is the record of what was sent and answered. It may be used from
// many goroutines.
type Oracle struct {
	mu       sync.Mutex
	event    int64
	seq      uint64
	flushed  int64 // what was answered before this event is durable
	busy     []bool
	versions [][]*Op // of each block, oldest first; the first is durable
	source   []int   // index in versions that the source must not fall below
	mirror   []int   // the same for the mirror
}

// New returns the oracle of a volume of that many blocks, all zeroes.
func New(blocks int64) *Oracle {
	o := &Oracle{
		busy:     make([]bool, blocks),
		versions: make([][]*Op, blocks),
		source:   make([]int, blocks),
		mirror:   make([]int, blocks),
	}
	origin := &Op{Zero: true}
	for b := range o.versions {
		o.versions[b] = []*Op{origin}
	}
	return o
}

// Blocks is the size of the volume.
func (o *Oracle) Blocks() int64 { return int64(len(o.versions)) }

// Begin picks up to count consecutive blocks without a request outstanding and
// records a request to them as sent. The caller sends it after Begin returns.
func (o *Oracle) Begin(rng *rand.Rand, count int64, zero, fua bool) *Op {
	o.mu.Lock()
	defer o.mu.Unlock()
	first, count := o.claimLocked(rng, count)
	o.event++
	o.seq++
	op := &Op{Seq: o.seq, First: first, Count: count, Zero: zero, fua: fua, sent: o.event, answered: unanswered}
	for b := first; b < first+count; b++ {
		o.versions[b] = append(o.versions[b], op)
	}
	return op
}

// claimLocked marks up to count free blocks busy, at least one. A volume of
// which every block is busy is a mistake of the caller.
func (o *Oracle) claimLocked(rng *rand.Rand, count int64) (first, n int64) {
	start := rng.Int64N(o.Blocks())
	for i := range o.Blocks() {
		first = (start + i) % o.Blocks()
		for n < count && first+n < o.Blocks() && !o.busy[first+n] {
			o.busy[first+n] = true
			n++
		}
		if n > 0 {
			return first, n
		}
	}
	panic("oracle: requests are outstanding to every block of the volume")
}

// Answered records that the request was answered without an error.
func (o *Oracle) Answered(op *Op) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.event++
	op.answered = o.event
	for b := op.First; b < op.First+op.Count; b++ {
		o.busy[b] = false
	}
}

// BeginFlush returns the event that an answer to a flush sent now covers.
func (o *Oracle) BeginFlush() int64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.event
}

// Flushed records that the flush of that BeginFlush was answered.
func (o *Oracle) Flushed(event int64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.flushed = max(o.flushed, event)
}

// BeginRead claims blocks for a read, so that nothing writes to them meanwhile.
func (o *Oracle) BeginRead(rng *rand.Rand, count int64) (first, n int64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.claimLocked(rng, count)
}

// EndRead releases the blocks of a read and, if there is data, says whether
// it is what was last written there.
func (o *Oracle) EndRead(first, n int64, data []byte) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	for b := first; b < first+n; b++ {
		o.busy[b] = false
	}
	if data == nil {
		return nil
	}
	for i := range n {
		seq, err := ReadStamp(data[i*BlockSize:(i+1)*BlockSize], first+i)
		if err != nil {
			return err
		}
		v := o.versions[first+i]
		if want := v[len(v)-1].content(); seq != want {
			return fmt.Errorf("block %d reads as request %d, the last write was %d", first+i, seq, want)
		}
	}
	return nil
}
