package sim

import (
	"slices"

	"cawrm/aodi"
)

// snaps is what a machine was told of its snapshots: it outlives its processes.
type snaps struct {
	there []string // made, and somebody heard so
	maybe []string // being made or deleted when the process ended: there or not
	next  int
}

func (s *snaps) forget(name string) {
	drop := func(x string) bool { return x == name }
	s.there, s.maybe = slices.DeleteFunc(s.there, drop), slices.DeleteFunc(s.maybe, drop)
}

// opSnapshot keeps what somebody shows, the source or a mirror.
func (w *world) opSnapshot() {
	n := w.someone()
	if !n.up() || n.v.Status().Failed != nil || n.v.Size() == 0 {
		return
	}
	n.snaps.next++
	name := say("%s%d", n.name, n.snaps.next)
	n.snaps.maybe = append(n.snaps.maybe, name)
	n.calmly(func() {
		made, err := n.v.CreateSnapshot(name)
		w.say("  -> %s at %d, %v", name, made.Position, err)
		if n.d.isDead() {
			return
		}
		if err != nil {
			if !w.allowed(n, err) {
				w.fatal("error", "snapshot: %v", err)
			}
			return
		}
		n.snaps.forget(name)
		n.snaps.there = append(n.snaps.there, name)
		if n.from == nil && made.Position != w.model.end {
			w.fatal("snapshot", "%s stands at %d, the volume at %d", name, made.Position, w.model.end)
		}
	})
}

func (w *world) opDeleteSnapshot() {
	n := w.someone()
	if !n.up() || n.v.Status().Failed != nil || len(n.snaps.there) == 0 {
		return
	}
	name := n.snaps.there[w.rng.IntN(len(n.snaps.there))]
	n.snaps.forget(name)
	n.snaps.maybe = append(n.snaps.maybe, name)
	n.calmly(func() {
		err := n.v.DeleteSnapshot(name)
		w.say("  -> %s, %v", name, err)
		if err == nil && !n.d.isDead() {
			n.snaps.forget(name)
		} else if !n.d.isDead() && !w.allowed(n, err) {
			w.fatal("error", "delete snapshot: %v", err)
		}
	})
}

// compareSnapshots holds the snapshots of a node, or one of them, against the model as of their positions.
func (w *world) compareSnapshots(n *node, all bool) {
	list := n.v.Snapshots()
	if n.d.isDead() {
		return
	}
	for _, name := range n.snaps.there {
		if !slices.ContainsFunc(list, func(s aodi.SnapshotInfo) bool { return s.Name == name }) {
			w.fatal("snapshot", "%s has no snapshot %s any more", n.name, name)
		}
	}
	if !all && len(list) > 0 {
		i := w.rng.IntN(len(list))
		list = list[i : i+1]
	}
	for _, s := range list {
		w.compareSnapshot(n, s)
	}
}

func (w *world) compareSnapshot(n *node, s aodi.SnapshotInfo) {
	if !slices.Contains(n.snaps.there, s.Name) && !slices.Contains(n.snaps.maybe, s.Name) {
		w.fatal("snapshot", "%s has a snapshot %s that was deleted, or never made", n.name, s.Name)
	}
	if s.Position > w.known {
		return // clients whose records have no order yet
	}
	v, err := n.v.OpenView(s.Name)
	if err != nil {
		if !n.d.isDead() {
			w.fatal("snapshot", "%s: %v", n.name, err)
		}
		return
	}
	defer v.Close()
	for _, win := range w.cfg.windows {
		b := w.buffer(win.count * chunkSize)
		err := v.ReadAt(b, win.first*chunkSize)
		if n.d.isDead() || err != nil && n.d.hurt() {
			return
		}
		if err != nil {
			w.fatal("snapshot", "%s@%s: %v", n.name, s.Name, err)
		}
		if bad := w.unlike(b, win.first, s.Position); bad != "" {
			w.fatal("snapshot", "%s@%s at position %d: %s", n.name, s.Name, s.Position, bad)
		}
	}
	if used, want := s.UsedBytes/chunkSize, w.model.mapped(s.Position); used != want {
		w.fatal("snapshot", "%s@%s: %d chunks are mapped, not %d", n.name, s.Name, used, want)
	}
	w.count("snapshots compared", 1)
}
