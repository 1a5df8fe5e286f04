package gc

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"cawrm/aodi"
)

// Options say how to clean. The zero value is good.
type Options struct {
	Policy Policy // nil: CostBenefit
	Logger *slog.Logger
}

// Cleaner cleans one volume.
type Cleaner struct {
	v      *aodi.Volume
	policy Policy
	log    *slog.Logger
	wake   <-chan struct{}
	detach func()
	quit   chan struct{}
	once   sync.Once
	done   chan struct{}

	cleaned atomic.Uint64 // segments
	// runClean's:
	queue []Candidate     // the best of those that there were, worst first
	tired bool            // an error came: a pause before the next round
	left  map[uint32]bool // segments that an error has kept from being cleaned in this round
	most  uint64          // the most that cleaning has come to in this round, see gained
	spent int             // segments cleaned since
	rest  *aodi.Space     // what the last round has left, when it could do no more though more was needed
}

// Start begins to clean.
func Start(v *aodi.Volume, opt Options) *Cleaner {
	c := &Cleaner{v: v, policy: opt.Policy, log: opt.Logger, quit: make(chan struct{}), done: make(chan struct{})}
	if c.policy == nil {
		c.policy = CostBenefit
	}
	if c.log == nil {
		c.log = slog.New(slog.DiscardHandler)
	}
	c.wake, c.detach = v.Attach()
	go c.runClean()
	return c
}

// Close ends cleaning after the slice that is under way. Writes that wait for space get ENOSPC.
func (c *Cleaner) Close() {
	c.once.Do(func() {
		close(c.quit)
		<-c.done
		c.detach()
	})
}

// Cleaned is how many segments were cleaned.
func (c *Cleaner) Cleaned() uint64 { return c.cleaned.Load() }

const (
	lookEvery = time.Second // also when nobody asks
	pauseMost = 10 * time.Millisecond
	tiredFor  = 100 * time.Millisecond
)

// runClean cleans when it is needed.
func (c *Cleaner) runClean() {
	defer close(c.done)
	t := time.NewTicker(lookEvery)
	defer t.Stop()
	for {
		select {
		case <-c.quit:
			return
		case <-c.wake:
		case <-t.C:
		}
		if needed(c.v.Space()) {
			c.v.Round(c.round)
		}
		for c.tired {
			select {
			case <-c.quit:
				return
			case <-time.After(tiredFor):
				c.tired = false
			}
		}
	}
}

// keepFree is how many segments are to be free.
func keepFree(s aodi.Space) uint64 { return s.Keep + 2*s.Low }

// leastGarbage is the least garbage for which a container is cleaned that only the file system bounds.
const leastGarbage = 64 << 20

// needed tells whether there is something to do.
func needed(s aodi.Space) bool {
	if s.Waiting > 0 {
		return true
	}
	if s.Bounded {
		return s.Free < keepFree(s)
	}
	return s.GarbageBytes > max(s.LiveBytes, leastGarbage)
}

var errQuit = errors.New("the cleaner was closed")

// round cleans until there is space enough, or nothing more can be gained. It is a whole one (aodi, relief.go) when no error was in its
// way. A segment that cannot be read is left, and the others are cleaned.
func (c *Cleaner) round() (whole bool) {
	if c.resting(c.v.Space()) {
		return true
	}
	c.queue, c.most, c.spent, c.left = c.queue[:0], 0, 0, map[uint32]bool{}
	err := error(nil)
	for more := true; more && err == nil; {
		select {
		case <-c.quit:
			return false
		default:
		}
		more, err = c.step()
	}
	full := errors.Is(err, syscall.ENOSPC)
	if err != nil && !full && !errors.Is(err, errQuit) {
		c.log.Warn("cleaning", "err", err)
		c.tired = true
	}
	if s := c.v.Space(); needed(s) && (err == nil || full) {
		c.rest = &s
	}
	return (err == nil || full) && !c.tired
}

// resting tells that the last round has done what it could, and that nothing is different since: another one would move the
// same again. A segment's worth of garbage makes a difference, so does a cut that is over, and a write that waits.
func (c *Cleaner) resting(s aodi.Space) bool {
	if c.rest == nil {
		return false
	}
	c.rest.GarbageBytes = min(c.rest.GarbageBytes, s.GarbageBytes)
	if s.Waiting > 0 || s.Held < c.rest.Held || s.GarbageBytes >= c.rest.GarbageBytes+s.SegmentBytes {
		c.rest = nil
	}
	return c.rest != nil
}

// patience is how many segments a round cleans one after the other without any gain: twice as many as the fullest that are worth it
// need to give one back. Map pages of which snapshots have many versions can be moved about for ever, each move making as
// much garbage as it takes away.
const patience = 64

// gained grows by each segment that cleaning empties, and not with what the log takes meanwhile.
func gained(s aodi.Space) uint64 { return s.Free + s.Dead + s.Logged/uint64(s.SegmentChunks) }

// weigh notes whether the last segment that was cleaned has brought anything.
func (c *Cleaner) weigh(s aodi.Space) {
	if g := gained(s); g > c.most {
		c.most, c.spent = g, 0
	}
}

