package sim

import (
	"bufio"
	"flag"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"sort"
	"strconv"
	"strings"
	"testing"
	"testing/cryptotest"
	"testing/synctest"
	"time"
)

func TestMain(m *testing.M) {
	flag.Parse()
	if !raceEnabled {
		runtime.GOMAXPROCS(1) // one seed, one order of goroutines
	}
	debug.SetGCPercent(-1)        // a collection would run goroutines in another order: between histories then
	debug.SetMemoryLimit(2 << 30) // unless one needs too much
	runtime.MemProfileRate = 0
	os.Exit(m.Run())
}

// history runs one seed and returns what the oracle found, nil for nothing, and the trace's hash.
func history(t *testing.T, seed uint64, tl *tally) (found *failure, said []string, trace uint64) {
	cryptotest.SetGlobalRandom(t, seed)
	over := make(chan struct{})
	defer close(over)
	go watch(seed, over)
	collect()
	reseed(seed | 1)
	defer reseed(0)
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, seed, tl)
		w.verbose, w.out = os.Getenv("VERBOSE") != "", os.Stdout
		defer func() {
			if r := recover(); r != nil {
				f, ok := r.(failure)
				if !ok {
					fmt.Fprintf(os.Stderr, "[panic] seed %d while %q\n%s\n", seed, w.doing, replay(seed))
					panic(r)
				}
				found = &f
			}
			said, trace = w.said, w.trace
		}()
		w.run()
	})
	return found, said, trace
}

// collect gives memory back when there is much of it.
func collect() {
	var m runtime.MemStats
	if runtime.ReadMemStats(&m); m.HeapAlloc > 400<<20 {
		runtime.GC()
	}
}

// watch ends the process when a history is not over after two minutes. It counts steps of time, so that a machine that was
// asleep is not taken for a history that hangs; large ones, since each can put the scheduler out of step with a replay.
func watch(seed uint64, over chan struct{}) {
	for range 12 {
		select {
		case <-over:
			return
		case <-time.After(10 * time.Second):
		}
	}
	b := make([]byte, 1<<20)
	fmt.Fprintf(os.Stderr, "[hang] seed %d: not over after two minutes\n%s\n%s\n", seed, replay(seed), b[:runtime.Stack(b, true)])
	os.Exit(1)
}

func replay(seed uint64) string { return fmt.Sprintf("to replay: make sim SEED=%d RUNS=1", seed) }

// mustHold fails the test when the oracle found something.
func mustHold(t *testing.T, seed uint64, tl *tally) {
	t.Helper()
	f, said, _ := history(t, seed, tl)
	if f == nil {
		return
	}
	t.Fatalf("seed %d\n  %s\n[%s] %s\n%s", seed, strings.Join(said[max(0, len(said)-int(number("LINES", 40))):], "\n  "), f.check, f.text, replay(seed))
}

func number(name string, otherwise uint64) uint64 {
	s := os.Getenv(name)
	if s == "" {
		return otherwise
	}
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		panic(fmt.Sprintf("%s=%q: not a number", name, s))
	}
	return n
}

// TestHistories runs RUNS histories from SEED on, or as many as fit into SIM_SECONDS.
func TestHistories(t *testing.T) {
	seed := number("SEED", uint64(time.Now().UnixNano())/1000%1e12)
	runs, seconds := number("RUNS", 0), number("SIM_SECONDS", 0)
	if runs == 0 && seconds == 0 {
		if runs = 20; raceEnabled {
			runs = 8
		}
	}
	start, n, step := time.Now(), uint64(0), number("STEP", 1)
	tl := &tally{}
	for ; (runs == 0 || n < runs) && (seconds == 0 || time.Since(start) < time.Duration(seconds)*time.Second); n++ {
		mustHold(t, seed+n*step, tl)
	}
	took := time.Since(start)
	fmt.Printf("sim: %d histories from SEED=%d on in %v, %.1f a second\n", n, seed, took.Round(time.Millisecond), float64(n)/took.Seconds())
	if testing.Verbose() {
		tl.print()
	}
}

func (t *tally) print() {
	var names []string
	for k := range t.n {
		names = append(names, k)
	}
	sort.Strings(names)
	for _, k := range names {
		fmt.Printf("sim: %10d  %s\n", t.n[k], k)
	}
}

// TestSeedsThatFailed runs every seed that ever failed.
func TestSeedsThatFailed(t *testing.T) {
	f, err := os.Open("testdata/seeds")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		text, _, _ := strings.Cut(s.Text(), "#")
		if text = strings.TrimSpace(text); text == "" {
			continue
		}
		seed, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			t.Fatalf("testdata/seeds: %q", s.Text())
		}
		mustHold(t, seed, &tally{})
	}
}

// TestReplay measures how faithful a replay is: how many of some seeds run twice alike, to the last operation of a disk.
func TestReplay(t *testing.T) {
	seed, runs := number("SEED", 1), number("RUNS", 10)
	if raceEnabled {
		t.Skip("the race detector shuffles goroutines")
	}
	same, sum := 0, uint64(0)
	for n := range runs {
		_, _, a := history(t, seed+n, &tally{})
		_, _, b := history(t, seed+n, &tally{})
		if sum = sum*31 + a; a == b {
			same++
		}
	}
	t.Logf("%d of %d seeds ran alike twice; all traces together are %016x", same, runs, sum)
}
