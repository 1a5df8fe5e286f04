package sim

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"syscall"
	"time"

	"cawrm/aodi"
	"cawrm/bench/sim/network"
	"cawrm/cawrm"
)

// Changes of the role. Half of the histories have them.
var roleTable = []operation{
	{"promote", 25, (*world).opPromote},
	{"demote", 6, (*world).opDemote},
	{"switchover", 25, (*world).opSwitchover},
	{"old head", 60, (*world).opOldHead},
	{"decide", 15, (*world).opDecide},
	{"plant", 6, (*world).opPlant},
}

// operations are the table of a history.
func (w *world) operations() []operation {
	if !w.roles {
		return table
	}
	return append(slices.Clone(table), roleTable...)
}

// settled tells whether a change of roles can be asked for: what clients wrote is known, and nobody is in doubt.
func (w *world) settled() bool { return w.burst == nil && (w.heir == nil || w.heir.up()) }

// candidates are the mirrors that can be the next primary: those that have followed the one that is.
func (w *world) candidates() (all []*node) {
	for _, n := range w.nodes {
		if n.rules != nil || !n.up() || n.v.Status().Failed != nil || w.heir != nil && n != w.heir {
			continue
		}
		if w.position(n); n.up() && w.ruled(n.floor) == w.reign && n.floor >= w.reign.first {
			all = append(all, n)
		}
	}
	return all
}

// opPromote promotes a mirror, after its source has died, or the lines are down, or while it lives.
func (w *world) opPromote() {
	all := w.candidates()
	if !w.settled() || len(all) == 0 {
		return
	}
	x, old, force := all[w.rng.IntN(len(all))], w.source(), w.rng.IntN(2) == 0
	switch k := w.rng.IntN(5); {
	case k < 2 && old.up():
		old.d.die(k == 0)
	case k == 2:
		w.net.SetWeather(network.Weather{Down: true, Stalled: true})
	}
	w.say("  -> %s at %d, forced %v", x.name, x.end(), force)
	w.promote(x, force)
}

// promote is what a person does.
func (w *world) promote(x *node, force bool) {
	w.disturb()
	empty := !x.v.Info().HasIdentity || x.end() == 0
	err := x.peer.Promote("vm", force)
	w.say("  -> %v", err)
	switch {
	case x.d.isDead() || x.v.Status().Failed != nil:
		w.heir, w.asked = x, x // or not: its disk knows
	case err == nil:
		w.heir, w.asked = x, x
		w.heads()
	case x.v.Role() != aodi.RoleMirror:
		w.fatal("heads", "%s is a %s, and was not promoted: %v", x.name, x.v.Role(), err)
	case errors.Is(err, cawrm.ErrSourceAlive) && !force, errors.Is(err, aodi.ErrNothingYet) && empty:
		w.count("promotions refused", 1)
	case !w.allowed(x, err):
		w.fatal("error", "promote %s: %v", x.name, err)
	}
}

// opDemote makes the primary a mirror. Then nobody takes writes, until somebody is promoted.
func (w *world) opDemote() {
	s := w.source()
	if !w.settled() || s.rules != w.reign || !s.up() || s.v.Status().Failed != nil || w.heir != nil {
		return
	}
	w.demote(s, false)
	if s.rules == nil && s.up() && !errors.Is(s.v.WriteAt(make([]byte, chunkSize), w.cfg.windows[0].first*chunkSize, false), syscall.EROFS) {
		w.fatal("heads", "%s was demoted, and takes writes", s.name)
	}
}

// demote is what a person does.
func (w *world) demote(n *node, discard bool) {
	w.disturb()
	n.demoting = true
	var err error
	w.beginning(n, func() { err = n.peer.Demote("vm", discard) })
	w.say("  -> %s, discard %v: %v", n.name, discard, err)
	switch {
	case n.d.isDead() || n.v.Status().Failed != nil:
		return // its disk knows
	case err == nil && (n.v.Role() != aodi.RoleMirror || !n.turned.Load()) || err != nil && n.v.Role() != aodi.RolePrimary && n.rules == w.reign:
		w.fatal("heads", "%s is a %s: demote: %v", n.name, n.v.Role(), err)
	case err != nil && !errors.Is(err, cawrm.ErrTwoHeads) && !w.allowed(n, err):
		w.fatal("error", "demote %s: %v", n.name, err)
	}
	w.heads()
	n.demoting = false
}

// beginning does something before which a volume that nobody has written to gets a record that says nothing new.
func (w *world) beginning(n *node, do func()) {
	r := n.rules
	if r == nil || r.model.end > 0 {
		do()
		return
	}
	r.model.add(record{kind: hole})
	r.known = r.model.end
	if do(); !n.d.isDead() && n.end() == 0 {
		r.model.truncate(0)
		r.known = 0
	}
}

