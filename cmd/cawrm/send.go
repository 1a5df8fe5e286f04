package main

import (
	"context"
	"fmt"
	"io"
	"net/url"
	"os"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"cawrm/cawrm"
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
	err = client.Send(context.Background(), "send", q, meter.Writer(out, "sending"))
	meter.Close()
	if err != nil {
		return fmt.Errorf("send %s: %w", args[len(args)-1], err)
	}
	return nil
}
