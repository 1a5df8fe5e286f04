package daemon

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"cawrm/aodi"
	"cawrm/cmd/internal/control"
	"cawrm/cmd/internal/value"
	"cawrm/nbdsrv"
)

// changeSnapshot is the command snapshot.
func (d *daemon) changeSnapshot(_ context.Context, r control.SnapshotRequest) (any, error) {
	found, err := d.find(r.Volume)
	if err != nil {
		return nil, err
	}
	v := found.volume
	switch r.Op {
	case "create":
		s, err := v.CreateSnapshot(r.Name)
		if err != nil {
			return nil, err
		}
		d.log.Info("snapshot made", "snapshot", r.Volume+"@"+r.Name, "position", s.Position)
		return snapshotAnswer(s), nil
	case "delete":
		if err := v.DeleteSnapshot(r.Name); err != nil {
			return nil, err
		}
		d.log.Info("snapshot deleted", "snapshot", r.Volume+"@"+r.Name)
		return nil, nil
	case "rollback":
		return d.rollback(found, r)
	case "list":
		return found.snapshots(), nil
	}
	return nil, fmt.Errorf("snapshot: there is no operation %q", r.Op)
}

func (v *served) snapshots() []control.Snapshot {
	list := []control.Snapshot{}
	for _, s := range v.volume.Snapshots() {
		list = append(list, snapshotAnswer(s))
	}
	return list
}

// history is the volume's past as the page shows it.
func (d *daemon) history(name string) (control.History, error) {
	v, err := d.find(name)
	if err != nil {
		return control.History{}, err
	}
	h := control.History{Volume: v.cfg.Name, Snapshots: v.snapshots()}
	if from := v.volume.HistoryFrom(); !from.IsZero() {
		h.HistoryFrom = from.UTC().Format(time.RFC3339Nano)
	}
	h.Now = time.Now().UTC().Format(time.RFC3339Nano)
	return h, nil
}

func snapshotAnswer(s aodi.SnapshotInfo) control.Snapshot {
	return control.Snapshot{Name: s.Name, Time: s.Time.UTC().Format(time.RFC3339Nano), Position: uint64(s.Position), Size: s.Size, UsedBytes: s.UsedBytes}
}

// finder shows snapshots to NBD clients.
type finder struct{ d *daemon }

// view is a snapshot as NBD sees it: what reads it never waits for anything but the disk.
type view struct{ *aodi.View }

func (w view) TryReadAt(p []byte, off int64) error { return translate(w.View.TryReadAt(p, off)) }

// Find opens NAME@SNAP.
func (f finder) Find(name string) (nbdsrv.Export, func(), bool) {
	i := strings.LastIndexByte(name, '@')
	if i < 0 {
		return nbdsrv.Export{}, nil, false
	}
	v, err := f.d.find(name[:i])
	if err != nil {
		return nbdsrv.Export{}, nil, false
	}
	w, err := v.openState(name[i+1:])
	if err != nil {
		if !errors.Is(err, aodi.ErrNoSnapshot) {
			f.d.log.Warn("export is not shown", "export", name, "error", err)
		}
		return nbdsrv.Export{}, nil, false
	}
	return nbdsrv.Export{Name: name, Of: v.cfg.Name, Description: describe(w.Info()), Device: view{w}, ReadOnly: true, MultiConn: true}, w.Close, true
}

// List tells all snapshots of all volumes.
func (f finder) List() []nbdsrv.Listed {
	var all []nbdsrv.Listed
	for _, v := range f.d.volumes() {
		if v.err != nil {
			continue
		}
		for _, s := range v.volume.Snapshots() {
			all = append(all, nbdsrv.Listed{Name: v.cfg.Name + "@" + s.Name, Description: describe(s), Of: v.cfg.Name})
		}
	}
	return all
}

func describe(s aodi.SnapshotInfo) string {
	return "cawrm snapshot of " + s.Time.UTC().Format(time.RFC3339) + ", read-only"
}

// openState opens a snapshot, or a moment of the history.
func (v *served) openState(name string) (*aodi.View, error) {
	w, err := v.volume.OpenView(name)
	if at, ok := value.Moment(name, time.Now()); ok && errors.Is(err, aodi.ErrNoSnapshot) {
		return v.volume.OpenMoment(at)
	}
	return w, err
}

// rollback makes a volume what it was. Its exports are gone meanwhile: a client that remembers what it has read would mix the two.
func (d *daemon) rollback(v *served, r control.SnapshotRequest) (any, error) {
	d.change.Lock()
	defer d.change.Unlock()
	clients := 0
	for _, s := range d.nbdServers() {
		clients += s.Clients(v.cfg.Name)
	}
	if clients > 0 && !r.Force {
		return nil, fmt.Errorf("%d NBD clients use volume %s or a snapshot of it: unmount and detach first, or say --force", clients, v.cfg.Name)
	}
	w, err := v.openState(r.Name)
	if err != nil {
		return nil, err
	}
	defer w.Close()
	if err := d.hide(v); err != nil {
		return nil, err
	}
	kept := aodi.KeptName(time.Now())
	if err = v.volume.Rollback(w, kept); err == nil {
		d.log.Info("rolled back", "volume", v.cfg.Name, "to", r.Name, "kept", kept)
	}
	if err := errors.Join(err, d.show(v)); err != nil {
		return nil, err
	}
	return control.RolledBack{Kept: v.cfg.Name + "@" + kept}, nil
}
