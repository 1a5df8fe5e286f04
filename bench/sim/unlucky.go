package sim

import "runtime"

// Misfortunes that chance brings too rarely: two things at once, and the disk in trouble between them.

// in lets something happen while a node's disk is in trouble.
func (n *node) in(t trouble, do func()) {
	was := n.trouble
	n.d.setTrouble(t)
	do()
	if !n.down {
		n.d.setTrouble(was)
	}
}

// opWriteBeside writes with FUA while a checkpoint is being written, and syncs fail: of the one, and not of the other.
func (w *world) opWriteBeside() {
	w.opWrite()
	v := w.volume()
	if v == nil {
		return
	}
	at, n := w.place(sectors)
	plan, p := w.model.write(at, n)
	s := w.source()
	s.in(trouble{sync: 2 + w.rng.IntN(3)}, func() {
		s.calmly(func() {
			done := make(chan error, 1)
			go func() { done <- v.Checkpoint() }()
			for range w.rng.IntN(1 << w.rng.IntN(8)) {
				runtime.Gosched() // it gets on
			}
			if w.change(v, plan, func() error { return v.WriteAt(p, at*sectorSize, true) }) {
				w.flushed = w.model.end
			}
			if err := <-done; !s.d.isDead() && !w.allowed(s, err) {
				w.fatal("error", "a checkpoint beside a write: %v", err)
			}
		})
	})
}

// opSnapshotInNeed makes a snapshot whose copy a mirror may not be able to keep.
func (w *world) opSnapshotInNeed() {
	n := w.someone()
	if n.from == nil || !n.up() || !n.adopted || !n.from.up() {
		return
	}
	need := []trouble{{full: true}, {sync: 2}, {write: 4}}[w.rng.IntN(3)]
	w.say("  -> %s: %+v", n.name, need)
	n.in(need, func() {
		w.snapshot(n.from)
		w.opTime()
	})
}
