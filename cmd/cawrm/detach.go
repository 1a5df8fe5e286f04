package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"cawrm/cmd/internal/nbdkernel"
)

// forcedTimeout is shorter: the kernel keeps a device that is open, however long one waits.
const forcedTimeout = 2 * time.Second

type detachFlags struct {
	force bool
	json  jsonFlag
}

// detached is the JSON of detach.
type detached struct {
	Device string `json:"device"`
	Free   bool   `json:"free"` // false: something has it open still
}

func newDetach() *cobra.Command {
	var f detachFlags
	c := &cobra.Command{
		Use:   "detach /dev/nbdN",
		Short: "Take a block device away again",
		Long: `Make durable what was written to /dev/nbdN, disconnect it from its daemon, and wait until it is free. A device that
is mounted, swap, or part of another device is left alone; --force takes it away as it is: what still uses it
fails, and what was not yet durable is lost.`,
		Example: "  umount /mnt && cawrm detach /dev/nbd0",
		Args:    exactArgs("/dev/nbdN"),
		RunE:    func(c *cobra.Command, args []string) error { return f.run(c, args[0]) },
	}
	f.json.add(c)
	c.Flags().BoolVar(&f.force, "force", false, "also when the device is in use")
	return c
}

func (f *detachFlags) run(c *cobra.Command, path string) error {
	d, err := nbdkernel.ParseDevice(path)
	if err != nil {
		return usageError{err}
	}
	if connected, err := nbdkernel.Connected(); err != nil {
		return err
	} else if !connected[d.Index] {
		return fmt.Errorf("%s is not attached", d.Path())
	}
	if err := f.settle(d); err != nil {
		return err
	}
	if err := nbdkernel.Disconnect(d.Index); err != nil {
		return err
	}
	wait := deviceTimeout
	if f.force {
		wait = forcedTimeout
	}
	ctx, cancel := context.WithTimeout(context.Background(), wait)
	defer cancel()
	switch err = d.WaitGone(ctx); {
	case err == nil:
		return f.json.say(c, detached{d.Path(), true}, "")
	case f.force:
		return f.json.say(c, detached{d.Path(), false}, "%s is disconnected; it can be used again when nothing has it open any more\n", d.Path())
	}
	return err
}

// settle makes sure that nobody uses the device and that what was written is durable.
func (f *detachFlags) settle(d nbdkernel.Device) error {
	users := d.Users()
	if len(users) > 0 && !f.force {
		return fmt.Errorf("%s is in use: %s; free it first, or use --force", d.Path(), strings.Join(users, ", "))
	}
	if f.force {
		return nil // what is not durable yet may wait for a daemon that does not come back
	}
	claim, err := d.Claim()
	if err == nil {
		return claim.Close()
	}
	if errors.Is(err, nbdkernel.ErrBusy) {
		return fmt.Errorf("%s is in use, perhaps mounted in another namespace; free it first, or use --force", d.Path())
	}
	return fmt.Errorf("%w; --force detaches it nevertheless", err)
}
