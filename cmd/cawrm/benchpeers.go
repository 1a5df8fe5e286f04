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
	c := &cobra.Command{
		Use:   "peers",
		Short: "Measure cawrm beside qemu's mirror and nbdcopy, over emulated lines",
		Long: `Measure cawrm, qemu's blockdev-mirror (background and write-blocking) and nbdcopy over the same lines, in turns: a writer's rate and
latency with the mirror and without, time and bytes of initial synchronisation and of resumption after an outage, the longest
wait in it, and whether the target was usable at random moments of catching up.

What this machine lacks is left out, and said. No root is needed. DRBD and md need kernels that have them and are not
measured.`,
		Example: `  cawrm bench peers
  cawrm bench peers --only "cawrm,qemu background" --profiles wan --rounds 5 --out results`,
		Args: maxArgs(0),
		RunE: func(c *cobra.Command, _ []string) error {
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
				Dir: dir, Bin: self, Only: only, Profiles: profiles, Rounds: rounds, Seconds: seconds,
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
	c.Flags().IntVar(&rounds, "rounds", 3, "turns of each system on each line")
	c.Flags().DurationVar(&seconds, "seconds", 2*time.Second, "length of a writer's turn, and of the outage")
	return c
}
