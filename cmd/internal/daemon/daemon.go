package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"

	systemd "github.com/coreos/go-systemd/v22/daemon"

	"cawrm/aodi"
	"cawrm/cawrm"
	"cawrm/cmd/internal/control"
	"cawrm/cmd/internal/value"
	"cawrm/nbdsrv"
	recovery "cawrm/recover"
)

// drainTimeout is how long stop waits for NBD requests in flight. They take milliseconds unless the disk hangs.
const drainTimeout = 30 * time.Second

// Config is what `cawrm serve` was told.
type Config struct {
	Path    string // container
	Name    string // of the volume, the NBD export, and in cawrm://host:port/NAME
	Mirrors []value.Mirror
	NBD     []value.Addr // where NBD clients are served; may be empty
	Peer    []value.Addr // where sources are awaited; for a mirror only
	Control value.Addr   // zero: the default path
	TLS     TLS          // of NBD over TCP
	Rescue  bool         // what is left of a damaged container, read-only
	Logger  *slog.Logger
}

// daemon is what runs. All fields are set before anything is served and not changed after.
type daemon struct {
	cfg     Config
	log     *slog.Logger
	sockets *sockets
	volume  *aodi.Volume
	rescued recovery.Rescued
	source  *cawrm.Source  // the volume's mirrors; nil with Config.Rescue
	peer    *cawrm.Peer    // nil without Config.Peer
	plain   *nbdsrv.Server // unix sockets, and TCP without TLS
	crypted *nbdsrv.Server // TCP with TLS; nil without
	control *control.Server
	failed  chan error     // a listener failed for good
	serving sync.WaitGroup // of runServe
}

// Run serves until ctx ends, then stops in order and returns nil. Errors before everything is served name what
// was wrong and what to do; later ones are a listener's, or the volume's own when it is closed.
func Run(ctx context.Context, cfg Config) error {
	d := &daemon{cfg: cfg, log: cfg.Logger, failed: make(chan error, 1)}
	if err := d.prepare(); err != nil {
		d.abandon()
		return err
	}
	d.serve()
	d.notify(sdReady)
	var err error
	select {
	case <-ctx.Done():
		d.log.Info("stopping")
	case err = <-d.failed:
		d.log.Error("stopping", "error", err)
	}
	d.notify(sdStopping)
	return errors.Join(err, d.stop())
}

// prepare does all that can fail for a reason that a person can mend.
func (d *daemon) prepare() error {
	crypt, err := d.cfg.TLS.load()
	if err != nil {
		return err
	}
	if d.sockets, err = bind(d.cfg); err != nil {
		return err
	}
	if err := d.open(); err != nil {
		return err
	}
	if err := d.prepareNBD(nbdsrv.Config{Logger: d.log, TLS: crypt, RequireTLS: !d.cfg.TLS.Optional}); err != nil {
		return err
	}
	if err := d.preparePeer(); err != nil {
		return err
	}
	d.control = control.NewServer(d.status, d.log)
	d.control.Handle("mirror", control.Command(d.changeMirror))
	return d.startMirrors()
}

func (d *daemon) open() (err error) {
	opt := aodi.Options{Logger: d.log}
	if d.cfg.Rescue {
		d.volume, d.rescued, err = aodi.Rescue(d.cfg.Path, opt)
		for _, line := range d.rescued.Found {
			d.log.Warn("rescue", "found", line)
		}
		for _, line := range d.rescued.Lost {
			d.log.Error("rescue", "lost", line)
		}
	} else {
		d.volume, err = aodi.Open(d.cfg.Path, opt)
	}
	var corrupt *aodi.CorruptError
	switch {
	case errors.Is(err, os.ErrNotExist):
		return fmt.Errorf("%s does not exist; make it with `cawrm create`", d.cfg.Path)
	case errors.As(err, &corrupt) && !d.cfg.Rescue:
		return fmt.Errorf("%w; `cawrm check --repair` mends what can be derived again, `cawrm serve --rescue` shows what is there", err)
	}
	return err
}

func (d *daemon) prepareNBD(cfg nbdsrv.Config) error {
	if cfg.TLS != nil {
		d.crypted = nbdsrv.New(cfg)
		if err := d.crypted.AddExport(d.export()); err != nil {
			return err
		}
	}
	cfg.TLS, cfg.RequireTLS = nil, false
	d.plain = nbdsrv.New(cfg)
	return d.plain.AddExport(d.export())
}

