package sim

import (
	"time"

	"cawrm/aodi"
	"cawrm/bench/sim/network"
)

// heal takes all trouble away and brings everybody up.
func (w *world) heal() {
	w.doing = "heal"
	w.say("heal")
	w.opDiskWell()
	w.net.SetWeather(network.Weather{})
	calm := false
	for range 100 {
		all := true
		for _, n := range w.nodes {
			if !n.up() || n.v.Status().Failed != nil {
				w.revive(n)
			}
			n.d.light(-1, false)
			all = all && n.up() && n.v.Status().Failed == nil
		}
		if all && calm || w.over {
			return
		}
		calm = all // an operation that was under way when the fuse was taken out may end a life yet
		time.Sleep(time.Second)
	}
	w.fatal("hang", "somebody never comes up")
}

// drain waits until every mirror has everything.
func (w *world) drain() {
	w.doing = "drain"
	for _, n := range w.nodes {
		for _, m := range n.mirrors {
			w.count("chunks referred to", int(m.Status().ReferenceBytes/chunkSize))
			set := m.Settings()
			set.Paused = false
			m.Change(set)
		}
	}
	s := w.source()
	if w.change(s.v, nil, s.v.Flush) {
		w.flushed = w.model.end
	}
	const patience = 10 * time.Minute
	room := false
	for start := time.Now(); ; time.Sleep(200 * time.Millisecond) {
		if !room && w.cfg.space.segments != [4]uint64{} && time.Since(start) > patience/4 {
			room = true
			w.makeRoom()
		}
		w.heads()
		w.pointers()
		behind := ""
		for _, n := range w.nodes {
			if n == s {
				continue
			}
			if n.v.Role() != aodi.RoleMirror {
				behind += say(" %s still a primary", n.name)
			} else if n.end() != w.model.end {
				behind += say(" %s at %d", n.name, n.end())
			} else if s := n.lacks(); s != "" {
				behind += say(" %s without the snapshot %s", n.name, s)
			}
		}
		if behind == "" {
			break
		}
		if time.Since(start) > patience {
			for _, n := range w.nodes {
				for _, m := range n.mirrors {
					w.say("%s: %+v", n.name, m.Status())
				}
			}
			w.fatal("drained", "after %v the source is at %d, and%s", patience, w.model.end, behind)
		}
	}
	for _, n := range w.nodes {
		w.compare(n)
		w.compareSnapshots(n, true)
		w.copies(n, true)
		if c := n.clone; c != nil {
			n.calmly(func() {
				if w.openClone(n, c) {
					w.useClone(n, c)
				}
			})
		}
		if a, b := s.v.EndMark().Bytes, n.v.EndMark().Bytes; a != b && n.v.HistoryFloor() == 0 && s.v.HistoryFloor() == 0 && len(w.reigns) == 1 {
			// A jump epoch leaves out what was superseded, a rollback that was given up has brought what no mirror gets.
			w.fatal("cut", "the source has logged %d bytes, %s %d", a, n.name, b)
		}
	}
}

// finish closes everybody and looks at what they leave.
func (w *world) finish() {
	w.doing = "finish"
	for _, n := range w.nodes {
		w.close(n)
	}
	for _, n := range w.nodes {
		if !n.closed {
			continue
		}
		n.mem.DropCache()
		v, err := w.alone(n.mem)
		if err != nil {
			w.fatal("open", "%s after it was closed in order: %v", n.name, err)
		}
		if v.Size() == 0 {
			continue // a mirror of a source that never wrote anything
		}
		if bad, err := w.differs(n, v, w.model.end); bad != "" || err != nil {
			w.fatal("prefix", "%s after it was closed in order: %s %v", n.name, bad, err)
		}
		w.must(v.Close())
		w.rot(n)
		if w.rng.IntN(2) == 0 {
			w.mend(n)
		}
	}
}
