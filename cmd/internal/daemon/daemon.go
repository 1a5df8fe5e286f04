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

	"cawrm/cawrm"
	"cawrm/cmd/internal/control"
	"cawrm/cmd/internal/flight"
	"cawrm/cmd/internal/metric"
	"cawrm/cmd/internal/value"
	"cawrm/cmd/internal/web"
	"cawrm/nbdsrv"
)

// drainTimeout is how long stop waits for NBD requests in flight. They take milliseconds unless the disk hangs.
const drainTimeout = 30 * time.Second

// flushGrace is how long stop waits for mirrors to commit what clients have flushed.
const flushGrace = 5 * time.Second

// Config is what `cawrm serve` was told.
type Config struct {
	Volumes []VolumeConfig
	NBD     []value.Addr  // where NBD clients are served; may be empty
	Peer    []value.Addr  // where sources are awaited
	Control value.Addr    // zero: the default path
	TLS     TLS           // of NBD over TCP
	Trust   PeerTrust     // of the link between sources and mirrors
	OnEvent string        // command that is told of events
	RPO     time.Duration // lag that is an event; 0: none is
	HTTP    []value.Addr  // page and metrics; may be empty
	Sites   []web.Site    // other daemons that the page shows
	Token   string        // lets the page act
	Logger  *slog.Logger

	Version string // of the program, for the metrics
	// Objective is how long a request may take before the last seconds are written down in TraceDir; 0: any time.
	Objective time.Duration
	TraceDir  string

	// File is the configuration that the volumes came from; "" when a command line named the only one. Then a volume that
	// cannot be opened ends the daemon, else it is told and the others are served.
	File string
	// Load reads everything anew; nil when there is nothing to read.
	Load func() (Config, error)
	// Decode makes a volume of what the control socket was told.
	Decode func(control.VolumeRequest) (VolumeConfig, error)
}

// daemon is what runs.
type daemon struct {
	log     *slog.Logger
	tls     certificates
	trust   *cawrm.Trust // nil: nothing is proved
	sockets *sockets
	hook    *hook
	peer    *cawrm.Peer
	plain   *nbdsrv.Server // unix sockets, and TCP without TLS
	crypted *nbdsrv.Server // TCP with TLS; nil without
	control *control.Server
	web     *web.Server      // nil without Config.HTTP
	flight  *flight.Recorder // nil without Config.Objective
	failed  chan error       // a listener failed for good
	serving sync.WaitGroup   // of runServe

	// change is held while the daemon is changed, one change at a time. It comes before mu.
	change sync.Mutex
	mu     sync.Mutex // guards what follows; held shortly
	cfg    Config
	list   []*served // in the order of the configuration
}

// Run serves until ctx ends, then stops in order and returns nil. reload makes it read its configuration again. Errors before
// everything is served name what was wrong and what to do; later ones are a listener's, or a volume's own when it is closed.
func Run(ctx context.Context, cfg Config, reload <-chan struct{}) error {
	d := &daemon{cfg: cfg, log: cfg.Logger, failed: make(chan error, 1)}
	if err := d.prepare(); err != nil {
		d.abandon()
		return err
	}
	d.serve()
	d.notify(sdReady)
	err := d.run(ctx, reload)
	d.notify(sdStopping)
	return errors.Join(err, d.stop())
}

// run waits for what ends the daemon, and does meanwhile what it is told.
func (d *daemon) run(ctx context.Context, reload <-chan struct{}) error {
	watchdog, stop := d.watchdog()
	defer stop()
	for {
		select {
		case <-ctx.Done():
			d.log.Info("stopping")
			return nil
		case err := <-d.failed:
			d.log.Error("stopping", "error", err)
			return err
		case <-reload:
			d.notifyReload()
			if err := d.reload(); err != nil {
				d.log.Error("reload: nothing was changed", "error", err)
			}
			d.notify(sdReady)
		case <-watchdog:
			d.status() // takes every lock, so a daemon that hangs in one is not alive
			d.notify(sdWatchdog)
		}
	}
}

