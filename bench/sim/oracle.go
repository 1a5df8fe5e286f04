package sim

import (
	"strings"
	"time"

	"cawrm/aodi"
	"cawrm/aodi/disk"
	"cawrm/cawrm/wire"
	recovery "cawrm/recover"
)

// look is what the oracle does after each step: pointers of all, now and then the content of one.
func (w *world) look() {
	w.heads()
	w.pointers()
	w.rest()
	w.remember()
	w.windowsOfHistory()
	n := w.nodes[w.rng.IntN(len(w.nodes))]
	if w.rng.IntN(3) == 0 && n.up() {
		w.compare(n)
		w.compareSnapshots(n, false)
	}
	for _, n := range w.nodes {
		w.copies(n, false)
	}
}

// pointers holds the pointers of all nodes against each other.
func (w *world) pointers() {
	for _, n := range w.nodes {
		if n.down {
			continue
		}
		for i, m := range n.mirrors {
			st := m.Status()
			sync := st.SyncPtr // before the mirror's own position, which only grows

			if strings.Contains(st.LastError, wire.ErrOtherContent.Error()) { // it holds all the same: but nothing rots here
				w.fatal("references", "%s: of %s: %s", n.name, n.children[i].name, st.LastError)
			}
			_, durable := n.v.Pointers()
			if n.d.isDead() {
				break
			}
			if sync > durable {
				w.fatal("ahead", "I1: %s: sync_ptr of %s is %d, durable_ptr %d", n.name, n.children[i].name, sync, durable)
			}
			if c := n.children[i]; !c.down && !c.d.isDead() && sync > c.end() {
				w.fatal("ahead", "I3: %s: sync_ptr of %s is %d, which stands at %d", n.name, c.name, sync, c.end())
			}
		}
	}
	for i := len(w.nodes) - 1; i >= 0; i-- { // mirrors before their sources, which can only have moved on
		w.position(w.nodes[i])
	}
}

// position looks at one node's.
func (w *world) position(n *node) {
	if n.down {
		return
	}
	end, durable := n.v.Pointers()
	if n.d.isDead() {
		return // whatever it says, nobody heard it
	}
	if n.d.overran() {
		w.fatal("space", "%s: a write to a full disk found no space: nobody had reserved it", n.name)
	}
	if durable > end {
		w.fatal("ahead", "V1: %s: durable_ptr %d is beyond end_ptr %d", n.name, durable, end)
	}
	if r := n.rules; r != nil {
		if n.v.Role() == aodi.RolePrimary { // else it has stepped down right now
			r.flushed = max(r.flushed, durable)
		}
		return
	}
	if n.v.Role() == aodi.RolePrimary {
		return // its promotion has failed, or is not over
	}
	if w.ahead(end) {
		w.heir.handed = true // it must come up as what it was when it fed this one
		return
	}
	if end < n.floor {
		w.fatal("back", "%s stands at %d and has shown %d", n.name, end, n.floor)
	}
	if w.ruled(end) != w.ruled(n.floor) {
		w.rejoined(n, end)
	}
	w.seeSize(n)
	n.floor = end
	w.lineage(n, end)
	if end > 0 && !n.adopted {
		n.adopted = true
		n.d.mu.Lock()
		n.d.noSleep = w.disturbed
		n.d.mu.Unlock()
	}
	w.behind(n)
	if n.v.Status().Failed != nil && n.looked != n.v {
		n.looked = n.v
		w.compare(n) // what a volume shows after it failed is soon gone
	}
}

// behind holds a mirror's position against its source's.
func (w *world) behind(n *node) {
	from := n.from
	if r := w.ruled(n.floor); len(w.reigns) > 1 { // others may have fed it before
		from = r.primary
		if from.rules != r {
			return
		}
	}
	if from == nil || from.down || len(w.reigns) > 1 && from.v.Role() != aodi.RolePrimary {
		return
	}
	if durable := from.durable(); !from.d.isDead() && n.floor > durable {
		w.fatal("ahead", "%s stands at %d, its source %s has durable_ptr %d", n.name, n.floor, from.name, durable)
	}
}

