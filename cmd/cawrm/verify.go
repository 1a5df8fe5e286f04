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

// verifyEvery is how often the daemon is asked how far it is.
const verifyEvery = 200 * time.Millisecond

func newVerify() *cobra.Command {
	var f controlFlag
	var asJSON jsonFlag
	repair := false
	c := &cobra.Command{
		Use:   "verify NAME MIRROR",
		Short: "Compare a mirror with its source, and mend what differs",
		Long: `Compare volume NAME with its mirror MIRROR, which must be connected. Both sites read all of their data as of one
position and compare checksums: no data are sent, the volume is used meanwhile, and what is written meanwhile is no difference. Ask the
daemon of the source. Exit code 0: both are the same; 1: something differs, or it cannot be told.

With --repair: a chunk that does not match its own checksum on one site, or cannot be read, is written anew with what the other site
has; one that both sites can read and that is not the same is sent again, as the source has it (for that the source must be the primary).`,
		Example: "  cawrm verify db paris\n  cawrm verify db paris --repair",
		Args:    exactArgs("NAME", "MIRROR"),
		RunE: func(c *cobra.Command, args []string) error {
			client, err := f.client()
			if err != nil {
				return err
			}
			defer client.Close()
			s, err := waitVerify(client, control.VerifyRequest{Volume: args[0], Mirror: args[1], Repair: repair})
			if err != nil {
				return err
			}
			if asJSON {
				err = printJSON(c, s)
			} else {
				err = printVerify(c.OutOrStdout(), args[0], args[1], repair, s)
			}
			if err == nil && !s.Same {
				err = errSaid
			}
			return err
		},
	}
	f.add(c)
	c.Flags().BoolVar(&repair, "repair", false, "mend what differs")
	asJSON.add(c)
	return c
}

// waitVerify begins a comparison and waits for its end. An interrupt ends it.
func waitVerify(client *control.Client, r control.VerifyRequest) (s control.VerifyState, err error) {
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
	defer stop()
	client.Waiting = nil // it has a line of its own
	meter := show.NewMeter(os.Stderr)
	defer meter.Close()
	r.Op = "start"
	for {
		if err := client.Call(context.Background(), "verify", r, &s); err != nil {
			return s, err
		}
		if !s.Running {
			break
		}
		meter.Step("comparing", s.DoneBytes, s.Size)
		r.Op = "get"
		select {
		case <-time.After(verifyEvery):
		case <-ctx.Done():
			r.Op = "cancel"
			return s, errors.Join(errors.New("interrupted"), client.Call(context.Background(), "verify", r, &s))
		}
	}
	if s.Error != "" {
		return s, fmt.Errorf("%s and its mirror %s could not be compared: %s", r.Volume, r.Mirror, s.Error)
	}
	return s, nil
}

// printVerify says what was found, a line for each range.
func printVerify(w io.Writer, volume, mirror string, repair bool, s control.VerifyState) error {
	fmt.Fprintf(w, "%s and its mirror %s were compared as of position %d: %s of data in %s\n", volume, mirror, s.Position, show.Bytes(s.DataBytes), show.Bytes(s.Size))
	for _, r := range s.Different {
		fmt.Fprintf(w, "%s  chunks [%d, %d), bytes [%d, %d)", map[string]string{"differs": "differs      ", "bad-at-mirror": "bad at mirror",
			"bad-at-source": "bad at source", "bad-at-both": "bad at both  "}[r.Why], r.First, r.First+r.Count, r.First*4096, (r.First+r.Count)*4096)
		switch {
		case r.Mended:
			fmt.Fprint(w, "  mended")
		case r.Error != "":
			fmt.Fprint(w, "  NOT MENDED: "+r.Error)
		}
		fmt.Fprintln(w)
	}
	var err error
	switch {
	case len(s.Different) == 0:
		_, err = fmt.Fprintln(w, "OK: they are the same")
	case s.Same:
		_, err = fmt.Fprintln(w, "OK: all of it was mended")
	case repair:
		_, err = fmt.Fprintln(w, "not all of it could be mended")
	default:
		_, err = fmt.Fprintf(w, "`cawrm verify %s %s --repair` mends what one of the sites has\n", volume, mirror)
	}
	return err
}
