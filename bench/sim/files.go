package sim

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"time"

	"cawrm/aodi"
	"cawrm/cawrm"
)

// Delta files: what a source has from one snapshot to another is written to a file, which comes to a mirror whole, broken off or
// damaged, while machines fall; afterwards the mirror is fed over the link again.

// file is a delta file on its way.
type file struct {
	from, to aodi.Position
	name     string // of the snapshot that it leads to
	size     int64  // of the volume there
	bytes    []byte
	damaged  bool
	rest     bool // it was sent for a mirror that has got a part
}

// opReceive brings a file from a node to a mirror of it.
func (w *world) opReceive() {
	if w.roles {
		return // not between changes of role yet
	}
	n, i := w.someChild()
	if n == nil || n.v.Status().Failed != nil {
		return
	}
	c := n.children[i]
	if !c.up() || c.v.Status().Failed != nil || w.burst != nil {
		return
	}
	was := n.mirrors[i].Settings()
	paused := was
	if paused.Paused = true; w.rng.IntN(8) > 0 {
		n.mirrors[i].Change(paused)
		time.Sleep(300 * time.Millisecond)
	}
	if w.rng.IntN(4) > 0 { // else an old one, mostly
		if n.from == nil {
			w.writeBeside()
		}
		w.snapshot(n)
	}
	for range 1 + w.rng.IntN(2) { // twice: the rest of what broke off, or once more
		if f := w.send(n, c); f != nil {
			w.receive(n, c, f)
		}
	}
	if n.up() {
		n.mirrors[i].Change(was)
	}
}

// send writes a file, nil when there is none.
func (w *world) send(n, c *node) *file {
	list := n.v.Snapshots()
	if !n.up() || !c.up() || len(list) == 0 {
		return nil
	}
	to := list[max(w.rng.IntN(len(list)), w.rng.IntN(len(list)))]
	f, what := &file{to: to.Position, name: to.Name, size: to.Size}, cawrm.Send{To: to.Name}
	if from := list[w.rng.IntN(len(list))]; from.Position <= to.Position && (from.Position <= c.end() || w.rng.IntN(4) == 0) && w.rng.IntN(4) > 0 {
		f.from, what.From = from.Position, from.Name
	}
	if got := c.v.Coming(); got != nil && w.rng.IntN(2) == 0 {
		if base, cursor := got.Least(); base <= to.Position {
			f.rest, what.Resume = true, cawrm.Resume{Base: base, Cursor: cursor}
		}
	}
	var out bytes.Buffer
	var err error
	n.calmly(func() { err = cawrm.WriteDelta(context.Background(), n.v, what, &out) })
	w.say("  -> %s sends %+v, positions %d to %d, %d bytes, %v", n.name, what, f.from, f.to, out.Len(), err)
	switch {
	case n.d.isDead():
		return nil
	case err != nil:
		if !w.allowed(n, err) && !errors.Is(err, aodi.ErrCutGone) {
			w.fatal("error", "send: %v", err)
		}
		return nil
	}
	f.bytes = out.Bytes()
	switch w.rng.IntN(6) {
	case 0, 1:
		f.bytes, f.damaged = f.bytes[:w.rng.IntN(len(f.bytes))], true
	case 2:
		f.bytes[w.rng.IntN(len(f.bytes))] ^= 1 << w.rng.IntN(8)
		f.damaged = true
	}
	return f
}

// receive lets a mirror take a file. It is at the file's end then, or where it was.
func (w *world) receive(n, c *node, f *file) {
	if !c.up() {
		return
	}
	if w.rng.IntN(3) == 0 {
		k, silent := w.rng.IntN(1<<w.rng.IntN(7)), w.rng.IntN(3) > 0
		w.say("  -> %s falls after %d operations, power %v", c.name, k, silent)
		c.d.light(k, silent)
	}
	before, known, coming := c.end(), c.v.Info().HasIdentity, c.v.Coming() != nil
	for _, s := range n.v.Snapshots() {
		if s.Position >= before && s.Position < f.to {
			c.snaps.gone = append(c.snaps.gone, s.Name) // a file brings its own
		}
	}
	var got cawrm.Received
	var err error
	c.calmly(func() {
		r, bad := cawrm.OpenDelta(bytes.NewReader(f.bytes))
		if err = bad; err == nil {
			got, err = c.peer.Receive("vm", r)
		}
	})
	w.say("  -> %s receives, from %d on, damaged %v: %+v, %v", c.name, before, f.damaged, got, err)
	if !c.up() {
		return
	}
	end := c.end()
	moved := end != before && end != f.to // it is fed
	switch {
	case err == nil && f.damaged:
		w.fatal("receive", "%s takes a file that is damaged: %+v", c.name, got)
	case err == nil && (before < f.from || end < f.to):
		w.fatal("receive", "%s, at %d, takes a file from %d to %d, and is at %d", c.name, before, f.from, f.to, end)
	case err != nil && !moved && !f.damaged && !f.rest && known && !coming && before >= f.from && before <= f.to && c.fits(f) && !w.explained(c, err):
		w.fatal("receive", "%s, at %d, refuses a file from %d to %d: %v", c.name, before, f.from, f.to, err)
	case err == nil && find(c.v.Snapshots(), f.name) < 0 && !c.d.isDead():
		w.fatal("receive", "%s has taken a file and not kept the snapshot %s that it leads to", c.name, f.name)
	case err == nil:
		w.count("files received", 1)
	default:
		w.count("files refused, or received in part", 1)
	}
	w.position(c)
	w.compare(c)
}

// fits tells that a mirror has no other snapshot by the name of a file's, and did not begin with a larger size.
func (c *node) fits(f *file) bool {
	i := find(c.v.Snapshots(), f.name)
	return (i < 0 || c.v.Snapshots()[i].Position == f.to) && c.v.Size() <= f.size
}

// explained tells whether a good file may be refused so: the disk has done it, or the source feeds the mirror.
func (w *world) explained(c *node, err error) bool {
	return strings.Contains(err.Error(), "is being fed") || w.allowed(c, err)
}
