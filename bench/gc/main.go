// Command gc measures what cleaning costs: a volume whose data take 80 % of a bounded container is overwritten at random, 4 KiB at a
// time, as fast as it takes it, and each case tells
//
//   - the write amplification: what is written of data for each chunk that a client writes, beside the theory's for uniform
//     overwrites, once of all that the container has, and once of it without the segments that are kept free
//   - the longest time that a write took, and how many took more than 100 ms, beside the same load in a container without a
//     bound, which is not cleaned: what is more than there is because of cleaning
//
// A write that fails ends the run with exit code 1.
//
// What the figures do not show: the time that a write takes has the disk's in it, and that of whatever else runs on the
// machine; the theory knows nothing of map pages.
//
// Usage: go run ./bench/gc [--capacity-mib 512] [--used 0.8] [--seconds 20 | --hours 4] [--writers 4] [--dir DIR] [--out FILE] [--only CASE,...]
package main

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"cawrm/bench/report"
	"cawrm/gc"
)

// config is the command line.
type config struct {
	capacity      int64 // bytes
	used          float64
	each          time.Duration
	writers       int
	dir, out      string
	only          []string
	seed          uint64
	seconds, hour float64
}

// load is one case.
type load struct {
	name   string
	places func(n int64, seed uint64) places
	policy gc.Policy // nil: not cleaned, in a container without a bound
}

var loads = []load{
	{"no cleaning uniform", uniform, nil},
	{"cost-benefit uniform", uniform, gc.CostBenefit},
	{"greedy uniform", uniform, gc.Greedy},
	{"cost-benefit 80/20", eightyTwenty, gc.CostBenefit},
	{"greedy 80/20", eightyTwenty, gc.Greedy},
	{"cost-benefit zipf 0.99", zipf, gc.CostBenefit},
	{"greedy zipf 0.99", zipf, gc.Greedy},
}

func main() {
	c := config{seed: uint64(time.Now().UnixNano())}
	mib := pflag.Int64("capacity-mib", 512, "capacity of the container, MiB")
	pflag.Float64Var(&c.used, "used", 0.8, "share of it that the volume's data take")
	pflag.Float64Var(&c.seconds, "seconds", 20, "how long each case is measured, after the volume was overwritten twice")
	pflag.Float64Var(&c.hour, "hours", 0, "the same in hours, in place of --seconds")
	pflag.IntVar(&c.writers, "writers", 4, "writers at a time")
	pflag.StringVar(&c.dir, "dir", ".", "where the containers go: the disk that is measured")
	pflag.StringVar(&c.out, "out", "", "append the figures to this file, as bench/results has them")
	pflag.StringSliceVar(&c.only, "only", nil, "cases to measure (default all): "+strings.Join(names(), "; "))
	pflag.Uint64Var(&c.seed, "seed", c.seed, "of the places that are written")
	pflag.Parse()
	c.capacity = *mib << 20
	c.each = time.Duration(c.seconds * float64(time.Second))
	if c.hour > 0 {
		c.each = time.Duration(c.hour * float64(time.Hour))
	}
	if pflag.NArg() > 0 || c.capacity < 64<<20 || c.used <= 0 || c.used > 0.85 || c.writers < 1 || c.each <= 0 ||
		slices.ContainsFunc(c.only, func(n string) bool { return !slices.Contains(names(), n) }) {
		fmt.Fprintln(os.Stderr, "bench/gc: at least 64 MiB, of which at most 0.85 are used, one writer, a time above 0, cases that there are, and no arguments; see --help")
		os.Exit(2)
	}
	if err := run(c); err != nil {
		fmt.Fprintln(os.Stderr, "bench/gc:", err)
		os.Exit(1)
	}
}

func names() (all []string) {
	for _, l := range loads {
		all = append(all, l.name)
	}
	return all
}

func run(c config) error {
	dir, err := os.MkdirTemp(c.dir, "gc")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	fmt.Printf("4 KiB overwrites by %d writers, %v a case, data in %.0f %% of %d MiB; seed %d\n", c.writers, c.each, 100*c.used, c.capacity>>20, c.seed)
	fmt.Printf("theory, uniform: %.2f\n\n", gc.Amplification(c.used))
	fmt.Printf("%-28s  %9s  %9s  %10s  %8s  %8s  %s\n", "", "amplif.", "theory", "writes/s", "p99.9", "longest", "over 100 ms")
	amplification, stall := c.experiments()
	var failed error
	for _, l := range loads {
		if len(c.only) > 0 && !slices.Contains(c.only, l.name) {
			continue
		}
		r, err := measure(c, l, dir)
		if err != nil {
			failed = errors.Join(failed, fmt.Errorf("%s: %w", l.name, err))
			continue
		}
		theory := "-"
		if l.policy != nil {
			theory = fmt.Sprintf("%.2f", r.theory)
			amplification.Add("measured", l.name, 0, r.amplification)
			if strings.HasSuffix(l.name, "uniform") {
				amplification.Add("theory, uniform", l.name, 0, gc.Amplification(c.used))
				amplification.Add("theory, without what is kept free", l.name, 0, r.theory)
			}
		}
		stall.Add("longest write", l.name, 0, r.longest.Seconds()*1000)
		stall.Add("p99.9", l.name, 0, r.p999.Seconds()*1000)
		fmt.Printf("%-28s  %9.2f  %9s  %10.0f  %6.1fms  %6.1fms  %d of %d\n", l.name, r.amplification, theory, r.rate,
			r.p999.Seconds()*1000, r.longest.Seconds()*1000, r.slow, r.writes)
	}
	if failed == nil && c.out != "" {
		failed = report.Append(c.out, amplification, stall)
	}
	return failed
}

func (c config) experiments() (amplification, stall *report.Experiment) {
	e := report.Experiment{Time: time.Now().UTC(), Commit: report.Commit("unknown"), Machine: report.ThisMachine(c.dir),
		Command: append([]string{"gc"}, os.Args[1:]...), Load: report.LoadAverage(), X: "policy and load", Lower: true,
		Note: fmt.Sprintf("random overwrites of 4 KiB by %d writers for %v, data in %.0f %% of %d MiB", c.writers, c.each, 100*c.used, c.capacity>>20)}
	a, s := e, e
	a.Name, a.Title, a.Unit = "gc/amplification", "Write amplification of cleaning", "chunks written a chunk"
	s.Name, s.Title, s.Unit = "gc/stall", "The longest write", "ms"
	s.Claim = "no write fails, or is stalled longer than 100 ms because of cleaning"
	return &a, &s
}
