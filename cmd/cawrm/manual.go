package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"cawrm/cmd/internal/config"
	"cawrm/cmd/internal/manual"
	"cawrm/cmd/internal/metric"
)

func newManual() *cobra.Command {
	c := &cobra.Command{
		Use:   "manual COMMAND",
		Short: "Write manual pages, or the reference of commands, configuration and metrics",
		Long:  `Print what this program knows of itself: the text of the help as manual pages, and everything as one page of Markdown.`,
		Example: `  cawrm manual man /usr/local/share/man/man1
  cawrm manual reference > reference.md`,
		Args: cobra.ArbitraryArgs,
		RunE: group,
	}
	man := &cobra.Command{
		Use:     "man DIR",
		Short:   "Write a manual page for each command",
		Example: "  cawrm manual man /usr/local/share/man/man1",
		Args:    exactArgs("DIR"),
		RunE: func(c *cobra.Command, args []string) error {
			names, err := manual.Write(c.Root(), args[0], build())
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(c.OutOrStdout(), "%d pages written to %s\n", len(names), args[0])
			return err
		},
	}
	reference := &cobra.Command{
		Use:     "reference",
		Short:   "Print the reference of commands, configuration and metrics as Markdown",
		Example: "  cawrm manual reference > reference.md",
		Args:    maxArgs(0),
		RunE:    func(c *cobra.Command, _ []string) error { return writeReference(c.OutOrStdout(), c.Root()) },
	}
	c.AddCommand(man, reference)
	return c
}

// writeReference prints nothing that depends on the machine or the build, so that the page in the docs changes with the code only.
func writeReference(w io.Writer, root *cobra.Command) error {
	var b strings.Builder
	b.WriteString("# Reference\n\nPrinted by `cawrm manual reference` from the code: [commands](#commands), [configuration](#configuration), [metrics](#metrics).\n\n# Commands\n\n")
	b.WriteString(manual.Markdown(root))
	b.WriteString("\n# Configuration\n\n`cawrm config example` prints this. Every key is a flag of `cawrm serve`; in the environment it is `CAWRM_` and its name in capitals, with\n`_` for `-`. Flags come before the environment, that before the file, that before the defaults.\n\n```toml\n")
	b.WriteString(exampleConfig())
	b.WriteString("```\n\n# Metrics\n\nServed at `/metrics` of `cawrm serve --http`, beside those of the Go runtime (`go_`) and of the process (`process_`).\n\n| metric | kind | labels | |\n|---|---|---|---|\n")
	for _, m := range metric.Reference() {
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", m.Name, m.Kind, strings.Join(m.Labels, ", "), m.Help)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// exampleConfig is made of the flags, so it has every key.
func exampleConfig() string {
	top, volume := pflag.NewFlagSet("serve", pflag.ContinueOnError), pflag.NewFlagSet("volume", pflag.ContinueOnError)
	new(daemonFlags).add(top)
	new(volumeFlags).add(volume)
	return config.Example(top, volume)
}
