package daemon

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"cawrm/cmd/internal/config"
	"cawrm/cmd/internal/control"
	"cawrm/cmd/internal/value"
)

// reload reads the configuration again and makes the daemon what it says, without ending a connection of what stays. What
// can be found wrong beforehand is: then nothing is changed. A volume that cannot be opened is told and left out.
func (d *daemon) reload() error {
	d.change.Lock()
	defer d.change.Unlock()
	if d.cfg.Load == nil {
		d.log.Info("reload: there is no configuration file; certificates are read again")
		trust, err := d.cfg.Trust.load()
		if err == nil {
			d.retrust(trust)
		}
		return errors.Join(err, d.tls.reload(d.cfg.TLS))
	}
	want, err := d.cfg.Load()
	if err != nil {
		return err
	}
	if err := d.fixed(want); err != nil {
		return err
	}
	fresh, err := d.sockets.rebind(want)
	if err != nil {
		return err
	}
	trust, err := want.Trust.load()
	if err == nil {
		err = d.tls.reload(want.TLS)
	}
	if err != nil {
		fresh.close()
		return err
	}
	d.retrust(trust)
	d.serveFresh(fresh, want)
	d.reloadVolumes(want.Volumes)
	d.mu.Lock()
	d.cfg.NBD, d.cfg.Peer, d.cfg.TLS, d.cfg.Trust, d.cfg.Volumes = want.NBD, want.Peer, want.TLS, want.Trust, want.Volumes
	d.mu.Unlock()
	d.log.Info("reloaded", "file", d.cfg.File, "volumes", len(want.Volumes))
	return nil
}

// fixed finds what only a restart can change.
func (d *daemon) fixed(want Config) error {
	switch {
	case want.Control != d.cfg.Control:
		return errors.New("the control socket can only be changed by a restart")
	case !slices.Equal(want.HTTP, d.cfg.HTTP) || !slices.Equal(want.Sites, d.cfg.Sites) || want.Token != d.cfg.Token:
		return errors.New("http, site and http-token-file can only be changed by a restart")
	case want.Objective != d.cfg.Objective || want.TraceDir != d.cfg.TraceDir:
		return errors.New("latency-objective and trace-dir can only be changed by a restart")
	case want.OnEvent != d.cfg.OnEvent || want.RPO != d.cfg.RPO:
		return errors.New("on-event and rpo can only be changed by a restart")
	case (want.TLS.Cert == "") != (d.cfg.TLS.Cert == ""), want.TLS.Optional != d.cfg.TLS.Optional:
		return errors.New("whether NBD is encrypted can only be changed by a restart")
	case want.Trust.On() != d.cfg.Trust.On():
		return errors.New("whether sources and mirrors prove who they are can only be changed by a restart")
	}
	return nil
}

// serveFresh takes new listeners into service and closes those that are not wanted; what came through them stays.
func (d *daemon) serveFresh(fresh *sockets, want Config) {
	for _, l := range fresh.nbd {
		d.serveNBD(l)
	}
	for _, l := range fresh.peer {
		d.start("peer", l.Listener, d.peer.Serve)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.sockets.adopt(fresh, want)
}

// reloadVolumes closes what is not wanted any more, opens what is new, and changes the mirrors of the rest. A volume that
// moved, or was not open, is closed and opened.
func (d *daemon) reloadVolumes(want []VolumeConfig) {
	for _, v := range d.volumes() {
		if v.base != nil || slices.ContainsFunc(want, func(w VolumeConfig) bool { return v.err == nil && v.same(w) }) {
			continue
		}
		if err := d.drop(v); err != nil {
			d.log.Error("reload", "volume", v.cfg.Name, "error", err)
		}
	}
	for _, w := range want {
		if err := d.take(w); err != nil {
			d.log.Error("volume is not served", "volume", w.Name, "error", err)
			d.insert(&served{cfg: w, err: err})
		}
	}
}

// same tells whether a volume need not be opened anew.
func (v *served) same(w VolumeConfig) bool {
	return v.cfg.Name == w.Name && v.cfg.Path == w.Path && v.cfg.Rescue == w.Rescue
}

// take opens and shows a volume, or gives one that is there its mirrors.
func (d *daemon) take(w VolumeConfig) error {
	for _, v := range d.volumes() {
		if v.cfg.Name == w.Name && v.base != nil {
			return fmt.Errorf("%s is a clone of volume %s", w.Name, v.base.cfg.Name)
		} else if v.cfg.Name == w.Name {
			v.volume.SetHistory(w.History)
			v.setRules(w.Allow)
			return v.setMirrors(w.Mirrors)
		}
	}
	v, err := openVolume(w, d.log)
	if err != nil {
		return err
	}
	if err := d.show(v); err != nil {
		return errors.Join(err, d.hide(v), v.close(d.log))
	}
	d.insert(v)
	d.logServing(v)
	d.openClones(v)
	return nil
}

// drop hides and closes a volume. One with a request that does not end stays in the list, hidden: it cannot be closed.
func (d *daemon) drop(v *served) error {
	if err := d.dropClones(v); err != nil {
		return err
	}
	if v.err == nil {
		if err := d.hide(v); err != nil {
			return err
		}
	}
	d.mu.Lock()
	d.list = slices.DeleteFunc(d.list, func(x *served) bool { return x == v })
	d.mu.Unlock()
	return v.close(d.log)
}

func (d *daemon) insert(v *served) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.list = append(d.list, v)
}

