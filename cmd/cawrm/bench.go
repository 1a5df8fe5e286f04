package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"cawrm/bench/paper"
	"cawrm/bench/report"
	"cawrm/cmd/internal/show"
	"cawrm/cmd/internal/value"
	"cawrm/wan"
)

func newBench() *cobra.Command {
	c := &cobra.Command{
		Use:   "bench",
		Short: "Measure this machine, and repeat the paper's experiments",
		Long: `Measure mirroring on this machine's disk and processors, in a directory that is emptied afterwards.

Results are JSON lines, one experiment each: the commit, the machine, the command and all repetitions. Figures of one machine
say little of another; compare runs of one machine, and close in time, with diff.`,
		Example: `  cawrm bench paper --quick
  cawrm bench paper --out results --disk /srv
  cawrm bench diff before.jsonl after.jsonl`,
		Args: cobra.ArbitraryArgs,
		RunE: group,
	}
	c.AddCommand(newBenchPaper(), newBenchGoals(), newBenchSeeds(), newBenchPeers(), newBenchInside(), newBenchCrash(), newBenchDiff())
	return c
}

// benchFlags are of every command that measures.
type benchFlags struct {
	out, disk string
	json      jsonFlag
}

func (f *benchFlags) add(c *cobra.Command) {
	c.Flags().StringVar(&f.out, "out", "", "also write DIR/*.jsonl and DIR/*.html; `DIR` is made")
	c.Flags().StringVar(&f.disk, "disk", "", "`DIR` on the disk that is measured (default: $TMPDIR, else /tmp)")
	c.Flags().BoolVar((*bool)(&f.json), "json", false, "print JSON lines instead of tables")
}

// directory is where the containers go. On tmpfs nothing of a disk is measured.
func (f *benchFlags) directory(c *cobra.Command) (string, error) {
	dir := f.disk
	if dir == "" {
		dir = os.TempDir()
	}
	if st, err := os.Stat(dir); err != nil || !st.IsDir() {
		return "", usagef("--disk %s is not a directory", dir)
	}
	if m := report.ThisMachine(dir); m.FileSystem == "tmpfs" {
		fmt.Fprintf(c.ErrOrStderr(), "cawrm: %s is memory (tmpfs), not a disk: give --disk DIR on one\n", dir)
	}
	return dir, nil
}

// deliver prints the experiments, and writes them where --out says.
func (f *benchFlags) deliver(c *cobra.Command, name, title string, caveats []string, list []*report.Experiment) error {
	out := c.OutOrStdout()
	if f.json {
		enc := json.NewEncoder(out)
		enc.SetEscapeHTML(false)
		for _, e := range list {
			if err := enc.Encode(e); err != nil {
				return err
			}
		}
	} else {
		fmt.Fprintf(out, "%s\n", title)
		if len(list) > 0 {
			fmt.Fprintf(out, "commit %s, %s\n\n", list[0].Commit, list[0].Machine)
		}
		for _, e := range list {
			if err := e.Table(out); err != nil {
				return err
			}
		}
		for _, text := range caveats {
			fmt.Fprintf(out, "before the numbers are used: %s\n", text)
		}
	}
	if f.out == "" || len(list) == 0 {
		return nil
	}
	lines, page := filepath.Join(f.out, name+".jsonl"), filepath.Join(f.out, name+".html")
	if err := report.Append(lines, list...); err != nil {
		return err
	}
	w, err := os.Create(page)
	if err != nil {
		return err
	}
	defer w.Close()
	if err := report.HTML(w, title, caveats, list); err != nil {
		return err
	}
	fmt.Fprintf(c.ErrOrStderr(), "%s, %s\n", lines, page)
	return w.Close()
}

// benchProgress tells what goes on: in one line of a terminal, else a line for each step.
func benchProgress(c *cobra.Command) (progress func(string), clear func()) {
	start := time.Now()
	if meter := show.NewMeter(c.ErrOrStderr()); meter.Shown() {
		return func(text string) { meter.Step(text, 0, 0) }, meter.Close
	}
	last := ""
	return func(text string) {
		if text != last && !strings.HasPrefix(text, "setting up") {
			fmt.Fprintf(c.ErrOrStderr(), "%4.0f s  %s\n", time.Since(start).Seconds(), text)
		}
		last = text
	}, func() {}
}

// measured is a command that measures in this process.
func measured(c *cobra.Command, name, title string, steps []string, run func(context.Context, paper.Config) ([]*report.Experiment, error)) *cobra.Command {
	var f benchFlags
	var quick bool
	var rounds int
	var only []string
	var mode value.Choice
	c.Args = maxArgs(0)
	c.RunE = func(c *cobra.Command, _ []string) error {
		if c.Flags().Changed("rounds") && rounds < 1 {
			return usagef("--rounds %d: at least 1", rounds)
		}
		for _, x := range only {
			if !slices.Contains(steps, x) {
				return usagef("there is no step %q, there are %s", x, strings.Join(steps, ", "))
			}
		}
		dir, err := f.directory(c)
		if err != nil {
			return err
		}
		ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
		defer stop()
		progress, clear := benchProgress(c)
		list, err := run(ctx, paper.Config{
			Dir: dir, Quick: quick, Rounds: rounds, Only: only, Mode: wan.Mode(mode.Value), Version: version, Command: commandLine(c), Progress: progress,
			Crasher: crasher,
		})
		clear()
		if err != nil {
			if errors.Is(err, context.Canceled) {
				err = errors.New("interrupted")
			}
			return fmt.Errorf("bench %s: %w", name, err)
		}
		if err := f.deliver(c, name, title, paper.Caveats(), list); err != nil || bool(f.json) {
			return err
		}
		return report.Verdicts(c.OutOrStdout(), list)
	}
	f.add(c)
	modeFlag(c, &mode)
	c.Flags().BoolVar(&quick, "quick", false, "small volumes and short turns: less than 50 seconds")
	c.Flags().StringSliceVar(&only, "only", nil, "steps to take (default all): "+strings.Join(steps, ", "))
	c.Flags().IntVar(&rounds, "rounds", 0, "so many rounds of everything (default: 5, with --quick as many as there is time for)")
	return c
}

