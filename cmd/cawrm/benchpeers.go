package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"cawrm/bench/peers"
	"cawrm/wan"
)

func newBenchPeers() *cobra.Command {
	var f benchFlags
	var only, profiles []string
	var rounds int
	var seconds time.Duration
	var quick bool
	c := &cobra.Command{
		Use:   "peers",
		Short: "Measure cawrm beside DRBD, md, qemu's mirror and nbdcopy, over emulated lines",
		Long: `Measure cawrm, qemu's blockdev-mirror (background and write-blocking), nbdcopy, DRBD (protocols A, B and C) and md's raid1 over nbd with
write-behind over the same lines, in turns: a writer's rate and latency with the mirror and without, time and bytes of initial
synchronisation and of resumption after an outage, the longest wait in it, and whether the target was usable at random
moments of catching up.

DRBD and md run in a virtual machine with Debian's kernel, and cawrm beside them in the same machine, as "cawrm (vm)". It is emulated
(no KVM is used), so what programs do in it is slow; its kernel and the tools of DRBD and md are fetched with apt-get into
~/.cache/cawrm-lab, and not installed.

What this machine lacks is left out, and said. No root is needed, but by apt-get where its index is old. Everything takes about two
hours: a turn is 10 to 60 seconds, in the virtual machine one to two minutes. --quick takes about ten minutes.`,
		Example: `  cawrm bench peers --quick
  cawrm bench peers --only "cawrm (vm),DRBD A,DRBD C,md write-behind" --profiles wan,bad --out results
  cawrm bench peers --only "cawrm,qemu background" --profiles wan --rounds 5 --out results`,
		Args: maxArgs(0),
		RunE: func(c *cobra.Command, _ []string) error {
			if quick {
				for name, set := range map[string]func(){
					"rounds": func() { rounds = 1 }, "seconds": func() { seconds = time.Second }, "profiles": func() { profiles = []string{"wan"} },
				} {
					if !c.Flags().Changed(name) {
						set()
					}
				}
			}
			if rounds < 1 || seconds < 100*time.Millisecond {
				return usagef("at least --rounds 1 and --seconds 100ms")
			}
			for _, name := range only {
				if !slices.Contains(peers.Names(), name) {
					return usagef("there is no system %q, there are %s", name, strings.Join(peers.Names(), ", "))
				}
			}
			for _, name := range profiles {
				if _, err := wan.Find(name); err != nil {
					return usageError{err}
				}
			}
			dir, err := f.directory(c)
			if err != nil {
				return err
			}
			self, err := os.Executable()
			if err != nil {
				return err
			}
			ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
			defer stop()
			progress, clear := benchProgress(c)
			list, err := peers.Run(ctx, peers.Config{
				Dir: dir, Bin: self, Only: only, Profiles: profiles, Rounds: rounds, Seconds: seconds, Quick: quick,
				Version: version, Command: commandLine(c), Progress: progress,
				Skipped: func(text string) { fmt.Fprintln(c.ErrOrStderr(), "cawrm: left out:", text) },
			})
			clear()
			if err != nil {
				if errors.Is(err, context.Canceled) {
					err = errors.New("interrupted")
				}
				return fmt.Errorf("bench peers: %w", err)
			}
			return f.deliver(c, "peers", peers.Title, peers.Caveats(), list)
		},
	}
	f.add(c)
	c.Flags().StringSliceVar(&only, "only", nil, "systems to measure (default all): "+strings.Join(peers.Names(), ", "))
	c.Flags().StringSliceVar(&profiles, "profiles", []string{"lan", "metro", "wan", "bad"}, "lines, by name or file")
	c.Flags().BoolVar(&quick, "quick", false, "one short turn of each system, over wan alone")
	c.Flags().IntVar(&rounds, "rounds", 3, "turns of each system on each line")
	c.Flags().DurationVar(&seconds, "seconds", 2*time.Second, "length of a writer's turn, and of the outage")
	return c
}

// newBenchInside is what bench peers runs in a virtual machine.
func newBenchInside() *cobra.Command {
	return &cobra.Command{
		Use: "inside ORDER", Short: "Measure a system of the kernel's, in the virtual machine of bench peers", Hidden: true,
		Args: exactArgs("ORDER"),
		RunE: func(c *cobra.Command, args []string) error {
			if err := peers.Inside(c.Context(), c.OutOrStdout(), []byte(args[0])); err != nil {
				return fmt.Errorf("bench inside: %w", err)
			}
			return nil
		},
	}
}
