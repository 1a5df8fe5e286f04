package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"cawrm/cmd/internal/control"
	"cawrm/cmd/internal/show"
)

func newGC() *cobra.Command {
	var f controlFlag
	var asJSON jsonFlag
	c := &cobra.Command{
		Use:   "gc NAME",
		Short: "Clean a volume now, and give the space to the file system",
		Long: `Clean volume NAME now: what is live is moved out of segments that hold garbage too, and what is free then goes back to the file
system, or is discarded on a device. Nothing has to be done by hand for a volume to go on: the daemon cleans by itself, but only as much as
its container needs (one that only the file system bounds: until half of it is live). The volume is used meanwhile. What snapshots, the
history and cuts that are being shipped need stays. An interrupt ends it; what was cleaned till then is.`,
		Example: "  cawrm gc db",
		Args:    exactArgs("NAME"),
		RunE: func(c *cobra.Command, args []string) error {
			client, err := f.client()
			if err != nil {
				return err
			}
			defer client.Close()
			s, err := waitGC(client, args[0])
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(c, s)
			}
			return printGC(c.OutOrStdout(), args[0], s)
		},
	}
	f.add(c)
	asJSON.add(c)
	return c
}

// waitGC begins cleaning and waits for its end. An interrupt ends it.
func waitGC(client *control.Client, volume string) (s control.GCState, err error) {
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
	defer stop()
	client.Waiting = nil // it has a line of its own
	meter := show.NewMeter(os.Stderr)
	defer meter.Close()
	r := control.GCRequest{Volume: volume, Op: "start"}
	for {
		if err := client.Call(context.Background(), "gc", r, &s); err != nil {
			return s, err
		}
		if !s.Running {
			break
		}
		meter.Step(fmt.Sprintf("cleaning: %d segments, %s of garbage left", s.Segments, show.Bytes(s.GarbageBytes)), 0, 0)
		r.Op = "get"
		select {
		case <-time.After(verifyEvery):
		case <-ctx.Done():
			r.Op = "cancel"
			return s, errors.Join(errors.New("interrupted"), client.Call(context.Background(), "gc", r, &s))
		}
	}
	if s.Error != "" {
		return s, fmt.Errorf("%s was cleaned only in part, %d segments: %s", volume, s.Segments, s.Error)
	}
	return s, nil
}

// printGC says what was done.
func printGC(w io.Writer, volume string, s control.GCState) error {
	if s.Segments == 0 {
		fmt.Fprintf(w, "%s: no segment was worth cleaning\n", volume)
	} else {
		fmt.Fprintf(w, "%s: %d segments cleaned, %s of live data moved\n", volume, s.Segments, show.Bytes(s.MovedBytes))
	}
	_, err := fmt.Fprintf(w, "garbage %s, before %s; on disk %s, before %s\n",
		show.Bytes(s.GarbageBytes), show.Bytes(s.GarbageBefore), show.Bytes(s.PhysicalBytes), show.Bytes(s.PhysicalBefore))
	return err
}
