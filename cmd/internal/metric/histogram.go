package metric

import (
	"math/bits"
	"sync/atomic"
	"time"
)

// Buckets of a Histogram: bucket i counts what took less than 2^(i+10) ns, so from 1.024 us to 8.6 s.
const (
	firstBucket = 10
	bucketCount = 24
)

// Histogram counts durations. Any goroutine; the zero value is ready. It is on the way of each request, so it takes two atomic
// additions.
type Histogram struct {
	buckets [bucketCount + 1]atomic.Uint64 // the last: longer
	nanos   atomic.Uint64
}

// Observe counts one.
func (h *Histogram) Observe(d time.Duration) {
	h.buckets[bucketOf(d)].Add(1)
	h.nanos.Add(uint64(max(0, d)))
}

func bucketOf(d time.Duration) int {
	return min(max(bits.Len64(uint64(max(0, d)))-firstBucket, 0), bucketCount)
}

// snapshot is cumulative, by upper bound in seconds, as Prometheus wants it.
func (h *Histogram) snapshot() (count uint64, sum float64, buckets map[float64]uint64) {
	buckets = make(map[float64]uint64, bucketCount)
	for i := range bucketCount {
		count += h.buckets[i].Load()
		buckets[float64(uint64(1)<<(i+firstBucket))/1e9] = count
	}
	return count + h.buckets[bucketCount].Load(), float64(h.nanos.Load()) / 1e9, buckets
}

// Operations are what clients ask of a device.
var Operations = []string{"read", "write", "flush", "trim", "zero"}

// Operation is an index of Operations.
type Operation int

// The operations.
const (
	Read Operation = iota
	Write
	Flush
	Trim
	Zero
)

// Requests are the durations of one volume's requests, by operation.
type Requests [5]Histogram
