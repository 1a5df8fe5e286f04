package sim

import (
	"slices"
)

// Who feeds whom after a change of roles: a tree with the primary at its root. Of the primary and a mirror either one dials, or
// both: it is a mirror that follows then. An old primary goes on to dial those that it fed, until it has stepped down.

// plant makes the tree.
func (w *world) plant(root *node) {
	var others []*node
	for _, n := range w.nodes {
		if n != root {
			others = append(others, n)
		}
	}
	w.rng.Shuffle(len(others), func(i, j int) { others[i], others[j] = others[j], others[i] })
	root.children = nil
	for _, n := range others {
		if n.rules == nil || w.rng.IntN(2) == 0 {
			n.children = nil
		}
	}
	for i, n := range others {
		n.from = root
		if i > 0 && n.rules == nil && w.rng.IntN(3) == 0 {
			n.from = others[w.rng.IntN(i)]
		}
		if up := n.from; up == root { // an old primary steps down for a primary only
			w.hang(n)
		} else if !slices.Contains(up.children, n) {
			up.children = append(up.children, n)
		}
	}
	for _, n := range w.nodes {
		w.rehang(n)
	}
}

// hang connects a node with the primary: either dials, or both. An empty mirror knows nothing that it could say.
func (w *world) hang(n *node) {
	root := n.from
	k := w.rng.IntN(4)
	if (k != 0 || n.floor == 0) && !slices.Contains(root.children, n) {
		root.children = append(root.children, n)
	}
	if k <= 1 && !slices.Contains(n.children, root) {
		n.children = append(n.children, root)
	}
	w.rehang(root)
	w.rehang(n)
}

// opPlant changes the tree while all goes on.
func (w *world) opPlant() {
	if w.vacant || w.heir != nil || len(w.reigns) == 1 {
		return
	}
	w.disturb()
	w.plant(w.source())
}

// rehang gives a process that runs the mirrors that its node has now.
func (w *world) rehang(n *node) {
	if n.down || n.feeds == nil {
		return
	}
	wanted := func(id string) bool {
		return slices.ContainsFunc(n.children, func(c *node) bool { return c.name == id })
	}
	has := map[string]bool{}
	n.calmly(func() {
		for _, st := range n.feeds.Status() {
			if has[st.ID] = wanted(st.ID); has[st.ID] {
				continue
			}
			if err := n.feeds.Remove(st.ID); err != nil && !n.d.isDead() && !w.allowed(n, err) && n.v.Status().Failed == nil {
				w.fatal("error", "%s: remove %s: %v", n.name, st.ID, err)
			}
		}
	})
	for _, c := range n.children {
		if has[c.name] {
			continue
		}
		if err := n.feeds.AddGiven(c.name, w.cfg.mirror(w, n, c, n.host).URL); err != nil {
			w.fatal("error", "%s: add %s: %v", n.name, c.name, err)
		}
	}
	n.attach()
}
