package sim

import (
	"slices"
	"strings"

	"cawrm/aodi"
	"cawrm/aodi/format"
)

// What the oracle says of roles. It is the driver that promotes and demotes; by itself a volume changes its role in one case
// only: an old primary to which nobody has written since it came up steps down when it meets who took its place.

// changing tells that a reign is about to begin, or that somebody has not followed yet.
func (w *world) changing() bool {
	if w.vacant || w.heir != nil {
		return true
	}
	for _, n := range w.nodes {
		if len(w.reigns) > 1 && (n.down || n.rules != w.reign && w.ruled(n.floor) != w.reign) {
			return true
		}
	}
	return false
}

// disturb lets nobody sleep over a disk from here on: changes of role take checkpoints beside those that come by themselves.
func (w *world) disturb() {
	for _, n := range w.nodes {
		if !n.down {
			n.d.calm()
		}
	}
	w.disturbed = true
}

// rest ends disturb, when everybody has followed.
func (w *world) rest() {
	if !w.disturbed || w.changing() {
		return
	}
	w.disturbed = false
	for _, n := range w.nodes {
		if n.rules != nil || n.adopted {
			n.d.mu.Lock()
			n.d.noSleep = false
			n.d.mu.Unlock()
		}
	}
}

// heads looks at everybody's role, and who follows by himself now. Never two writable heads of one lineage.
func (w *world) heads() {
	for _, n := range w.nodes {
		if !n.up() {
			continue
		}
		role, end := n.v.Role(), n.end()
		if n.d.isDead() || n.v.Status().Failed != nil {
			continue
		}
		switch {
		case n.rules == nil && role == aodi.RolePrimary:
			if n != w.heir {
				w.fatal("heads", "%s is a primary, at %d, and nobody has promoted it", n.name, end)
			}
			if l := n.v.Info().Lineage; end > l[len(l)-1].Start { // else it has not entered its term yet, and holds writes
				w.begin(n)
			}
		case n.rules != nil && role == aodi.RoleMirror:
			w.gaveIn(n)
		case n.rules != nil:
			n.written = end != n.came
		}
	}
	w.oneHead()
}

// gaveIn is called when a primary has been found to be a mirror. It takes no more writes from then on, but until it has said that it
// is one, and anybody feeds it, its disk may call it what it was: a crash, or a disk without space, brings the primary back.
func (w *world) gaveIn(n *node) {
	switch {
	case n.demoting:
	case n.rules == w.reign && !w.succeeded():
		w.fatal("heads", "%s is the primary, and is a mirror now by itself", n.name)
	case n.written:
		w.fatal("heads", "%s has stepped down by itself, though it was written to", n.name)
	}
	if !n.turned.Load() {
		return
	}
	if !n.demoting {
		w.count("old primaries that stepped down", 1)
	}
	w.abdicate(n)
}

// succeeded tells that somebody was promoted whose volume failed then, before anybody has looked at its term: those who take nothing meet it.
func (w *world) succeeded() bool {
	h := w.heir
	return h != nil && h.up() && h.v.Status().Failed != nil && h.v.Role() == aodi.RolePrimary
}

// abdicate is the end of a primary: it is a mirror that holds what it held.
func (w *world) abdicate(n *node) {
	r := n.rules
	w.say("  -> %s, at %d, is a mirror now", n.name, r.model.end)
	n.rules, n.demoting, n.floor, n.adopted = nil, false, r.model.end, true
	r.flushed = max(r.flushed, r.model.end)
	if r == w.reign {
		w.vacant = true
		return
	}
	n.from = w.reign.primary
	n.children = slices.DeleteFunc(n.children, func(c *node) bool { return c.from != n })
	w.hang(n)
}

// roleOf looks at the role in which a node has come up.
func (w *world) roleOf(n *node) {
	switch {
	case n.rules == nil && n.cameAs == aodi.RoleMirror:
		if n.handed {
			w.fatal("lost", "%s had taken over, and comes up as a mirror", n.name)
		}
		if n == w.heir && w.heirEnd == 0 {
			w.heir, w.asked = nil, nil // it was not promoted
		}
	case n.rules == nil:
		if n != w.heir {
			w.fatal("heads", "%s comes up as a primary, and nobody has promoted it", n.name)
		}
		w.begin(n)
	case n.cameAs == aodi.RolePrimary:
		if n.demoting && n.rules == w.reign && w.asked == nil {
			w.heir, w.heirEnd = nil, 0 // it is the primary still, and has handed over to nobody
		}
		n.demoting = false
	case n.rules == w.reign && !n.demoting:
		w.fatal("heads", "%s was the primary, and comes up as a mirror", n.name)
	default:
		w.cameDown(n)
	}
}

