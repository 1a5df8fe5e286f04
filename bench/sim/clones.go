package sim

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"time"

	"cawrm/aodi"
	"cawrm/aodi/disk"
	recovery "cawrm/recover"
)

// Clones: writable volumes over a snapshot, of the source or of a mirror, each with a container of its own on the machine of its
// base, which loses power with it. A clone holds what its base had at the cut, and what was written to it.

// clone is one of a node's.
type clone struct {
	name, path string
	made, gone bool // somebody heard that it was made; somebody has tried to delete it
	m          *model
	flushed    aodi.Position
	opened     bool         // it has been seen
	v          *aodi.Volume // in this life of the machine; nil: closed
}

// shelf holds the containers that a node's volume has made. It outlives processes.
type shelf struct {
	files map[string]*disk.Memory
	image map[string]*disk.Memory // after the power loss that has ended the process
}

// files is the file system that one life of a machine sees.
type files struct{ d *simDisk }

func (f files) Create(path string) (disk.Disk, error) {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	s := &f.d.n.shelf
	switch {
	case f.d.dead:
		return nil, errDead
	case s.files[path] != nil:
		return nil, fmt.Errorf("%s: %w", path, syscall.EEXIST)
	}
	s.files[path] = disk.NewMemory(f.d.n.w.cfg.limit)
	return f.d.beside(s.files[path]), nil
}

func (f files) Open(path string) (disk.Disk, error) {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	mem := f.d.n.shelf.files[path]
	switch {
	case f.d.dead:
		return nil, errDead
	case mem == nil:
		return nil, fmt.Errorf("%s: %w", path, syscall.ENOENT)
	}
	mem.DropCache()
	return f.d.beside(mem), nil
}

func (f files) Remove(path string) error {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	if f.d.dead {
		return errDead
	}
	if mem := f.d.n.shelf.files[path]; mem != nil {
		mem.Free()
		delete(f.d.n.shelf.files, path)
	}
	return nil
}

// beside is another disk of the same machine: it has no trouble of its own, and ends with the machine.
func (d *simDisk) beside(mem *disk.Memory) disk.Disk {
	rule := func(op disk.Op, off int64, n int) error {
		d.mu.Lock()
		defer d.mu.Unlock()
		return d.burnLocked()
	}
	after := func(disk.Op, int64, int) {
		d.mu.Lock()
		defer d.mu.Unlock()
		if d.late && !d.dead {
			d.dieLocked()
		}
	}
	return &disk.Faulty{Disk: mem, Rule: rule, After: after}
}

// crash is what a power loss leaves of the containers.
func (s *shelf) crash(d *simDisk) {
	s.image = map[string]*disk.Memory{}
	for _, path := range s.paths() {
		s.image[path] = s.files[path].Crash(d.rng)
	}
}

func (s *shelf) paths() []string {
	var all []string
	for path := range s.files {
		all = append(all, path)
	}
	slices.Sort(all)
	return all
}

// mourn makes what the crash left the containers.
func (s *shelf) mourn() {
	for _, mem := range s.files {
		mem.Free()
	}
	s.files, s.image = s.image, nil
}

func (s *shelf) free() {
	for _, mem := range s.files {
		mem.Free()
	}
	for _, mem := range s.image {
		mem.Free()
	}
}

// opClone makes a clone of somebody, or uses the one that there is.
func (w *world) opClone() {
	if w.roles {
		return // not between changes of role yet
	}
	n := w.someone()
	if !n.up() || n.v.Status().Failed != nil || n.v.Size() == 0 || n.from != nil && !n.adopted || w.burst != nil {
		return
	}
	if w.rng.IntN(4) == 0 {
		k, silent := w.rng.IntN(1<<w.rng.IntN(8)), w.rng.IntN(3) > 0
		w.say("  -> %s falls after %d operations, power %v", n.name, k, silent)
		n.d.light(k, silent)
	}
	n.calmly(func() {
		switch c := n.clone; {
		case c == nil:
			w.makeClone(n)
		case !w.openClone(n, c):
		case w.rng.IntN(6) == 0:
			w.deleteClone(n, c)
		default:
			w.useClone(n, c)
			if w.rng.IntN(3) == 0 {
				w.closeClone(n, c)
			}
		}
	})
}

