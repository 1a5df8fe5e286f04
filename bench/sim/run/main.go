// Command run builds the simulation so that one seed gives one history, and runs histories on all processors.
//
// Usage: go run ./bench/sim/run [-seed N] [-runs N | -seconds N] [-p N] [-v]
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"sync"
	"time"

	"cawrm/bench/sim/overlay"
)

// job is what the command line asks for.
type job struct {
	seed          uint64
	runs, seconds int
	procs         int
	test, cover   string
	verbose       bool
}

func main() {
	var j job
	flag.Uint64Var(&j.seed, "seed", 0, "first seed; 0: a fresh one")
	flag.IntVar(&j.runs, "runs", 0, "histories; 0: as many as fit into -seconds")
	flag.IntVar(&j.seconds, "seconds", 0, "how long")
	flag.IntVar(&j.procs, "p", runtime.NumCPU(), "histories at a time")
	flag.StringVar(&j.test, "test", "TestHistories", "which of the simulation's tests")
	flag.StringVar(&j.cover, "cover", "", "write coverage profiles to this directory")
	flag.BoolVar(&j.verbose, "v", false, "say what happened how often")
	flag.Parse()
	if j.seed == 0 {
		j.seed = uint64(time.Now().UnixNano()) / 1000 % 1e12
	}
	if j.runs == 0 && j.seconds == 0 {
		j.runs = 200
	}
	if j.runs > 0 {
		j.procs = min(j.procs, j.runs)
	}
	if err := j.do(); err != nil {
		fmt.Fprintln(os.Stderr, "sim:", err)
		os.Exit(1)
	}
}

func (j *job) do() error {
	dir, err := os.MkdirTemp("", "sim")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	var extra []string
	if j.cover != "" {
		if err := os.MkdirAll(j.cover, 0o755); err != nil {
			return err
		}
		extra = []string{"-cover", "-coverpkg", "cawrm/aodi/...,cawrm/recover,cawrm/gc,cawrm/cawrm/..."}
	}
	bin, faithful, err := overlay.Build(".", dir, nil, extra...)
	if err != nil {
		return err
	}
	if !faithful {
		fmt.Println("sim: another version of Go than the overlay is for: a seed replays nearly, not exactly")
	}
	fmt.Printf("sim: SEED=%d, %d at a time\n", j.seed, j.procs)
	var wg sync.WaitGroup
	histories, errs, start := make([]int, j.procs), make([]error, j.procs), time.Now()
	for k := range j.procs {
		wg.Go(func() { histories[k], errs[k] = j.share(bin, k) })
	}
	wg.Wait()
	total, took := 0, time.Since(start)
	for _, n := range histories {
		total += n
	}
	if j.test == "TestHistories" {
		fmt.Printf("sim: %d histories in %v, %.1f a second\n", total, took.Round(100*time.Millisecond), float64(total)/took.Seconds())
	}
	return errors.Join(errs...)
}

// share runs every procs-th seed, from the k-th on, in a process of its own.
func (j *job) share(bin string, k int) (histories int, err error) {
	args := []string{"-test.run", j.test, "-test.timeout", "0", "-test.count", "1"}
	if j.verbose {
		args = append(args, "-test.v")
	}
	if j.cover != "" {
		args = append(args, "-test.coverprofile", filepath.Join(j.cover, fmt.Sprintf("sim.%d.cover", k)))
	}
	runs := 0
	if j.runs > 0 {
		runs = (j.runs - k + j.procs - 1) / j.procs
	}
	cmd := exec.Command(bin, args...)
	cmd.Dir = "bench/sim"
	cmd.Env = append(os.Environ(), fmt.Sprintf("SEED=%d", j.seed+uint64(k)), fmt.Sprintf("STEP=%d", j.procs),
		fmt.Sprintf("RUNS=%d", runs), fmt.Sprintf("SIM_SECONDS=%d", j.seconds))
	out, err := cmd.CombinedOutput()
	if err != nil || j.verbose {
		os.Stdout.Write(out)
	}
	if err != nil {
		err = fmt.Errorf("process %d: a history failed: %w", k, err)
	}
	if m := regexp.MustCompile(`sim: (\d+) histories`).FindSubmatch(out); m != nil {
		histories, _ = strconv.Atoi(string(m[1]))
	}
	return histories, err
}