// compare holds a node's content against the model at its position, if that holds still for so long.
func (w *world) compare(n *node) {
	if n.v.Size() == 0 {
		return // a mirror that does not know its source
	}
	if n.rules != nil && n.v.Status().Failed != nil {
		return // an operation that ended with EIO may be seen in part, until the volume is opened again
	}
	for range 5 {
		p := n.end()
		if w.ahead(p) || p > w.ruled(p).known {
			return // clients whose records have no order yet
		}
		bad, err := w.differs(n, n.v, p)
		switch {
		case n.end() != p:
			continue
		case n.d.isDead() || err != nil && n.d.hurt():
			return
		case err != nil:
			w.fatal("read", "%s at position %d: %v", n.name, p, err)
		case bad != "" && n.rules != nil:
			w.fatal("prefix", "%s at position %d: %s", n.name, p, bad)
		case bad != "":
			w.fatal("cut", "%s at position %d: %s", n.name, p, bad)
		}
		w.count("comparisons", 1)
		return
	}
}

// differs tells how a volume's content is not the model's as of p.
func (w *world) differs(n *node, v *aodi.Volume, p aodi.Position) (string, error) {
	size := v.Size()
	for _, win := range w.inside(size) {
		b := w.buffer(win.count * chunkSize)
		if err := v.ReadAt(b, win.first*chunkSize); err != nil {
			return "", err
		}
		if bad := w.unlike(b, win.first, p); bad != "" {
			return bad, nil
		}
	}
	if bad := w.wrongSize(n, size, p); bad != "" { // one that failed in the middle of showing an epoch is not read
		return bad, nil
	}
	if used, want := v.Status().UsedBytes/chunkSize, w.ruled(p).model.mapped(p); used != want {
		if end, _ := v.Pointers(); end == p {
			return say("%d chunks are mapped, not %d", used, want), nil
		}
	}
	return "", nil
}

// unlike compares bytes from a chunk on with the model.
func (w *world) unlike(b []byte, lba int64, p aodi.Position) string {
	return w.ruled(p).model.unlike(b, lba, p)
}

func (m *model) unlike(b []byte, lba int64, p aodi.Position) string {
	for i := 0; i < len(b); i, lba = i+chunkSize, lba+1 {
		want := m.at(lba, p)
		got, err := read(b[i : i+chunkSize])
		if err != nil {
			return say("chunk %d: %v", lba, err)
		}
		if got != want.content {
			return say("chunk %d holds writes %v, not %v (of position %d)", lba, got, want.content, want.at)
		}
	}
	return ""
}

// revive boots a node that is down and looks at what came up, and what recovering more than once gives.
func (w *world) revive(n *node) bool {
	if !n.down {
		n.bury()
	}
	w.say("%s boots", n.name)
	n.mem.DropCache() // as disk.OpenFile does before it reads anything
	if w.rng.IntN(2) == 0 {
		n.inspect()
	}
	var twice *outcome
	if w.rng.IntN(4) == 0 && n.image == nil {
		twice = w.recoverTwice(n)
	}
	var before *outcome
	if w.rng.IntN(4) == 0 && n.image == nil {
		before = w.recoverFromBefore(n)
	}
	w.keep(n)
	if !n.boot() {
		return false
	}
	end := n.end()
	if n.d.isDead() {
		return false
	}
	if n.rules != nil {
		end = n.came
	}
	if twice != nil && twice.end != end && n.rules != nil { // a mirror may have been fed already
		w.fatal("twice", "%s comes up at %d, a copy of its disk came up at %d", n.name, end, twice.end)
	}
	if before != nil && before.end != end && n.rules != nil {
		w.fatal("meta", "%s comes up at %d, a copy whose newest meta chunk is lost came up at %d", n.name, end, before.end)
	}
	w.bounded(n)
	w.recovered(n, end)
	return n.up()
}

// recovered looks at a node that has come up.
func (w *world) recovered(n *node, end aodi.Position) {
	defer func() {
		if n.up() && w.burst == nil {
			w.compareSnapshots(n, true)
		}
	}()
	w.roleOf(n)
	if n.rules == nil {
		w.position(n)
		w.compare(n)
		return
	}
	w.within(n.rules, func() { w.recoveredHead(n, end) })
}

