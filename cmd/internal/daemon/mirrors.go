package daemon

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"cawrm/cawrm"
	"cawrm/cmd/internal/control"
	"cawrm/cmd/internal/value"
)

// startMirrors starts the mirrors that the volume keeps and those of --mirror, which take over what is kept under their ids.
func (v *served) startMirrors(d *daemon) (err error) {
	if v.cfg.Rescue || v.base != nil {
		return nil
	}
	if v.source, err = cawrm.NewSource(v.volume, cawrm.MirrorConfig{Logger: d.log, Trust: d.trust, OnEvent: v.tell(d.hook), Peer: d.peer, Name: v.cfg.Name}, d.cfg.RPO); err != nil {
		return err
	}
	for _, m := range v.cfg.Mirrors {
		if err := v.source.AddGiven(m.ID, m.URL); err != nil {
			return err
		}
	}
	return nil
}

// setMirrors makes the mirrors that are given those that are wanted: what is not any more ends, unless that was done by hand
// already; what moved is moved. Those that the volume keeps stay.
func (v *served) setMirrors(want []value.Mirror) (err error) {
	had := v.cfg.Mirrors
	v.cfg.Mirrors = want
	find := func(list []value.Mirror, id string) int {
		return slices.IndexFunc(list, func(m value.Mirror) bool { return m.ID == id })
	}
	for _, m := range had {
		if _, gone := v.source.Mirror(m.ID); gone == nil && find(want, m.ID) < 0 {
			err = errors.Join(err, v.source.Remove(m.ID))
		}
	}
	for _, m := range want {
		i := find(had, m.ID)
		switch {
		case i < 0:
			err = errors.Join(err, v.source.AddGiven(m.ID, m.URL))
		case had[i].URL != m.URL:
			err = errors.Join(err, v.source.Set(m.ID, "url="+m.URL))
		}
	}
	return err
}

func (v *served) stopMirrors() {
	if v.source != nil {
		v.source.Close()
	}
}

// endFlushes lets flushes go that wait for mirrors.
func (v *served) endFlushes() {
	if v.source != nil {
		v.source.EndFlushes()
	}
}

// tell is where the volume's events go.
func (v *served) tell(h *hook) func(cawrm.Event) {
	return func(e cawrm.Event) {
		e.Volume = v.cfg.Name
		h.tell(e)
	}
}

func (v *served) mirrors() []cawrm.Status {
	if v.source == nil {
		return nil
	}
	return v.source.Status()
}

// changeMirror is the command mirror.
func (d *daemon) changeMirror(_ context.Context, r control.MirrorRequest) (any, error) {
	v, err := d.find(r.Volume)
	if err != nil {
		return nil, err
	}
	if v.source == nil {
		return nil, fmt.Errorf("volume %s is a rescue, or a clone, which have no mirrors", v.cfg.Name)
	}
	guest := slices.ContainsFunc(d.peer.Followers(v.cfg.Name), func(m *cawrm.Mirror) bool { return m.Status().ID == r.ID })
	set := v.source.Set
	if guest {
		set = func(id string, assignments ...string) error {
			return d.peer.SetFollower(v.cfg.Name, id, assignments...)
		}
	}
	switch r.Op {
	case "add":
		return nil, v.source.Add(r.ID, r.URL, r.Settings...)
	case "remove":
		if guest {
			return nil, fmt.Errorf("mirror %s came by itself, as a mirror of this volume that was its primary; it is fed as long as it comes: stop it there, or `cawrm mirror pause` it here", r.ID)
		}
		return nil, v.source.Remove(r.ID)
	case "pause":
		return nil, set(r.ID, "paused=true")
	case "resume":
		return nil, set(r.ID, "paused=false")
	case "set":
		return nil, set(r.ID, r.Settings...)
	}
	return nil, fmt.Errorf("mirror: there is no operation %q", r.Op)
}
