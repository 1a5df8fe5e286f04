package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"cawrm/cmd/internal/show"
	recovery "cawrm/recover"
)

func newCheck() *cobra.Command {
	var o recovery.CheckOptions
	var asJSON jsonFlag
	repair := false
	c := &cobra.Command{
		Use:   "check PATH",
		Short: "Prove every invariant of a container that is not served",
		Long: `Read a container that nobody serves and compare it with every rule of the format: maps, checksums, segments,
log. It changes nothing. Exit code 0: every rule holds; 1: a rule is broken, or the container cannot be checked.

With --repair, what is damaged and can be derived again is: super chunk, meta chunk, segment table, counts, summaries, the
catalog from an earlier copy, and the forward map from the whole log. All is tried in memory first, and the container is
changed only if less is wrong afterwards; nothing that its valid checkpoint refers to is overwritten. Exit code 0: every rule
holds now; 1: something remains. Data that do not match their checksums remain: only a mirror has them.`,
		Example: `  cawrm check disk.img
  cawrm check /dev/vdb --quick
  cawrm check disk.img --repair`,
		Args: exactArgs("PATH"),
		RunE: func(c *cobra.Command, args []string) error {
			if repair {
				return mend(c, args[0], o, asJSON)
			}
			return check(c, args[0], o, asJSON)
		},
	}
	c.Flags().BoolVar(&repair, "repair", false, "mend what can be derived again, and say what was and what was not")
	c.Flags().BoolVar(&o.Quick, "quick", false, "leave out reading the data and comparing its checksums")
	asJSON.add(c)
	return c
}

func check(c *cobra.Command, path string, o recovery.CheckOptions, asJSON jsonFlag) error {
	meter := show.NewMeter(c.ErrOrStderr())
	o.Progress = meter.Step
	report, err := recovery.CheckFile(path, o)
	meter.Close()
	if err != nil {
		return err
	}
	switch {
	case bool(asJSON):
		err = printJSON(c, reportOf(report))
	case report.OK():
		err = report.Print(c.OutOrStdout())
	default:
		err = report.Print(c.OutOrStdout())
		fmt.Fprintf(c.OutOrStdout(), "`cawrm check --repair %s` mends what can be derived again\n", path)
	}
	if err == nil && !report.OK() {
		err = errSaid
	}
	return err
}

// mend is check --repair.
func mend(c *cobra.Command, path string, o recovery.CheckOptions, asJSON jsonFlag) error {
	meter := show.NewMeter(c.ErrOrStderr())
	o.Progress = meter.Step
	r, err := recovery.RepairFile(path, o)
	meter.Close()
	if err != nil {
		return err
	}
	if asJSON {
		err = printJSON(c, repairOf(r))
	} else {
		err = r.Print(c.OutOrStdout())
	}
	if err == nil && !r.OK() {
		err = errSaid
	}
	return err
}
