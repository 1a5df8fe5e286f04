package main

import (
	"fmt"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

func newConfig() *cobra.Command {
	c := &cobra.Command{
		Use:   "config",
		Short: "Look at a configuration of serve --config",
		Long: `A configuration is a TOML file. What stands above its tables is for the daemon; each table [volume.NAME] is a volume. A key is
a flag of "cawrm serve" without its dashes; a flag that can be repeated takes a list.`,
		Example: `  cawrm config check /etc/cawrm/cawrm.toml
  cawrm config example > cawrm.toml`,
		RunE: group,
	}
	check := &cobra.Command{
		Use:   "check FILE",
		Short: "Say what is wrong with a configuration, with file and line",
		Long: `Read a configuration as serve does, change nothing, and say what is wrong with it: unknown keys, values that cannot be, what
contradicts. Exit code 0: serve would take it. Whether paths exist and addresses are free is found by serve.`,
		Example: `  cawrm config check /etc/cawrm/cawrm.toml`,
		Args:    exactArgs("FILE"),
		RunE:    func(c *cobra.Command, args []string) error { return checkConfig(c, args[0]) },
	}
	example := &cobra.Command{
		Use:     "example",
		Short:   "Print a configuration with every key explained",
		Example: `  cawrm config example > cawrm.toml`,
		Args:    maxArgs(0),
		RunE: func(c *cobra.Command, _ []string) error {
			_, err := fmt.Fprint(c.OutOrStdout(), exampleConfig())
			return err
		},
	}
	c.AddCommand(check, example)
	return c
}

func checkConfig(c *cobra.Command, path string) error {
	flags := pflag.NewFlagSet("serve", pflag.ContinueOnError)
	new(daemonFlags).add(flags)
	if err := flags.Set("config", path); err != nil {
		return err
	}
	g := given{flags: flags}
	cfg, err := g.load()
	if err != nil {
		return plainError{err}
	}
	_, err = fmt.Fprintf(c.OutOrStdout(), "%s: OK, volumes: %d\n", path, len(cfg.Volumes))
	return err
}

// plainError is a failure, also when what failed calls it wrong usage: the file is wrong, not the command line.
type plainError struct{ err error }

func (e plainError) Error() string { return e.err.Error() }
