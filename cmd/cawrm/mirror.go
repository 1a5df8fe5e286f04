package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"cawrm/cawrm"
	"cawrm/cmd/internal/control"
	"cawrm/cmd/internal/show"
	"cawrm/cmd/internal/value"
)

func newMirror() *cobra.Command {
	c := &cobra.Command{
		Use:   "mirror COMMAND",
		Short: "Add, remove, pause and change mirrors of a running volume",
		Long: `Change the mirrors of a volume that a running daemon serves. Clients notice nothing of it.

What is added here is kept in the volume: the next serve starts it too, also without --mirror. A --mirror of serve is there as
long as serve is given it; where the volume keeps a mirror under the same ID, the flag's address takes its place. Settings
are remembered by ID for both.`,
		Example: `  cawrm mirror add db paris cawrm://10.0.0.2:10810/db
  cawrm mirror pause db paris
  cawrm mirror set db paris mode=flush timeout=5s on-timeout=degrade
  cawrm mirror list db`,
		Args: cobra.ArbitraryArgs,
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usagef("unknown command %q for %q", args[0], c.CommandPath())
			}
			c.SetOut(c.ErrOrStderr())
			_ = c.Help()
			return usagef("a command is missing")
		},
	}
	c.AddCommand(newMirrorAdd(), newMirrorRemove(), newMirrorPause(), newMirrorResume(), newMirrorSet(), newMirrorList())
	return c
}

func newMirrorAdd() *cobra.Command {
	var f mirrorFlags
	c := &cobra.Command{
		Use:   "add NAME ID URL [KEY=VALUE...]",
		Short: "Add a mirror to a volume, and keep it",
		Long: `Add a mirror to volume NAME. It is called ID, and stands at URL, cawrm://host:port/NAME. It may be empty, or a mirror of
the same volume that was fed by another member so far: then only what it lacks is sent.

URL may also be that of a plain NBD server, nbd://host:port/EXPORT or nbd+unix:///EXPORT?socket=/path, of at least the volume's size:
WHAT IT HOLDS IS OVERWRITTEN. It is a point in time only after each flush; status says when it is none.

` + settingsHelp,
		Example: `  cawrm mirror add db paris cawrm://10.0.0.2:10810/db
  cawrm mirror add db rome cawrm://10.0.0.3:10810/db mode=flush
  cawrm mirror add db plain nbd://10.0.0.4:10809/export`,
		Args: leastArgs("NAME", "ID", "URL"),
		RunE: func(c *cobra.Command, args []string) error {
			var l value.Mirrors
			if err := l.Set(args[1] + "=" + args[2]); err != nil {
				return usageError{err}
			}
			if err := checkSettings(args[3:]); err != nil {
				return err
			}
			return f.change(c, control.MirrorRequest{Op: "add", Volume: args[0], ID: args[1], URL: args[2], Settings: args[3:]})
		},
	}
	f.add(c)
	return c
}

// settingsHelp says what may be set.
const settingsHelp = `KEY=VALUE is one of
  limit=10M burst=1M    at most so many bytes a second, and at once; or bits, as 100mbit
  schedule=...          other limits by time of day: [DAY[-DAY]@]HH:MM-HH:MM=RATE,...
  compress=auto         or off, fast, default, better, best: how hard it is tried; from default on frames refer to what the mirror has
  mode=async            a client's flush returns when it is durable here (the default)
  mode=flush            FLUSH and FUA return when the mirror has committed them
  quorum=N              with several mirrors in flush mode: when N of them have (default 0: all)
  timeout=10s           how long a flush waits for the mirror before on-timeout decides
  on-timeout=block      it waits on (the default)
  on-timeout=degrade    it returns, and none waits for this mirror until it has caught up
  paused=true           as cawrm mirror pause`

func newMirrorRemove() *cobra.Command {
	return simpleMirror("remove", "Take a mirror away from a volume and forget it",
		"Ship nothing to the mirror any more, and forget it. What the mirror holds stays as it is; it can be added again, here or\nat another member, and then gets only what it lacks.")
}

func newMirrorPause() *cobra.Command {
	return simpleMirror("pause", "End the connection to a mirror until it is resumed",
		"End the connection to a mirror until it is resumed, also over restarts. It costs the volume nothing: what the mirror lacks is\nin the log, or is found by what was written since.")
}

