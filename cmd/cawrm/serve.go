package main

import (
	"context"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"cawrm/cawrm"
	"cawrm/cmd/internal/daemon"
	"cawrm/cmd/internal/value"
)

type serveFlags struct {
	name    string
	nbd     value.Addrs
	mirrors value.Mirrors
	peer    value.Addrs
	control controlFlag
	cert    string
	key     string
	ca      string
	tls     value.Choice
	rescue  bool
}

func newServe() *cobra.Command {
	f := serveFlags{tls: value.Choice{Value: "require", Words: []string{"require", "on"}}}
	c := &cobra.Command{
		Use:   "serve PATH",
		Short: "Serve a volume over NBD and keep its mirrors, or be a mirror",
		Long: `Serve the volume in PATH until SIGTERM or SIGINT, which stop in order; a second one stops at once.

A volume is read and written by NBD clients, and each --mirror follows it. A mirror (create --mirror) takes what
its source sends to --peer and shows it to NBD clients read-only, as of its last committed cut; with --mirror it feeds further
mirrors. Mirrors that were added with "cawrm mirror add" are kept in the volume and started too; a --mirror with the ID of one of
them gives it another address, and is else there as long as it is given.

With --rescue, what is left of a damaged container is shown read-only, and nothing is written to it: the newest
checkpoint that is valid, the log after it as far as it goes, and of the map what can be derived again. What is lost fails
to be read; the log and the status say what that is.

With --tls-cert and --tls-key, NBD over TCP is encrypted; unix sockets, whose files are for this user alone,
are not. Whoever reaches an NBD address without TLS reads and writes the volume.`,
		Example: `  cawrm serve disk.img --nbd 127.0.0.1:10809 --mirror cawrm://other-host:10810/disk.img
  cawrm serve disk.img --name db --nbd unix:/run/db.sock --mirror paris=cawrm://10.0.0.2:10810/db
  cawrm serve copy.img --name db --peer :10810 --nbd 127.0.0.1:10809
  cawrm serve broken.img --rescue --nbd 127.0.0.1:10809`,
		Args: exactArgs("PATH"),
		RunE: func(_ *cobra.Command, args []string) error { return f.run(args[0]) },
	}
	flags := c.Flags()
	flags.StringVar(&f.name, "name", "", "name of the volume and of its NBD export (default: the file's base name)")
	flags.Var(&f.nbd, "nbd", "serve NBD at host:port or unix:/path; repeatable")
	flags.Var(&f.mirrors, "mirror", "keep a mirror there; repeatable (default ID: the host's name)")
	flags.Var(&f.peer, "peer", "await the source at host:port or unix:/path; for a mirror")
	flags.StringVar(&f.cert, "tls-cert", "", "certificate for NBD over TCP, PEM `file`")
	flags.StringVar(&f.key, "tls-key", "", "its key, PEM `file`")
	flags.StringVar(&f.ca, "tls-ca", "", "authority that signs the clients' certificates, PEM `file` (default: clients need none)")
	flags.Var(&f.tls, "tls", "with a certificate: clients must (require) or may (on) encrypt")
	flags.BoolVar(&f.rescue, "rescue", false, "show what is left of a damaged container, read-only")
	flags.Var(&f.control.SocketAddr, "control", "control socket (default: $CAWRM_CONTROL, else /run/cawrm/control.sock for root, $XDG_RUNTIME_DIR/cawrm/control.sock for a user)")
	return c
}

func (f *serveFlags) run(path string) error {
	cfg, err := f.config(path)
	if err != nil {
		return err
	}
	cfg.Logger = slog.New(slog.NewTextHandler(os.Stderr, nil))
	return daemon.Run(untilSignal(cfg.Logger), cfg)
}

// config finds wrong usage.
func (f *serveFlags) config(path string) (daemon.Config, error) {
	var none daemon.Config
	if f.name == "" {
		f.name = filepath.Base(path)
	}
	if err := value.CheckName(f.name); err != nil {
		return none, usagef("%v; give another with --name", err)
	}
	switch {
	case (f.cert == "") != (f.key == ""):
		return none, usagef("--tls-cert and --tls-key go together")
	case f.cert == "" && (f.ca != "" || f.tls.Changed()):
		return none, usagef("--tls and --tls-ca need --tls-cert and --tls-key")
	}
	if f.rescue && (f.mirrors != nil || f.peer != nil) {
		return none, usagef("--rescue only shows what is there: leave --mirror and --peer out")
	}
	for _, m := range f.mirrors {
		if _, err := cawrm.ParseURL(m.URL); err != nil {
			return none, usagef("%v", err)
		}
	}
	control, err := f.control.resolve()
	return daemon.Config{
		Path: path, Name: f.name, Mirrors: f.mirrors, NBD: f.nbd, Peer: f.peer, Control: control,
		Rescue: f.rescue,
		TLS:    daemon.TLS{Cert: f.cert, Key: f.key, CA: f.ca, Optional: f.tls.Value == "on"},
	}, err
}

// untilSignal returns a context that ends with the first SIGTERM or SIGINT; the second ends the process.
func untilSignal(log *slog.Logger) context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	signal.Ignore(unix.SIGPIPE) // whoever read the log may go away; the volume stays
	c := make(chan os.Signal, 2)
	signal.Notify(c, unix.SIGTERM, unix.SIGINT)
	go func() {
		log.Info("signal", "signal", <-c)
		cancel()
		log.Error("second signal, stopping at once; the next start recovers the volume", "signal", <-c)
		os.Exit(exitFailed)
	}()
	return ctx
}