// prepare does all that can fail for a reason that a person can mend.
func (d *daemon) prepare() error {
	crypt, err := d.tls.start(d.cfg.TLS)
	if err != nil {
		return err
	}
	if d.trust, err = d.cfg.Trust.load(); err != nil {
		return err
	}
	if d.sockets, err = bind(d.cfg); err != nil {
		return err
	}
	if err := d.sockets.exposed(d.cfg.Trust); err != nil {
		return err
	}
	d.hook = newHook(d.cfg.OnEvent, d.log)
	nbd := nbdsrv.Config{Logger: d.log, Finder: finder{d}, TLS: crypt, RequireTLS: !d.cfg.TLS.Optional}
	if crypt != nil {
		d.crypted = nbdsrv.New(nbd)
	}
	nbd.TLS, nbd.RequireTLS = nil, false
	d.plain = nbdsrv.New(nbd)
	d.peer = cawrm.NewPeer(cawrm.PeerConfig{Logger: d.log, Trust: d.trust, OnEvent: d.hook.tell, Turned: d.turned})
	d.control = control.NewServer(d.status, d.log)
	d.control.Handle("mirror", control.Command(d.changeMirror))
	d.control.Handle("role", control.Command(d.changeRole))
	d.control.Handle("verify", control.Command(d.verify))
	d.control.Handle("gc", control.Command(d.clean))
	d.control.Handle("resize", control.Command(d.resize))
	d.control.Handle("snapshot", control.Command(d.changeSnapshot))
	d.control.Handle("clone", control.Command(d.changeClone))
	d.control.Handle("volume", control.Command(d.changeVolume))
	d.control.Handle("plan", control.Command(d.plan))
	d.control.Handle("reload", control.Command(d.reloadNow))
	d.control.HandleSend("send", d.sendFile)
	d.control.Handle("sent", control.Command(d.sentFile))
	d.control.HandleReceive("receive", d.receiveFile)
	if err := d.prepareWatching(); err != nil {
		return err
	}
	return d.openAll()
}

// prepareWatching makes what looks at the daemon.
func (d *daemon) prepareWatching() (err error) {
	cfg := web.Config{Logger: d.log, Metrics: metric.Handler(metric.Sources{
		Status: d.status, NBD: d.nbdStats, Requests: d.requests, Version: d.cfg.Version,
	}), Status: d.status, History: d.history, Name: hostname(), Version: d.cfg.Version, Sites: d.cfg.Sites, Token: d.cfg.Token,
		Mirror: d.changeMirror, Snapshot: d.changeSnapshot, Role: d.changeRole}
	if d.cfg.Objective > 0 {
		if d.flight, err = flight.Start(d.cfg.TraceDir, d.log); err != nil {
			return err
		}
		cfg.Flight = d.flight.WriteTo
	}
	if len(d.sockets.http) > 0 {
		d.web = web.New(cfg)
	}
	return nil
}

// openAll opens the volumes beside each other: each may have a log to read.
func (d *daemon) openAll() error {
	opened, errs := make([]*served, len(d.cfg.Volumes)), make([]error, len(d.cfg.Volumes))
	var wg sync.WaitGroup
	for i, cfg := range d.cfg.Volumes {
		wg.Go(func() { opened[i], errs[i] = openVolume(cfg, d.log) })
	}
	wg.Wait()
	for i, v := range opened {
		if errs[i] == nil {
			errs[i] = d.show(v)
		} else {
			v = &served{cfg: d.cfg.Volumes[i], err: errs[i]}
		}
		d.list = append(d.list, v) // also one that cannot be shown: abandon closes it
	}
	for _, v := range d.volumes() {
		d.openClones(v)
	}
	if d.cfg.File == "" {
		return errors.Join(errs...)
	}
	for i, err := range errs {
		if err != nil {
			d.log.Error("volume is not served", "volume", d.cfg.Volumes[i].Name, "error", err)
		}
	}
	return nil
}