func newMirrorResume() *cobra.Command {
	return simpleMirror("resume", "Connect to a paused mirror again", "Connect to a paused mirror again: it gets what it lacks.")
}

func simpleMirror(op, short, long string) *cobra.Command {
	var f mirrorFlags
	c := &cobra.Command{
		Use: op + " NAME ID", Short: short, Long: long, Example: "  cawrm mirror " + op + " db paris", Args: exactArgs("NAME", "ID"),
		RunE: func(c *cobra.Command, args []string) error {
			return f.change(c, control.MirrorRequest{Op: op, Volume: args[0], ID: args[1]})
		},
	}
	f.add(c)
	return c
}

func newMirrorSet() *cobra.Command {
	var f mirrorFlags
	c := &cobra.Command{
		Use:   "set NAME ID KEY=VALUE...",
		Short: "Change settings of a mirror",
		Long: "Change settings of a mirror, at once and over restarts. url=cawrm://host:port/NAME moves it to another address.\n" +
			"A mirror that came by itself after a failover, follower-..., takes limit, burst, schedule, compress and paused.\n\n" +
			settingsHelp,
		Example: `  cawrm mirror set db paris mode=flush quorum=1
  cawrm mirror set db paris url=cawrm://10.0.0.9:10810/db`,
		Args: leastArgs("NAME", "ID", "KEY=VALUE"),
		RunE: func(c *cobra.Command, args []string) error {
			if err := checkSettings(args[2:]); err != nil {
				return err
			}
			return f.change(c, control.MirrorRequest{Op: "set", Volume: args[0], ID: args[1], Settings: args[2:]})
		},
	}
	f.add(c)
	return c
}

// checkSettings finds wrong usage before the daemon is asked.
func checkSettings(assignments []string) error {
	for _, a := range assignments {
		if url, ok := strings.CutPrefix(a, "url="); ok {
			if err := new(value.Mirrors).Set(url); err != nil {
				return usageError{err}
			}
			continue
		}
		var s cawrm.Settings
		if err := s.Assign(a); err != nil {
			return usageError{err}
		}
	}
	return nil
}

// mirrorFlags are of what changes a mirror.
type mirrorFlags struct {
	control controlFlag
	json    jsonFlag
}

func (f *mirrorFlags) add(c *cobra.Command) {
	f.control.add(c)
	f.json.add(c)
}

// change asks for it; as JSON the mirror is printed as it is then.
func (f *mirrorFlags) change(c *cobra.Command, r control.MirrorRequest) error {
	client, err := f.control.client()
	if err != nil {
		return err
	}
	defer client.Close()
	if err := client.Call(context.Background(), "mirror", r, nil); err != nil || !bool(f.json) {
		return err
	}
	if r.Op == "remove" {
		return printJSON(c, deleted{r.Volume + "/" + r.ID})
	}
	s, err := client.Status(context.Background())
	if err != nil {
		return err
	}
	v, err := s.Volume(r.Volume)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(v.Mirrors, func(m control.Mirror) bool { return m.ID == r.ID })
	if i < 0 {
		return fmt.Errorf("mirror %s of %s was removed meanwhile", r.ID, v.Name)
	}
	return printJSON(c, listed{v.Name, v.Mirrors[i]})
}

// listed is a mirror in the JSON of mirror list.
type listed struct {
	Volume string `json:"volume"`
	control.Mirror
}

func newMirrorList() *cobra.Command {
	var f controlFlag
	var asJSON jsonFlag
	c := &cobra.Command{
		Use:     "list [NAME]",
		Short:   "List mirrors and their settings",
		Long:    "List the mirrors of volume NAME, or of all volumes: where they are, how they are, whether the volume keeps them, and what is set.",
		Example: "  cawrm mirror list db\n  cawrm mirror list --json",
		Args:    maxArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			client, err := f.client()
			if err != nil {
				return err
			}
			defer client.Close()
			s, err := client.Status(context.Background())
			if err != nil {
				return err
			}
			if len(args) > 0 {
				v, err := s.Volume(args[0])
				if err != nil {
					return err
				}
				s.Volumes = []control.Volume{v}
			}
			if !asJSON {
				return show.Mirrors(c.OutOrStdout(), s)
			}
			list := []listed{}
			for _, v := range s.Volumes {
				for _, m := range v.Mirrors {
					list = append(list, listed{v.Name, m})
				}
			}
			return printJSON(c, list)
		},
	}
	f.add(c)
	asJSON.add(c)
	return c
}
