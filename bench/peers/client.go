package peers

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"cawrm/bench/internal/nbdclient"
)

const chunk = 4096

// volume is what a client writes to.
type volume interface {
	Start(*nbdclient.Request)
	Write(off int64, p []byte, f nbdclient.Flags) error
	Read(off int64, p []byte) error
	Flush() error
	Close() error
}

// client writes to a part of the source's volume and remembers the order.
type client struct {
	c    volume
	area int64 // it writes to chunks [0, area)
	rng  *rand.Rand

	mu      sync.Mutex
	history []int64 // history[n] is the chunk that write number n+1 went to; its data begin with that number
}

func dial(ctx context.Context, s system, area int64) (*client, error) {
	addr, export := s.source()
	c, err := nbdclient.Dial(ctx, addr, export)
	if err != nil {
		return nil, err
	}
	return newClient(c, area), nil
}

func newClient(v volume, area int64) *client {
	return &client{c: v, area: area, rng: rand.New(rand.NewPCG(1, 2))}
}

// next is the next write of the history.
func (c *client) next(p []byte) (off int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	at := c.rng.Int64N(c.area)
	c.history = append(c.history, at)
	c.rng.Uint64()
	for i := 0; i < len(p); i += 8 { // the number, and what does not compress
		binary.LittleEndian.PutUint64(p[i:], c.rng.Uint64())
	}
	binary.LittleEndian.PutUint64(p, uint64(len(c.history)))
	return at * chunk
}

// fill writes 1 MiB in every ten, from the area on.
func (c *client) fill(size int64) error {
	p := make([]byte, 1<<20)
	rng := rand.NewChaCha8([32]byte{1})
	for off := c.area * chunk; off+int64(len(p)) <= size; off += 10 << 20 {
		rng.Read(p) // no two alike
		if err := c.c.Write(off, p, 0); err != nil {
			return err
		}
	}
	return c.c.Flush()
}

// closed writes at that depth for d, each as soon as one is answered.
func (c *client) closed(depth int, d time.Duration) (iops float64, h *hdrhistogram.Histogram, err error) {
	h = newHistogram()
	done := make(chan *nbdclient.Request, depth)
	sent := map[*nbdclient.Request]time.Time{}
	start := time.Now()
	for range depth {
		r := &nbdclient.Request{Command: nbdclient.Write, Data: make([]byte, chunk), Done: done}
		r.Offset = c.next(r.Data)
		sent[r] = time.Now()
		c.c.Start(r)
	}
	n := 0
	for left := depth; left > 0; {
		r := <-done
		if r.Err != nil {
			return 0, nil, r.Err
		}
		n++
		_ = h.RecordValue(clamped(time.Since(sent[r])))
		if time.Since(start) >= d {
			left--
			continue
		}
		r.Offset = c.next(r.Data)
		sent[r] = time.Now()
		c.c.Start(r)
	}
	return float64(n) / time.Since(start).Seconds(), h, nil
}

// paced asks for rate writes a second until ctx ends, one at a time. The histogram is corrected for the writes that would have been
// asked for while one waited (coordinated omission); its maximum is the longest wait.
func (c *client) paced(ctx context.Context, rate float64) (*hdrhistogram.Histogram, error) {
	h := newHistogram()
	p := make([]byte, chunk)
	interval := time.Duration(float64(time.Second) / rate)
	for tick := time.Now(); ctx.Err() == nil; tick = tick.Add(interval) {
		time.Sleep(time.Until(tick))
		start := time.Now()
		if err := c.c.Write(c.next(p), p, 0); err != nil {
			return h, err
		}
		_ = h.RecordCorrectedValue(clamped(time.Since(start)), int64(interval))
		if behind := time.Since(tick); behind > interval {
			tick = tick.Add(behind / interval * interval) // those ticks are in the correction
		}
	}
	return h, nil
}

// newHistogram is of nanoseconds, from a microsecond to a minute.
func newHistogram() *hdrhistogram.Histogram { return hdrhistogram.New(1000, int64(time.Minute), 3) }

// clamped is a latency within the histogram's range.
func clamped(d time.Duration) int64 { return int64(min(max(d, time.Microsecond), time.Minute)) }

// shown reads the number of the write that each chunk of the area shows.
func (c *client) shown(ctx context.Context, addr, export string) ([]uint64, error) {
	t, err := nbdclient.Dial(ctx, addr, export)
	if err != nil {
		return nil, err
	}
	defer t.Close()
	return c.numbers(t)
}

func (c *client) numbers(t volume) ([]uint64, error) {
	held := make([]uint64, c.area)
	p := make([]byte, 256<<10)
	for off := int64(0); off < c.area*chunk; off += int64(len(p)) {
		if err := t.Read(off, p[:min(int64(len(p)), c.area*chunk-off)]); err != nil {
			return nil, err
		}
		for i := 0; i < len(p) && (off+int64(i))/chunk < c.area; i += chunk {
			held[(off+int64(i))/chunk] = binary.LittleEndian.Uint64(p[i:])
		}
	}
	return held, nil
}

// state is the source as it was at a moment at which nothing was being written.
type state struct {
	shown []uint64
	after int // writes of the history
}

// rest takes the source's state. What is compared with it must be written one at a time: of writes that are under way
// together nobody knows the order.
func (c *client) rest(ctx context.Context, s system) (state, error) {
	addr, export := s.source()
	shown, err := c.shown(ctx, addr, export)
	return state{shown, len(c.history)}, err
}

// prefix says whether what the target holds is what the first n writes since then leave, for some n.
func (c *client) prefix(ctx context.Context, s system, since state) (bool, error) {
	addr, export := s.target()
	held, err := c.shown(ctx, addr, export)
	if err != nil {
		return false, err
	}
	return c.once(since, held)
}

// once says whether the source was like that at some moment since then.
func (c *client) once(since state, held []uint64) (bool, error) {
	if newest := slices.Max(held); newest > uint64(len(c.history)) {
		return false, fmt.Errorf("the target holds write %d, %d were made", newest, len(c.history))
	}
	return isPrefix(since, c.history, held), nil
}

// after is what all writes since that state leave.
func (c *client) after(since state) []uint64 {
	want := slices.Clone(since.shown)
	for n, at := range c.history[since.after:] {
		want[at] = uint64(since.after + n + 1)
	}
	return want
}

// isPrefix says whether held is what the writes of the history behind that state leave, up to the newest of them that is
// shown; none of them is the state itself.
func isPrefix(since state, history []int64, held []uint64) bool {
	want := slices.Clone(since.shown)
	for n := uint64(since.after) + 1; n <= slices.Max(held); n++ {
		want[history[n-1]] = n
	}
	return slices.Equal(want, held)
}
