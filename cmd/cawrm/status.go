package main

import (
	"context"
	"encoding/json"
	"os/signal"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"cawrm/cmd/internal/control"
	"cawrm/cmd/internal/show"
)

// watchEvery is how often --watch looks.
const watchEvery = time.Second

type statusFlags struct {
	control controlFlag
	json    jsonFlag
	watch   bool
}

func newStatus() *cobra.Command {
	var f statusFlags
	c := &cobra.Command{
		Use:   "status [NAME]",
		Short: "Show volumes and mirrors of a running daemon",
		Long: `Show a line for each volume and one for each mirror of a running daemon: pointers into the log, how far each
mirror is behind in records, bytes and seconds, and why while its link is down.

With --watch it takes the screen and shows it each second; q or Ctrl-C leaves. Where the output is no terminal, one follows the other.

NAME is the --name given to serve. --json prints the same as one JSON object, with --watch one in each line.`,
		Example: `  cawrm status
  cawrm status db --watch
  cawrm status --control unix:/run/site-b.sock --json`,
		Args: maxArgs(1),
		RunE: func(c *cobra.Command, args []string) error { return f.run(c, strings.Join(args, "")) },
	}
	f.control.add(c)
	f.json.add(c)
	c.Flags().BoolVar(&f.watch, "watch", false, "show it again each second, until q is typed or it is interrupted")
	return c
}

func (f *statusFlags) run(c *cobra.Command, name string) error {
	client, err := f.control.client()
	if err != nil {
		return err
	}
	defer client.Close()
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
	defer stop()
	// Also with --watch the first look must succeed: it tells a mistyped name from a daemon that restarts.
	text, err := f.text(ctx, client, name)
	if err != nil {
		return err
	}
	out := c.OutOrStdout()
	if !f.watch {
		_, err = out.Write([]byte(text))
		return err
	}
	var window *show.Terminal
	if !f.json {
		terminal, restore := terminalOf(out, c.InOrStdin())
		defer restore()
		window = terminal
	}
	return show.Watch(ctx, out, window, watchEvery, func(ctx context.Context) string {
		text, err := f.text(ctx, client, name)
		switch {
		case err == nil:
			return text
		case bool(f.json):
			return "" // a line that is not JSON would stop who reads it
		}
		return err.Error() + "\n"
	})
}

// text is one frame.
func (f *statusFlags) text(ctx context.Context, client *control.Client, name string) (string, error) {
	s, err := client.Status(ctx)
	if err != nil {
		return "", err
	}
	if name != "" {
		v, err := s.Volume(name)
		if err != nil {
			return "", err
		}
		s.Volumes = []control.Volume{v}
	}
	var b strings.Builder
	if f.json {
		enc := json.NewEncoder(&b)
		enc.SetEscapeHTML(false)
		if !f.watch {
			enc.SetIndent("", "  ")
		}
		err = enc.Encode(s)
		return b.String(), err
	}
	err = show.Status(&b, s)
	return b.String(), err
}
