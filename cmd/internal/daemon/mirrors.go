package daemon

import (
	"context"
	"fmt"

	"cawrm/cawrm"
	"cawrm/cmd/internal/control"
)

// startMirrors starts the mirrors that the volume keeps and those of --mirror, which take over what is kept under their ids.
func (d *daemon) startMirrors() (err error) {
	if d.cfg.Rescue {
		return nil
	}
	if d.source, err = cawrm.NewSource(d.volume, cawrm.MirrorConfig{Logger: d.log}); err != nil {
		return err
	}
	for _, m := range d.cfg.Mirrors {
		if err := d.source.AddGiven(m.ID, m.URL); err != nil {
			return err
		}
	}
	return nil
}

func (d *daemon) mirrors() []*cawrm.Mirror {
	if d.source == nil {
		return nil
	}
	return d.source.Mirrors()
}

// changeMirror is the command mirror.
func (d *daemon) changeMirror(_ context.Context, r control.MirrorRequest) (any, error) {
	if _, err := d.status().Volume(r.Volume); err != nil {
		return nil, err
	}
	if d.source == nil {
		return nil, fmt.Errorf("volume %s is a rescue, which has no mirrors", d.cfg.Name)
	}
	switch r.Op {
	case "add":
		return nil, d.source.Add(r.ID, r.URL, r.Settings...)
	case "remove":
		return nil, d.source.Remove(r.ID)
	case "pause":
		return nil, d.source.Set(r.ID, "paused=true")
	case "resume":
		return nil, d.source.Set(r.ID, "paused=false")
	case "set":
		return nil, d.source.Set(r.ID, r.Settings...)
	}
	return nil, fmt.Errorf("mirror: there is no operation %q", r.Op)
}
