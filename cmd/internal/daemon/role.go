package daemon

import (
	"context"
	"fmt"
	"strings"
	"time"

	"cawrm/cawrm"
	"cawrm/cmd/internal/control"
)

// changeRole is the command role.
func (d *daemon) changeRole(ctx context.Context, r control.RoleRequest) (any, error) {
	v, err := d.find(r.Volume)
	if err != nil {
		return nil, err
	}
	if v.cfg.Rescue {
		return nil, fmt.Errorf("volume %s is a rescue: it is only shown", v.cfg.Name)
	}
	before, name := v.role(), v.cfg.Name
	a := control.RoleAnswer{Volume: name}
	switch r.Op {
	case "promote":
		err = d.peer.Promote(name, r.Force)
	case "demote":
		err = d.peer.Demote(name, r.Discard)
	case "switchover":
		a.Mirror, err = d.switchover(ctx, v, r)
	default:
		err = fmt.Errorf("role: there is no operation %q", r.Op)
	}
	if err != nil {
		return nil, err
	}
	st := v.volume.Status()
	a.Role, a.Position, a.Lineage = v.role(), uint64(st.EndPtr), lineage(st)
	a.Changed = a.Role != before
	return a, nil
}

func (d *daemon) switchover(ctx context.Context, v *served, r control.RoleRequest) (string, error) {
	m, err := d.heir(v, r.Mirror)
	if err != nil {
		return "", err
	}
	near, hold := seconds(r.Near, time.Minute), seconds(r.Hold, 10*time.Second)
	ctx, cancel := context.WithTimeout(ctx, near+hold)
	defer cancel()
	return m.Status().ID, d.peer.Switchover(ctx, v.cfg.Name, m, hold)
}

func seconds(s float64, otherwise time.Duration) time.Duration {
	if s <= 0 {
		return otherwise
	}
	return time.Duration(s * float64(time.Second))
}

// heir is the mirror of that id, or the only one that is connected.
func (d *daemon) heir(v *served, id string) (*cawrm.Mirror, error) {
	var ids []string
	var up []*cawrm.Mirror
	for _, m := range append(v.source.Mirrors(), d.peer.Followers(v.cfg.Name)...) {
		st := m.Status()
		if st.ID == id {
			return m, nil
		}
		ids = append(ids, st.ID)
		if st.State == cawrm.StateSynced || st.State == cawrm.StateSyncing {
			up = append(up, m)
		}
	}
	switch {
	case id == "" && len(up) == 1:
		return up[0], nil
	case len(ids) == 0:
		return nil, fmt.Errorf("volume %s has no mirror to hand over to", v.cfg.Name)
	case id != "":
		return nil, fmt.Errorf("there is no mirror %s; there are: %s", id, strings.Join(ids, ", "))
	case len(up) == 0:
		return nil, fmt.Errorf("no mirror of volume %s is connected: %s", v.cfg.Name, strings.Join(ids, ", "))
	}
	return nil, fmt.Errorf("volume %s has several mirrors, say which: %s", v.cfg.Name, strings.Join(ids, ", "))
}

// turned shows a volume to NBD as what it has become. Clients that are connected stay: their writes fail with EPERM on what
// is a mirror now, and what has become a primary is read-only for them until they connect again.
func (d *daemon) turned(name string) {
	for _, v := range d.volumes() {
		if v.cfg.Name != name || v.err != nil {
			continue
		}
		for _, s := range d.nbdServers() {
			if err := s.ReplaceExport(v.export()); err != nil {
				d.log.Error("export", "volume", name, "error", err)
			}
		}
	}
}
