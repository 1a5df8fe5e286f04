package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"cawrm/aodi/format"
	"cawrm/cmd/internal/control"
	"cawrm/cmd/internal/nbdkernel"
	"cawrm/cmd/internal/show"
	"cawrm/cmd/internal/value"
)

type resizeFlags struct {
	control  controlFlag
	size     value.Size
	capacity string
	json     jsonFlag
}

func newResize() *cobra.Command {
	var f resizeFlags
	c := &cobra.Command{
		Use:   "resize NAME --size SIZE | --capacity SIZE|none",
		Short: "Make a volume larger, or its container larger or smaller, while it is used",
		Long: `Give volume NAME another size, or its container another bound.

--size is the logical size. It only grows; what is new reads as zeroes. Clients see it when they connect again; a device of cawrm attach on
this machine has it at once, if root asks, also while it is mounted. Ask the daemon of the primary: mirrors take the size where it stands in the order of the writes. Snapshots, and moments of the history, keep the size that the
volume had then.

--capacity is what the container may take of its file system or device, as in cawrm create; none is no bound. A smaller one is possible
down to what is live, snapshots and history included, and some room for cleaning: the least is told if it is too little. The container is
cleaned first if more is in use. A file keeps its length and gets holes. Each site has its own.`,
		Example: `  cawrm resize db --size 20G
  cawrm resize db --capacity 30G
  cawrm resize db --capacity none`,
		Args: exactArgs("NAME"),
		RunE: func(c *cobra.Command, args []string) error { return f.run(c, args[0]) },
	}
	f.control.add(c)
	c.Flags().Var(&f.size, "size", "logical size, larger than before")
	c.Flags().StringVar(&f.capacity, "capacity", "", "bound of the container, or none")
	f.json.add(c)
	return c
}

func (f *resizeFlags) run(c *cobra.Command, name string) error {
	r := control.ResizeRequest{Volume: name, Size: int64(f.size)}
	if !c.Flags().Changed("size") && !c.Flags().Changed("capacity") {
		return usagef("give --size SIZE, --capacity SIZE or --capacity none")
	}
	if c.Flags().Changed("size") {
		if err := checkSize(f.size); err != nil {
			return err
		}
	}
	if c.Flags().Changed("capacity") {
		var capacity value.Size
		if f.capacity != "none" {
			var err error
			if capacity, err = value.ParseSize(f.capacity); err != nil {
				return usagef("--capacity: %v", err)
			} else if capacity <= 0 {
				return usagef("--capacity %s: give the bytes that the container may take, or none", f.capacity)
			}
		}
		r.Capacity = (*int64)(&capacity)
	}
	client, err := f.control.client()
	if err != nil {
		return err
	}
	defer client.Close()
	a, err := resize(client, r)
	if err != nil {
		return err
	}
	if r.Size != 0 {
		if a.Devices, err = growDevices(client, name, a.Size); err != nil {
			fmt.Fprintf(c.ErrOrStderr(), "cawrm: a device of this kernel keeps its size until it is attached again: %v\n", err)
		}
	}
	if f.json {
		return printJSON(c, a)
	}
	return printResized(c.OutOrStdout(), name, r, a)
}

// growDevices tells this kernel's devices of the volume what its size is now, and returns them.
func growDevices(client *control.Client, name string, size int64) (grown []string, err error) {
	status, err := client.Status(context.Background())
	if err != nil {
		return nil, err
	}
	v, err := status.Volume(name)
	if err != nil {
		return nil, err
	}
	for _, d := range nbdkernel.Attached("", v.VolumeID) {
		if d.ReadOnly() || d.Size() >= size { // a mirror's, which has its size when the record comes
			continue
		}
		if e := nbdkernel.Grow(d.Index, v.VolumeID, size); e != nil {
			err = errors.Join(err, fmt.Errorf("%s: %w", d.Path(), e))
		} else {
			grown = append(grown, d.Path())
		}
	}
	return grown, err
}

// resize asks, cleans if that is needed first, and asks again: what is written meanwhile may need some rounds.
func resize(client *control.Client, r control.ResizeRequest) (a control.Resized, err error) {
	var before *control.Resized
	for range 5 {
		if a, err = askResize(client, r); err != nil {
			return a, err
		}
		if before == nil {
			first := a
			before = &first
		}
		if a.CleanFirst == "" {
			a.SizeBefore, a.CapacityBefore = before.SizeBefore, before.CapacityBefore
			return a, nil
		}
		if _, err := waitGC(client, r.Volume); err != nil {
			return a, err
		}
	}
	return a, errors.New(a.CleanFirst + ", also after it was cleaned: what is being written, shipped or kept as history needs it; try again later, or a larger one")
}

func askResize(client *control.Client, r control.ResizeRequest) (a control.Resized, err error) {
	return a, client.Call(context.Background(), "resize", r, &a)
}

func printResized(w io.Writer, name string, r control.ResizeRequest, a control.Resized) error {
	var err error
	if r.Capacity != nil {
		_, err = fmt.Fprintf(w, "%s: capacity %s, before %s\n", name, capacityText(a.Capacity), capacityText(a.CapacityBefore))
	}
	if err == nil && r.Size != 0 {
		at := "clients see it when they connect again"
		if len(a.Devices) > 0 {
			at = strings.Join(a.Devices, " and ") + " has it now, other clients when they connect again"
		}
		_, err = fmt.Fprintf(w, "%s: size %s, before %s; %s\n", name, show.Bytes(a.Size), show.Bytes(a.SizeBefore), at)
	}
	return err
}

func capacityText(n int64) string {
	if n == 0 {
		return "none"
	}
	return show.Bytes(n)
}

// checkSize says what is no logical size.
func checkSize(size value.Size) error {
	switch {
	case size <= 0:
		return usagef("--size %s: a volume holds at least %d bytes", size, format.ChunkSize)
	case size > format.MaxLogicalSize:
		return usagef("--size %s: a volume has at most %s", size, value.Size(format.MaxLogicalSize))
	case size%format.ChunkSize != 0:
		up := (size + format.ChunkSize - 1) / format.ChunkSize * format.ChunkSize
		return usagef("--size %s: it is not a multiple of %d bytes; the next larger size is %d", size, format.ChunkSize, up)
	}
	return nil
}