// opSwitchover hands over to a mirror. Nothing is lost by that, whatever happens.
func (w *world) opSwitchover() {
	s := w.source()
	if w.volume() == nil || !w.settled() || s.rules != w.reign || w.heir != nil {
		return
	}
	m, x := w.anyMirror(s)
	if x == nil {
		return
	}
	w.say("  -> from %s to %s, %s", s.name, x.name, m.Status().State)
	w.disturb()
	ctx, cancel := context.WithTimeout(context.Background(), time.Duration(1+w.rng.IntN(20))*time.Second)
	defer cancel()
	s.demoting = true
	var err error
	w.beginning(s, func() { err = s.peer.Switchover(ctx, "vm", m, time.Duration(1+w.rng.IntN(10))*time.Second) })
	end := w.model.end
	w.say("  -> %v", err)
	if w.heir, w.asked = x, nil; err == nil {
		w.count("switchovers", 1)
		w.heirEnd, x.handed = end, true
	}
	if s.d.isDead() || s.v.Status().Failed != nil {
		return // its disk knows
	}
	role := s.v.Role()
	if err == nil && role != aodi.RoleMirror {
		w.fatal("heads", "%s has handed over, and is a %s", s.name, role)
	}
	if role == aodi.RolePrimary {
		s.demoting, w.heir = false, nil
		w.count("switchovers that did not come about", 1)
		return
	}
	w.abdicate(s)
	w.heirEnd = end
	w.heads()
}

// anyMirror is a mirror of the primary, one that is connected if there is any.
func (w *world) anyMirror(s *node) (m *cawrm.Mirror, x *node) {
	var all []*cawrm.Mirror
	all = append(append(all, s.mirrors...), s.peer.Followers("vm")...)
	w.rng.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	for _, try := range all {
		st := try.Status()
		n := w.named(st.ID)
		if n == nil || n.rules != nil {
			continue
		}
		if m == nil || st.State == cawrm.StateSynced {
			m, x = try, n
		}
	}
	return m, x
}

// named finds who is meant by a mirror's id.
func (w *world) named(id string) *node {
	for _, n := range w.nodes {
		if n.name == id || n.up() && id == fmt.Sprintf("follower-%.4s", n.v.Info().Container) {
			return n
		}
	}
	return nil
}

// oldHeads are the primaries that were succeeded and do not know it, and are up.
func (w *world) oldHeads() (all []*node) {
	for _, n := range w.nodes {
		if n.rules != nil && n.rules != w.reign && n.up() && n.v.Status().Failed == nil && n.v.Role() == aodi.RolePrimary {
			all = append(all, n)
		}
	}
	return all
}

// opOldHead lets clients that nobody has told write to an old primary.
func (w *world) opOldHead() {
	all := w.oldHeads()
	if len(all) == 0 {
		return
	}
	n := all[w.rng.IntN(len(all))]
	do := pick(w.rng, (*world).opWrite, (*world).opWrite, (*world).opTrim, (*world).opZero, (*world).opFlush, (*world).opRead)
	w.say("  -> %s", n.name)
	w.within(n.rules, func() { do(w) })
}

// opDecide lets an old head meet the new one, and demotes it by hand, or lets it come up anew: then it steps down by itself.
func (w *world) opDecide() {
	all, s := w.oldHeads(), w.source()
	if len(all) == 0 || !w.settled() {
		return
	}
	n := all[w.rng.IntN(len(all))]
	if s.rules == w.reign && s.up() && s.v.Status().Failed == nil && w.heir == nil {
		w.within(n.rules, func() { w.opWrite() })
		w.meet(n)
	}
	if !n.up() || n.rules == nil || n.v.Status().Failed != nil || n.v.Role() != aodi.RolePrimary {
		return
	}
	if w.rng.IntN(4) == 0 {
		w.say("  -> %s comes up anew", n.name)
		w.close(n)
		w.revive(n)
		return
	}
	w.demote(n, w.rng.IntN(2) == 0 && w.onlyOld(n))
}

// onlyOld tells whether n is the only old head. Else it could be told to follow any, and another old one is the first to come.
func (w *world) onlyOld(n *node) bool {
	return !slices.ContainsFunc(w.nodes, func(o *node) bool { return o != n && o.rules != nil && o.rules != w.reign })
}

// meet gives an old head and the primary time to meet.
func (w *world) meet(n *node) {
	w.net.SetWeather(network.Weather{})
	w.told(n)
	time.Sleep(2 * time.Minute)
	for range 3 {
		w.pointers()
		if w.heads(); !n.up() || !w.source().up() || n.rules == nil || n.v.Role() != aodi.RolePrimary {
			return
		}
		w.met(n)
		w.net.Cut() // their own mirrors come back sooner than they meet again
		time.Sleep(time.Duration(1+w.rng.IntN(10)) * time.Second)
	}
}

// told lets an old head know where the primary is, and lets both sides talk.
func (w *world) told(n *node) {
	if s := w.source(); !slices.Contains(n.children, s) && !slices.Contains(s.children, n) {
		n.children = append(n.children, s)
		w.rehang(n)
	}
	for _, m := range append(slices.Clone(n.mirrors), w.source().mirrors...) {
		set := m.Settings()
		set.Paused = false
		m.Change(set)
	}
}

// crown sees to it that there is one primary when all is well again, and that who was one before gives in.
func (w *world) crown() {
	w.doing = "crown"
	for range 10 {
		w.heads()
		if !w.vacant {
			break
		}
		x := w.heir
		if x == nil {
			x = w.source()
		}
		w.promote(x, true)
		if w.heal(); w.over {
			return
		}
	}
	if w.vacant || w.heir != nil {
		w.fatal("hang", "nobody can be promoted")
	}
	for _, n := range w.oldHeads() {
		switch {
		case n.written && w.onlyOld(n):
			w.demote(n, true)
		case n.written:
			w.close(n)
		}
	}
	w.heal()
}
