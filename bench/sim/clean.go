package sim

import (
	"context"
	"errors"
	"math/rand/v2"

	"cawrm/aodi"
	"cawrm/aodi/format"
	"cawrm/gc"
)

// Cleaning: in some histories a cleaner runs beside each volume, as serve starts it, and in some of these containers are so small
// that the history does not fit without one. By hand segments are moved whatever is live in them, while clients write and machines
// fall.

// space is how a history's containers are bounded, and who cleans them.
type space struct {
	cleaners bool
	segments [4]uint64 // of each node's container; 0: as many as the disk has
}

// chooseSpace chooses containers in which what a history holds at most fits, cleaned, with a snapshot or some: with more it is the
// oracle that knows when they are full (cramped).
func (c *config) chooseSpace(rng *rand.Rand) {
	s := &c.space
	if s.cleaners = rng.IntN(2) == 0; !s.cleaners && rng.IntN(4) > 0 {
		return
	}
	for i := range s.segments {
		if rng.IntN(3) > 0 {
			s.segments[i] = 26 + rng.Uint64N(40)
			if i > 0 { // a mirror holds two contents for a while
				s.segments[i] += 10
			}
			c.segment[i] = min(c.segment[i], 64)
		}
	}
}

// capacity is node i's, in bytes; 0: none.
func (c *config) capacity(i int) int64 {
	n := c.space.segments[i]
	if n == 0 {
		return 0
	}
	return (format.DataStart + int64(n)*int64(c.segment[i])) * chunkSize
}

// startCleaner is what serve does behind a volume that it has opened.
func (n *node) startCleaner() {
	if n.w.cfg.space.cleaners {
		n.cleaner = gc.Start(n.v, gc.Options{Logger: n.w.logger(n.name)})
	}
}

func (n *node) stopCleaner() {
	if n.cleaner != nil {
		n.w.count("segments cleaned by the cleaners", int(n.cleaner.Cleaned()))
		n.cleaner.Close()
		n.cleaner = nil
	}
}

// cramped tells whether a container is honestly full: not all that can be live in it fits into three quarters of what is not
// reserved, or nobody cleans it, also since the disk fails who does. What is shipped, and the history, do not count: they give way to a write.
func (n *node) cramped() bool {
	w, s := n.w, n.v.Space()
	if !s.Bounded || n.cleaner == nil || n.d.failing() {
		return s.Bounded
	}
	pages := func() int64 { return int64(len(w.cfg.windows)) + 4 } // of one map
	live := w.model.mapped(w.model.end) + pages()
	for _, s := range n.v.Snapshots() {
		live += w.model.mapped(s.Position) + pages()
	}
	const heads = 5
	leaves := min(w.model.size()/chunkSize/format.RefsPerPage, w.model.mapped(w.model.end)) + 1 // who writes may come to one more with each chunk
	reserved := s.Keep + s.Low + heads + uint64(3*leaves)/uint64(s.SegmentChunks)
	return live > int64(s.Limit-min(s.Limit, reserved))*int64(s.SegmentChunks)*3/4
}

// makeRoom deletes all snapshots, as somebody does whose mirror is full.
func (w *world) makeRoom() {
	for _, n := range w.nodes {
		n.calmly(func() {
			if n.clone != nil {
				w.closeClone(n, n.clone)
				n.clone = nil
			}
			for _, c := range n.v.Clones() {
				w.must(n.v.ForgetClone(c.Name))
			}
		})
		for _, s := range n.v.Snapshots() {
			n.snaps.forget(s.Name)
			n.snaps.gone = append(n.snaps.gone, s.Name)
			n.calmly(func() { w.must(n.v.DeleteSnapshot(s.Name)) })
		}
	}
	w.count("snapshots deleted to make room", 1)
}

// opClean cleans somebody by hand: all that is worth it, or some segments, whatever is live in them.
func (w *world) opClean() {
	n := w.someone()
	if !n.up() || n.v.Status().Failed != nil {
		return
	}
	if w.rng.IntN(6) == 0 {
		k, silent := w.rng.IntN(1<<w.rng.IntN(7)), w.rng.IntN(3) > 0
		w.say("  -> %s falls after %d operations, power %v", n.name, k, silent)
		n.d.light(k, silent)
	}
	rng := w.split()
	do := func() error { return w.relocate(n, rng) }
	if w.rng.IntN(3) == 0 {
		do = func() error { return w.cleanAll(n) }
	}
	done := make(chan error, 1)
	go func() { done <- do() }()
	if w.rng.IntN(2) == 0 {
		w.writeBeside()
	}
	err := <-done
	w.say("  -> %s, %v", n.name, err)
	if !n.d.isDead() && !w.allowed(n, err) {
		w.fatal("error", "clean: %v", err)
	}
	if n.up() && w.burst == nil {
		w.compare(n)
		w.compareSnapshots(n, w.rng.IntN(3) == 0)
	}
}

// writeBeside lets a client overwrite what it has, beside something else.
func (w *world) writeBeside() {
	v := w.source().v
	if w.source().rules != w.reign {
		return // nobody takes writes
	}
	for range 1 + w.rng.IntN(12) {
		if !w.source().up() || w.burst != nil || v.Status().Failed != nil {
			return
		}
		s, k := w.place(sectors)
		plan, p := w.model.write(s, k)
		if !w.change(v, plan, func() error { return v.WriteAt(p, s*sectorSize, w.rng.IntN(8) == 0) }) {
			return
		}
	}
}

// cleanAll is cawrm gc.
func (w *world) cleanAll(n *node) error {
	c := n.cleaner
	if c == nil {
		c = gc.Start(n.v, gc.Options{})
		defer c.Close()
	}
	p, err := c.Run(context.Background(), nil)
	w.count("segments cleaned by hand", p.Segments)
	w.count("chunks moved by hand", int(p.Moved/chunkSize))
	return err
}

// relocate moves what is live out of some segments, also of such as nobody would choose, and has the dead ones freed.
func (w *world) relocate(n *node, rng *rand.Rand) error {
	if rng.IntN(4) > 0 { // what was sealed lately can be moved then
		if err := n.v.Checkpoint(); err != nil {
			return err
		}
	}
	var all []uint32
	if err := n.v.Sealed(func(s aodi.SealedSegment) bool { all = append(all, s.Segment); return true }); err != nil {
		return err
	}
	for range min(len(all), 1+rng.IntN(6)) {
		i := rng.IntN(len(all))
		moved, err := n.v.Relocate(all[i], nil)
		all = append(all[:i], all[i+1:]...)
		w.count("chunks moved by hand", moved)
		if err != nil && !errors.Is(err, aodi.ErrNotCleanable) {
			return err
		}
		if rng.IntN(4) == 0 {
			if _, err := n.v.FreeDead(); err != nil {
				return err
			}
		}
	}
	if rng.IntN(2) > 0 {
		return nil
	}
	_, err := n.v.FreeDead()
	return err
}
