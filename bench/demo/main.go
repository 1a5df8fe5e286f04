// Command demo shows what cawrm does, in under a minute and on one machine: two
// sites, real data written over NBD, a slow line between them that is cut and
// healed while the writer goes on, and both sites compared at the end.
//
// It runs the built binary as a user would and needs nothing else.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"

	"github.com/spf13/pflag"
)

func main() {
	bin := pflag.String("bin", "bin/cawrm", "the cawrm binary")
	dir := pflag.String("dir", "", "where the two containers go (default: a temporary directory, removed at the end)")
	pflag.Parse()
	if pflag.NArg() > 0 {
		fmt.Fprintln(os.Stderr, "demo takes no arguments; see --help")
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := play(ctx, *bin, *dir); err != nil {
		if errors.Is(err, context.Canceled) {
			err = errors.New("interrupted")
		}
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}
