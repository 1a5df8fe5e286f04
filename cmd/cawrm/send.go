package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"math"
	"net/url"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"cawrm/cawrm"
	"cawrm/cmd/internal/control"
	"cawrm/cmd/internal/show"
)

func newSend() *cobra.Command {
	var f controlFlag
	resume := ""
	c := &cobra.Command{
		Use:   "send NAME@SNAP [NAME@NEWER]",
		Short: "Write a snapshot, or what changed between two, to a file",
		Long: `Write a file to the standard output: all that snapshot SNAP of volume NAME holds, or, with a second one, what changed from the
first to the second. A running daemon that serves the volume reads it; writes go on meanwhile, and the snapshots may be deleted. The file is
compressed, and each part of it and the whole are checksummed.

A receive that was interrupted says a token; with --resume only what it lacks is sent.`,
		Example: `  cawrm send db@monday > db.monday
  cawrm send db@monday db@tuesday > db.tuesday
  cawrm send db@monday | ssh other-host cawrm receive copy.img`,
		Args: func(c *cobra.Command, args []string) error {
			if len(args) < 1 || len(args) > 2 {
				return usagef("%s takes NAME@SNAP, or two of them, the older one first", c.CommandPath())
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error { return f.send(c.OutOrStdout(), args, resume) },
	}
	f.add(c)
	c.Flags().StringVar(&resume, "resume", "", "the token of an interrupted receive: send only the rest")
	return c
}

func (f *controlFlag) send(out io.Writer, args []string, resume string) error {
	volume, to, err := cutName(args[0])
	if err != nil {
		return err
	}
	q := url.Values{}
	if len(args) == 2 {
		q.Set("from", to)
		newer, snap, err := cutName(args[1])
		if err != nil {
			return err
		}
		if newer != volume {
			return usagef("%s and %s are of two volumes", args[0], args[1])
		}
		to = snap
	}
	q.Set("volume", volume)
	q.Set("to", to)
	if resume != "" {
		if _, err := cawrm.ParseResume(resume); err != nil {
			return usagef("--resume: %v", err)
		}
		q.Set("resume", resume)
	}
	if file, ok := out.(*os.File); ok && term.IsTerminal(int(file.Fd())) {
		return usagef("the file goes to the standard output, which is a terminal: `cawrm send %s > FILE`", args[0])
	}
	client, err := f.client()
	if err != nil {
		return err
	}
	defer client.Close()
	meter := show.NewMeter(os.Stderr)
	sent := &sending{w: out, meter: meter}
	if meter.Shown() {
		stop := sent.watch(client, volume, q)
		defer stop()
	}
	err = client.Send(context.Background(), "send", q, sent)
	meter.Close()
	if err != nil {
		return fmt.Errorf("send %s: %w", args[len(args)-1], err)
	}
	return nil
}

// sending counts what is written of a file, whose size nobody knows before its end: the daemon tells how far it is.
type sending struct {
	w     io.Writer
	meter *show.Meter
	done  int64
	part  atomic.Uint64 // of a float64
}

// sentEvery is how often the daemon is asked.
const sentEvery = 300 * time.Millisecond

// watch gives the send an id and asks how far it is until stop is called.
func (s *sending) watch(client *control.Client, volume string, q url.Values) (stop func()) {
	ask := control.SentRequest{Volume: volume, ID: rand.Text()}
	q.Set("id", ask.ID)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		for tick := time.NewTicker(sentEvery); ; {
			select {
			case <-ctx.Done():
				tick.Stop()
				return
			case <-tick.C:
			}
			var state control.SentState
			if client.Call(ctx, "sent", ask, &state) != nil {
				continue // an older daemon knows no such command
			}
			s.part.Store(math.Float64bits(state.Progress))
		}
	})
	return func() { cancel(); wg.Wait() }
}

func (s *sending) Write(p []byte) (int, error) {
	n, err := s.w.Write(p)
	s.done += int64(n)
	s.meter.Step("sending", s.done, expected(s.done, math.Float64frombits(s.part.Load())))
	return n, err
}

// expected is the size of a file of which so much is done; 0 before that can be told.
func expected(done int64, part float64) int64 {
	if part < 0.01 {
		return 0
	}
	return max(done, int64(float64(done)/part))
}
