package main

import (
	"bufio"
	"errors"

	"github.com/spf13/cobra"

	recovery "cawrm/recover"
)

func newDump() *cobra.Command {
	o := recovery.DumpOptions{Segment: -1, LBA: -1}
	var asJSON jsonFlag
	c := &cobra.Command{
		Use:   "dump PATH",
		Short: "Print what a container holds, for people",
		Long: `Print super chunk, checkpoints, catalog and segments of a container; batches and places when asked for. It changes
nothing, and does not mind that the container is served, though what it prints may be of two moments then.`,
		Example: `  cawrm dump disk.img
  cawrm dump disk.img --segment 0
  cawrm dump disk.img --lba 1234`,
		Args: exactArgs("PATH"),
		RunE: func(c *cobra.Command, args []string) error {
			if asJSON {
				return dumpJSON(c, args[0], o)
			}
			w := bufio.NewWriter(c.OutOrStdout())
			used, err := recovery.DumpFile(args[0], o, recovery.Text(w))
			if used {
				c.PrintErrln(args[0] + " is in use: this is its newest checkpoint, and what it holds may change meanwhile")
			}
			return errors.Join(err, w.Flush())
		},
	}
	c.Flags().IntVar(&o.Segment, "segment", o.Segment, "also the batches of this segment")
	c.Flags().Int64Var(&o.LBA, "lba", o.LBA, "also where this logical chunk is")
	c.Flags().BoolVarP(&o.Verbose, "verbose", "v", false, "also the entries of batches, and a line for each segment")
	asJSON.add(c)
	return c
}

// dumpJSON prints the same sections as one value.
func dumpJSON(c *cobra.Command, path string, o recovery.DumpOptions) (err error) {
	dump := struct {
		Path     string             `json:"path"`
		InUse    bool               `json:"in_use"`
		Sections []recovery.Section `json:"sections"`
	}{Path: path}
	dump.InUse, err = recovery.DumpFile(path, o, func(s recovery.Section) error {
		dump.Sections = append(dump.Sections, s)
		return nil
	})
	if err != nil {
		return err
	}
	return printJSON(c, dump)
}
