package sim

import (
	"time"

	"cawrm/aodi"
	"cawrm/aodi/disk"
	"cawrm/bench/sim/network"
	"cawrm/cawrm"
)

// Sources that a mirror must refuse: another volume, and an old copy of its own source.

// intruder is a source that nobody asked for.
type intruder struct {
	w       *world
	d       *disk.Memory
	v       *aodi.Volume
	host    *network.Host
	mirrors []*cawrm.Mirror
}

func (w *world) intrude(name string, d *disk.Memory) *intruder {
	v, err := aodi.OpenOn(d, aodi.Options{DurableInterval: 50 * time.Millisecond})
	if err != nil {
		w.fatal("open", "%s: %v", name, err)
	}
	x := &intruder{w: w, d: d, v: v, host: w.net.Up(name)}
	w.guests = append(w.guests, x.stop)
	return x
}

func (x *intruder) feed(nodes ...*node) {
	for _, n := range nodes {
		m, err := cawrm.Start(x.v, x.w.cfg.mirror(x.w, n, n, x.host))
		if err != nil {
			x.w.fatal("error", "%v", err)
		}
		x.mirrors = append(x.mirrors, m)
	}
}

func (x *intruder) stop() {
	for _, m := range x.mirrors {
		m.Close()
	}
	x.mirrors = nil
	_ = x.v.Close()
	x.host.Kill()
}

func (x *intruder) leave() {
	x.stop()
	x.d.Free()
}

// write writes n chunks that are nobody's.
func (x *intruder) write(n int) {
	p, windows := x.w.buffer(chunkSize), x.w.inside(x.v.Size())
	for i := range n {
		for s := range int64(sectors) {
			fill(p[s*sectorSize:(s+1)*sectorSize], 1<<40+uint64(i))
		}
		win := windows[i%len(windows)]
		if err := x.v.WriteAt(p, win.first*chunkSize, true); err != nil {
			x.w.fatal("error", "intruder: %v", err)
		}
	}
}

// opStranger lets another volume of the same size try to feed a mirror.
func (w *world) opStranger() {
	n := w.nodes[1+w.rng.IntN(3)]
	if len(w.reigns) > 1 || w.changing() || !n.up() || !n.adopted { // an empty mirror takes any source
		return
	}
	if s := n.from; s.up() && w.rng.IntN(2) == 0 {
		s.d.die(false) // else the mirror is busy with its own source, mostly
	}
	d := disk.NewMemory(w.cfg.limit)
	w.must(aodi.CreateOn(d, aodi.CreateOptions{Size: w.model.size(), SegmentChunks: 32}))
	x := w.intrude("x", d)
	x.write(1 + w.rng.IntN(2*int(n.floor)+1)) // as far as the mirror, or not
	x.feed(n)
	time.Sleep(time.Duration(1+w.rng.IntN(10)) * time.Second)
	st := x.mirrors[0].Status()
	if st.State == cawrm.StateSynced || st.State == cawrm.StateSyncing {
		w.fatal("refused", "%s takes another volume: %+v", n.name, st)
	}
	x.leave()
	w.pointers()
	w.compare(n)
}

// keep keeps a copy of the source's disk as it is before a boot, now and then. What is on it was recovered and shown.
func (w *world) keep(n *node) {
	if n.rules == nil || len(w.reigns) > 1 {
		return
	}
	if w.kept = false; n.mem.Pending() || w.burst != nil || w.rng.IntN(3) > 0 {
		return
	}
	if w.old != nil {
		w.old.Free()
	}
	w.old, w.oldEnd, w.kept = n.mem.Crash(w.split()), 0, true
}

// opOldCopy lets an old copy of the source come up in its place. Mirrors that are beyond it must refuse it: what it writes
// has positions that they have already. The source itself is down meanwhile.
func (w *world) opOldCopy() {
	s := w.source()
	if w.old == nil || w.oldEnd == 0 || len(w.reigns) > 1 || w.changing() {
		return
	}
	if s.up() {
		s.d.die(false)
	}
	var beyond, before []*node
	for _, n := range w.nodes[1:3] {
		switch {
		case !n.up() || n.v.Status().Failed != nil:
		case n.floor > w.oldEnd:
			beyond = append(beyond, n)
		default:
			before = append(before, n)
		}
	}
	if len(beyond) == 0 {
		return
	}
	x := w.intrude("s", w.old.Crash(w.split()))
	if end, _ := x.v.Pointers(); end != w.oldEnd {
		w.fatal("twice", "a copy of the source comes up at %d, it came up at %d", end, w.oldEnd)
	}
	room := beyond[0].floor
	for _, n := range beyond {
		room = min(room, n.floor)
	}
	if room -= w.oldEnd; len(before) == 0 && room > 1 {
		x.write(w.rng.IntN(int(room))) // it stays behind: nobody could tell it from the source otherwise
	}
	x.feed(beyond...)
	time.Sleep(time.Duration(1+w.rng.IntN(10)) * time.Second)
	for i, m := range x.mirrors {
		if st := m.Status(); beyond[i].up() && (st.State == cawrm.StateSynced || st.State == cawrm.StateSyncing) {
			w.fatal("refused", "%s, at %d, takes an old copy of its source that ends at %d: %+v", beyond[i].name, beyond[i].floor, w.oldEnd, st)
		}
	}
	w.count("old copies refused", len(beyond))
	x.leave()
	w.pointers()
	for _, n := range beyond {
		if n.up() {
			w.compare(n)
		}
	}
}