// recoveredHead looks at a primary that has come up.
func (w *world) recoveredHead(n *node, end aodi.Position) {
	if end < w.flushed {
		w.fatal("flushed", "the source comes up at %d, durable was %d", end, w.flushed)
	}
	if w.learn(n, end); w.burst != nil {
		n.d.die(false) // its disk did not give the clients' records: the next life may
		return
	}
	if end > w.model.end {
		w.fatal("prefix", "the source comes up at %d, of %d records that were ever accepted", end, w.model.end)
	}
	for _, m := range w.nodes {
		if m.rules == nil && m.floor > end && w.ruled(m.floor) == w.reign {
			w.fatal("ahead", "%s has shown %d, the source comes up at %d", m.name, m.floor, end)
		}
	}
	if r := w.after(w.reign); r != nil && r.fork() > end {
		w.fatal("ahead", "%s was promoted at %d, its source comes up at %d", r.primary.name, r.fork(), end)
	}
	if w.kept {
		w.oldEnd = end
	}
	w.model.truncate(end)
	w.forgetInstants(end)
	w.flushed, w.known = end, end // it was shown: it must not go away any more
	w.compare(n)
}

// alone opens a volume on a bare disk, with nobody around.
func (w *world) alone(d *disk.Memory) (*aodi.Volume, error) {
	v, err := aodi.OpenOn(d, aodi.Options{DurableInterval: time.Hour, CheckpointInterval: time.Hour})
	if err == nil {
		w.guests = append(w.guests, func() { _ = v.Close() })
	}
	return v, err
}

// outcome is what a recovery gave.
type outcome struct {
	end aodi.Position
}

// recoverTwice opens a copy of a node's disk, crashes it at once, and opens it again.
func (w *world) recoverTwice(n *node) *outcome {
	rng := w.split()
	if n.mem.Pending() {
		return nil // the process died, and the machine with its page cache did not: a copy would lose that
	}
	d := n.mem.Crash(rng)
	defer func() { d.Free() }()
	var first aodi.Position
	for i := range 2 {
		v, err := w.alone(d)
		if err != nil {
			w.fatal("twice", "%s: recovery %d of a copy: %v", n.name, i+1, err)
		}
		end, _ := v.Pointers()
		if i == 0 {
			first = end
		} else if end != first {
			w.fatal("twice", "%s: the first recovery came to %d, the second to %d", n.name, first, end)
		}
		if v.Size() > 0 && end <= w.ruled(end).known && w.burst == nil {
			if bad, err := w.differs(n, v, end); bad != "" || err != nil {
				w.fatal("twice", "%s: recovery %d: %s %v", n.name, i+1, bad, err)
			}
		}
		again := d.Crash(rng)
		_ = v.Close()
		d.Free()
		d = again
	}
	if _, err := recovery.Newest(d); err != nil {
		w.fatal("twice", "%s: %v", n.name, err)
	}
	w.count("twice", 1)
	return &outcome{first}
}

// recoverFromBefore opens a copy of a node's disk that has lost its newest meta chunk. The checkpoint before may not do, when
// an opening came in between, but then that is said.
func (w *world) recoverFromBefore(n *node) *outcome {
	rng := w.split()
	if n.mem.Pending() {
		return nil
	}
	d := n.mem.Crash(rng)
	defer d.Free()
	c, err := recovery.Newest(d)
	if err != nil {
		w.fatal("open", "%s: a copy: %v", n.name, err)
	}
	w.must(d.WriteCached(make([]byte, chunkSize), int64(1+c.Meta.Seq%2)*chunkSize))
	w.must(d.Sync())
	v, err := w.alone(d)
	if err != nil {
		w.count("copies without their newest meta chunk refused", 1)
		return nil
	}
	defer v.Close()
	w.count("copies without their newest meta chunk opened", 1)
	end, _ := v.Pointers()
	if v.Size() > 0 && end <= w.ruled(end).known && w.burst == nil {
		if bad, err := w.differs(n, v, end); bad != "" || err != nil {
			w.fatal("meta", "%s, from the checkpoint before, at %d: %s %v", n.name, end, bad, err)
		}
	}
	return &outcome{end}
}
