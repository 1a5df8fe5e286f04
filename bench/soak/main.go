// Command soak runs two real sites for hours and watches that nothing grows.
//
// A source and its mirror run as daemons, with an emulated line between them that is cut, stalled and healed all
// the time. Clients write, trim, zero, flush and read stamped blocks, of which an oracle knows what they may hold.
// In the first half of the time the daemons are killed with SIGKILL now and then, alone and together. The second
// half is one life of both, in which growth is judged; it ends with SIGKILL of both and a recovery.
//
// It fails when content is other than the oracle allows, when the sites differ, when `cawrm check` finds anything
// at the end, or when memory, goroutines, threads, descriptors, lag or containers grow beyond the bounds of judge.go.
//
// All that was measured goes to a file of JSON lines: events, samples, and a summary as the last line.
//
// The load is slow on purpose (--rate): a soak is about time, not speed, and is to run beside other work.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"time"

	"github.com/spf13/pflag"

	"cawrm/bench/internal/build"
)

// config is the command line.
type config struct {
	bin, dir, out string
	hours         float64
	rate, size    int64 // MiB a second, MiB
	seed          uint64
}

func (c config) duration() time.Duration { return time.Duration(c.hours * float64(time.Hour)) }

func main() {
	var c config
	pflag.StringVar(&c.bin, "bin", "", "the cawrm binary (default: $CAWRM_BIN, else built from this tree)")
	pflag.StringVar(&c.dir, "dir", "tmp", "a directory is made here for the containers, and removed when all was well")
	pflag.StringVar(&c.out, "out", "", "JSON lines `file` (default: bench/results/soak-DATE.jsonl)")
	pflag.Float64Var(&c.hours, "hours", 1, "how long")
	pflag.Int64Var(&c.rate, "rate", 3, "MiB a second that clients write")
	pflag.Int64Var(&c.size, "size", 256, "MiB of the volume")
	pflag.Uint64Var(&c.seed, "seed", uint64(time.Now().UnixNano()), "of the load, the kills and the cuts")
	pflag.Parse()
	if pflag.NArg() > 0 || c.duration() < 5*time.Second || c.rate < 1 || c.size < 1 {
		fmt.Fprintln(os.Stderr, "bench/soak: at least five seconds (--hours 0.0014), --rate 1, --size 1, and no arguments; see --help")
		os.Exit(2)
	}
	// For the daemons: what waits to be collected, by default as much as is in use, is not to be taken for growth.
	os.Setenv("GOGC", "20")
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, c); err != nil {
		fmt.Fprintln(os.Stderr, "bench/soak: FAILED:", err)
		os.Exit(1)
	}
}

// run does the whole soak in a directory of its own.
func run(ctx context.Context, c config) error {
	if err := os.MkdirAll(c.dir, 0o700); err != nil {
		return err
	}
	dir, err := os.MkdirTemp(c.dir, "soak")
	if err != nil {
		return err
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return err
	}
	if c.bin == "" {
		c.bin, err = build.Binary(dir)
	} else {
		c.bin, err = filepath.Abs(c.bin)
	}
	if err != nil {
		return err
	}
	if c.out == "" {
		c.out = filepath.Join("bench", "results", "soak-"+time.Now().UTC().Format("2006-01-02-1504")+".jsonl")
	}
	j, err := newJournal(c)
	if err != nil {
		return err
	}
	err = soak(ctx, c, dir, j)
	if err == nil {
		return os.RemoveAll(dir)
	}
	return fmt.Errorf("%w\nseed %d; containers are kept in %s", err, c.seed, dir)
}