// changeVolume is the command volume.
func (d *daemon) changeVolume(_ context.Context, r control.VolumeRequest) (any, error) {
	d.change.Lock()
	defer d.change.Unlock()
	switch r.Op {
	case "add":
		return d.addVolume(r)
	case "remove":
		return d.removeVolume(r.Name)
	}
	return nil, fmt.Errorf("volume: there is no operation %q", r.Op)
}

// addVolume serves one more volume and writes it into the configuration.
func (d *daemon) addVolume(r control.VolumeRequest) (any, error) {
	w, err := d.cfg.Decode(r)
	if err != nil {
		return nil, err
	}
	for _, v := range d.volumes() {
		if v.cfg.Name == w.Name {
			return nil, fmt.Errorf("there is a volume %q already", w.Name)
		}
	}
	if err := d.take(w); err != nil {
		return nil, err
	}
	if d.cfg.File == "" {
		return control.Changed{}, nil
	}
	if err := config.Add(d.cfg.File, table(r)); err != nil {
		return nil, fmt.Errorf("volume %s is served, but was not kept: %w", w.Name, err)
	}
	return control.Changed{File: d.cfg.File}, nil
}

// table is how a volume stands in the file.
func table(r control.VolumeRequest) config.Volume {
	v := config.Volume{Name: r.Name, Keys: []config.Key{{Name: "path", Texts: []string{r.Path}}}}
	for _, o := range r.Options {
		v.Keys = append(v.Keys, config.Key{Name: o.Name, Texts: o.Texts, List: len(o.Texts) != 1})
	}
	return v
}

// removeVolume ends serving a volume and takes it out of the configuration; the container stays.
func (d *daemon) removeVolume(name string) (any, error) {
	list := d.volumes()
	i := slices.IndexFunc(list, func(v *served) bool { return v.cfg.Name == name })
	if i < 0 {
		return nil, control.NoVolume(name, names(list))
	}
	if b := list[i].base; b != nil {
		return nil, fmt.Errorf("%s is a clone and goes with volume %s; `cawrm clone --delete %s` deletes it", name, b.cfg.Name, name)
	}
	if err := d.drop(list[i]); err != nil {
		return nil, err
	}
	if d.cfg.File == "" {
		return control.Changed{}, nil
	}
	if err := config.Remove(d.cfg.File, name); err != nil {
		return nil, fmt.Errorf("volume %s is not served any more, but is not taken out: %w", name, err)
	}
	return control.Changed{File: d.cfg.File}, nil
}

// reloadNow is the command reload: its error is an answer.
func (d *daemon) reloadNow(context.Context, struct{}) (any, error) {
	if err := d.reload(); err != nil {
		return nil, err
	}
	return control.Changed{File: d.cfg.File}, nil
}

// differs tells which of want are not in have.
func differs(want, have []value.Addr) (more []value.Addr) {
	for _, a := range want {
		if !slices.Contains(have, a) {
			more = append(more, a)
		}
	}
	return more
}