// makeClone makes one of a snapshot, of the present, or of a moment. What it holds is known by the position of the cut.
func (w *world) makeClone(n *node) {
	n.snaps.next++
	c := &clone{name: say("%sc%d", n.name, n.snaps.next)}
	c.path = "/clones/" + c.name
	for _, x := range w.nodes { // it goes with the clone, and one of a moment is below where mirrors stand
		x.snaps.gone = append(x.snaps.gone, "of-"+c.name)
	}
	var at aodi.Position
	var size int64
	var err error
	list := n.v.Snapshots()
	when := time.Now().Add(-time.Duration(w.rng.Int64N(1 << (20 + w.rng.IntN(14)))))
	var past *aodi.View
	if n.from == nil { // a mirror can get more of that moment yet
		past = w.openMoment(n, when)
	}
	switch {
	case !n.up():
		return
	case past != nil:
		at, size = past.Info().Position, past.Size()
		past.Close()
		n.snaps.maybe = append(n.snaps.maybe, "of-"+c.name)
		n.clone = c
		err = n.v.CreateCloneAt(when, c.name, c.path)
	case len(list) > 0 && w.rng.IntN(2) == 0:
		s := list[w.rng.IntN(len(list))]
		at, size, n.clone = s.Position, s.Size, c
		err = n.v.CreateClone(s.Name, c.name, c.path)
	default:
		n.snaps.maybe = append(n.snaps.maybe, "of-"+c.name)
		n.clone = c
		err = n.v.CreateCloneNow(c.name, c.path)
		if i := find(n.v.Snapshots(), "of-"+c.name); i >= 0 {
			at, size = n.v.Snapshots()[i].Position, n.v.Snapshots()[i].Size
		}
	}
	w.say("  -> %s of position %d, %v", c.name, at, err)
	c.m = w.model.clone(at, size)
	switch {
	case n.d.isDead():
		c.gone = true // it is there or not
	case err == nil:
		c.made = true
		w.count("clones made", 1)
	case !w.allowed(n, err) && !errors.Is(err, aodi.ErrNoHistory):
		w.fatal("error", "clone: %v", err)
	default:
		c.gone = true
	}
	if at > w.known || c.gone && c.m.size() == 0 {
		n.clone = nil // nobody knows what it holds
	}
}

// clone is a model of a clone: what there was at a cut, and nothing written yet.
func (m *model) clone(at aodi.Position, size int64) *model {
	c := newModel(m.windows, size)
	for lba := range c.versions {
		if lba < size/chunkSize {
			was := m.at(lba, at)
			c.versions[lba] = []version{{kind: was.kind, content: was.content}}
		}
	}
	return c
}

// openClone opens a clone if it is closed. It must be there if it was made, and nobody has tried to delete it.
func (w *world) openClone(n *node, c *clone) bool {
	if c.v != nil {
		return true
	}
	has := slices.ContainsFunc(n.v.Clones(), func(i aodi.CloneInfo) bool { return i.Name == c.name })
	if n.d.isDead() {
		return false
	}
	if !has {
		if c.made && !c.gone {
			w.fatal("clone", "%s has no clone %s any more", n.name, c.name)
		}
		n.clone = nil
		return false
	}
	v, err := n.v.OpenClone(c.name, aodi.Options{Logger: w.logger(c.name), DurableInterval: w.cfg.durable, CheckpointInterval: time.Hour})
	if err != nil {
		if !n.d.isDead() && !w.allowed(n, err) {
			w.fatal("clone", "%s does not open: %v", c.name, err)
		}
		return false
	}
	c.v, c.made = v, true
	end, _ := v.Pointers()
	if n.d.isDead() {
		return false
	}
	if !c.opened {
		c.m.end, c.opened = end, true // a moment's records were copied
	}
	if end < c.flushed || end > c.m.end {
		w.fatal("clone", "%s comes up at %d, flushed was %d, written %d", c.name, end, c.flushed, c.m.end)
	}
	c.m.truncate(end)
	c.flushed = end
	w.compareClone(n, c)
	return true
}

