package main

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"cawrm/aodi"
	"cawrm/cawrm"
	"cawrm/cmd/internal/config"
	"cawrm/cmd/internal/control"
	"cawrm/cmd/internal/daemon"
	"cawrm/cmd/internal/value"
	"cawrm/cmd/internal/web"
)

// daemonFlags are the flags of serve that are for the daemon as a whole: keys above the tables of a configuration.
type daemonFlags struct {
	config  string
	nbd     value.Addrs
	peer    value.Addrs
	control controlFlag
	cert    string
	key     string
	ca      string
	tls     value.Choice
	trust   daemon.PeerTrust
	onEvent string
	rpo     time.Duration

	http      value.Addrs
	sites     []string
	tokenFile string
	objective time.Duration
	traceDir  string
}

func (f *daemonFlags) add(flags *pflag.FlagSet) {
	f.tls = value.Choice{Value: "require", Words: []string{"require", "on"}}
	flags.StringVar(&f.config, "config", "", "serve the volumes of this TOML `file`")
	flags.Var(&f.nbd, "nbd", "serve NBD at host:port or unix:/path; repeatable")
	flags.Var(&f.peer, "peer", "await sources at host:port or unix:/path; for mirrors")
	flags.StringVar(&f.cert, "tls-cert", "", "certificate for NBD over TCP, PEM `file`")
	flags.StringVar(&f.key, "tls-key", "", "its key, PEM `file`")
	flags.StringVar(&f.ca, "tls-ca", "", "authority that signs the clients' certificates, PEM `file` (default: clients need none)")
	flags.Var(&f.tls, "tls", "with a certificate: clients must (require) or may (on) encrypt")
	flags.StringVar(&f.trust.Cert, "peer-cert", "", "certificate of this site for the link to sources and mirrors, PEM `file`")
	flags.StringVar(&f.trust.Key, "peer-key", "", "its key, PEM `file`")
	flags.StringVar(&f.trust.CA, "peer-ca", "", "authority that signs the other sites' certificates, PEM `file`")
	flags.StringSliceVar(&f.trust.Allow, "peer-allow", nil, "`name` of a source's certificate that may feed mirrors here; repeatable (default: all that the authority signs)")
	flags.StringVar(&f.trust.Secret, "peer-secret", "", "instead of certificates: `file` with a secret that both sites have")
	flags.BoolVar(&f.trust.Insecure, "insecure", false, "await sources from other machines though nobody proves who they are")
	flags.StringVar(&f.onEvent, "on-event", "", "`command` of the shell that is run for each event: a link up or down, diverged, lag, ...")
	flags.DurationVar(&f.rpo, "rpo", 0, "recovery point objective: a mirror that is further behind is an event (as 30s)")
	flags.Var(&f.http, "http", "serve a web page, and metrics for Prometheus, at host:port; repeatable")
	flags.StringArrayVar(&f.sites, "site", nil, "another daemon that the page shows, `NAME=http://host:port` of its --http; repeatable")
	flags.StringVar(&f.tokenFile, "http-token-file", "", "`file` with a token of at least 16 characters that lets the page pause and resume mirrors, make snapshots and promote (default: it cannot)")
	flags.DurationVar(&f.objective, "latency-objective", 0, "write the last seconds of execution down when a request takes longer (default: never)")
	flags.StringVar(&f.traceDir, "trace-dir", filepath.Join(os.TempDir(), "cawrm-traces"), "where they are written, a `dir`")
	flags.Var(&f.control.SocketAddr, "control", "control socket (default: $CAWRM_CONTROL, else /run/cawrm/control.sock for root, $XDG_RUNTIME_DIR/cawrm/control.sock for a user)")
}

// check finds wrong usage.
func (f *daemonFlags) check() error {
	switch {
	case (f.cert == "") != (f.key == ""):
		return usagef("--tls-cert and --tls-key go together")
	case f.cert == "" && (f.ca != "" || f.tls.Changed()):
		return usagef("--tls and --tls-ca need --tls-cert and --tls-key")
	case (f.trust.Cert == "") != (f.trust.Key == ""), (f.trust.Cert == "") != (f.trust.CA == ""):
		return usagef("--peer-cert, --peer-key and --peer-ca go together")
	case f.trust.Cert != "" && f.trust.Secret != "":
		return usagef("--peer-cert and --peer-secret are two ways to the same: give one")
	case f.trust.Cert == "" && f.trust.Allow != nil:
		return usagef("--peer-allow needs certificates: --peer-cert, --peer-key and --peer-ca")
	case f.rpo < 0:
		return usagef("--rpo %v: a time is not negative", f.rpo)
	case f.objective < 0:
		return usagef("--latency-objective cannot be negative")
	}
	if err := f.trust.Exposed(f.peer...); err != nil {
		return usageError{err}
	}
	return nil
}