func (d *daemon) preparePeer() error {
	if len(d.cfg.Peer) == 0 {
		return nil
	}
	if d.volume.Info().Role != aodi.RoleMirror {
		return fmt.Errorf("%s is a primary, and --peer awaits sources for a mirror: leave --peer out, or create a mirror with `cawrm create PATH --mirror` and serve that", d.cfg.Path)
	}
	d.peer = cawrm.NewPeer(cawrm.PeerConfig{Logger: d.log})
	return d.peer.AddVolume(d.cfg.Name, d.volume)
}

// serve starts a goroutine for each listener.
func (d *daemon) serve() {
	d.start("control", d.sockets.control, d.control.Serve)
	for i, l := range d.sockets.nbd {
		server := d.plain
		if d.crypted != nil && !d.cfg.NBD[i].IsUnix() {
			server = d.crypted
		}
		d.start("nbd", l, server.Serve)
	}
	for _, l := range d.sockets.peer {
		d.start("peer", l, d.peer.Serve)
	}
	info := d.volume.Info()
	d.log.Info("serving", "volume", d.cfg.Name, "path", d.cfg.Path, "role", d.role(), "size", info.Size,
		"nbd", addresses(d.sockets.nbd), "peer", addresses(d.sockets.peer), "mirrors", len(d.mirrors()),
		"control", "unix:"+d.sockets.control.Addr().String())
	if len(d.sockets.nbd) == 0 {
		d.log.Info("no --nbd address: the volume is not exported over NBD", "volume", d.cfg.Name)
	}
}

func (d *daemon) start(what string, l net.Listener, serve func(net.Listener) error) {
	d.serving.Go(func() { d.runServe(what, l, serve) })
}

// runServe serves one listener. Once the first one has failed the daemon stops, so later failures are not waited for.
func (d *daemon) runServe(what string, l net.Listener, serve func(net.Listener) error) {
	err := serve(l)
	if err == nil || errors.Is(err, nbdsrv.ErrServerClosed) || errors.Is(err, net.ErrClosed) {
		return
	}
	select {
	case d.failed <- fmt.Errorf("%s %s: %w", what, l.Addr(), err):
	default:
	}
}

// stop takes everything apart in order. The volume is closed only when nothing uses it any more.
func (d *daemon) stop() error {
	if err := d.drain(); err != nil {
		d.sockets.close()
		return fmt.Errorf("%s: a request did not end within %v; the volume is left as after a crash, the next start recovers it: %w", d.cfg.Path, drainTimeout, err)
	}
	d.closeMirrors()
	if err := d.control.Close(); err != nil {
		d.log.Warn("control socket", "error", err)
	}
	d.serving.Wait()
	if err := d.volume.Close(); err != nil {
		return fmt.Errorf("close: %w", err)
	}
	d.log.Info("stopped", "volume", d.cfg.Name)
	return nil
}

// drain lets NBD requests that are in flight be answered.
func (d *daemon) drain() error {
	ctx, cancel := context.WithTimeout(context.Background(), drainTimeout)
	defer cancel()
	err := d.plain.Shutdown(ctx)
	if d.crypted != nil {
		err = errors.Join(err, d.crypted.Shutdown(ctx))
	}
	return err
}

func (d *daemon) closeMirrors() {
	if d.source != nil {
		d.source.Close()
	}
	if d.peer != nil {
		d.peer.Close()
	}
}

// abandon closes what a start that failed has opened.
func (d *daemon) abandon() {
	d.closeMirrors()
	if d.sockets != nil {
		d.sockets.close()
	}
	if d.volume != nil {
		if err := d.volume.Close(); err != nil {
			d.log.Error("close", "error", err)
		}
	}
}

// What systemd is told; without NOTIFY_SOCKET nobody is.
const (
	sdReady    = systemd.SdNotifyReady
	sdStopping = systemd.SdNotifyStopping
)

func (d *daemon) notify(state string) {
	if _, err := systemd.SdNotify(false, state); err != nil {
		d.log.Warn("systemd cannot be notified", "error", err)
	}
}
