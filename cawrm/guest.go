package cawrm

import (
	"fmt"
	"slices"
	"strings"

	"cawrm/aodi/format"
	"cawrm/cawrm/wire"
)

// A mirror that has come by itself, as an old primary does, is a guest of the volume that feeds it: it is known by the container that it
// is, has no address, and is forgotten when the peer ends, but for settings that somebody has given it.

// maxFollowers bounds the containers that may come by themselves to be fed.
const maxFollowers = 32

// follower is the mirror of this volume that has come by itself from there: there is one for each container.
func (t *target) follower(l *link, h *wire.Hello) *Mirror {
	t.mu.Lock()
	defer t.mu.Unlock()
	m := t.followers[h.Container]
	if m == nil && len(t.followers) < maxFollowers {
		host := l.String()
		if i := strings.LastIndex(host, ":"); i > 0 {
			host = host[:i]
		}
		cfg := MirrorConfig{ID: fmt.Sprintf("follower-%.4s", h.Container), ReadTimeout: t.p.cfg.ReadTimeout, Logger: t.p.log, Peer: t.p, Name: t.name}
		cfg.setDefaults()
		m = &Mirror{v: t.v, cfg: cfg, target: Target{Addr: host, Name: h.Name}, log: t.p.log.With("mirror", cfg.ID), changed: make(chan struct{}),
			handing: make(chan *handing), jump: -1, syncPtr: start(t.v), guest: true, reached: h.Container}
		m.settings = guestSettings(t.v.Mirrors(), cfg.ID)
		t.followers[h.Container] = m
	}
	return m
}

// Followers are the mirrors of a volume that came by themselves, in the order of their ids.
func (p *Peer) Followers(name string) []*Mirror {
	t := p.target(name)
	if t == nil {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	var all []*Mirror
	for _, m := range t.followers {
		all = append(all, m)
	}
	slices.SortFunc(all, func(a, b *Mirror) int { return strings.Compare(a.cfg.ID, b.cfg.ID) })
	return all
}

// SetFollower changes settings of a mirror that came by itself, each given as key=value, all or none. They are in force at once, and whenever
// that container comes again, also after a restart. Any goroutine. Errors: no such follower; those of Settings.Set; a setting
// that needs a mirror which is always expected; the volume's, when they cannot be kept.
func (p *Peer) SetFollower(name, id string, assignments ...string) error {
	all := p.Followers(name)
	i := slices.IndexFunc(all, func(m *Mirror) bool { return m.cfg.ID == id })
	if i < 0 {
		return fmt.Errorf("no mirror %s has come by itself to %s", id, name)
	}
	m := all[i]
	m.changing.Lock()
	defer m.changing.Unlock()
	set := m.Settings()
	for _, a := range assignments {
		switch key, _, _ := strings.Cut(a, "="); key {
		case "url", "mode", "quorum", "timeout", "on-timeout":
			return fmt.Errorf("%s: mirror %s came by itself, so it has no address and no flush waits for it; `cawrm mirror add` makes it one that is expected", key, id)
		}
		if err := set.Assign(a); err != nil {
			return err
		}
	}
	m.Change(set)
	m.v.RememberMirror(format.Mirror{ID: id, URL: guestURL(set), SyncPtr: start(m.v)})
	return kept(m.v, fmt.Sprintf("the change of mirror %s is in effect", id))
}

// guestScheme marks, in the volume's table, a mirror that has settings and no address.
const guestScheme = "guest:?"

func guestURL(s Settings) string { return guestScheme + s.Query() }

// guestSettings are those that a guest was given in an earlier life of the volume.
func guestSettings(table []format.Mirror, id string) Settings {
	for _, r := range table {
		if query, ok := strings.CutPrefix(r.URL, guestScheme); ok && r.ID == id {
			s, _ := ParseSettings(query) // as SetFollower wrote it
			return s
		}
	}
	return Settings{}
}

// whilePaused tells whether the mirror is paused; if not, interrupt is called when it is.
func (m *Mirror) whilePaused(interrupt func()) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.interrupt = interrupt
	return m.settings.Paused
}
