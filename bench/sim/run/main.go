// Command run builds the simulation so that one seed gives one history, and runs histories on all processors.
//
// Usage: go run ./bench/sim/run [-seed N] [-runs N | -seconds N] [-p N] [-v]
package main

import (
	"bytes"
	"flag"
	"fmt"
	"io"
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

func main() {
	seed := flag.Uint64("seed", 0, "first seed; 0: a fresh one")
	runs := flag.Int("runs", 0, "histories; 0: as many as fit into -seconds")
	seconds := flag.Int("seconds", 0, "how long")
	procs := flag.Int("p", runtime.NumCPU(), "histories at a time")
	test := flag.String("test", "TestHistories", "which of the simulation's tests")
	cover := flag.String("cover", "", "write coverage profiles to this directory")
	verbose := flag.Bool("v", false, "say what happened how often")
	flag.Parse()
	if *seed == 0 {
		*seed = uint64(time.Now().UnixNano()) / 1000 % 1e12
	}
	if *runs == 0 && *seconds == 0 {
		*runs = 200
	}
	if *runs > 0 {
		*procs = min(*procs, *runs)
	}
	if err := run(*seed, *runs, *seconds, *procs, *test, *cover, *verbose); err != nil {
		fmt.Fprintln(os.Stderr, "sim:", err)
		os.Exit(1)
	}
}

func run(seed uint64, runs, seconds, procs int, test, cover string, verbose bool) error {
	dir, err := os.MkdirTemp("", "sim")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	var extra []string
	if cover != "" {
		extra = []string{"-cover", "-coverpkg", "cawrm/aodi/...,cawrm/recover,cawrm/cawrm/..."}
	}
	bin, faithful, err := overlay.Build(".", dir, nil, extra...)
	if err != nil {
		return err
	}
	if !faithful {
		fmt.Println("sim: another version of Go than the overlay is for: a seed replays nearly, not exactly")
	}
	fmt.Printf("sim: SEED=%d, %d at a time\n", seed, procs)
	var wg sync.WaitGroup
	var mu sync.Mutex
	var failed error
	total, start := 0, time.Now()
	for k := range procs {
		args := []string{"-test.run", test, "-test.timeout", "0", "-test.count", "1"}
		if verbose {
			args = append(args, "-test.v")
		}
		if cover != "" {
			args = append(args, "-test.coverprofile", filepath.Join(cover, fmt.Sprintf("sim.%d.cover", k)))
		}
		cmd := exec.Command(bin, args...)
		cmd.Dir = "bench/sim"
		mine := 0
		if runs > 0 {
			mine = (runs - k + procs - 1) / procs
		}
		cmd.Env = append(os.Environ(), fmt.Sprintf("SEED=%d", seed+uint64(k)), fmt.Sprintf("STEP=%d", procs),
			fmt.Sprintf("RUNS=%d", mine), fmt.Sprintf("SIM_SECONDS=%d", seconds))
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &out
		if procs == 1 {
			cmd.Stdout = io.MultiWriter(&out, os.Stdout)
			cmd.Stderr = cmd.Stdout
		}
		wg.Go(func() {
			err := cmd.Run()
			mu.Lock()
			defer mu.Unlock()
			if procs > 1 && (err != nil || verbose) {
				os.Stdout.Write(out.Bytes())
			}
			if m := regexp.MustCompile(`sim: (\d+) histories`).FindSubmatch(out.Bytes()); m != nil {
				n, _ := strconv.Atoi(string(m[1]))
				total += n
			}
			if err != nil && failed == nil {
				failed = fmt.Errorf("a history failed: %w", err)
			}
		})
	}
	wg.Wait()
	took := time.Since(start)
	fmt.Printf("sim: %d histories in %v, %.1f a second\n", total, took.Round(100*time.Millisecond), float64(total)/took.Seconds())
	return failed
}
