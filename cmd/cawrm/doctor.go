package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"cawrm/cmd/internal/control"
	"cawrm/cmd/internal/doctor"
	"cawrm/cmd/internal/value"
)

type doctorFlags struct {
	control controlFlag
	json    jsonFlag
	ports   value.Addrs
}

func newDoctor() *cobra.Command {
	var f doctorFlags
	c := &cobra.Command{
		Use:   "doctor [PATH...]",
		Short: "Look at this machine and say what to mend",
		Long: `Look at what cawrm needs of this machine: kernel, nbd driver, limits, clock, network; and for each PATH, a container or where one
is to be made, the disk: O_DIRECT, discard, write cache, how long a flush takes. A running daemon is asked how its volumes and
mirrors are. Each finding is ok, a note (it works), or a failure, with what to do.

Nothing is changed, but for a small file beside PATH that is removed again. Exit code 0: nothing fails.`,
		Example: `  cawrm doctor /var/lib/cawrm
  cawrm doctor /dev/vdb --port :10809 --port :10810 --json`,
		RunE: func(c *cobra.Command, args []string) error { return f.run(c, args) },
	}
	f.control.add(c)
	c.Flags().Var(&f.ports, "port", "address that is to be listened at; repeatable")
	f.json.add(c)
	return c
}

func (f *doctorFlags) run(c *cobra.Command, paths []string) error {
	s := doctor.Subject{Paths: paths}
	for _, a := range f.ports {
		if a.IsUnix() {
			return usagef("--port %s: give host:port", a)
		}
		s.Addrs = append(s.Addrs, a.Address)
	}
	client, err := f.control.client()
	if err != nil {
		return err
	}
	defer client.Close()
	all := append(doctor.Examine(s), askDaemon(c.Context(), client)...)
	if f.json {
		err = printJSON(c, all)
	} else {
		err = doctor.Print(c.OutOrStdout(), all)
	}
	if err == nil && doctor.Failed(all) {
		return errSaid
	}
	return err
}

// askDaemon tells how the volumes of a running daemon are.
func askDaemon(ctx context.Context, client *control.Client) []doctor.Finding {
	if ctx == nil {
		ctx = context.Background()
	}
	s, err := client.Status(ctx)
	switch {
	case errors.Is(err, control.ErrNoDaemon):
		return []doctor.Finding{{What: "daemon", Grade: doctor.Note, Says: "none answers", Mend: "that is right before `cawrm serve` was started"}}
	case err != nil:
		return []doctor.Finding{{What: "daemon", Grade: doctor.Note, Says: err.Error()}}
	}
	all := []doctor.Finding{{What: "daemon", Grade: doctor.OK, Says: fmt.Sprintf("serves %d volumes", len(s.Volumes))}}
	for _, v := range s.Volumes {
		all = append(all, volumeFindings(v)...)
	}
	return all
}

func volumeFindings(v control.Volume) (all []doctor.Finding) {
	find := func(g doctor.Grade, mend, format string, args ...any) {
		all = append(all, doctor.Finding{What: "volume", Grade: g, Says: v.Name + ": " + fmt.Sprintf(format, args...), Mend: mend})
	}
	if v.Error != "" {
		find(doctor.Fail, "see `cawrm status` and the log; a failed disk is final until the volume is opened again", "%s", v.Error)
	}
	if v.ChecksumErrors > 0 {
		find(doctor.Fail, "the disk loses data: replace it, and see the run book on a corrupted chunk", "%d reads did not match their checksum", v.ChecksumErrors)
	}
	for _, m := range v.Mirrors {
		if m.State == control.StateDown {
			find(doctor.Note, "it is being retried; clients are not affected", "mirror %s is down: %s", m.ID, m.LastError)
		}
	}
	if all == nil {
		find(doctor.OK, "", "%s, nothing is wrong", v.Role)
	}
	return all
}
