package sim

import (
	"context"
	"errors"
	"time"

	"cawrm/cawrm"
)

// Operations on mirrors while they run: paused, resumed, removed and added again, in flush mode, and compared.

// attach gives the mirrors of a node the order of its children.
func (n *node) attach() {
	n.mirrors = n.mirrors[:0]
	for _, c := range n.children {
		m, err := n.feeds.Mirror(c.name)
		if err != nil {
			n.w.fatal("error", "%s: %v", n.name, err)
		}
		n.mirrors = append(n.mirrors, m)
	}
}

// someChild is a mirror of a node that is up.
func (w *world) someChild() (n *node, i int) {
	n = w.nodes[w.rng.IntN(2)] // s or a
	if len(w.reigns) > 1 {
		n = w.someone()
	}
	if !n.up() || len(n.children) == 0 {
		return nil, 0
	}
	return n, w.rng.IntN(len(n.children))
}

// opPause pauses a mirror, or resumes it.
func (w *world) opPause() {
	n, i := w.someChild()
	if n == nil {
		return
	}
	set := n.mirrors[i].Settings()
	set.Paused = !set.Paused && w.rng.IntN(3) > 0
	w.say("  -> %s of %s, paused %v", n.children[i].name, n.name, set.Paused)
	n.mirrors[i].Change(set)
}

// opRemove removes a mirror and gives it back.
func (w *world) opRemove() {
	n, i := w.someChild()
	if n == nil {
		return
	}
	c := n.children[i]
	w.say("  -> %s of %s", c.name, n.name)
	n.calmly(func() {
		if err := n.feeds.Remove(c.name); err != nil && !n.d.isDead() && !w.allowed(n, err) {
			w.fatal("error", "remove %s: %v", c.name, err)
		}
	})
	if err := n.feeds.AddGiven(c.name, w.cfg.mirror(w, n, c, n.host).URL); err != nil {
		w.fatal("error", "add %s: %v", c.name, err)
	}
	n.attach()
}

// flushTimeout is that of flush mode here: shorter than anything waits for anything.
const flushTimeout = 2 * time.Second

// opFlushMode flushes with some mirrors in flush mode: when that returns, each that it has waited for has it, for good.
func (w *world) opFlushMode() {
	if w.volume() == nil {
		return
	}
	s := w.source()
	for _, m := range s.mirrors {
		set := m.Settings()
		set.Mode, set.OnTimeout, set.Timeout = pick(w.rng, cawrm.ModeFlush, cawrm.ModeFlush, cawrm.ModeAsync), cawrm.TimeoutDegrade, flushTimeout
		m.Change(set)
	}
	end := s.end()
	if !w.change(s.v, nil, func() error { return w.flushAtMirrors(s) }) {
		return
	}
	w.flushed = w.model.end
	for i, st := range s.feeds.Status() {
		c := s.node(st.ID)
		if st.Flush != cawrm.FlushOK || c == nil {
			continue
		}
		w.count("flushes at mirrors", 1)
		c.floor = max(c.floor, end) // what it comes up with later, too
		if c.up() && c.end() < end {
			w.fatal("flushed", "a flush up to %d has returned, and mirror %s (%d), which it waited for, stands at %d", end, st.ID, i, c.end())
		}
	}
}

// flushAtMirrors flushes, and does not wait for ever: nothing that has failed comes back meanwhile.
func (w *world) flushAtMirrors(s *node) error {
	done := make(chan error, 1)
	go func() { done <- s.feeds.Flush() }()
	select {
	case err := <-done:
		return err
	case <-time.After(time.Hour):
		w.fatal("hang", "a flush waits for mirrors that are not to be waited for after %v", flushTimeout)
		return nil
	}
}

// node finds a child by name.
func (n *node) node(name string) *node {
	for _, c := range n.children {
		if c.name == name {
			return c
		}
	}
	return nil
}

// opVerify compares a mirror with its source, while clients write. What differs can only be what a disk in trouble does not give.
func (w *world) opVerify() {
	n, i := w.someChild()
	if n == nil || n.v.Status().Failed != nil {
		return
	}
	c := n.children[i]
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	type outcome struct {
		r   *cawrm.Verification
		err error
	}
	done := make(chan outcome, 1)
	m := n.mirrors[i]
	go func() {
		r, err := m.Verify(ctx, w.seed%2 == 0, func(int64, int64) {})
		done <- outcome{r, err}
	}()
	if v := w.source().v; w.source().up() && w.source().rules == w.reign && w.burst == nil && v.Status().Failed == nil {
		for range w.rng.IntN(8) { // beside it
			s, k := w.place(sectors)
			plan, p := w.model.write(s, k)
			if !w.change(v, plan, func() error { return v.WriteAt(p, s*sectorSize, w.rng.IntN(2) == 0) }) {
				break
			}
		}
	}
	out := <-done
	w.say("  -> %s of %s: %+v, %v", c.name, n.name, out.r, out.err)
	if out.err != nil {
		if errors.Is(out.err, context.DeadlineExceeded) {
			w.say("  -> it took too long")
		}
		return
	}
	w.count("comparisons", 1)
	for _, d := range out.r.Different {
		if d.Why == cawrm.Differs || !n.d.hurt() && !c.d.hurt() {
			w.fatal("verify", "%s and %s differ as of %d: %+v", n.name, c.name, out.r.Position, d)
		}
	}
}