// step frees what is dead, or cleans one more segment. more: there may be something to do yet. A checkpoint costs space, too, so
// it waits until it gives back more, or there is no other way.
func (c *Cleaner) step() (more bool, err error) {
	s := c.v.Space()
	if !needed(s) {
		return false, nil
	}
	c.weigh(s)
	if s.Dead >= s.Low || s.Waiting > 0 && s.Dead > s.Cold/2 {
		if n, err := c.v.FreeDead(); err != nil || n > 0 {
			return true, err
		}
	}
	victim, ok, err := c.next(s)
	if err == nil && ok {
		if err = c.clean(victim); c.leaves(victim, err) {
			return true, nil
		}
	}
	if err != nil && !errors.Is(err, syscall.ENOSPC) {
		return false, err
	}
	if ok && err == nil {
		return true, nil
	}
	n, young := 0, s.Young > 0 && !ok // a checkpoint lets these be cleaned
	err = nil
	for i := 0; i < 2 && n == 0 && err == nil && (c.v.Space().Dead > 0 || young && i == 0); i++ { // what the log has just filled comes with the second
		n, err = c.v.FreeDead()
	}
	more = n > 0 || young
	if err == nil && !more {
		if more, err = c.v.Relieve(); more {
			c.spent = 0
		}
	}
	return more, err
}

// leaves tells whether an error is of that segment alone. One that does not match its checksum stays where it is for good.
func (c *Cleaner) leaves(victim Candidate, err error) bool {
	var corrupt *aodi.CorruptError
	switch {
	case err == nil, errors.Is(err, syscall.ENOSPC), errors.Is(err, errQuit), c.v.Status().Failed != nil:
		return false
	case !errors.As(err, &corrupt):
		c.tired = true
		c.log.Warn("a segment was not cleaned", "segment", victim.Segment, "err", err)
	}
	c.left[victim.Segment] = true
	return true
}

// clean moves what is live out of one segment.
func (c *Cleaner) clean(victim Candidate) error {
	began := time.Now()
	_, err := c.v.Relocate(victim.Segment, func() error {
		took := time.Since(began)
		if s := c.v.Space(); s.Waiting > 0 || s.Free < s.Keep+s.Low {
			took = 0
		}
		select {
		case <-c.quit:
			return errQuit
		case <-time.After(min(took, pauseMost)):
		}
		began = time.Now()
		return nil
	})
	if err == nil {
		c.cleaned.Add(1)
	}
	if errors.Is(err, aodi.ErrNotCleanable) {
		return nil
	}
	return err
}

// atOnce is how many segments are chosen at a time: by the last of them the table looks different.
const atOnce = 8

// next returns the best segment.
func (c *Cleaner) next(s aodi.Space) (Candidate, bool, error) {
	if c.spent++; c.spent > patience {
		return Candidate{}, false, nil
	}
	if len(c.queue) == 0 {
		var err error
		if c.queue, err = best(c.v, s, c.policy, mostLive, atOnce, c.left); err != nil || len(c.queue) == 0 {
			return Candidate{}, false, err
		}
	}
	n := len(c.queue) - 1
	victim := c.queue[n]
	c.queue = c.queue[:n]
	return victim, true, nil
}

// best returns the n best segments of which less than most is live, the best one last, but those that are to be left.
func best(v *aodi.Volume, s aodi.Space, policy Policy, most float64, n int, left map[uint32]bool) ([]Candidate, error) {
	var all []Candidate
	err := v.Sealed(func(seg aodi.SealedSegment) bool {
		if c, ok := candidate(seg, s.SegmentChunks, most); ok && !left[seg.Segment] {
			all = append(all, c)
		}
		return true
	})
	slices.SortFunc(all, func(a, b Candidate) int {
		switch x, y := policy(a), policy(b); {
		case x < y:
			return -1
		case x > y:
			return 1
		}
		return int(b.Segment) - int(a.Segment)
	})
	return all[max(0, len(all)-n):], err
}

// Progress is how far Run has come.
type Progress struct {
	Segments int   `json:"segments_cleaned"`
	Moved    int64 `json:"moved_bytes"`
	Garbage  int64 `json:"garbage_bytes"` // that is left
}

// byHand is the share that is live above which Run leaves a segment alone.
const byHand = 0.95

// Run cleans every segment that is worth it, beside the cleaner, and gives the space back to the file system. progress is called
// after each segment. Errors: the context's; those of cleaning.
func (c *Cleaner) Run(ctx context.Context, progress func(Progress)) (Progress, error) {
	var p Progress
	tried := map[uint32]bool{}
	tell := func() {
		p.Garbage = c.v.Space().GarbageBytes
		if progress != nil {
			progress(p)
		}
	}
	between := func() error {
		select {
		case <-c.quit:
			return errQuit
		default:
			return ctx.Err()
		}
	}
	if err := c.v.GiveBack(); err != nil { // what was kept for mirrors that are a little behind can be cleaned then
		return p, err
	}
	if err := c.v.Checkpoint(); err != nil { // and what was sealed since the last one
		return p, err
	}
	for {
		all, err := best(c.v, c.v.Space(), c.policy, byHand, 1<<30, tried)
		if err != nil {
			return p, err
		}
		if len(all) == 0 {
			break
		}
		for i := len(all) - 1; i >= 0; i-- { // each once: what moves meanwhile would never end
			tried[all[i].Segment] = true
			n, err := c.v.Relocate(all[i].Segment, between)
			p.Moved += int64(n) * 4096
			if errors.Is(err, aodi.ErrNotCleanable) {
				continue
			}
			if err != nil {
				tell()
				return p, err
			}
			p.Segments++
			c.cleaned.Add(1)
			tell()
			if s := c.v.Space(); s.Dead >= max(1, s.Low) {
				if _, err := c.v.FreeDead(); err != nil {
					return p, err
				}
			}
		}
	}
	err := c.v.GiveBack()
	tell()
	return p, err
}
