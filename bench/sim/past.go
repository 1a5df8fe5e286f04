package sim

import (
	"errors"
	"syscall"
	"time"

	"cawrm/aodi"
	"cawrm/aodi/disk"
)

// The past: moments of the history, which are held against what the source had accepted then, and rollbacks to them and to snapshots.

// instant is what the source had accepted at a time. The records that followed are of later batches, if closed.
type instant struct {
	at     time.Time
	end    aodi.Position
	closed bool
}

// remember notes how far the source is now.
func (w *world) remember() {
	s := w.source()
	if w.roles || !s.up() || w.burst != nil {
		return
	}
	end, durable := s.v.Pointers()
	if !s.d.isDead() {
		w.instants = append(w.instants, instant{time.Now(), end, end == durable})
	}
}

// forgetInstants is after a crash that took the records from end on: what comes now comes in new batches.
func (w *world) forgetInstants(end aodi.Position) {
	for i := range w.instants {
		w.instants[i].end = min(w.instants[i].end, end)
	}
	w.instants = append(w.instants, instant{time.Now(), end, true})
}

// wrongMoment tells how a moment of the source is not at a position that it had then: it has what was accepted until then, and of what
// came later at most what the batch that was open has.
func (w *world) wrongMoment(at time.Time, p aodi.Position) string {
	least, most := aodi.Position(0), w.model.end
	for _, x := range w.instants {
		if !x.at.After(at) {
			least = x.end
		} else if x.closed {
			most = x.end
			break
		}
	}
	if p < least || p > most {
		return say("%v is shown at position %d: from %d to %d the volume was then", at.Sub(w.began), p, least, most)
	}
	return ""
}

// opMoment reads somebody as it was some time ago.
func (w *world) opMoment() {
	n := w.someone()
	if !n.up() || n.v.Status().Failed != nil || n.v.Size() == 0 || n.rules == nil && !n.adopted {
		return
	}
	at := time.Now().Add(-time.Duration(w.rng.Int64N(1 << (20 + w.rng.IntN(14)))))
	n.calmly(func() {
		if v := w.openMoment(n, at); v != nil {
			defer v.Close()
			if p := v.Info().Position; p <= w.ruled(p).known {
				w.compareView(n, v, "moment")
			}
		}
	})
}

// openMoment opens one, nil when there is none. n is calm.
func (w *world) openMoment(n *node, at time.Time) *aodi.View {
	v, err := n.v.OpenMoment(at)
	switch {
	case n.d.isDead() || errors.Is(err, aodi.ErrNoHistory):
		if v != nil {
			v.Close()
		}
		return nil
	case err != nil:
		if !w.allowed(n, err) {
			w.fatal("error", "moment: %v", err)
		}
		return nil
	}
	w.say("  -> %s at %d", n.name, v.Info().Position)
	if n.from == nil && !w.roles && v.Info().Position <= w.known {
		if bad := w.wrongMoment(at, v.Info().Position); bad != "" {
			w.fatal("moment", "%s", bad)
		}
	}
	return v
}

// windowsOfHistory holds how far back the histories go against their window of time: where space is not short, nothing in it is given up.
func (w *world) windowsOfHistory() {
	h := w.cfg.history
	if w.roles || h.Age == 0 || h.Bytes > 0 {
		return
	}
	for _, n := range w.nodes {
		if !n.up() || n.d.starving() || n.d.hurt() || n.v.Space().Bounded {
			n.reach = time.Time{}
			continue
		}
		from := n.v.HistoryFrom()
		if n.d.isDead() {
			continue
		}
		if begin := time.Now().Add(-h.Age); !n.reach.IsZero() && (from.IsZero() || from.After(n.reach) && from.After(begin)) {
			w.fatal("history", "%s can be read from %v on, it was from %v on, and the window begins at %v", n.name, from.Sub(w.began),
				n.reach.Sub(w.began), begin.Sub(w.began))
		}
		n.reach = from
	}
}

// opRollback makes the source what it was: in a snapshot, or some time ago. It is one record; a crash leaves it or does not.
func (w *world) opRollback() {
	if w.roles {
		return // not between changes of role yet
	}
	v := w.volume()
	if v == nil {
		return
	}
	s := w.source()
	if w.rng.IntN(3) == 0 {
		k, silent := w.rng.IntN(1<<w.rng.IntN(7)), w.rng.IntN(3) > 0
		w.say("  -> it falls after %d operations, power %v", k, silent)
		s.d.light(k, silent)
	}
	s.calmly(func() {
		to := w.somePast(s)
		if to == nil {
			return
		}
		defer to.Close()
		s.snaps.next++
		keep := say("%s%d", s.name, s.snaps.next)
		s.snaps.maybe = append(s.snaps.maybe, keep)
		was := to.Info().Position
		w.say("  -> to position %d, what is there is kept as %s", was, keep)
		var failed error
		before := w.model.end
		if w.change(v, []record{{kind: back, was: was}}, func() error { failed = v.Rollback(to, keep); return roomy(v, failed) }) && failed == nil {
			w.flushed = w.model.end
			s.snaps.forget(keep)
			s.snaps.there = append(s.snaps.there, keep)
			w.count("rollbacks done", 1)
		} else if w.model.end == before && v.Status().Failed != nil { // it failed between the commit and the answer, perhaps
			w.model.add(record{kind: back, was: was})
			w.known = w.model.end
		}
	})
}

// roomy takes it for no error of a bounded container that it has no space for all that a rollback brings anew.
func roomy(v *aodi.Volume, err error) error {
	if errors.Is(err, syscall.ENOSPC) && v.Space().Bounded {
		return disk.ErrWouldBlock
	}
	return err
}

// somePast is a view of the source that can be rolled back to.
func (w *world) somePast(s *node) *aodi.View {
	if w.rng.IntN(2) == 0 {
		if v := w.openMoment(s, time.Now().Add(-time.Duration(w.rng.Int64N(1<<(20+w.rng.IntN(14)))))); v != nil {
			return v
		}
	}
	list := s.v.Snapshots()
	if s.d.isDead() || len(list) == 0 {
		return nil
	}
	to, err := s.v.OpenView(list[w.rng.IntN(len(list))].Name)
	if err != nil && !s.d.isDead() {
		w.fatal("snapshot", "%v", err)
	}
	return to
}

// restore is what a rollback to a position makes of all chunks.
func (m *model) restore(was aodi.Position) {
	for lba, all := range m.versions {
		then, now := m.at(lba, was), m.now(lba)
		if then.kind != now.kind || then.content != now.content {
			m.versions[lba] = append(all, version{at: m.end, kind: then.kind, content: then.content})
		}
	}
}