// serve starts a goroutine for each listener.
func (d *daemon) serve() {
	d.start("control", d.sockets.control, d.control.Serve)
	for _, l := range d.sockets.nbd {
		d.serveNBD(l)
	}
	for _, l := range d.sockets.peer {
		d.start("peer", l.Listener, d.peer.Serve)
	}
	for _, l := range d.sockets.http {
		d.start("http", l.Listener, d.web.Serve)
	}
	for _, v := range d.volumes() {
		if v.err == nil {
			d.logServing(v)
		}
	}
	if len(d.sockets.nbd) == 0 {
		d.log.Info("no --nbd address: volumes are not exported over NBD")
	}
}

func (d *daemon) logServing(v *served) {
	info := v.volume.Info()
	d.log.Info("serving", "volume", v.cfg.Name, "path", v.cfg.Path, "role", v.role(), "size", info.Size,
		"nbd", addresses(d.sockets.nbd), "peer", addresses(d.sockets.peer), "mirrors", len(v.mirrors()),
		"control", "unix:"+d.sockets.control.Addr().String())
}

func (d *daemon) serveNBD(l listener) {
	server := d.plain
	if d.crypted != nil && !l.addr.IsUnix() {
		server = d.crypted
	}
	d.start("nbd", l.Listener, server.Serve)
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

// stop takes everything apart in order. A volume is closed only when nothing uses it any more.
func (d *daemon) stop() error {
	d.change.Lock() // for good: nothing is changed any more
	if err := d.drain(); err != nil {
		d.sockets.close()
		return fmt.Errorf("a request did not end within %v; the volumes are left as after a crash, the next start recovers them: %w", drainTimeout, err)
	}
	d.closeMirrors()
	if err := d.control.Close(); err != nil {
		d.log.Warn("control socket", "error", err)
	}
	d.closeWatching()
	d.serving.Wait()
	return d.closeVolumes()
}

// drain lets NBD requests that are in flight be answered.
func (d *daemon) drain() error {
	ctx, cancel := context.WithTimeout(context.Background(), drainTimeout)
	defer cancel()
	defer time.AfterFunc(flushGrace, func() { // a mirror that is not there must not keep a volume from closing
		for _, v := range d.volumes() {
			v.endFlushes()
		}
	}).Stop()
	err := d.plain.Shutdown(ctx)
	if d.crypted != nil {
		err = errors.Join(err, d.crypted.Shutdown(ctx))
	}
	return err
}

func (d *daemon) closeMirrors() {
	for _, v := range d.list {
		v.files.end()
		v.stopMirrors()
	}
	if d.peer != nil {
		d.peer.Close()
	}
	if d.hook != nil {
		d.hook.close()
	}
}

// hostname is how the page calls this daemon.
func hostname() string {
	name, err := os.Hostname()
	if err != nil {
		return "this daemon"
	}
	return name
}

func (d *daemon) closeWatching() {
	if d.web != nil {
		if err := d.web.Close(); err != nil {
			d.log.Warn("http", "error", err)
		}
	}
	if d.flight != nil {
		d.flight.Close()
	}
}

// closeVolumes closes them beside each other, since each writes a checkpoint; clones before what they were made of.
func (d *daemon) closeVolumes() error {
	errs := make([]error, len(d.list))
	for _, clones := range []bool{true, false} {
		var wg sync.WaitGroup
		for i, v := range d.list {
			if (v.base != nil) == clones {
				wg.Go(func() { errs[i] = v.close(d.log) })
			}
		}
		wg.Wait()
	}
	return errors.Join(errs...)
}

// abandon closes what a start that failed has opened.
func (d *daemon) abandon() {
	d.closeMirrors()
	d.closeWatching()
	if d.sockets != nil {
		d.sockets.close()
	}
	if err := d.closeVolumes(); err != nil {
		d.log.Error("close", "error", err)
	}
}
