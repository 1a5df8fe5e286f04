package cawrm

import (
	"errors"
	"fmt"

	"cawrm/aodi"
	"cawrm/cawrm/wire"
)

// What a source does when the other side is not simply behind it: a primary, or a mirror that has gone its own way.

// errFollow ends a session in which the sides change places, errAgain one that has to begin with another HELLO.
var (
	errFollow = errors.New("the other side is the primary, and feeds this one")
	errAgain  = errors.New("the lineage has changed, connecting again")
)

// meetPrimary is called when the other side is a primary too. A mirror lets itself be fed by it. A primary that it has
// succeeded, and that nobody has written to since it was opened, becomes a mirror of it. Else there are two writable heads.
func (m *Mirror) meetPrimary(info aodi.Info, w *wire.Welcome) error {
	t := m.cfg.Peer.target(m.cfg.Name)
	_, durable := m.v.Pointers()
	own, other := Head{info.Lineage, durable}, Head{w.Lineage, w.SyncPtr}
	switch {
	case m.guest:
		return refusef(wire.CodeLied, "peer %q asked to be fed, and is a primary", w.Name)
	case t != nil && info.Role == aodi.RolePrimary && other.succeeds(own) && m.v.Untouched():
		if err := m.cfg.Peer.stepDown(t, other); err != nil {
			return err
		}
	case info.Role == aodi.RolePrimary:
		r := twoHeads(own, other, m.target.String())
		t.setConflict(w.Container, r.text)
		return r
	case t == nil || t.fed():
		return refusef(wire.CodeNotMirror, "%v is the primary, and this side is its mirror", m.target)
	}
	return errFollow
}

// twoHeads is the refusal of a primary by a primary. Both sides say it.
func twoHeads(own, other Head, where string) *refusal {
	_, fork := Compare(own, other)
	return refusef(wire.CodeDiverged, "two writable heads: one here, at %v, the other at %s, at %v; they agree up to position %d. "+
		"Choose which goes on, and say `cawrm demote NAME --force-discard` where the other is: what only that one has stays there as a snapshot",
		own, where, other, fork)
}

// follow lets the other side, which is the primary, feed this one over the connection that this one has made.
func (m *Mirror) follow(l *link, r *wire.Reader) error {
	if err := l.say(wire.AppendFollow(nil), m.cfg.ReadTimeout); err != nil {
		return err
	}
	m.mu.Lock()
	m.following, m.reason = true, errFollow.Error()
	m.mu.Unlock()
	defer func() {
		m.mu.Lock()
		m.following = false
		m.mu.Unlock()
	}()
	return m.cfg.Peer.follow(m.cfg.Name, l, r)
}

// newTerm takes this side's positions beyond p, unless it has become a mirror itself: another session, or a command, may be about
// to make it one.
func (m *Mirror) newTerm(p aodi.Position) error {
	if t := m.cfg.Peer.target(m.cfg.Name); t != nil {
		t.takeRole()
		defer t.giveRole()
	}
	return m.v.NewTerm(p)
}

// branch hears where a mirror that leaves its own branch has written, and says from where to bring it up: all else is
// the same as here.
func (m *Mirror) branch(r *wire.Reader, w *wire.Welcome, mirror, source Head) (from aodi.CutFrom, err error) {
	relation, fork := Compare(mirror, source)
	if relation != Diverged && relation != Ahead {
		return from, refusef(wire.CodeLied, "peer %q leaves its branch, and stands at %v, which is %v", w.Name, mirror, relation)
	}
	if mirror.Position >= source.Position {
		// It has used positions of this term, so this side goes on in another: a birth must not be ambiguous.
		if m.v.Role() != aodi.RolePrimary {
			return from, refusef(wire.CodeAhead, "the mirror stands at %v, beyond %v, and leaves its branch: the primary must be told first", mirror, source)
		}
		if err := m.newTerm(mirror.Position); err != nil {
			return from, fmt.Errorf("%w: %w", errLocal, err)
		}
		return from, errAgain
	}
	from = aodi.CutFrom{Position: mirror.Position, Got: w.Got, Diverged: true, Fork: fork}
	for last := false; !last; {
		t, err := r.Next(wire.Of(wire.TypeRanges, wire.TypeBeat, wire.TypeRefuse))
		switch {
		case err != nil:
			return from, fmt.Errorf("no ranges: %w", err)
		case t == wire.TypeRefuse:
			return from, told(r)
		case t == wire.TypeBeat:
			continue
		}
		var ranges []wire.Range
		if ranges, last, err = r.Ranges(); err != nil {
			return from, &refusal{wire.CodeGarbage, err.Error()}
		}
		for _, g := range ranges {
			from.Ranges = append(from.Ranges, aodi.Range(g))
		}
		if len(from.Ranges) > wire.MaxBranch {
			return from, refusef(wire.CodeGarbage, "peer %q has changed more than %d ranges", w.Name, wire.MaxBranch)
		}
	}
	m.log.Info("the mirror leaves its branch", "from", mirror.String(), "fork", fork, "ranges", len(from.Ranges))
	return from, nil
}
