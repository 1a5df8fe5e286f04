package main

import (
	"context"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"cawrm/cmd/internal/control"
	"cawrm/cmd/internal/value"
)

func newClone() *cobra.Command {
	var f controlFlag
	var asJSON jsonFlag
	path, remove := "", false
	c := &cobra.Command{
		Use:   "clone NAME[@SNAP] CLONE | clone --delete CLONE",
		Short: "Make a writable volume of a snapshot, or of the present",
		Long: `Make a volume CLONE of snapshot SNAP of volume NAME: it begins as the snapshot is, can be written to, and is served
over NBD as CLONE, as long as NAME is. It takes no time whatever the size, and only the space of what is written to it, in a
container of its own: CLONE.clone beside the volume's, or --path.

SNAP may also be a moment of the history (serve --history), as 2026-11-20T22:17:05Z or -15m. Without @SNAP it is the present.
For both a snapshot of-CLONE is made, which goes with the clone.

A clone of a mirror tries a failover, at the cut that the mirror shows, while the mirror goes on: look at it, write to it, delete
it. While there is a clone, its snapshot cannot be deleted. A clone has no mirrors. --delete ends a clone and removes its container.`,
		Example: `  cawrm snapshot create db@monday
  cawrm clone db@monday db-test
  cawrm attach db-test /dev/nbd1
  cawrm clone db@-15m db-before
  cawrm clone db rehearsal             # at a mirror: a test of the failover
  cawrm clone --delete db-test`,
		RunE: func(c *cobra.Command, args []string) error {
			r := control.CloneRequest{Op: "create"}
			switch {
			case remove && len(args) == 1 && path == "":
				r.Op, r.Name = "delete", args[0]
			case remove:
				return usagef("clone --delete takes the name of the clone, and nothing else")
			default:
				if err := exactArgs("NAME[@SNAP]", "CLONE")(c, args); err != nil {
					return usageError{err}
				}
				var err error
				if r.Volume = args[0]; strings.Contains(args[0], "@") {
					if r.Volume, r.Snapshot, err = cutName(args[0]); err != nil {
						return err
					}
				}
				if err := value.CheckName(args[1]); err != nil {
					return usageError{err}
				}
				r.Name = args[1]
				if path != "" {
					if r.Path, err = filepath.Abs(path); err != nil { // the daemon is somewhere else
						return err
					}
				}
			}
			client, err := f.client()
			if err != nil {
				return err
			}
			defer client.Close()
			var made control.Clone
			if err := client.Call(context.Background(), "clone", r, &made); err != nil {
				return err
			}
			if remove {
				return asJSON.say(c, deleted{r.Name}, "")
			}
			return asJSON.say(c, made, "%s is a clone of %s, in %s\n", made.Name, made.Of, made.Path)
		},
	}
	f.add(c)
	c.Flags().StringVar(&path, "path", "", "where the clone's own container goes, a `file` that does not exist")
	c.Flags().BoolVar(&remove, "delete", false, "delete a clone, with its container")
	asJSON.add(c)
	return c
}