func newBenchPaper() *cobra.Command {
	steps, _, _ := paper.Steps()
	return measured(&cobra.Command{
		Use:   "paper",
		Short: "Repeat the paper's experiments with the three architectures",
		Long: `Repeat the experiments of the CAWRM paper: Figures 7 to 10, formula (1), and resumption after an outage, with the
traditional, the loosely and the tightly coupled architecture, over the same emulated line and on the same disk. Each figure
stands beside what the paper claims.

The whole takes about half an hour, --quick less than a minute. It needs no root and no other program.`,
		Example: `  cawrm bench paper --quick
  cawrm bench paper --out results --disk /srv`,
	}, "paper", paper.Title, steps, paper.Run)
}

func newBenchGoals() *cobra.Command {
	_, steps, _ := paper.Steps()
	return measured(&cobra.Command{
		Use:   "goals",
		Short: "Measure the ratios that this project wants to reach",
		Long: `Measure the ratios that this project wants to reach and that need no other program, with the machine's own limits (disk,
socket, memory) beside them, and say of each whether it is reached. Those against nbdkit and qemu-nbd are measured by make bench-nbd.

The whole takes about half an hour, of which most goes into writing 64 GiB; --quick less than a minute.`,
		Example: `  cawrm bench goals --quick
  cawrm bench goals --out results --disk /srv`,
	}, "goals", paper.GoalsTitle, steps, paper.RunGoals)
}

func newBenchSeeds() *cobra.Command {
	_, _, steps := paper.Steps()
	return measured(&cobra.Command{
		Use:   "seeds",
		Short: "Measure the headline results of related systems on the same kind of work",
		Long: `Measure what related systems are known for, on the same kind of work: ddsnap's untar with 0 to n snapshots and the size of its deltas,
distributed md's throughput and latency of a reader during synchronisation, also with two clients on one volume, and the recovery
of LIO's network RAID1. Each figure stands beside what their papers claim.`,
		Example: `  cawrm bench seeds --quick
  cawrm bench seeds --out results --disk /srv`,
	}, "seeds", paper.SeedsTitle, steps, paper.RunSeeds)
}

// newBenchCrash is what bench goals runs to see how a volume opens after SIGKILL.
func newBenchCrash() *cobra.Command {
	var n value.Size
	c := &cobra.Command{
		Use: "crash PATH", Short: "Write to a volume and die by SIGKILL", Hidden: true,
		Args: exactArgs("PATH"),
		RunE: func(_ *cobra.Command, args []string) error { return paper.Crash(args[0], int64(n)) },
	}
	c.Flags().Var(&n, "write", "bytes to write")
	return c
}

func crasher(ctx context.Context, path string, n int64) *exec.Cmd {
	self, err := os.Executable()
	if err != nil {
		self = os.Args[0]
	}
	return exec.CommandContext(ctx, self, "bench", "crash", path, "--write", fmt.Sprint(n))
}

// commandLine is how this was asked for, without the directories: they are the machine's.
func commandLine(c *cobra.Command) []string {
	words := strings.Fields(c.CommandPath())
	for _, name := range []string{"quick", "mode", "rounds", "seconds", "only", "profiles"} {
		if fl := c.Flags().Lookup(name); fl != nil && fl.Changed {
			if fl.Value.Type() == "bool" {
				words = append(words, "--"+name)
			} else {
				words = append(words, "--"+name, fl.Value.String())
			}
		}
	}
	return words
}

func newBenchDiff() *cobra.Command {
	var asJSON jsonFlag
	c := &cobra.Command{
		Use:   "diff A B",
		Short: "Compare two results files, or directories of them",
		Long: `Compare the newest of each experiment that both have, point by point. B/A is of the medians. A verdict is only passed where no
repetition of the one lies within those of the other; the rest is the same, as far as these runs can tell.`,
		Example: `  cawrm bench diff before/paper.jsonl after/paper.jsonl
  cawrm bench diff bench/results results --json`,
		Args: exactArgs("A", "B"),
		RunE: func(c *cobra.Command, args []string) error {
			var both [2][]*report.Experiment
			for i, path := range args {
				var err error
				if both[i], err = report.Load(path); err != nil {
					return fmt.Errorf("bench diff: %w", err)
				}
			}
			changes := report.Diff(both[0], both[1])
			if len(changes) == 0 {
				return fmt.Errorf("bench diff: %s and %s have no experiment in common", args[0], args[1])
			}
			if asJSON {
				return printJSON(c, changes)
			}
			return report.PrintDiff(c.OutOrStdout(), changes)
		},
	}
	asJSON.add(c)
	return c
}
