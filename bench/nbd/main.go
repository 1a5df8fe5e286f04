// Command nbd measures cawrm against other NBD servers, with fio's nbd engine
// as the client, in one run on one disk.
//
// Each server gets a fresh raw image (cawrm a fresh container) in one
// directory and serves it on a unix socket. All images are sparse files and
// are then written over whole, in order, through NBD, since a user's disk has
// been written before. Then the servers take turns, A B C A B C, a few seconds
// each, for every case; after each turn the server flushes, untimed, so that
// nobody's dirty pages are paid for by the next. The table shows medians.
//
// With --mirror it measures cawrm with a mirror on loopback against cawrm
// without, the same way; after each turn the mirror catches up, untimed.
//
// What the figures do not show: fio and the servers share the machine's
// processors; nbdkit and qemu-nbd with a write-back cache acknowledge into the
// page cache; fio's "direct" means nothing to its nbd engine, so what is
// cached where is each server's choice.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"time"

	"github.com/spf13/pflag"
)

// config is the command line.
type config struct {
	bin, dir, size, out string
	rounds              int
	seconds             time.Duration
	only, cases         []string
	mirror              bool
}

func main() {
	var c config
	pflag.StringVar(&c.bin, "bin", "bin/cawrm", "the cawrm binary")
	pflag.StringVar(&c.dir, "dir", "tmp/bench-nbd", "where the images go: the disk that is measured")
	pflag.StringVar(&c.size, "size", "1G", "size of each image")
	pflag.StringVar(&c.out, "out", "", "append the run to this file, one JSON line")
	pflag.IntVar(&c.rounds, "rounds", 5, "turns of each server in each case")
	pflag.DurationVar(&c.seconds, "seconds", 3*time.Second, "length of a turn")
	pflag.StringSliceVar(&c.only, "only", nil, "servers to measure (default all): "+strings.Join(names(contenders(false)), ", "))
	pflag.StringSliceVar(&c.cases, "cases", nil, "cases to measure (default all): "+strings.Join(names(cases(false)), ", "))
	pflag.BoolVar(&c.mirror, "mirror", false, "measure cawrm with a mirror against cawrm without")
	pflag.Parse()
	if pflag.NArg() > 0 || c.rounds < 1 || c.seconds < time.Second {
		fmt.Fprintln(os.Stderr, "bench/nbd: at least one round of at least 1s, and no arguments; see --help")
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := measure(ctx, c); err != nil {
		fmt.Fprintln(os.Stderr, "bench/nbd:", err)
		os.Exit(1)
	}
}

func measure(ctx context.Context, c config) error {
	if _, err := exec.LookPath("fio"); err != nil {
		return errors.New("fio is not installed (bench/setup.sh installs it as root with apt-get)")
	}
	servers, err := choose(contenders(c.mirror), c.only)
	if err != nil {
		return err
	}
	list, err := choose(cases(c.mirror), c.cases)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(c.dir, 0o700); err != nil {
		return err
	}
	running, err := startAll(ctx, c, servers)
	defer stopAll(running)
	if err != nil {
		return err
	}
	r := newReport(c, running)
	for _, k := range list {
		for round := range c.rounds {
			for _, s := range running {
				if err := turn(ctx, c, r, k, s, round); err != nil {
					return err
				}
			}
		}
	}
	fmt.Println(r.table(list))
	if c.out == "" {
		return nil
	}
	return r.save(c.out)
}

// turn is one measurement of one server.
func turn(ctx context.Context, c config, r *report, k workload, s *server, round int) error {
	f, err := runFio(ctx, c, k, s)
	if err != nil {
		return fmt.Errorf("%s on %s: %w", k.name, s.name, err)
	}
	r.add(k, s, f)
	fmt.Fprintf(os.Stderr, "%-22s round %d/%d  %-16s %s\n", k.name, round+1, c.rounds, s.name, k.show(k.figure(f)))
	return s.settle(ctx)
}

// named is what can be chosen by name.
type named interface{ title() string }

func names[T named](all []T) (n []string) {
	for _, x := range all {
		n = append(n, x.title())
	}
	return n
}

// choose returns those of all whose names are wanted, in the order wanted: the
// first server is the one that ratios are of.
func choose[T named](all []T, wanted []string) ([]T, error) {
	if len(wanted) == 0 {
		return all, nil
	}
	var chosen []T
	for _, w := range wanted {
		found := false
		for _, x := range all {
			if x.title() == w {
				chosen, found = append(chosen, x), true
			}
		}
		if !found {
			return nil, fmt.Errorf("there is no %q, there are %s", w, strings.Join(names(all), ", "))
		}
	}
	return chosen, nil
}
