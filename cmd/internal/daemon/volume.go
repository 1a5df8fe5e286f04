package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync/atomic"
	"syscall"
	"time"

	"cawrm/aodi"
	"cawrm/cawrm"
	"cawrm/cmd/internal/control"
	"cawrm/cmd/internal/metric"
	"cawrm/cmd/internal/value"
	"cawrm/gc"
	"cawrm/nbdsrv"
	recovery "cawrm/recover"
)

// VolumeConfig is one volume of a daemon.
type VolumeConfig struct {
	Path    string // container
	Name    string // of the volume, the NBD export, and in cawrm://host:port/NAME
	Mirrors []value.Mirror
	Allow   value.Rules // which NBD clients may use it; nil: all
	Rescue  bool        // what is left of a damaged container, read-only
	History aodi.HistoryWindow
}

// served is a volume that the daemon has opened, or err, why it could not.
type served struct {
	err     error
	volume  *aodi.Volume
	cleaner *gc.Cleaner // nil with VolumeConfig.Rescue
	rescued recovery.Rescued

	base   *served      // of a clone: what it was made of
	cfg    VolumeConfig // Mirrors change with daemon.change held, all else stays
	rules  atomic.Pointer[value.Rules]
	source *cawrm.Source // its mirrors; nil with VolumeConfig.Rescue

	compared comparisons
	cleaned  cleanings

	took  metric.Requests
	files files // that are sent or received
}

// openVolume opens a volume. Errors say what to do.
func openVolume(cfg VolumeConfig, log *slog.Logger) (v *served, err error) {
	v = &served{cfg: cfg}
	v.setRules(cfg.Allow)
	opt := aodi.Options{Logger: log, History: cfg.History}
	if cfg.Rescue {
		v.volume, v.rescued, err = aodi.Rescue(cfg.Path, opt)
		for _, line := range v.rescued.Found {
			log.Warn("rescue", "found", line)
		}
		for _, line := range v.rescued.Lost {
			log.Error("rescue", "lost", line)
		}
	} else {
		v.volume, err = aodi.Open(cfg.Path, opt)
	}
	var corrupt *aodi.CorruptError
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil, fmt.Errorf("%s does not exist; make it with `cawrm create`", cfg.Path)
	case errors.As(err, &corrupt) && !cfg.Rescue:
		return nil, fmt.Errorf("%w; `cawrm check --repair` mends what can be derived again, `cawrm serve --rescue` shows what is there", err)
	case errors.Is(err, os.ErrPermission):
		return nil, fmt.Errorf("%w; this daemon is user %d: `chown` it to that", err, os.Geteuid())
	case errors.Is(err, syscall.EROFS):
		return nil, fmt.Errorf("%w for this daemon; a unit says with ReadWritePaths= what is not (`systemctl edit cawrm`)", err)
	case err != nil:
		return nil, err
	}
	if !cfg.Rescue {
		v.cleaner = gc.Start(v.volume, gc.Options{Logger: log.With("volume", cfg.Name)})
	}
	return v, nil
}

// role is the volume's, or that it is a rescue, or that there is none.
func (v *served) role() string {
	switch {
	case v.err != nil:
		return control.RoleFailed
	case v.cfg.Rescue:
		return control.RoleRescue
	}
	return string(v.volume.Info().Role)
}

// close closes the volume; nothing may use it any more.
func (v *served) close(log *slog.Logger) error {
	if v.volume == nil {
		return nil
	}
	if v.cleaner != nil {
		v.cleaned.end()
		v.cleaner.Close()
	}
	if err := v.volume.Close(); err != nil {
		return fmt.Errorf("close %s: %w", v.cfg.Path, err)
	}
	log.Info("stopped", "volume", v.cfg.Name)
	return nil
}

// show lets clients and sources see a volume that is open, and starts its mirrors.
func (d *daemon) show(v *served) error {
	if !v.cfg.Rescue && v.base == nil {
		if err := d.peer.AddVolume(v.cfg.Name, v.volume); err != nil {
			return err
		}
	}
	if err := v.startMirrors(d); err != nil {
		return err
	}
	for _, s := range d.nbdServers() {
		if err := s.AddExport(d.measure(v.export(), &v.took)); err != nil {
			return err
		}
	}
	return nil
}

// hide is show undone: afterwards nothing uses the volume.
func (d *daemon) hide(v *served) error {
	ctx, cancel := context.WithTimeout(context.Background(), drainTimeout)
	defer cancel()
	defer time.AfterFunc(flushGrace, v.endFlushes).Stop()
	for _, s := range d.nbdServers() {
		if err := s.RemoveExport(ctx, v.cfg.Name); err != nil {
			return fmt.Errorf("%s: a request did not end within %v: %w", v.cfg.Name, drainTimeout, err)
		}
	}
	v.files.end()
	v.stopMirrors()
	d.peer.RemoveVolume(v.cfg.Name)
	return nil
}

func (d *daemon) nbdServers() []*nbdsrv.Server {
	if d.crypted == nil {
		return []*nbdsrv.Server{d.plain}
	}
	return []*nbdsrv.Server{d.plain, d.crypted}
}

// volumes are those of this moment.
func (d *daemon) volumes() []*served {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.list)
}

// find finds a volume that is served; name "" is the only one. The error says which names there are.
func (d *daemon) find(name string) (*served, error) {
	list := d.volumes()
	for _, v := range list {
		if v.cfg.Name == name || name == "" && len(list) == 1 {
			if v.err != nil {
				return nil, fmt.Errorf("volume %s is not open: %w", v.cfg.Name, v.err)
			}
			return v, nil
		}
	}
	return nil, control.NoVolume(name, names(list))
}

func names(list []*served) []string {
	n := make([]string, len(list))
	for i, v := range list {
		n[i] = v.cfg.Name
	}
	return n
}
