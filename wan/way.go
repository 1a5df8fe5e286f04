package wan

import (
	"math/rand/v2"
	"sync"
	"time"
)

// Direction names one of the two directions of a link.
type Direction int

const (
	ToTarget   Direction = iota // from the endpoint that connected to the target
	FromTarget                  // from the target back
)

func (d Direction) String() string {
	if d == ToTarget {
		return "to target"
	}
	return "from target"
}

// way is one direction of a link, shared by all its connections: the
// transmitter that paces them, the cut that may be armed, the counters.
type way struct {
	clock *clock

	mu        sync.Mutex
	profile   Profile
	rng       *rand.Rand
	free      time.Duration // link time at which the transmitter has sent all it was given
	armed     bool          // a cut waits for left to reach 0
	left      int64         // bytes that may still be delivered, valid while armed
	taken     int64
	delivered int64
}

func newWay(c *clock, p Profile, d Direction) *way {
	w := &way{clock: c}
	w.set(p, d)
	return w
}

// set gives the direction a new profile; bytes already under way keep the
// times they were given.
func (w *way) set(p Profile, d Direction) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.profile = p
	w.rng = rand.New(rand.NewPCG(p.Seed, uint64(d)))
}

// limits returns how much a connection may hold and read at once.
func (w *way) limits() (capacity, segment int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.profile.capacity(), w.profile.segment()
}

// depart takes n bytes for sending and returns the link time at which the
// last of them arrives.
func (w *way) depart(n int) time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.taken += int64(n)
	w.free = max(w.free, w.clock.now()) + w.profile.sending(n)
	due := w.free + w.profile.Delay
	if w.profile.Jitter > 0 {
		due += time.Duration(w.rng.Int64N(int64(w.profile.Jitter) + 1))
	}
	return due
}

// arm lets n more bytes through. A negative n disarms.
func (w *way) arm(n int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.armed, w.left = n >= 0, n
}

// allow says how many of n bytes may be delivered, and whether the link is to
// be cut behind them. The bytes allowed count as delivered.
func (w *way) allow(n int) (allowed int, cut bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	allowed = n
	if w.armed {
		allowed = int(min(int64(n), w.left))
		w.left -= int64(allowed)
		cut = w.left == 0
	}
	w.delivered += int64(allowed)
	return allowed, cut
}

// counts returns the bytes taken and delivered.
func (w *way) counts() (taken, delivered int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.taken, w.delivered
}
