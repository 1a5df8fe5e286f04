// Command mutants plants faults in the volume and the mirror, one at a time, and lets the simulation find them.
//
// A fault is a file of faults/: the promise that it breaks, and edits as package overlay describes them. A fault that no
// longer applies or builds is an error: it has to follow the code.
//
// Usage: go run ./bench/sim/mutants [-run REGEXP] [-seed N] [-runs N] [-list]
package main

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"sort"
	"strconv"
	"strings"
	"sync"
	"time"

	"cawrm/bench/sim/overlay"
)

func main() {
	only := flag.String("run", "", "faults to plant, by a regular expression of their names")
	seed := flag.Uint64("seed", 1, "first seed")
	runs := flag.Uint64("runs", 5000, "histories after which a fault counts as not found")
	root := flag.String("root", ".", "the module's directory")
	procs := flag.Int("p", runtime.NumCPU(), "faults that are tried at a time")
	list := flag.Bool("list", false, "only say what is planted and whether it applies")
	flag.Parse()
	if err := run(*root, *only, *seed, *runs, *procs, *list); err != nil {
		fmt.Fprintln(os.Stderr, "mutants:", err)
		os.Exit(1)
	}
}

// verdict is what became of a fault.
type verdict struct {
	f     *fault
	err   error // it could not be tried
	check string
	seeds uint64
	took  time.Duration
}

func run(root, only string, seed, runs uint64, procs int, list bool) error {
	all, err := load(root)
	if err != nil {
		return err
	}
	want, err := regexp.Compile(only)
	if err != nil {
		return err
	}
	var chosen []*fault
	for _, f := range all {
		if want.MatchString(f.name) {
			chosen = append(chosen, f)
		}
	}
	if list {
		for _, f := range chosen {
			fmt.Printf("%-32s %s\n", f.name, f.promise)
		}
		return nil
	}
	dir, err := os.MkdirTemp("", "mutants")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	verdicts := make([]verdict, len(chosen))
	var wg sync.WaitGroup
	turn := make(chan struct{}, procs)
	for i, f := range chosen {
		wg.Go(func() {
			turn <- struct{}{}
			defer func() { <-turn }()
			verdicts[i] = try(root, filepath.Join(dir, f.name), f, seed, runs)
			fmt.Fprintln(os.Stderr, verdicts[i].line())
		})
	}
	wg.Wait()
	return report(verdicts)
}

func (v *verdict) line() string {
	switch {
	case v.err != nil:
		return fmt.Sprintf("%s: %v", v.f.name, v.err)
	case v.check == "":
		return fmt.Sprintf("%s: NOT FOUND in %d histories, %v", v.f.name, v.seeds, v.took.Round(time.Second))
	}
	return fmt.Sprintf("%s: found by %q after %d histories, %v", v.f.name, v.check, v.seeds, v.took.Round(100*time.Millisecond))
}

func report(all []verdict) error {
	found, failed := 0, 0
	fmt.Println("| fault | breaks | found by | histories | seconds |\n|---|---|---|---:|---:|")
	for _, v := range all {
		check := v.check
		switch {
		case v.err != nil:
			check = "ERROR: " + v.err.Error()
			failed++
		case check == "":
			check = "**not found**"
		default:
			found++
		}
		fmt.Printf("| %s | %s | %s | %d | %.1f |\n", v.f.name, v.f.promise, check, v.seeds, v.took.Seconds())
	}
	fmt.Printf("%d planted, %d found\n", len(all), found)
	if found < len(all) {
		return fmt.Errorf("%d of %d faults were not found (%d could not be tried)", len(all)-found, len(all), failed)
	}
	return nil
}

// try builds the simulation with a fault and runs it until the fault is found. The tree is left alone: the compiler is
// told to read other files in place of those that the fault changes.
func try(root, dir string, f *fault, seed, runs uint64) verdict {
	v := verdict{f: f}
	fail := func(err error) verdict { v.err = err; return v }
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fail(err)
	}
	bin, _, err := overlay.Build(root, dir, []*overlay.Change{f.change})
	if err != nil {
		return fail(err)
	}
	cmd := exec.Command(bin, "-test.run", "TestHistories", "-test.timeout", "0")
	cmd.Dir = filepath.Join(root, "bench/sim")
	cmd.Env = append(os.Environ(), fmt.Sprintf("SEED=%d", seed), fmt.Sprintf("RUNS=%d", runs), "SIM_SECONDS=", "STEP=", "VERBOSE=")
	start := time.Now()
	out, err := cmd.CombinedOutput()
	v.took, v.seeds = time.Since(start), runs
	if err == nil {
		return v
	}
	at := regexp.MustCompile(`seed (\d+)`).FindSubmatch(out)
	why := regexp.MustCompile(`(?m)^\s*\[([a-z]+)\] `).FindSubmatch(out)
	if at == nil || why == nil {
		return fail(fmt.Errorf("it ended without a verdict: %v\n%s", err, out[:min(len(out), 4000)]))
	}
	n, _ := strconv.ParseUint(string(at[1]), 10, 64)
	v.seeds, v.check = n-seed+1, string(why[1])
	if v.check == "hang" {
		v.check = "hang or livelock"
	}
	return v
}

// fault is one planted fault.
type fault struct {
	name    string
	promise string
	change  *overlay.Change
}

// load reads all faults, in the order of their names.
func load(root string) ([]*fault, error) {
	paths, err := filepath.Glob(filepath.Join(root, "bench/sim/mutants/faults/*.fault"))
	if err != nil || len(paths) == 0 {
		return nil, fmt.Errorf("no faults in %s (%v)", root, err)
	}
	sort.Strings(paths)
	var all []*fault
	for _, p := range paths {
		b, err := os.ReadFile(p)
		if err != nil {
			return nil, err
		}
		c, err := overlay.Parse(string(b))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", p, err)
		}
		all = append(all, &fault{name: strings.TrimSuffix(filepath.Base(p), ".fault"), promise: c.Promise, change: c})
	}
	return all, nil
}
