package sim

import (
	"maps"
	"slices"

	"cawrm/aodi"
	"cawrm/aodi/format"
)

// reign is the time of one primary, and the branch of the history that it writes: a model of its own, which begins as what the
// reign before held at the fork. The reign that is over keeps its model, since its tail is somewhere still: on the old
// primary, on mirrors that it has fed, and in the snapshots that they keep of it.
//
//	reign 0   0 .............. fork ........ end            what lies beyond the fork is a tail
//	reign 1                     ^ promoted   first ........ end
//
// No two reigns use the same positions, so a position tells the reign.
type reign struct {
	number  int
	link    format.Lineage // of the lineage: where it begins, and under which id
	first   aodi.Position  // of its records; everything below is of the reigns before, up to the fork
	primary *node

	model   *model
	flushed aodi.Position // the primary's records below it survive whatever happens
	known   aodi.Position // records below it are in the model in the order of the log
	burst   *burst        // clients whose records are not in the model yet
}

// fork is where the reign's history parts from that of the reign before.
func (r *reign) fork() aodi.Position { return r.link.Start }

// branch is a model that goes on at first from what this one holds at fork.
func (m *model) branch(fork, first aodi.Position) *model {
	b := &model{windows: m.windows, sizes: slices.Clone(m.sizes), versions: maps.Clone(m.versions), stamp: (m.stamp>>stampBits + 1) << stampBits}
	for lba, all := range b.versions {
		b.versions[lba] = slices.Clone(all)
	}
	b.truncate(fork)
	b.end = first
	return b
}

// stampBits are the stamps of a reign: beyond those of intruders, and of every other reign.
const stampBits = 41

// ruled is the reign to which a position belongs, as the end of what somebody holds.
func (w *world) ruled(p aodi.Position) *reign {
	for i := len(w.reigns) - 1; i > 0; i-- {
		if r := w.reigns[i]; p >= r.first {
			return r
		}
	}
	return w.reigns[0]
}

// within does something with that reign as the one that is on.
func (w *world) within(r *reign, do func()) {
	was := w.reign
	w.reign = r
	defer func() {
		if w.reign == r {
			w.reign = was
		}
	}()
	do()
}

// ahead tells whether a position is of a reign that nobody has looked at yet: its primary was promoted, and feeds others already.
func (w *world) ahead(p aodi.Position) bool {
	return w.heir != nil && p>>48 > w.reigns[len(w.reigns)-1].first>>48
}

// before is the reign before r.
func (w *world) before(r *reign) *reign { return w.reigns[r.number-1] }

// after is the reign that took the place of r, nil: none yet.
func (w *world) after(r *reign) *reign {
	if r.number+1 < len(w.reigns) {
		return w.reigns[r.number+1]
	}
	return nil
}

// ever tells whether a chunk ever held that, in any reign.
func (w *world) ever(lba int64, c content) bool {
	return slices.ContainsFunc(w.reigns, func(r *reign) bool { return r.model.ever(lba, c) })
}

// begin starts the reign of a node that was promoted.
func (w *world) begin(n *node) {
	old, l := w.reign, n.v.Info().Lineage
	end := n.end()
	r := &reign{number: len(w.reigns), link: l[len(l)-1], first: end >> 48 << 48, primary: n, known: end, flushed: end}
	switch {
	case len(l) != r.number+1:
		w.fatal("lineage", "%s was promoted %d times in all, its lineage is %v", n.name, r.number, l)
	case r.link.Start < n.floor:
		w.fatal("back", "%s has shown %d, and is promoted at %d", n.name, n.floor, r.link.Start)
	case r.link.Start > old.model.end:
		w.fatal("ahead", "%s is promoted at %d, of %d records that were ever accepted", n.name, r.link.Start, old.model.end)
	case end != r.first || r.first <= old.model.end:
		w.fatal("lineage", "%s goes on at %d: positions up to %d are taken", n.name, end, old.model.end)
	case w.heir == n && w.heirEnd > 0 && r.link.Start != w.heirEnd:
		w.fatal("lost", "%s was handed over at %d, and begins at %d", n.name, w.heirEnd, r.link.Start)
	}
	for i, o := range w.reigns {
		if l[i] != o.link {
			w.fatal("lineage", "%s was promoted on %v, and its lineage is %v", n.name, o.link, l)
		}
	}
	if old.burst != nil && r.link.Start > old.known {
		w.count("orders lost", 1) // nobody knows any more what the clients' records were
		w.over = true
		return
	}
	r.model = old.model.branch(r.link.Start, r.first)
	w.reigns, w.reign = append(w.reigns, r), r
	n.rules, n.from, n.floor = r, nil, end
	n.turned.Store(false)
	w.heir, w.asked, w.heirEnd, w.vacant, n.handed, n.written = nil, nil, 0, false, false, true
	w.count("reigns", 1)
	w.say("  -> %s is the primary from %d on; up to %d the history is that of %s", n.name, r.first, r.link.Start, old.primary.name)
	w.plant(n)
	w.compare(n)
	w.compareSnapshots(n, true)
}
