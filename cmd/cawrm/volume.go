package main

import (
	"context"
	"fmt"
	"os/signal"
	"path/filepath"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"cawrm/cmd/internal/control"
)

func newVolume() *cobra.Command {
	c := &cobra.Command{
		Use:   "volume",
		Short: "Add volumes to a running daemon, and remove them",
		Example: `  cawrm volume add db /var/lib/cawrm/db.img --mirror paris=cawrm://10.0.0.2:10810/db
  cawrm volume remove db`,
		RunE: group,
	}
	c.AddCommand(newVolumeAdd(), newVolumeRemove())
	return c
}

func newVolumeAdd() *cobra.Command {
	var ctl controlFlag
	var asJSON jsonFlag
	flags := pflag.NewFlagSet("volume", pflag.ContinueOnError)
	new(volumeFlags).add(flags)
	c := &cobra.Command{
		Use:   "add NAME PATH",
		Short: "Serve one more volume, and write it into the configuration",
		Long: `Make the running daemon serve the volume in PATH as NAME, at the addresses that it has. No client of another volume notices. A
daemon that was started with --config writes the volume into that file, with the flags given here, so it is there after a
restart; comments in the file stay. PATH is made with "cawrm create" before.`,
		Example: `  cawrm create /var/lib/cawrm/db.img --size 10G
  cawrm volume add db /var/lib/cawrm/db.img --mirror paris=cawrm://10.0.0.2:10810/db`,
		Args: exactArgs("NAME", "PATH"),
		RunE: func(c *cobra.Command, args []string) error {
			return addVolume(c, &ctl, asJSON, flags, args[0], args[1])
		},
	}
	ctl.add(c)
	asJSON.add(c)
	flags.VisitAll(func(f *pflag.Flag) {
		if f.Name != "name" {
			c.Flags().AddFlag(f)
		}
	})
	return c
}

func newVolumeRemove() *cobra.Command {
	var ctl controlFlag
	var asJSON jsonFlag
	c := &cobra.Command{
		Use:   "remove NAME",
		Short: "Serve a volume no more, and take it out of the configuration",
		Long: `Make the running daemon close the volume NAME in order: clients are answered what they had asked for and disconnected, its
mirrors are left as they are. The container is not touched. A daemon that was started with --config takes the volume's
table out of that file.`,
		Example: `  cawrm volume remove db`,
		Args:    exactArgs("NAME"),
		RunE:    func(c *cobra.Command, args []string) error { return removeVolume(c, &ctl, asJSON, args[0]) },
	}
	ctl.add(c)
	asJSON.add(c)
	return c
}

func addVolume(c *cobra.Command, ctl *controlFlag, asJSON jsonFlag, flags *pflag.FlagSet, name, path string) error {
	path, err := filepath.Abs(path) // the daemon has another working directory
	if err != nil {
		return err
	}
	req := control.VolumeRequest{Op: "add", Name: name, Path: path}
	flags.VisitAll(func(f *pflag.Flag) { // Visit knows only what was set through this set
		if !f.Changed {
			return
		}
		texts := []string{f.Value.String()}
		if many, ok := f.Value.(pflag.SliceValue); ok {
			texts = many.GetSlice()
		}
		req.Options = append(req.Options, control.Option{Name: f.Name, Texts: texts})
	})
	if _, err := decodeVolume(req); err != nil {
		return usageError{err}
	}
	return ask(ctl, func(ctx context.Context, client *control.Client) error {
		var done control.Changed
		if err := client.Call(ctx, "volume", req, &done); err != nil {
			return err
		}
		return tellChange(c, asJSON, changed{Volume: name, Served: true, Path: path, File: done.File}, fmt.Sprintf("%s is served", name))
	})
}

func removeVolume(c *cobra.Command, ctl *controlFlag, asJSON jsonFlag, name string) error {
	return ask(ctl, func(ctx context.Context, client *control.Client) error {
		var done control.Changed
		if err := client.Call(ctx, "volume", control.VolumeRequest{Op: "remove", Name: name}, &done); err != nil {
			return err
		}
		return tellChange(c, asJSON, changed{Volume: name, File: done.File}, fmt.Sprintf("%s is not served any more", name))
	})
}

// changed is the JSON of volume add and remove.
type changed struct {
	Volume string `json:"volume"`
	Served bool   `json:"served"`
	Path   string `json:"path,omitempty"`
	File   string `json:"file"` // the configuration that keeps it; "": the daemon's next start does not know of it
}

// tellChange says what was done and whether it lasts.
func tellChange(c *cobra.Command, asJSON jsonFlag, done changed, what string) error {
	kept := "kept in " + done.File
	if done.File == "" {
		kept = "not kept: the daemon has no --config, so its next start does not know of it"
	}
	return asJSON.say(c, done, "%s; %s\n", what, kept)
}

// ask talks to the daemon until that is done or a person has enough of it.
func ask(ctl *controlFlag, talk func(context.Context, *control.Client) error) error {
	client, err := ctl.client()
	if err != nil {
		return err
	}
	defer client.Close()
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
	defer stop()
	return talk(ctx, client)
}

func newReload() *cobra.Command {
	var ctl controlFlag
	var asJSON jsonFlag
	c := &cobra.Command{
		Use:   "reload",
		Short: "Make a running daemon read its configuration again",
		Long: `Make the daemon read its configuration file and its certificates again, as SIGHUP does, and say what is wrong with them; then
nothing was changed. Volumes, mirrors and addresses are added and removed as the file says; clients of what stays notice nothing.`,
		Example: `  cawrm config check /etc/cawrm/cawrm.toml && cawrm reload`,
		Args:    maxArgs(0),
		RunE: func(c *cobra.Command, _ []string) error {
			return ask(&ctl, func(ctx context.Context, client *control.Client) error {
				var done control.Changed
				if err := client.Call(ctx, "reload", struct{}{}, &done); err != nil {
					return err
				}
				return asJSON.say(c, done, "read again: %s\n", orNone(done.File))
			})
		},
	}
	ctl.add(c)
	asJSON.add(c)
	return c
}

func orNone(file string) string {
	if file == "" {
		return "certificates; there is no configuration file"
	}
	return file
}