// cameDown is for an old primary that comes up as a mirror: it was demoted, or has stepped down, right before its process ended.
func (w *world) cameDown(n *node) {
	r := n.rules
	if w.ruled(n.came) == r {
		if n.came < r.flushed || n.came > r.model.end && r.burst == nil {
			w.fatal("flushed", "%s comes up as a mirror, at %d of %d, of which %d were durable", n.name, n.came, r.model.end, r.flushed)
		}
		if r.burst == nil {
			r.model.truncate(n.came)
			r.known = n.came
		}
	}
	floor := max(r.flushed, min(n.came, r.model.end))
	w.abdicate(n)
	n.floor = floor
}

// oneHead is that no two primaries that are up have one lineage.
func (w *world) oneHead() {
	heads := map[format.Lineage]*node{}
	for _, n := range w.nodes {
		if !n.up() {
			continue
		}
		i := n.v.Info()
		if i.Role != aodi.RolePrimary || n.d.isDead() || len(i.Lineage) == 0 {
			continue
		}
		last := i.Lineage[len(i.Lineage)-1]
		if other := heads[last]; other != nil {
			w.fatal("heads", "%s and %s are both primaries of %v", other.name, n.name, last)
		}
		heads[last] = n
	}
}

// rejoined is called when a mirror has come over from an older reign: what only it had is kept.
func (w *world) rejoined(n *node, end aodi.Position) {
	was, is := w.ruled(n.floor), w.ruled(end)
	fork := w.reigns[was.number+1].fork()
	w.count("members that followed", 1)
	if n.floor <= fork {
		return
	}
	for _, s := range n.v.Snapshots() {
		if s.Position >= n.floor && w.ruled(s.Position) == was && strings.HasPrefix(s.Name, "unsent-") {
			if !slices.Contains(n.snaps.there, s.Name) {
				n.snaps.there = append(n.snaps.there, s.Name)
			}
			w.count("tails kept", 1)
			return
		}
	}
	if n.d.isDead() || slices.ContainsFunc(n.snaps.gone, func(s string) bool { return strings.HasPrefix(s, "unsent-") }) {
		return
	}
	w.fatal("tail", "%s stood at %d of reign %d, which was succeeded at %d, and is at %d of reign %d: its tail is gone", n.name, n.floor,
		was.number, fork, end, is.number)
}

// lineage holds a node's against the reign to which its position belongs.
func (w *world) lineage(n *node, end aodi.Position) {
	l, r := n.v.Info().Lineage, w.ruled(end)
	if n.end() != end || len(w.reigns) == 1 || n.d.isDead() {
		return
	}
	for i, o := range w.reigns[1 : r.number+1] {
		if len(l) <= i+1 || l[i+1] != o.link {
			w.fatal("lineage", "%s stands at %d, of reign %d, which began with %v: its lineage is %v", n.name, end, r.number, r.link, l)
		}
	}
}

// met holds what the primary and an old head that was written to say of each other, when they have had time to meet: both
// name the other, and where they part.
func (w *world) met(n *node) {
	if !n.written && n.d.starving() {
		return // it gives in, which takes space, and says so
	}
	fork, both := say("agree up to position %d", w.after(n.rules).fork()), []*node{n, w.source()}
	if slices.ContainsFunc(both, func(m *node) bool { return m.d.isDead() || m.v.Status().Failed != nil }) {
		return
	}
	for _, m := range both {
		if text := m.peer.Conflict("vm"); !strings.Contains(text, fork) {
			w.fatal("heads", "%s and %s are two heads, and %s says: %q", n.name, w.source().name, m.name, text)
		}
	}
	w.count("two heads refused on both sides", 1)
}

// copiesOfPrimary holds the snapshots of a mirror against those that the primary has made since it is one: whatever it has below
// the mirror's position is there too, unless somebody on the way has deleted it.
func (w *world) copiesOfPrimary(n *node, whole bool) {
	if n.rules != nil || !n.up() || !w.primary.up() || w.primary.rules != w.reign {
		return
	}
	end := n.end()
	if !whole && end > 0 {
		end--
	}
	if name := n.lacksOfPrimary(end); name != "" && !n.d.isDead() && !w.primary.d.isDead() {
		w.fatal("copy", "%s, at %d, lacks the snapshot %s of %s", n.name, end, name, w.primary.name)
	}
}

func (n *node) lacksOfPrimary(end aodi.Position) string {
	w := n.w
	had := w.primary.v.Snapshots()
	here := n.v.Snapshots()
	for _, s := range had {
		if s.Position <= w.reign.first || s.Position > end || w.primary.copied(s.Name) {
			continue
		}
		deleted := slices.ContainsFunc(w.nodes, func(o *node) bool { return slices.Contains(o.snaps.gone, s.Name) })
		if i := find(here, s.Name); i < 0 && !deleted || i >= 0 && here[i].Position != s.Position {
			return s.Name
		}
	}
	return ""
}
