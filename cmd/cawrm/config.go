package main

import (
	"errors"
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
	var asJSON jsonFlag
	check := &cobra.Command{
		Use:   "check FILE",
		Short: "Say what is wrong with a configuration, with file and line",
		Long: `Read a configuration as serve does, change nothing, and say what is wrong with it: unknown keys, values that cannot be, what
contradicts. Exit code 0: serve would take it. Whether paths exist and addresses are free is found by serve.`,
		Example: `  cawrm config check /etc/cawrm/cawrm.toml`,
		Args:    exactArgs("FILE"),
		RunE:    func(c *cobra.Command, args []string) error { return checkConfig(c, asJSON, args[0]) },
	}
	asJSON.add(check)
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

// checked is the JSON of config check.
type checked struct {
	File    string   `json:"file"`
	OK      bool     `json:"ok"`
	Volumes []string `json:"volumes"`
	Error   string   `json:"error,omitempty"` // with file and line
}

func checkConfig(c *cobra.Command, asJSON jsonFlag, path string) error {
	flags := pflag.NewFlagSet("serve", pflag.ContinueOnError)
	new(daemonFlags).add(flags)
	if err := flags.Set("config", path); err != nil {
		return err
	}
	g := given{flags: flags}
	cfg, err := g.load()
	if err != nil && bool(asJSON) {
		return errors.Join(printJSON(c, checked{File: path, Volumes: []string{}, Error: err.Error()}), errSaid)
	}
	if err != nil {
		return plainError{err}
	}
	done := checked{File: path, OK: true, Volumes: []string{}}
	for _, v := range cfg.Volumes {
		done.Volumes = append(done.Volumes, v.Name)
	}
	return asJSON.say(c, done, "%s: OK, volumes: %d\n", path, len(cfg.Volumes))
}

// plainError is a failure, also when what failed calls it wrong usage: the file is wrong, not the command line.
type plainError struct{ err error }

func (e plainError) Error() string { return e.err.Error() }
