package main

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"cawrm/cmd/internal/control"
	"cawrm/cmd/internal/show"
	"cawrm/cmd/internal/value"
)

// Exit codes.
const (
	exitDone   = 0
	exitFailed = 1
	exitUsage  = 2
)

// run is the program: it returns the exit code.
func run(args []string, stdout, stderr io.Writer) int {
	root, began := newRoot()
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.Execute()
	if err == nil {
		return exitDone
	}
	if errors.Is(err, errSaid) {
		return exitFailed
	}
	fmt.Fprintln(stderr, "cawrm:", err)
	var wrong usageError
	if *began && !errors.As(err, &wrong) {
		return exitFailed
	}
	fmt.Fprintln(stderr, "See `cawrm help` and `cawrm COMMAND --help`.")
	return exitUsage
}

// usageError is found wrong in the command line by a command itself; what cobra and pflag find comes before.
type usageError struct{ error }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// errSaid is a failure that the command has already told at length.
var errSaid = errors.New("failed")

// newRoot makes the tree of commands. began is set when the command line was right and a command runs.
func newRoot() (root *cobra.Command, began *bool) {
	began = new(bool)
	root = &cobra.Command{
		Use:   "cawrm",
		Short: "A block device over NBD that is always mirrored elsewhere",
		Long: `cawrm keeps a volume in a file or on a block device, serves it over NBD, and keeps
mirrors of it at other sites: each is at every moment a consistent earlier state.`,
		Example: `  cawrm create disk.img --size 10G
  cawrm serve disk.img --nbd 127.0.0.1:10809 --mirror cawrm://other-host:10810/disk.img
  cawrm status`,
		Args:             cobra.ArbitraryArgs,
		SilenceErrors:    true,
		SilenceUsage:     true,
		PersistentPreRun: func(*cobra.Command, []string) { *began = true },
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usagef("unknown command %q", args[0])
			}
			c.SetOut(c.ErrOrStderr())
			_ = c.Help()
			return usagef("a command is missing")
		},
	}
	root.AddCommand(commands()...)
	root.SetHelpCommand(newHelp())
	root.Version = thisVersion().String() // for who tries --version first
	root.SetVersionTemplate("{{.Version}}\n")
	completeNames(root)
	root.CompletionOptions.DisableDefaultCmd = true // completion.go has it
	return root, began
}

// commands is the table of commands: help, completion, manual pages and the reference are made of it. One a line, so that two who
// add one do not meet.
func commands() []*cobra.Command {
	return []*cobra.Command{
		newCreate(),
		newServe(),
		newStatus(),
		newMirror(),
		newVerify(),
		newGC(),
		newResize(),
		newPromote(),
		newDemote(),
		newSwitchover(),
		newSnapshot(),
		newClone(),
		newSend(),
		newReceive(),
		newConfig(),
		newReload(),
		newCert(),
		newVolume(),
		newAttach(),
		newDetach(),
		newCheck(),
		newDump(),
		newWan(),
		newBench(),
		newDoctor(),
		newPlan(),
		newCompletion(),
		newManual(),
		newVersion(),
	}
}

// newHelp is cobra's own but that a topic which is not there is wrong usage.
func newHelp() *cobra.Command {
	return &cobra.Command{
		Use:     "help [COMMAND]",
		Short:   "Say what a command does",
		Example: "  cawrm help serve",
		RunE: func(c *cobra.Command, args []string) error {
			about, rest, err := c.Root().Find(args)
			if err != nil || len(rest) > 0 {
				return usagef("there is no command %q", args)
			}
			about.InitDefaultHelpFlag()
			return about.Help()
		},
	}
}

// controlFlag is --control of every command that talks to a running daemon.
type controlFlag struct{ value.SocketAddr }

func (f *controlFlag) add(c *cobra.Command) {
	c.Flags().Var(&f.SocketAddr, "control", "control socket of the daemon (default: $"+control.Env+", else this user's, else root's)")
}

// resolve is the flag, else the environment; zero when neither is given.
func (f *controlFlag) resolve() (value.Addr, error) {
	if text := os.Getenv(control.Env); f.IsZero() && text != "" {
		if err := f.Set(text); err != nil {
			return value.Addr{}, usagef("%s: %v", control.Env, err)
		}
	}
	return f.Addr, nil
}

// client makes a client of the daemon that is meant.
func (f *controlFlag) client() (*control.Client, error) {
	a, err := f.resolve()
	if err != nil {
		return nil, err
	}
	paths := []string{a.Address}
	if a.IsZero() {
		paths = control.SearchPaths()
	}
	client := control.NewClient(paths...)
	client.Waiting = func(command string) func() {
		meter := show.NewMeter(os.Stderr)
		meter.Step("waiting for the daemon: "+command, 0, 0)
		return meter.Close
	}
	return client, nil
}

// exactArgs checks the number of arguments and names the one that is missing.
func exactArgs(names ...string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) < len(names) {
			return fmt.Errorf("%s is missing", names[len(args)])
		}
		return noMore(args, len(names))
	}
}

// leastArgs allows more.
func leastArgs(names ...string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) < len(names) {
			return fmt.Errorf("%s is missing", names[len(args)])
		}
		return nil
	}
}

// maxArgs allows fewer.
func maxArgs(n int) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error { return noMore(args, n) }
}

func noMore(args []string, n int) error {
	if len(args) > n {
		return fmt.Errorf("argument %q is one too many", args[n])
	}
	return nil
}
