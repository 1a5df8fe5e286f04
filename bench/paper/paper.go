package paper

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"

	"cawrm/bench/report"
	"cawrm/wan"
)

// Config says how to measure.
type Config struct {
	Dir      string // where the containers go: the disk that is measured
	Quick    bool
	Only     []string // steps, by name; none: all
	Rounds   int      // of everything; 0: 5, or as many as there is time for in Quick
	Mode     wan.Mode // how the lines are made
	Version  string   // of this program, where git cannot tell the commit
	Command  []string
	Progress func(text string) // what goes on; may be nil

	// Crasher makes the command that calls Crash in a process of its own; only for the goals.
	Crasher func(ctx context.Context, path string, bytes int64) *exec.Cmd
}

// scale is how much is measured.
type scale struct {
	sizes    []int64       // of Figure 7's volumes
	stored   int64         // size of the volume that is filled by degrees
	volume   int64         // of the others
	turn     time.Duration // of one workload on one rig
	rounds   int           // at most
	budget   time.Duration // an experiment begins no further round after so long
	ks       []int         // of formula (1)
	before   time.Duration // of resume: the writer's time before the outage
	after    time.Duration // of outage-latency: the writer's time after it
	outage   time.Duration
	dirty    int64    // bytes that are written in the outage, twice
	rate     float64  // of the paced writer
	resumeIn int      // rounds of resume
	written  [2]int64 // before a crash: little and much
}

const mib = 1 << 20

var quick = scale{
	sizes: []int64{8 * mib, 16 * mib, 32 * mib}, stored: 32 * mib, volume: 32 * mib,
	turn: 200 * time.Millisecond, rounds: 5, budget: 2500 * time.Millisecond,
	ks:     []int{1, 16, 256},
	before: 600 * time.Millisecond, after: time.Second, outage: 800 * time.Millisecond, dirty: 4 * mib, rate: 400, resumeIn: 1, written: [2]int64{512 * mib, 2048 * mib},
}

var full = scale{
	sizes: []int64{64 * mib, 128 * mib, 256 * mib, 512 * mib}, stored: 256 * mib, volume: 512 * mib,
	turn: 2 * time.Second, rounds: 5, budget: time.Hour,
	ks:     []int{1, 4, 16, 64, 256, 1024},
	before: 5 * time.Second, after: time.Minute, outage: 10 * time.Second, dirty: 32 * mib, rate: 1000, resumeIn: 5, written: [2]int64{1024 * mib, 65536 * mib},
}

// bench is one run.
type bench struct {
	Config
	scale
	ctx  context.Context
	list []*report.Experiment
}

// Title is that of the report.
const Title = "CAWRM: the paper's experiments"

// Caveats are what to know before the numbers are used.
func Caveats() []string {
	return []string{
		"All three architectures, both sites, the line and the client share this machine's processors and its disk.",
		"A write of the log is answered when it is in memory, one in place when the disk has it (O_DIRECT), as devices with and " +
			"without a write cache do it; all writes are counted until a flush has made them durable.",
		"The paper's disks were six SCSI disks in a RAID-0, where a random write costs a seek. This machine's disk is what its virtual " +
			"machine gives it, where a random write costs little more than a sequential one.",
	}
}

// Run measures everything and returns the experiments.
func Run(ctx context.Context, c Config) ([]*report.Experiment, error) {
	b, done, err := newBench(ctx, c)
	if err != nil {
		return nil, err
	}
	defer done()
	return b.run()
}

// newBench makes a directory of its own below c.Dir; done removes it.
func newBench(ctx context.Context, c Config) (b *bench, done func(), err error) {
	if c.Progress == nil {
		c.Progress = func(string) {}
	}
	if c.Dir, err = os.MkdirTemp(c.Dir, "cawrm-bench-"); err != nil {
		return nil, nil, err
	}
	b = &bench{Config: c, scale: full, ctx: ctx}
	if c.Quick {
		b.scale = quick
	}
	if c.Rounds > 0 {
		b.rounds, b.resumeIn, b.budget = c.Rounds, c.Rounds, time.Hour
	}
	return b, func() { os.RemoveAll(c.Dir) }, nil
}

func (b *bench) run() ([]*report.Experiment, error) {
	return b.take(b.steps())
}

// step is a part of a run that can be asked for by name.
type step struct {
	name string
	run  func() error
}

func (b *bench) steps() []step {
	return []step{
		{"7-size", b.initialSize}, {"7-stored", b.initialStored}, {"8-9", b.throughput}, {"10", b.backup},
		{"formula", b.formula}, {"resume", b.resume},
	}
}

// take goes through the steps that are asked for.
func (b *bench) take(steps []step) ([]*report.Experiment, error) {
	for _, s := range steps {
		if len(b.Only) > 0 && !slices.Contains(b.Only, s.name) {
			continue
		}
		if err := s.run(); err != nil {
			return b.list, err
		}
	}
	return b.list, b.ctx.Err()
}

// Steps lists the names for Config.Only, of the paper's experiments, the goals and the seeds.
func Steps() (paper, goals, seeds []string) {
	b := &bench{}
	for _, s := range b.steps() {
		paper = append(paper, s.name)
	}
	for _, s := range b.goals() {
		goals = append(goals, s.name)
	}
	for _, s := range b.seeds() {
		seeds = append(seeds, s.name)
	}
	return paper, goals, seeds
}

// experiment begins a figure.
func (b *bench) experiment(name, title, x, unit, claim string) *report.Experiment {
	e := &report.Experiment{
		Name: "paper/" + name, Title: title, X: x, Unit: unit, Claim: claim,
		Time: time.Now().UTC().Truncate(time.Second), Commit: report.Commit(b.Version), Machine: report.ThisMachine(b.Dir), Command: b.Command, Load: report.LoadAverage(),
	}
	b.list = append(b.list, e)
	return e
}

// on notes the line of an experiment.
func on(e *report.Experiment, l *wan.Link) {
	e.Link, e.LinkMode, e.Congestion = l.Profile().String(), string(l.Mode()), l.Congestion()
}

// rigs builds several architectures side by side.
func (b *bench) rigs(names []string, c rigConfig) (all []*Rig, err error) {
	c.dir, c.mode = filepath.Join(b.Dir, "rigs", c.settings), b.Mode
	for _, name := range names {
		b.Progress("setting up " + name)
		r, err := newRig(name, c)
		if err != nil {
			closeAll(all)
			return nil, err
		}
		all = append(all, r)
	}
	return all, nil
}

func closeAll(all []*Rig) {
	for _, r := range all {
		r.Close()
	}
}

// wait waits for a mirror, two minutes at the most.
func (b *bench) wait(r *Rig) error {
	ctx, cancel := context.WithTimeout(b.ctx, 2*time.Minute)
	defer cancel()
	if err := r.Wait(ctx); err != nil {
		return fmt.Errorf("%s: %w", r.Name, err)
	}
	return nil
}

// eachRound runs rounds until there are enough, or the time is over, or ctx is.
func (b *bench) eachRound(what string, f func(round int) error) error {
	start := time.Now()
	for round := range b.rounds {
		if round > 0 && time.Since(start) > b.budget {
			break
		}
		if err := b.ctx.Err(); err != nil {
			return err
		}
		b.Progress(fmt.Sprintf("%s, round %d of %d", what, round+1, b.rounds))
		if err := f(round); err != nil {
			return err
		}
	}
	return nil
}

// size says a number of bytes that is whole MiB.
func size(n int64) string { return fmt.Sprintf("%d MiB", n/mib) }
