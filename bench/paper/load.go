package paper

import (
	"context"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"golang.org/x/sys/unix"

	"cawrm/bench/baseline"
)

// piece is what a sequential client reads and writes at once.
const piece = 256 << 10

// fill writes the first n bytes in order, with data that do not compress, and flushes.
func fill(v baseline.Volume, n int64) error {
	rng := rand.NewChaCha8([32]byte{1})
	p := make([]byte, piece)
	for off := int64(0); off < n; off += piece {
		rng.Read(p)
		if err := v.WriteAt(p[:min(piece, n-off)], off); err != nil {
			return err
		}
	}
	return v.Flush()
}

// sweep writes zeroes all over the volume, so that no block is written for the first time later.
func sweep(v baseline.Volume, n int64) error {
	p := make([]byte, piece)
	for off := int64(0); off < n; off += piece {
		if err := v.WriteAt(p[:min(piece, n-off)], off); err != nil {
			return err
		}
	}
	return v.Flush()
}

// warm reads all of the volume before a turn that reads: what was written went past the page cache, here as there.
func warm(v baseline.Volume, w workload) error {
	if w.write {
		return nil
	}
	p := make([]byte, piece)
	for off := int64(0); off < v.Size(); off += piece {
		if err := v.ReadAt(p[:min(piece, v.Size()-off)], off); err != nil {
			return err
		}
	}
	return nil
}

// workload is what a client does.
type workload struct {
	name    string
	write   bool
	random  bool // pieces of a chunk anywhere, else of 256 KiB in order
	workers int
}

// workloads are those of Figures 8 and 9.
var workloads = []workload{
	{"sequential write", true, false, 4},
	{"random write", true, true, 16},
	{"sequential read", false, false, 4},
	{"random read", false, true, 16},
}

// run does the work for d and returns bytes a second. Writes are flushed at the end, within the time.
func (w workload) run(v baseline.Volume, d time.Duration, seed uint64) (float64, error) {
	var wg sync.WaitGroup
	var total, next atomic.Int64
	var failed atomic.Pointer[error]
	start := time.Now()
	for i := range w.workers {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(seed, uint64(i)))
			size := piece
			if w.random {
				size = baseline.Chunk
			}
			p := make([]byte, size)
			rand.NewChaCha8([32]byte{byte(seed), byte(i)}).Read(p)
			slots := v.Size() / int64(size)
			for time.Since(start) < d && failed.Load() == nil {
				off := next.Add(1) % slots * int64(size)
				if w.random {
					off = rng.Int64N(slots) * int64(size)
				}
				var err error
				if w.write {
					p[0]++
					err = v.WriteAt(p, off)
				} else {
					err = v.ReadAt(p, off)
				}
				if err != nil {
					failed.Store(&err)
					return
				}
				total.Add(int64(size))
			}
		})
	}
	wg.Wait()
	if err := failed.Load(); err != nil {
		return 0, *err
	}
	if w.write {
		if err := v.Flush(); err != nil {
			return 0, err
		}
	}
	return float64(total.Load()) / time.Since(start).Seconds(), nil
}

// newHistogram is of nanoseconds, from 1 µs to a minute, with three digits.
func newHistogram() *hdrhistogram.Histogram {
	return hdrhistogram.New(1000, int64(time.Minute), 3)
}

// paced is a client that asks for random writes of a chunk at a rate, whatever the volume can: each of its workers has a
// write for each of its ticks. A worker that is late is behind by writes that were not measured, as if they had not
// waited; the histogram is corrected for those (coordinated omission).
type paced struct {
	volume baseline.Volume
	from   int64 // writes go to [from, to)
	to     int64
	rate   float64 // writes a second
	seed   uint64
}

const pacedWorkers = 4

// run writes until ctx ends and returns the latencies.
func (c paced) run(ctx context.Context) (*hdrhistogram.Histogram, error) {
	var wg sync.WaitGroup
	hists := make([]*hdrhistogram.Histogram, pacedWorkers)
	errs := make([]error, pacedWorkers)
	interval := time.Duration(pacedWorkers / c.rate * float64(time.Second))
	for i := range pacedWorkers {
		wg.Go(func() {
			hists[i] = newHistogram()
			rng := rand.New(rand.NewPCG(c.seed, uint64(i)))
			data := rand.NewChaCha8([32]byte{byte(c.seed), byte(i), 1})
			p := make([]byte, baseline.Chunk)
			for tick := time.Now().Add(interval * time.Duration(i) / pacedWorkers); ctx.Err() == nil; tick = tick.Add(interval) {
				pause(time.Until(tick))
				data.Read(p) // nothing that compresses
				start := time.Now()
				if errs[i] = c.volume.WriteAt(p, c.from+rng.Int64N((c.to-c.from)/baseline.Chunk)*baseline.Chunk); errs[i] != nil {
					return
				}
				took := time.Since(start)
				record(hists[i], took, interval)
				if behind := time.Since(tick); behind > interval {
					tick = tick.Add(behind / interval * interval) // those ticks are in the correction
				}
			}
		})
	}
	wg.Wait()
	all := newHistogram()
	for i, h := range hists {
		if errs[i] != nil {
			return nil, errs[i]
		}
		all.Merge(h)
	}
	return all, nil
}

// record clamps what is out of the histogram's range.
func record(h *hdrhistogram.Histogram, took, interval time.Duration) {
	took = min(max(took, time.Microsecond), time.Minute)
	_ = h.RecordCorrectedValue(int64(took), int64(interval)) // in range
}

// pause sleeps with the kernel's clock: the runtime's timers would be up to a millisecond late.
func pause(d time.Duration) {
	if d > 0 {
		t := unix.NsecToTimespec(int64(d))
		unix.Nanosleep(&t, nil)
	}
}
