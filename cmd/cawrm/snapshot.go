package main

import (
	"context"
	"strings"

	"github.com/spf13/cobra"

	"cawrm/cmd/internal/control"
	"cawrm/cmd/internal/show"
)

func newSnapshot() *cobra.Command {
	c := &cobra.Command{
		Use:   "snapshot COMMAND",
		Short: "Keep, list and delete states of a running volume",
		Long: `Keep states of a volume that a running daemon serves. Making one takes a checkpoint, whatever the volume's size; what was
written and answered before is in it. It costs space as the volume is overwritten, and no write becomes slower.

Each is an NBD export of its own, NAME@SNAP, read-only. A snapshot is as consistent as a disk after a power cut: a file system
replays its journal when it is mounted from a clone of it, or read-only with its recovery turned off (mount -o ro,noload for ext4).`,
		Example: `  cawrm snapshot create db@monday
  cawrm snapshot list db
  cawrm attach db@monday /dev/nbd1
  cawrm snapshot delete db@monday`,
		Args: cobra.ArbitraryArgs,
		RunE: group,
	}
	c.AddCommand(newSnapshotCreate(), newSnapshotList(), newSnapshotDelete(), newSnapshotRollback())
	return c
}

func newSnapshotCreate() *cobra.Command {
	var f controlFlag
	var asJSON jsonFlag
	c := &cobra.Command{
		Use:   "create NAME@SNAP",
		Short: "Keep a volume as it is now",
		Long: `Keep volume NAME as it is now under the name SNAP. What was answered to a client before is in it. On a mirror it is the
last committed cut that is kept.`,
		Example: "  cawrm snapshot create db@monday",
		Args:    exactArgs("NAME@SNAP"),
		RunE: func(c *cobra.Command, args []string) error {
			var made control.Snapshot
			if err := f.snapshot("create", args[0], &made); err != nil {
				return err
			}
			return asJSON.say(c, made, "")
		},
	}
	f.add(c)
	asJSON.add(c)
	return c
}

func newSnapshotDelete() *cobra.Command {
	var f controlFlag
	var asJSON jsonFlag
	c := &cobra.Command{
		Use:   "delete NAME@SNAP",
		Short: "Delete a snapshot",
		Long: `Delete a snapshot. The space that only it takes becomes free in the background. One that an NBD client reads, or that a
clone is made of, is refused.`,
		Example: "  cawrm snapshot delete db@monday",
		Args:    exactArgs("NAME@SNAP"),
		RunE: func(c *cobra.Command, args []string) error {
			if err := f.snapshot("delete", args[0], nil); err != nil {
				return err
			}
			return asJSON.say(c, deleted{args[0]}, "")
		},
	}
	f.add(c)
	asJSON.add(c)
	return c
}

// deleted is the JSON of what deletes.
type deleted struct {
	Deleted string `json:"deleted"`
}

func newSnapshotRollback() *cobra.Command {
	var f controlFlag
	var asJSON jsonFlag
	force := false
	c := &cobra.Command{
		Use:   "rollback NAME@SNAP",
		Short: "Make a volume what it was",
		Long: `Make volume NAME what it was at snapshot SNAP, or at a moment of the history (serve --history), as 2026-11-20T22:17:05Z
or -15m. What it holds now is kept as snapshot before-rollback-TIME, so this can be undone. It takes the time and the space of what
differs; a crash leaves the one state or the other, and mirrors follow.

NBD clients must be gone, since they remember what they have read; --force ends their connections.`,
		Example: `  cawrm snapshot rollback db@monday
  cawrm snapshot rollback db@-15m`,
		Args: exactArgs("NAME@SNAP"),
		RunE: func(c *cobra.Command, args []string) error {
			volume, snap, err := cutName(args[0])
			if err != nil {
				return err
			}
			client, err := f.client()
			if err != nil {
				return err
			}
			defer client.Close()
			var done control.RolledBack
			if err := client.Call(context.Background(), "snapshot", control.SnapshotRequest{Op: "rollback", Volume: volume, Name: snap, Force: force}, &done); err != nil {
				return err
			}
			return asJSON.say(c, done, "%s is what %s was; what it held is kept as %s\n", volume, args[0], done.Kept)
		},
	}
	f.add(c)
	c.Flags().BoolVar(&force, "force", false, "end the connections of NBD clients")
	asJSON.add(c)
	return c
}

// snapshot asks the daemon for something about one snapshot.
func (f *controlFlag) snapshot(op, name string, answer any) error {
	volume, snap, err := cutName(name)
	if err != nil {
		return err
	}
	client, err := f.client()
	if err != nil {
		return err
	}
	defer client.Close()
	return client.Call(context.Background(), "snapshot", control.SnapshotRequest{Op: op, Volume: volume, Name: snap}, answer)
}

// cutName takes NAME@SNAP apart.
func cutName(name string) (volume, snap string, err error) {
	i := strings.LastIndexByte(name, '@')
	if i <= 0 || i == len(name)-1 {
		return "", "", usagef("%q is not NAME@SNAP: the volume's name, an @, the snapshot's name", name)
	}
	return name[:i], name[i+1:], nil
}

func newSnapshotList() *cobra.Command {
	var f controlFlag
	var asJSON jsonFlag
	c := &cobra.Command{
		Use:     "list NAME",
		Short:   "List the snapshots of a volume",
		Long:    "List the snapshots of volume NAME, oldest first: when it was made, at which position, how large the volume was and how much of it held data.",
		Example: "  cawrm snapshot list db\n  cawrm snapshot list db --json",
		Args:    exactArgs("NAME"),
		RunE: func(c *cobra.Command, args []string) error {
			client, err := f.client()
			if err != nil {
				return err
			}
			defer client.Close()
			list := []control.Snapshot{}
			if err := client.Call(context.Background(), "snapshot", control.SnapshotRequest{Op: "list", Volume: args[0]}, &list); err != nil {
				return err
			}
			if asJSON {
				return printJSON(c, list)
			}
			return show.Snapshots(c.OutOrStdout(), args[0], list)
		},
	}
	f.add(c)
	asJSON.add(c)
	return c
}
