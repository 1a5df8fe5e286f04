package daemon

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"cawrm/aodi"
	"cawrm/cmd/internal/control"
	"cawrm/cmd/internal/value"
)

// A clone is served as long as the volume is that knows it, and needs no place in a configuration.

// changeClone is the command clone.
func (d *daemon) changeClone(_ context.Context, r control.CloneRequest) (any, error) {
	d.change.Lock()
	defer d.change.Unlock()
	switch r.Op {
	case "create":
		return d.createClone(r)
	case "delete":
		return nil, d.deleteClone(r.Name)
	}
	return nil, fmt.Errorf("clone: there is no operation %q", r.Op)
}

func (d *daemon) createClone(r control.CloneRequest) (any, error) {
	base, err := d.find(r.Volume)
	if err != nil {
		return nil, err
	}
	if err := value.CheckName(r.Name); err != nil {
		return nil, err
	}
	if _, err := d.find(r.Name); err == nil {
		return nil, fmt.Errorf("there is a volume %q already", r.Name)
	}
	if base.cfg.Rescue {
		return nil, fmt.Errorf("volume %s is a rescue, of which no clone is made", base.cfg.Name)
	}
	if r.Path == "" {
		if r.Path, err = besides(base.cfg.Path, r.Name); err != nil {
			return nil, err
		}
	}
	if err := base.createClone(r); err != nil {
		return nil, err
	}
	all := base.volume.Clones()
	made := all[len(all)-1]
	v, err := d.openClone(base, made)
	if err != nil {
		return nil, fmt.Errorf("the clone was made, and cannot be served: %w", err)
	}
	d.insert(v)
	d.logServing(v)
	return control.Clone{Name: r.Name, Of: base.cfg.Name + "@" + made.Snapshot, Path: made.Path}, nil
}

// createClone makes the clone of a snapshot, of a moment of the history, or of the present when neither is named.
func (v *served) createClone(r control.CloneRequest) error {
	if r.Snapshot == "" {
		return v.volume.CreateCloneNow(r.Name, r.Path)
	}
	err := v.volume.CreateClone(r.Snapshot, r.Name, r.Path)
	if at, ok := value.Moment(r.Snapshot, time.Now()); ok && errors.Is(err, aodi.ErrNoSnapshot) {
		return v.volume.CreateCloneAt(at, r.Name, r.Path)
	}
	return err
}

// besides is where the container of a clone goes when nobody says where: next to the one that it is made of.
func besides(path, name string) (string, error) {
	if st, err := os.Stat(path); err != nil {
		return "", err
	} else if !st.Mode().IsRegular() {
		return "", fmt.Errorf("%s is a device: say with --path where the clone's own container goes", path)
	}
	return filepath.Abs(filepath.Join(filepath.Dir(path), name+".clone"))
}

// openClone opens and shows a clone of a volume that is open.
func (d *daemon) openClone(base *served, c aodi.CloneInfo) (*served, error) {
	v := &served{cfg: VolumeConfig{Name: c.Name, Path: c.Path}, base: base}
	var err error
	if v.volume, err = base.volume.OpenClone(c.Name, aodi.Options{Logger: d.log}); err != nil {
		return nil, err
	}
	if err := d.show(v); err != nil {
		return nil, errors.Join(err, d.hide(v), v.close(d.log))
	}
	return v, nil
}

// openClones serves the clones that a volume knows. One that cannot be opened is told, and does not keep the others from it.
func (d *daemon) openClones(base *served) {
	if base.err != nil || base.cfg.Rescue {
		return
	}
	for _, c := range base.volume.Clones() {
		v, err := d.openClone(base, c)
		if err != nil {
			d.log.Error("clone is not served", "clone", c.Name, "path", c.Path, "error", err)
			v = &served{cfg: VolumeConfig{Name: c.Name, Path: c.Path}, base: base, err: err}
		}
		d.insert(v)
	}
}

// dropClones hides and closes the clones of a volume.
func (d *daemon) dropClones(base *served) error {
	for _, v := range d.volumes() {
		if v.base == base {
			if err := d.drop(v); err != nil {
				return err
			}
		}
	}
	return nil
}

// deleteClone ends serving a clone and removes its container.
func (d *daemon) deleteClone(name string) error {
	for _, v := range d.volumes() {
		if v.cfg.Name != name {
			continue
		}
		if v.base == nil {
			return fmt.Errorf("volume %s is no clone", name)
		}
		if err := d.drop(v); err != nil {
			return err
		}
		// Forgotten first: a crash between leaves a file that nobody refers to, not a clone without one.
		if err := v.base.volume.ForgetClone(name); err != nil {
			return err
		}
		if err := os.Remove(v.cfg.Path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("the clone is forgotten, its container is still there: %w", err)
		}
		d.log.Info("clone deleted", "clone", name, "path", v.cfg.Path)
		return nil
	}
	return control.NoVolume(name, names(d.volumes()))
}