// page reads what the web page is told.
func (f *daemonFlags) page() (sites []web.Site, token string, err error) {
	for _, text := range f.sites {
		name, link, ok := strings.Cut(text, "=")
		u, err := url.Parse(link)
		if !ok || name == "" || err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
			return nil, "", usagef("--site %q: give NAME=http://host:port", text)
		}
		sites = append(sites, web.Site{Name: name, URL: link})
	}
	if f.tokenFile == "" {
		return sites, "", nil
	}
	b, err := os.ReadFile(f.tokenFile)
	if err != nil {
		return nil, "", fmt.Errorf("--http-token-file: %w", err)
	}
	if token = strings.TrimSpace(string(b)); len(token) < minToken {
		return nil, "", fmt.Errorf("--http-token-file %s: a token has at least %d characters; openssl rand -hex 16 makes one", f.tokenFile, minToken)
	}
	return sites, token, nil
}

// minToken is too long to be guessed over the network.
const minToken = 16

// volumeFlags are the flags of serve, and of volume add, that are for one volume: keys of its table.
type volumeFlags struct {
	name    string
	mirrors value.Mirrors
	allow   value.Rules
	rescue  bool
	history value.Window
}

func (f *volumeFlags) add(flags *pflag.FlagSet) {
	flags.StringVar(&f.name, "name", "", "name of the volume and of its NBD export (default: the file's base name)")
	flags.Var(&f.mirrors, "mirror", "keep a mirror there, or at nbd://host:port/EXPORT; repeatable (default ID: the host's name)")
	flags.Var(&f.history, "history", "keep each state of so long (24h), or of so much log (20G), or both (24h,20G): NAME@-15m shows one")
	flags.Var(&f.allow, "allow", "let NBD clients use the volume, by address, name of the certificate, or read-only; the first rule that holds counts; repeatable (default: all)")
	flags.BoolVar(&f.rescue, "rescue", false, "show what is left of a damaged container, read-only")
}

// volume finds wrong usage.
func (f *volumeFlags) volume(path string) (daemon.VolumeConfig, error) {
	if f.name == "" {
		f.name = filepath.Base(path)
	}
	v := daemon.VolumeConfig{Path: path, Name: f.name, Mirrors: f.mirrors, Allow: f.allow, Rescue: f.rescue, History: aodi.HistoryWindow(f.history)}
	if err := value.CheckName(f.name); err != nil {
		return v, usagef("%v; give another with --name", err)
	}
	if f.rescue && f.history != (value.Window{}) {
		return v, usagef("--rescue only shows what is there: leave --history out")
	}
	if f.rescue && f.mirrors != nil {
		return v, usagef("--rescue only shows what is there: leave --mirror and --peer out")
	}
	for _, m := range f.mirrors {
		if _, err := cawrm.ParseURL(m.URL); err != nil {
			return v, usagef("%v", err)
		}
	}
	return v, nil
}

// given is the command line of serve, which stays as it is while files and their contents change.
type given struct {
	path  string
	flags *pflag.FlagSet
}

// load makes a configuration of the command line, the environment and the file, in this order of precedence.
func (g *given) load() (daemon.Config, error) {
	var f daemonFlags
	flags := pflag.NewFlagSet("serve", pflag.ContinueOnError)
	f.add(flags)
	if err := errors.Join(config.Copy(flags, g.flags), config.Env(flags)); err != nil {
		return daemon.Config{}, usageError{err}
	}
	var cfg daemon.Config
	var err error
	if f.config != "" {
		cfg.Volumes, err = loadFile(f.config, flags)
	}
	if err == nil {
		err = f.check()
	}
	if err == nil {
		err = g.addPath(&cfg)
	}
	if err != nil {
		return cfg, err
	}
	for _, v := range cfg.Volumes {
		if v.Rescue && f.config == "" && f.peer != nil {
			return cfg, usagef("--rescue only shows what is there: leave --mirror and --peer out")
		}
	}
	cfg.NBD, cfg.Peer, cfg.Control = f.nbd, f.peer, f.control.Addr
	cfg.Trust = f.trust
	cfg.TLS = daemon.TLS{Cert: f.cert, Key: f.key, CA: f.ca, Optional: f.tls.Value == "on"}
	cfg.OnEvent, cfg.RPO = f.onEvent, f.rpo
	if cfg.Sites, cfg.Token, err = f.page(); err != nil {
		return cfg, err
	}
	cfg.HTTP, cfg.Objective, cfg.TraceDir, cfg.Version = f.http, f.objective, f.traceDir, build()
	cfg.Decode = decodeVolume
	if f.config != "" {
		cfg.File = f.config
		cfg.Load = g.load
	}
	return cfg, nil
}

