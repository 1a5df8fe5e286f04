package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"cawrm/aodi"
	"cawrm/cmd/internal/probe"
	"cawrm/cmd/internal/show"
	"cawrm/cmd/internal/value"
)

type createFlags struct {
	size     value.Size
	capacity value.Size
	mirror   bool
	force    bool
	json     jsonFlag
}

// created is the JSON of create.
type created struct {
	Path     string `json:"path"`
	Role     string `json:"role"`               // primary or mirror
	Size     int64  `json:"size"`               // logical, bytes; 0 of an empty mirror
	Capacity int64  `json:"capacity,omitempty"` // bound of the container, bytes
}

func newCreate() *cobra.Command {
	var f createFlags
	c := &cobra.Command{
		Use:   "create PATH --size SIZE | --mirror",
		Short: "Make a volume, or an empty mirror, in a file or on a block device",
		Long: `Make a volume, or an empty mirror that takes size and content from its source.

PATH is a file that does not exist or is empty, or a block device that holds nothing. A file grows with what is
written to the volume, whatever its size, unless --capacity bounds it. What root makes in a directory of another user belongs to that
user, as what is in /var/lib/cawrm has to. SIZE takes the suffixes K, M, G and T (powers of 1024); it is a
multiple of 4096 bytes, at most 16T.

With --capacity the container takes at most so many bytes of the file system, or of the device. Space that is overwritten or
discarded is made free again by cleaning, which needs some room: a volume that is to be written all over should be at most
four fifths of the capacity. One that is larger gets ENOSPC when too much of it holds data, until some is discarded.`,
		Example: `  cawrm create disk.img --size 10G
  cawrm create /dev/vdb --size 500G
  cawrm create disk.img --size 800M --capacity 1000M
  cawrm create copy.img --mirror`,
		Args: exactArgs("PATH"),
		RunE: func(c *cobra.Command, args []string) error { return f.run(c, args[0]) },
	}
	c.Flags().Var(&f.size, "size", "logical size of the volume")
	c.Flags().Var(&f.capacity, "capacity", "bound of the container (default: what the file system has, or the device)")
	c.Flags().BoolVar(&f.mirror, "mirror", false, "an empty mirror: size and identity come from its source")
	c.Flags().BoolVar(&f.force, "force", false, "overwrite what a block device holds")
	f.json.add(c)
	return c
}

func (f *createFlags) run(c *cobra.Command, path string) error {
	if err := f.check(c.Flags().Changed("size"), c.Flags().Changed("capacity")); err != nil {
		return err
	}
	if err := f.clear(path); err != nil {
		return err
	}
	meter := show.NewMeter(c.ErrOrStderr())
	meter.Step("creating", 0, 0)
	fresh := isNew(path)
	err := aodi.Create(path, aodi.CreateOptions{Size: int64(f.size), Capacity: int64(f.capacity), Mirror: f.mirror})
	meter.Close()
	if err == nil && fresh {
		err = giveAway(path)
	}
	if err != nil {
		return fmt.Errorf("create: %w", err)
	}
	if f.mirror {
		return f.json.say(c, created{Path: path, Role: string(aodi.RoleMirror)}, "created %s: an empty mirror\nnext: cawrm serve %s --peer ADDR, and --mirror cawrm://HOST:PORT/NAME at the source\n", path, path)
	}
	if most := aodi.MaxLive(int64(f.size), int64(f.capacity)); f.capacity > 0 && int64(f.size) > most {
		fmt.Fprintf(c.ErrOrStderr(), "cawrm: warning: a capacity of %s holds %d bytes of data: writes beyond that get ENOSPC until some is discarded\n", f.capacity, most)
	}
	return f.json.say(c, created{Path: path, Role: string(aodi.RolePrimary), Size: int64(f.size), Capacity: int64(f.capacity)},
		"created %s: a volume of %s\nnext: cawrm serve %s --nbd ADDR\n", path, f.size, path)
}

// check finds wrong usage.
func (f *createFlags) check(sized, bounded bool) error {
	switch {
	case bounded && f.capacity <= 0:
		return usagef("--capacity %s: give the bytes that the container may take", f.capacity)
	case sized && f.mirror:
		return usagef("--size and --mirror exclude each other: a mirror takes its size from its source")
	case !sized && !f.mirror:
		return usagef("give --size SIZE for a volume, or --mirror for an empty mirror")
	case f.mirror:
		return nil
	}
	return checkSize(f.size)
}

// clear makes sure that a block device holds nothing; what a file holds is checked by aodi.
func (f *createFlags) clear(path string) error {
	st, err := os.Stat(path)
	if err != nil || st.Mode().Type() != os.ModeDevice {
		return nil // a path that cannot be looked at is told by aodi
	}
	dev, size, what, err := probe.Device(path)
	if err != nil {
		return err
	}
	defer dev.Close()
	switch {
	case what == "":
		return nil
	case !f.force:
		return fmt.Errorf("%s holds %s; --force overwrites it", path, what)
	}
	return errors.Join(probe.Wipe(dev, size), dev.Sync())
}
