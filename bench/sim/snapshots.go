package sim

import (
	"errors"
	"slices"
	"strings"

	"cawrm/aodi"
)

// snaps is what a machine was told of its snapshots: it outlives its processes.
type snaps struct {
	there []string // made, and somebody heard so
	maybe []string // being made or deleted when the process ended: there or not
	gone  []string // somebody has tried to delete them here
	next  int
}

func (s *snaps) forget(name string) {
	drop := func(x string) bool { return x == name }
	s.there, s.maybe = slices.DeleteFunc(s.there, drop), slices.DeleteFunc(s.maybe, drop)
}

// opSnapshot keeps what somebody shows, the source or a mirror.
func (w *world) opSnapshot() {
	w.snapshot(w.someone())
}

func (w *world) snapshot(n *node) {
	if !n.up() || n.v.Status().Failed != nil || n.v.Size() == 0 || n.rules == nil && !n.adopted {
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
		if r := n.rules; r != nil && made.Position != r.model.end && n.v.Role() == aodi.RolePrimary {
			w.fatal("snapshot", "%s stands at %d, the volume at %d", name, made.Position, r.model.end)
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
	n.snaps.gone = append(n.snaps.gone, name)
	n.calmly(func() {
		kept := n.ofClone(name)
		err := n.v.DeleteSnapshot(name)
		w.say("  -> %s, %v", name, err)
		switch {
		case n.d.isDead():
		case kept && err == nil:
			w.fatal("clone", "%s@%s was deleted under a clone", n.name, name)
		case err == nil:
			n.snaps.forget(name)
		case kept && errors.Is(err, aodi.ErrSnapshotInUse):
		case !w.allowed(n, err):
			w.fatal("error", "delete snapshot: %v", err)
		}
	})
}

// compareSnapshots holds the snapshots of a node, or one of them, against the model as of their positions.
func (w *world) compareSnapshots(n *node, all bool) {
	list := n.v.Snapshots()
	if n.d.isDead() || w.ahead(n.end()) {
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
	if !n.copied(s.Name) && !n.cameBack(s.Name) && !slices.Contains(n.snaps.there, s.Name) && !slices.Contains(n.snaps.maybe, s.Name) {
		w.fatal("snapshot", "%s has a snapshot %s that was deleted, or never made", n.name, s.Name)
	}
	if s.Position > w.ruled(s.Position).known {
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
	w.compareView(n, v, "snapshot")
}

// compareView holds what a view shows against the model as of its position.
func (w *world) compareView(n *node, v *aodi.View, what string) {
	s := v.Info()
	if bad := w.wrongSize(n, s.Size, s.Position); bad != "" || v.Size() != s.Size {
		w.fatal(what, "%s@%s at position %d, of %d bytes: %s", n.name, s.Name, s.Position, v.Size(), bad)
	}
	for _, win := range w.inside(s.Size) {
		b := w.buffer(win.count * chunkSize)
		err := v.ReadAt(b, win.first*chunkSize)
		if n.d.isDead() || err != nil && n.d.hurt() {
			return
		}
		if err != nil {
			w.fatal(what, "%s@%s: %v", n.name, s.Name, err)
		}
		if bad := w.unlike(b, win.first, s.Position); bad != "" {
			w.fatal(what, "%s@%s at position %d: %s", n.name, s.Name, s.Position, bad)
		}
	}
	if used, want := s.UsedBytes/chunkSize, w.ruled(s.Position).model.mapped(s.Position); used != want {
		w.fatal(what, "%s@%s: %d chunks are mapped, not %d", n.name, s.Name, used, want)
	}
	w.count(what+"s compared", 1)
}

// copied tells whether a snapshot is one that a node has from its source: names begin with who made them.
func (n *node) copied(name string) bool { return !strings.HasPrefix(maker(name), n.name) }

// cameBack tells whether a snapshot that was deleted may be there again: after a change of roles a mirror that stands where it is gets it
// from one that has kept it.
func (n *node) cameBack(name string) bool {
	return len(n.w.reigns) > 1 && slices.Contains(n.snaps.gone, name)
}

// opDeleteCopy deletes a snapshot that a mirror has from its source. It can come back as long as the mirror stands there: the
// source does not know, after a restart.
func (w *world) opDeleteCopy() {
	n := w.nodes[1+w.rng.IntN(len(w.nodes)-1)]
	if len(w.reigns) > 1 {
		n = w.someone()
	}
	if !n.up() || n.v.Status().Failed != nil {
		return
	}
	list := slices.DeleteFunc(n.v.Snapshots(), func(s aodi.SnapshotInfo) bool {
		return !n.copied(s.Name) || slices.Contains(n.snaps.there, s.Name) || n.ofClone(s.Name)
	})
	if len(list) == 0 {
		return
	}
	name := list[w.rng.IntN(len(list))].Name
	n.snaps.gone = append(n.snaps.gone, name)
	n.calmly(func() {
		err := n.v.DeleteSnapshot(name)
		w.say("  -> %s@%s, %v", n.name, name, err)
		if err != nil && !n.d.isDead() && !w.allowed(n, err) {
			w.fatal("error", "delete snapshot: %v", err)
		}
	})
}

// copies holds the snapshots of a mirror against its source's: whatever the source has below the mirror's position is there too, at
// the same position, of the same time; and the mirror has none that the source has lost.
func (w *world) copies(n *node, whole bool) {
	if n.up() && n.rules == nil && n.v.Role() == aodi.RolePrimary {
		return // its promotion is not over
	}
	if n.up() && w.ahead(n.end()) {
		return
	}
	if len(w.reigns) > 1 {
		w.copiesOfPrimary(n, whole)
		return
	}
	if n.from == nil || !n.up() || !n.from.up() {
		return
	}
	end := n.end() // in this order: both sides go on
	had := n.from.v.Snapshots()
	here := n.v.Snapshots()
	has := n.from.v.Snapshots()
	if n.d.isDead() || n.from.d.isDead() {
		return
	}
	for _, s := range had {
		i := find(here, s.Name)
		switch {
		case i >= 0 && (here[i].Position != s.Position || !here[i].Time.Equal(s.Time)):
			w.fatal("copy", "%s@%s is at %d, of %v; %s has it at %d, of %v", n.name, s.Name, here[i].Position, here[i].Time, n.from.name, s.Position, s.Time)
		case i < 0 && (whole || s.Position < end) && !n.excused(s.Name):
			w.fatal("copy", "%s, at %d, lacks the snapshot %s of position %d", n.name, end, s.Name, s.Position)
		case i >= 0:
			w.count("snapshots at a mirror", 1)
		}
	}
	for _, s := range here {
		if n.copied(s.Name) && find(has, s.Name) < 0 && !slices.Contains(n.from.snaps.gone, s.Name) {
			w.fatal("copy", "%s has the snapshot %s of position %d, which %s has not", n.name, s.Name, s.Position, n.from.name)
		}
	}
}

func find(list []aodi.SnapshotInfo, name string) int {
	return slices.IndexFunc(list, func(s aodi.SnapshotInfo) bool { return s.Name == name })
}

// excused tells whether a mirror need not have a snapshot: it was to be deleted there, or at its source, where a deletion that has failed, or
// that a crash met, may be undone when the mirror has come past it.
func (n *node) excused(name string) bool {
	return slices.Contains(n.snaps.gone, name) || slices.Contains(n.from.snaps.gone, name)
}

// lacks tells which snapshots of its source a mirror has not got yet.
func (n *node) lacks() string {
	if len(n.w.reigns) > 1 {
		return n.lacksOfPrimary(n.end())
	}
	for _, s := range n.from.v.Snapshots() {
		if find(n.v.Snapshots(), s.Name) < 0 && !n.excused(s.Name) {
			return s.Name
		}
	}
	return ""
}
