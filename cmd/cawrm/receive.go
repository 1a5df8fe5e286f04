package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"cawrm/aodi"
	"cawrm/cawrm"
	"cawrm/cmd/internal/control"
	"cawrm/cmd/internal/show"
)

func newReceive() *cobra.Command {
	var f controlFlag
	var asJSON jsonFlag
	c := &cobra.Command{
		Use:   "receive [NAME | PATH]",
		Short: "Take a file of `cawrm send` into a mirror",
		Long: `Read a file that cawrm send has written from the standard input, and bring a mirror to the snapshot that it is of. The snapshot
is kept there, by its name. A mirror that a running daemon serves is named by its NAME, or by nothing when it is the only one; no
source may feed it meanwhile. Else PATH is the container of a mirror that nobody has open, or does not exist yet: then it is made, for a file that
holds all of a snapshot.

The mirror shows its old state until all of the file has come and is as it was written. What came of a file that broke off is
kept: receive the same file again, or what cawrm send --resume TOKEN sends, with the token that is said. A file that does not
begin where the mirror stands, or is of another volume, is refused.

Its source goes on over the link with what is newer.`,
		Example: `  cawrm receive copy.img < db.monday
  cawrm receive db < db.tuesday`,
		Args: func(c *cobra.Command, args []string) error {
			if len(args) > 1 {
				return usagef("%s takes one NAME or PATH", c.CommandPath())
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			name := ""
			if len(args) > 0 {
				name = args[0]
			}
			got, err := f.receive(c.InOrStdin(), name)
			if err != nil {
				return fmt.Errorf("receive: %w", err)
			}
			said := "received"
			if got.Nothing {
				said = "there already:"
			}
			return asJSON.say(c, got, "%s %s@%s, position %d: %d bytes of file, %d chunks\n", said, got.Volume, got.Snapshot, got.Position, got.Bytes, got.Chunks)
		},
	}
	f.add(c)
	asJSON.add(c)
	return c
}

func (f *controlFlag) receive(in io.Reader, name string) (got control.Received, err error) {
	if file, ok := in.(*os.File); ok && term.IsTerminal(int(file.Fd())) {
		return got, usagef("the file comes from the standard input, which is a terminal: `cawrm receive %s < FILE`", name)
	}
	client, err := f.client()
	if err != nil {
		return got, err
	}
	defer client.Close()
	served, err := servedAs(client, name)
	if err != nil {
		return got, err
	}
	meter := show.NewMeter(os.Stderr)
	defer meter.Close()
	in = meter.Reader(in, "receiving", fileSize(in))
	if served != "" {
		return got, client.Receive(context.Background(), "receive", url.Values{"volume": {served}}, in, &got)
	}
	return receiveInto(name, in)
}

// fileSize is the size of a file; 0 of a pipe.
func fileSize(r io.Reader) int64 {
	file, ok := r.(*os.File)
	if !ok {
		return 0
	}
	if st, err := file.Stat(); err == nil && st.Mode().IsRegular() {
		return st.Size()
	}
	return 0
}

// servedAs finds the volume that a daemon serves by that name, or from that path; "": it is a path of nobody's.
func servedAs(client *control.Client, name string) (string, error) {
	status, err := client.Status(context.Background())
	if errors.Is(err, control.ErrNoDaemon) && name != "" {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	for _, v := range status.Volumes {
		if v.Name == name || samePath(v.Path, name) {
			return v.Name, nil
		}
	}
	if name == "" {
		v, err := status.Volume("")
		return v.Name, err
	}
	return "", nil
}

func samePath(a, b string) bool {
	x, errA := filepath.Abs(a)
	y, errB := filepath.Abs(b)
	return b != "" && errA == nil && errB == nil && x == y
}

// receiveInto takes a file into a container that nobody has open.
func receiveInto(path string, in io.Reader) (got control.Received, err error) {
	file, err := cawrm.OpenDelta(bufio.NewReader(in))
	if err != nil {
		return got, err
	}
	if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
		if h := file.Head(); h.FromName != "" || h.Base > 0 {
			return got, fmt.Errorf("%s does not exist, and the file holds only what changed since @%s: a new mirror begins with all of a snapshot", path, h.FromName)
		}
		if err := aodi.Create(path, aodi.CreateOptions{Mirror: true}); err != nil {
			return got, err
		}
		if err := giveAway(path); err != nil {
			return got, err
		}
	}
	v, err := aodi.Open(path, aodi.Options{})
	if err != nil {
		return got, err
	}
	r, err := cawrm.ReadDelta(v, file)
	if err = errors.Join(err, v.Close()); err != nil {
		return got, err
	}
	return control.Received{Volume: path, Snapshot: r.Snapshot, Position: uint64(r.Position), Bytes: r.Bytes, Chunks: r.Chunks, Nothing: r.Nothing}, nil
}
