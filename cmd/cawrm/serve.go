package main

import (
	"context"
	"log/slog"
	"os"
	"os/signal"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"cawrm/cmd/internal/daemon"
)

func newServe() *cobra.Command {
	c := &cobra.Command{
		Use:   "serve [PATH] [--config FILE]",
		Short: "Serve volumes over NBD and keep their mirrors, or be a mirror",
		Long: `Serve the volume in PATH, or all volumes of a configuration, until SIGTERM or SIGINT, which stop in order; a second one
stops at once.

A volume is read and written by NBD clients, and each --mirror follows it. A mirror (create --mirror) takes what
its source sends to --peer and shows it to NBD clients read-only, as of its last committed cut; with --mirror it feeds further
mirrors. Mirrors that were added with "cawrm mirror add" are kept in the volume and started too; a --mirror with the ID of one of
them gives it another address, and is else there as long as it is given.

With --config, FILE names any number of volumes, each in a table [volume.NAME] with its path. Each flag is a key of the
same name: those of a volume stand in its table, the others above all tables. What the command line says comes before the
environment ($CAWRM_TLS_CERT for --tls-cert), that before the file, and that before the defaults. SIGHUP makes the daemon
read the file again without dropping a client; "cawrm config check FILE" says what is wrong with it.

With --rescue, what is left of a damaged container is shown read-only, and nothing is written to it: the newest
checkpoint that is valid, the log after it as far as it goes, and of the map what can be derived again. What is lost fails
to be read; the log and the status say what that is.

--on-event runs a command for each event, one at a time, with the event as JSON on its input and in CAWRM_EVENT, CAWRM_VOLUME,
CAWRM_MIRROR, CAWRM_TEXT and CAWRM_TIME. Events are: link-up, link-down, diverged, refused; lag and lag-over with --rpo; degraded and
restored in flush mode; differs, repaired; and on a mirror source-up, source-lost.

Sources and mirrors prove to each other who they are with --peer-secret, or with --peer-cert, --peer-key and --peer-ca; then the link
between them is encrypted. Without, --peer takes only addresses of this machine, unless --insecure is given.

With --tls-cert and --tls-key, NBD over TCP is encrypted; unix sockets, whose files are for this user alone,
are not. Whoever reaches an NBD address without TLS reads and writes the volume.`,
		Example: `  cawrm serve disk.img --nbd 127.0.0.1:10809 --mirror cawrm://other-host:10810/disk.img
  cawrm serve disk.img --name db --nbd unix:/run/db.sock --mirror paris=cawrm://10.0.0.2:10810/db
  cawrm serve copy.img --name db --peer :10810 --peer-secret /etc/cawrm/peer.secret --nbd 127.0.0.1:10809
  cawrm serve --config /etc/cawrm/cawrm.toml
  cawrm serve disk.img --mirror cawrm://10.0.0.2/db --rpo 30s --on-event 'logger "cawrm $CAWRM_EVENT: $CAWRM_TEXT"'
  cawrm serve broken.img --rescue --nbd 127.0.0.1:10809`,
		Args: maxArgs(1),
		RunE: runServe,
	}
	// What they are set to is read by load, together with the environment and the file.
	new(daemonFlags).add(c.Flags())
	new(volumeFlags).add(c.Flags())
	return c
}

func runServe(c *cobra.Command, args []string) error {
	g := given{flags: c.Flags()}
	if len(args) > 0 {
		g.path = args[0]
	}
	cfg, err := g.load()
	if err != nil {
		return err
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	cfg.Logger = log
	return daemon.Run(untilSignal(log), cfg, onHangup())
}

// onHangup hears SIGHUP.
func onHangup() <-chan struct{} {
	signals, reload := make(chan os.Signal, 1), make(chan struct{}, 1)
	signal.Notify(signals, unix.SIGHUP)
	go func() {
		for range signals {
			select {
			case reload <- struct{}{}:
			default: // one that waits reads what is there then
			}
		}
	}()
	return reload
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
		log.Error("second signal, stopping at once; the next start recovers the volumes", "signal", <-c)
		os.Exit(exitFailed)
	}()
	return ctx
}