// loadFile gives flags what the file says of the daemon, and returns its volumes. What the flags already hold does not hide
// a mistake in the file.
func loadFile(path string, flags *pflag.FlagSet) ([]daemon.VolumeConfig, error) {
	file, err := config.Read(path)
	if err != nil {
		return nil, err
	}
	var alone daemonFlags
	unset := pflag.NewFlagSet("serve", pflag.ContinueOnError)
	alone.add(unset)
	for _, set := range []*pflag.FlagSet{unset, flags} {
		if _, err := config.Apply(path, file.Keys, set); err != nil {
			return nil, err
		}
	}
	var volumes []daemon.VolumeConfig
	for _, t := range file.Volumes {
		v, err := volumeOf(path, t)
		if err != nil {
			return nil, err
		}
		volumes = append(volumes, v)
	}
	return volumes, nil
}

// volumeOf reads one table.
func volumeOf(file string, t config.Volume) (daemon.VolumeConfig, error) {
	var f volumeFlags
	flags := pflag.NewFlagSet(t.Name, pflag.ContinueOnError)
	f.add(flags)
	keys, err := config.Apply(file, t.Keys, flags, "path")
	if err != nil {
		return daemon.VolumeConfig{}, err
	}
	path, ok := keys["path"]
	switch {
	case !ok:
		return daemon.VolumeConfig{}, &config.Error{Path: file, Line: t.Line, Err: fmt.Errorf("volume %q lacks its path", t.Name)}
	case !filepath.IsAbs(path.Texts[0]):
		return daemon.VolumeConfig{}, &config.Error{Path: file, Line: path.Line, Err: fmt.Errorf("path %q is not absolute", path.Texts[0])}
	}
	f.name = t.Name
	v, err := f.volume(path.Texts[0])
	var wrong usageError
	if errors.As(err, &wrong) {
		err = wrong.error // it is the file that is wrong, not the command line
	}
	if err != nil {
		return v, &config.Error{Path: file, Line: t.Line, Err: err}
	}
	return v, nil
}

// addPath adds the volume that the command line names.
func (g *given) addPath(cfg *daemon.Config) error {
	var f volumeFlags
	flags := pflag.NewFlagSet("serve", pflag.ContinueOnError)
	f.add(flags)
	if err := config.Copy(flags, g.flags); err != nil {
		return usageError{err}
	}
	if g.path == "" {
		return g.noPath(flags)
	}
	if err := config.Env(flags); err != nil {
		return usageError{err}
	}
	v, err := f.volume(g.path)
	if err != nil {
		return err
	}
	for _, other := range cfg.Volumes {
		if other.Name == v.Name {
			return usagef("the configuration has a volume %q too; give PATH another name with --name", v.Name)
		}
	}
	cfg.Volumes = append(cfg.Volumes, v)
	return nil
}

// noPath finds what only a PATH gives a meaning.
func (g *given) noPath(flags *pflag.FlagSet) error {
	if !g.flags.Changed("config") {
		return usagef("PATH is missing; give it, or --config FILE")
	}
	var err error
	flags.VisitAll(func(f *pflag.Flag) {
		_, said := os.LookupEnv(config.EnvName(f.Name))
		switch {
		case f.Changed:
			err = usagef("--%s is for one volume: write it into its table in the configuration, or give PATH", f.Name)
		case said && config.IsKey(f) && err == nil:
			err = usagef("%s is for one volume: write %s into its table in the configuration, or give PATH", config.EnvName(f.Name), f.Name)
		}
	})
	return err
}

// decodeVolume reads what volume add sends.
func decodeVolume(req control.VolumeRequest) (daemon.VolumeConfig, error) {
	t := config.Volume{Name: req.Name, Keys: []config.Key{{Name: "path", Texts: []string{req.Path}}}}
	for _, o := range req.Options {
		if len(o.Texts) == 0 {
			return daemon.VolumeConfig{}, fmt.Errorf("option %q lacks its value", o.Name)
		}
		t.Keys = append(t.Keys, config.Key{Name: o.Name, Texts: o.Texts, List: len(o.Texts) > 1})
	}
	v, err := volumeOf("", t)
	var at *config.Error
	if errors.As(err, &at) {
		return v, at.Err // there is no file to speak of
	}
	return v, err
}
