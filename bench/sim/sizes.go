package sim

import (
	"errors"
	"slices"
	"sort"

	"cawrm/aodi"
)

// Growth: the logical size is a record of the log, so it belongs to a cut as all content does; the capacity is a container's own.

// sized is a size in bytes from the record at a position on.
type sized struct {
	at   aodi.Position
	size int64
}

// chooseGrowth says to which sizes a volume may grow, and what clients use there then: a little more; and so much that the map
// becomes higher.
func (c *config) chooseGrowth() {
	more := map[int64][2]window{
		64:       {{64, 16}, {690, 10}},
		2000:     {{2000, 16}, {262_140, 16}},
		600_000:  {{600_000, 8}, {999_990, 10}},
		40 * 512: {{40 * 512, 8}, {299_990, 10}},
	}[c.size/chunkSize]
	for _, win := range more {
		c.windows = append(c.windows, win)
		c.sizes = append(c.sizes, (win.first+win.count)*chunkSize)
	}
}

// sizeAt is the size as of a cut.
func (m *model) sizeAt(p aodi.Position) int64 {
	n := sort.Search(len(m.sizes), func(i int) bool { return i > 0 && m.sizes[i].at >= p })
	return m.sizes[n-1].size
}

func (m *model) size() int64 { return m.sizeAt(m.end) }

func (m *model) truncateSizes(p aodi.Position) {
	for n := len(m.sizes); n > 1 && m.sizes[n-1].at >= p; n-- {
		m.sizes = m.sizes[:n-1]
	}
}

// inside are the parts of the windows that lie in a volume of that size.
func (w *world) inside(size int64) (all []window) {
	for _, win := range w.cfg.windows {
		if win.count = min(win.count, size/chunkSize-win.first); win.count > 0 {
			all = append(all, win)
		}
	}
	return all
}

// someWindow is one that clients can use now.
func (w *world) someWindow() window {
	all := w.inside(w.model.size())
	return all[w.rng.IntN(len(all))]
}

// seeSize notes with which sizes a mirror has begun: an empty one takes its source's newest, before the records that lead there, and a
// newer one from each session until it has got something.
func (w *world) seeSize(n *node) {
	switch size := n.v.Size(); {
	case n.adopted:
	case size == 0:
		n.born = nil
	case !slices.Contains(n.born, size):
		n.born = append(n.born, size)
	}
}

// wrongSize tells how a size is not the model's as of p.
func (w *world) wrongSize(n *node, size int64, p aodi.Position) string {
	want := w.ruled(p).model.sizeAt(p)
	if size == want {
		return ""
	}
	for ; n.from != nil && size > want; n = n.from { // a mirror of a mirror gets what that has
		if slices.Contains(n.born, size) || !n.adopted {
			return ""
		}
	}
	return say("it has %d bytes, not %d", size, want)
}

// opResize lets the source's volume grow: a little, to where clients have more to write, or not at all.
func (w *world) opResize() {
	if w.roles {
		return // a branch that is given up has a size of its own
	}
	v := w.volume()
	if v == nil {
		return
	}
	had := w.model.size() / chunkSize
	to := had + w.rng.Int64N(8)
	for _, size := range w.cfg.sizes {
		if size > had*chunkSize && w.rng.IntN(3) > 0 {
			to = size / chunkSize
			break
		}
	}
	var plan []record
	if to > had {
		plan = []record{{kind: grow, count: to}}
	}
	w.say("  -> from %d to %d chunks", had, to)
	if w.change(v, plan, func() error { return v.Resize(to * chunkSize) }) {
		w.flushed = w.model.end
	}
}

// opCapacity changes the bound of a container that has one: it is never less than what the history was given at first. A crash leaves
// the one before or the one after.
func (w *world) opCapacity() {
	k := w.rng.IntN(len(w.nodes))
	n, least := w.nodes[k], w.cfg.capacity(k)
	if least == 0 || !n.up() || n.v.Status().Failed != nil {
		return
	}
	to := least + w.rng.Int64N(24)*int64(w.cfg.segment[k])*chunkSize
	if w.rng.IntN(2) == 0 {
		to = least
	}
	had := n.v.Space().Capacity
	n.bounds = append(n.bounds, to)
	n.calmly(func() {
		err := n.v.SetCapacity(to)
		w.say("  -> %s from %d to %d, %v", n.name, had, to, err)
		switch {
		case n.d.isDead():
			return
		case err == nil:
			n.bounds = []int64{to}
		case !errors.Is(err, aodi.ErrInUse) && !errors.Is(err, aodi.ErrLive) && !w.allowed(n, err):
			w.fatal("error", "capacity: %v", err)
		}
	})
}

// bounded holds the capacity that a container comes up with against what it was told.
func (w *world) bounded(n *node) {
	got := n.v.Space().Capacity
	if n.d.isDead() {
		return
	}
	if !slices.Contains(n.bounds, got) {
		w.fatal("capacity", "%s comes up with a capacity of %d bytes, was told %v", n.name, got, n.bounds)
	}
	n.bounds = []int64{got}
}
