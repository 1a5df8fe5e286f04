package metric

import (
	"math"
	"testing"
	"time"
)

// TestHistogram: a duration is counted in every bucket whose bound is above it, and in no other, to the nanosecond.
func TestHistogram(t *testing.T) {
	for _, d := range []time.Duration{-1, 0, 1, 1023, 1024, 1025, 2047, 2048, time.Millisecond, time.Second, 1<<33 - 1, 1 << 33, 1 << 34, math.MaxInt64} {
		var h Histogram
		h.Observe(d)
		count, sum, buckets := h.snapshot()
		if count != 1 || sum != max(0, float64(d))/1e9 {
			t.Errorf("%d ns: count %d, sum %g", d, count, sum)
		}
		for bound, n := range buckets {
			if want := float64(d) < bound*1e9; (n == 1) != want {
				t.Errorf("%d ns: %d in the bucket up to %g s", d, n, bound)
			}
		}
	}
}

func BenchmarkObserve(b *testing.B) {
	var h Histogram
	for b.Loop() {
		start := time.Now()
		h.Observe(time.Since(start))
	}
}
