package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"cawrm/cmd/internal/control"
)

type roleFlags struct {
	control controlFlag
	json    jsonFlag
}

func (f *roleFlags) add(c *cobra.Command) {
	f.control.add(c)
	f.json.add(c)
}

func newPromote() *cobra.Command {
	var f roleFlags
	force := false
	c := &cobra.Command{
		Use:   "promote NAME",
		Short: "Make a mirror the primary, because its source is lost",
		Long: `Make the mirror NAME of the daemon here the primary, at the position that it shows: a consistent earlier state of the
volume, which lacks what the lag said. An epoch that has not come in whole is given up. Clients that connect from now on may
write; those that are connected stay read-only until they connect again.

It is refused while the source is alive and feeds the mirror: cawrm switchover, at the source, hands over without loss.
--force makes a second writable head, of which one will have to be given up (cawrm demote --force-discard).

When the old primary comes back, and nobody writes to it there, it becomes the mirror of this one; what it had not sent is kept
there as a snapshot. It finds the way if one of the two was told of the other, by --mirror or cawrm mirror add.`,
		Example: `  cawrm promote db
  cawrm promote db --json`,
		Args: exactArgs("NAME"),
		RunE: func(c *cobra.Command, args []string) error {
			return f.ask(c, control.RoleRequest{Op: "promote", Volume: args[0], Force: force})
		},
	}
	f.add(c)
	c.Flags().BoolVar(&force, "force", false, "also while the source is alive: then there are two writable heads")
	return c
}

func newDemote() *cobra.Command {
	var f roleFlags
	discard := false
	c := &cobra.Command{
		Use:   "demote NAME",
		Short: "Make a primary a mirror",
		Long: `Make the primary NAME of the daemon here a mirror of what it holds. Writes are refused from then on; what was accepted
is durable, and goes to its own mirrors still. The next primary that has it all goes on behind it.

Where two writable heads of one volume have met, which cawrm status says, demote is refused until one is chosen:
--force-discard gives up the branch of this one. It becomes the mirror of the other, with only what differs on the wire, and
what only it had stays here as a snapshot named unsent-TIME.`,
		Example: `  cawrm demote db
  cawrm demote db --force-discard`,
		Args: exactArgs("NAME"),
		RunE: func(c *cobra.Command, args []string) error {
			return f.ask(c, control.RoleRequest{Op: "demote", Volume: args[0], Discard: discard})
		},
	}
	f.add(c)
	c.Flags().BoolVar(&discard, "force-discard", false, "become the mirror of a head that lacks what this one has; that stays as a snapshot")
	return c
}

func newSwitchover() *cobra.Command {
	var f roleFlags
	near, hold := time.Minute, 10*time.Second
	c := &cobra.Command{
		Use:   "switchover NAME [ID]",
		Short: "Hand a volume over to a mirror, without loss",
		Long: `Make mirror ID the primary of volume NAME, and the primary, whose daemon this is, its mirror. ID may be left out where one
mirror is connected. Clients write on until the mirror has come close; then writes wait until it has the last of them, and
are refused here from then on. Nothing is lost, and at no moment there are two primaries.

If the mirror does not get there in time, writes go on and nothing has changed. If the link breaks in the very last step,
both may be mirrors: then cawrm promote on either one goes on, as neither lacks anything.`,
		Example: `  cawrm switchover db
  cawrm switchover db paris --timeout 5m`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return fmt.Errorf("NAME is missing")
			}
			return noMore(args, 2)
		},
		RunE: func(c *cobra.Command, args []string) error {
			return f.ask(c, control.RoleRequest{Op: "switchover", Volume: args[0], Mirror: strings.Join(args[1:], ""),
				Near: near.Seconds(), Hold: hold.Seconds()})
		},
	}
	f.add(c)
	c.Flags().DurationVar(&near, "timeout", near, "how long the mirror may take to come close")
	c.Flags().DurationVar(&hold, "hold", hold, "how long writes may wait")
	return c
}

func (f *roleFlags) ask(c *cobra.Command, r control.RoleRequest) error {
	client, err := f.control.client()
	if err != nil {
		return err
	}
	defer client.Close()
	var a control.RoleAnswer
	if err := client.Call(context.Background(), "role", r, &a); err != nil {
		return err
	}
	of := ""
	if n := len(a.Lineage); n > 0 {
		of = fmt.Sprintf(" of lineage %s (from %d)", a.Lineage[n-1].ID, a.Lineage[n-1].Start)
	}
	switch {
	case !a.Changed:
		return f.json.say(c, a, "%s is a %s already, at position %d%s\n", a.Volume, a.Role, a.Position, of)
	case a.Mirror != "":
		return f.json.say(c, a, "%s is handed over to %s; it is a mirror here now, at position %d\n", a.Volume, a.Mirror, a.Position)
	}
	return f.json.say(c, a, "%s is a %s now, at position %d%s\n", a.Volume, a.Role, a.Position, of)
}