// useClone writes to a clone, discards, flushes, and reads.
func (w *world) useClone(n *node, c *clone) {
	for range 1 + w.rng.IntN(6) {
		all := w.inside(c.m.size())
		win := all[w.rng.IntN(len(all))]
		first := win.first + w.rng.Int64N(win.count)
		count := 1 + w.rng.Int64N(win.count+win.first-first)
		if w.rng.IntN(4) > 0 {
			count = min(count, 4)
		}
		var plan []record
		var err error
		before, _ := c.v.Pointers()
		switch w.rng.IntN(5) {
		case 0:
			plan = c.m.chunks(first, first+count, hole)
			err = c.v.Trim(first*chunkSize, count*chunkSize, false)
		case 1:
			err = c.v.Flush()
		default:
			var p []byte
			c.m.stamp = w.model.stamp
			plan, p = c.m.write(first*sectors, count*sectors)
			w.model.stamp = c.m.stamp // one that nobody else writes
			err = c.v.WriteAt(p, first*chunkSize, w.rng.IntN(4) == 0)
		}
		end, durable := c.v.Pointers()
		if n.d.isDead() {
			for _, r := range plan {
				c.m.add(r)
			}
			return
		}
		if k := int(end - before); before != c.m.end || k > len(plan) || err == nil && k != len(plan) {
			w.fatal("clone", "%s: end_ptr went from %d to %d, the model has %d records and planned %d more (%v)", c.name, before, end, c.m.end, len(plan), err)
		} else if err != nil && !w.allowed(n, err) {
			w.fatal("error", "%s: %v", c.name, err)
		} else {
			for _, r := range plan[:k] {
				c.m.add(r)
			}
		}
		c.flushed = max(c.flushed, durable)
	}
	w.compareClone(n, c)
}

func (w *world) compareClone(n *node, c *clone) {
	if c.v.Status().Failed != nil {
		return
	}
	if got, want := c.v.Size(), c.m.size(); got != want && !n.d.isDead() {
		w.fatal("clone", "%s has %d bytes, not %d", c.name, got, want)
	}
	for _, win := range w.inside(c.m.size()) {
		b := w.buffer(win.count * chunkSize)
		err := c.v.ReadAt(b, win.first*chunkSize)
		switch {
		case n.d.isDead() || err != nil && n.d.hurt():
			return
		case err != nil:
			w.fatal("clone", "%s: %v", c.name, err)
		}
		if bad := c.m.unlike(b, win.first, c.m.end); bad != "" {
			w.fatal("clone", "%s: %s", c.name, bad)
		}
	}
	w.count("clones compared", 1)
}

// closeClone closes a clone in order.
func (w *world) closeClone(n *node, c *clone) {
	if c.v == nil {
		return
	}
	err := c.v.Close()
	c.v = nil
	switch {
	case n.d.isDead() || err != nil && w.allowed(n, err):
	case err != nil:
		w.fatal("error", "%s: close: %v", c.name, err)
	default:
		c.flushed = c.m.end
		r, err := recovery.Check(n.shelf.files[c.path], recovery.CheckOptions{})
		if w.must(err); !r.OK() {
			w.fatal("checker", "%s: %s %s", c.name, r.Violations[0].Rule, r.Violations[0].Text)
		}
	}
}

// deleteClone does what serve does: it is forgotten, and then its container goes.
func (w *world) deleteClone(n *node, c *clone) {
	w.closeClone(n, c)
	c.gone = true
	err := n.v.ForgetClone(c.name)
	w.say("  -> %s is forgotten, %v", c.name, err)
	switch {
	case n.d.isDead():
		return
	case err != nil && !w.allowed(n, err):
		w.fatal("error", "forget clone: %v", err)
	case err != nil:
		return
	}
	_ = files{n.d}.Remove(c.path)
	n.clone = nil
	w.count("clones deleted", 1)
}

// ofClone tells whether a snapshot is that of a clone which is there, and must stay.
func (n *node) ofClone(name string) bool {
	return slices.ContainsFunc(n.v.Clones(), func(c aodi.CloneInfo) bool { return c.Snapshot == name })
}

// maker is who made a snapshot: names begin with that, but for those that are made for a clone.
func maker(name string) string { return strings.TrimPrefix(name, "of-") }
