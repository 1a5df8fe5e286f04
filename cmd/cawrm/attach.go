package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/spf13/cobra"

	"cawrm/aodi"
	"cawrm/cmd/internal/control"
	"cawrm/cmd/internal/nbdkernel"
	"cawrm/cmd/internal/value"
)

// deviceTimeout is how long the kernel may take to show or to hide a device.
const deviceTimeout = 20 * time.Second

// retryAfter is how long at most a request waits that was on the way when the daemon was restarted. A shorter time would fill the
// kernel's log when a disk, or a mirror in flush mode, is slow.
const retryAfter = 2 * time.Second

type attachFlags struct {
	control     controlFlag
	connections int
	blockSize   int
	timeout     time.Duration
	deadTimeout time.Duration
	reconnect   bool
	json        jsonFlag
}

// attached is the JSON of attach.
type attached struct {
	Device   string `json:"device"`
	Volume   string `json:"volume"`
	Size     int64  `json:"size"` // bytes
	ReadOnly bool   `json:"read_only"`
}

func newAttach() *cobra.Command {
	var f attachFlags
	c := &cobra.Command{
		Use:   "attach NAME [/dev/nbdN]",
		Short: "Make a volume of a running daemon a block device of this kernel",
		Long: `Make the volume NAME, which a daemon on this machine serves over NBD, the block device /dev/nbdN, or the first
free one, and print the device's name. It needs root and the kernel's nbd driver, and no other tool.

A mirror becomes a read-only device; what the kernel has cached of it does not follow the mirror, so mount it anew to
see what came later. When the daemon goes away, what the device is asked for waits
--dead-timeout; "attach NAME /dev/nbdN --reconnect" within that time lets it go on with the daemon started anew, if
that was stopped in order. After a crash it is refused: writes that were answered and not flushed may be gone, which the
device's user has to learn by an error and a new mount.`,
		Example: `  cawrm attach db /dev/nbd0
  mkfs.ext4 /dev/nbd0 && mount /dev/nbd0 /mnt
  cawrm attach db --connections 4`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return errors.New("NAME is missing")
			}
			return noMore(args, 2)
		},
		RunE: func(c *cobra.Command, args []string) error { return f.run(c, args) },
	}
	f.control.add(c)
	c.Flags().IntVar(&f.connections, "connections", 1, "connections to the daemon, 1 to 16")
	c.Flags().IntVar(&f.blockSize, "block-size", 512, "logical block size of the device: 512, 1024, 2048 or 4096 bytes; what is made with a small one does not mount with a larger one")
	c.Flags().DurationVar(&f.timeout, "timeout", 0, "take a connection for dead when one answer takes longer (default: never)")
	c.Flags().DurationVar(&f.deadTimeout, "dead-timeout", time.Minute, "how long requests wait for --reconnect after the daemon went away; 0 fails them at once")
	f.json.add(c)
	c.Flags().BoolVar(&f.reconnect, "reconnect", false, "give a device whose daemon was restarted new connections")
	return c
}

// maxConnections is plenty for one kernel; each takes memory at the daemon.
const maxConnections = 16

func (f *attachFlags) run(c *cobra.Command, args []string) error {
	device := nbdkernel.Device{Index: nbdkernel.AnyDevice}
	var err error
	if len(args) == 2 {
		if device, err = nbdkernel.ParseDevice(args[1]); err != nil {
			return usageError{err}
		}
	}
	if err := f.check(len(args) == 2); err != nil {
		return err
	}
	if err := f.checkDevice(device); err != nil {
		return err
	}
	client, err := f.control.client()
	if err != nil {
		return err
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(context.Background(), deviceTimeout)
	defer cancel()
	status, err := client.Status(ctx)
	if err != nil {
		return err
	}
	volume, err := status.Volume(args[0])
	if err != nil {
		return err
	}
	if err := f.checkReconnect(device, volume); err != nil {
		return err
	}
	device, export, err := f.connect(ctx, device, volume)
	if err != nil {
		return err
	}
	how := ""
	if export.ReadOnly() {
		how = ", read-only"
	}
	return f.json.say(c, attached{device.Path(), volume.Name, export.Size, export.ReadOnly()}, "%s: %s, %d bytes%s\n", device.Path(), volume.Name, export.Size, how)
}

func (f *attachFlags) check(given bool) error {
	switch {
	case f.connections < 1 || f.connections > maxConnections:
		return usagef("--connections %d: from 1 to %d", f.connections, maxConnections)
	case f.blockSize < 512 || f.blockSize > 4096 || f.blockSize&(f.blockSize-1) != 0:
		return usagef("--block-size %d: 512, 1024, 2048 or 4096", f.blockSize)
	case f.timeout < 0 || f.deadTimeout < 0:
		return usagef("a timeout cannot be negative")
	case f.reconnect && !given:
		return usagef("--reconnect needs the device: attach NAME /dev/nbdN --reconnect")
	}
	return nil
}

// checkDevice asks the driver before anything is dialled: a busy device or a missing driver is told at once.
func (f *attachFlags) checkDevice(d nbdkernel.Device) error {
	connected, err := nbdkernel.Connected()
	switch {
	case err != nil:
		return err
	case d.Index == nbdkernel.AnyDevice:
		return nil
	case f.reconnect && !connected[d.Index]:
		return fmt.Errorf("%s is not attached; attach it without --reconnect", d.Path())
	case !f.reconnect && connected[d.Index]:
		return fmt.Errorf("%s: %w; choose another, or `cawrm detach %s` first", d.Path(), nbdkernel.ErrBusy, d.Path())
	}
	return nil
}

// checkReconnect refuses a device whose user would not learn of lost writes: what the daemon had answered before it was
// killed, and not flushed, is gone, and a flush through the new connection would vouch for it.
func (f *attachFlags) checkReconnect(d nbdkernel.Device, v control.Volume) error {
	if !f.reconnect || v.ClosedInOrder || v.Role == string(aodi.RoleMirror) {
		return nil
	}
	return fmt.Errorf("%s was not closed in order: writes to %s that were answered and not flushed may be gone, and its "+
		"user counts on them; `cawrm detach %s --force`, unmount it, attach it and mount it again", v.Name, d.Path(), d.Path())
}

// connect dials the daemon and hands the connections to the kernel.
func (f *attachFlags) connect(ctx context.Context, d nbdkernel.Device, v control.Volume) (nbdkernel.Device, nbdkernel.Export, error) {
	fail := func(err error) (nbdkernel.Device, nbdkernel.Export, error) { return d, nbdkernel.Export{}, err }
	conns, export, err := f.dial(ctx, v)
	defer closeAll(conns)
	if err != nil {
		return fail(err)
	}
	files, err := filesOf(conns)
	defer closeAll(files)
	if err != nil {
		return fail(err)
	}
	r := nbdkernel.Request{
		Index: d.Index, Size: export.Size, BlockSize: blockSize(f.blockSize, export), ServerFlags: export.Flags,
		Timeout: f.timeout, DeadTimeout: f.deadTimeout, Backend: v.VolumeID,
	}
	for _, file := range files {
		r.Sockets = append(r.Sockets, int(file.Fd()))
	}
	hand := nbdkernel.Connect
	if f.reconnect {
		hand = nbdkernel.Reconnect
	}
	if d.Index, err = hand(r); err != nil {
		return fail(fmt.Errorf("attach: %w", err))
	}
	if len(conns) == 1 && f.timeout == 0 {
		_ = d.SetRetry(retryAfter) // a kernel older than 5.0 has no such setting, and waits 30 s
	}
	return d, export, d.WaitSize(ctx, export.Size)
}

// dial negotiates the connections, several only where the server says that they see the same data.
func (f *attachFlags) dial(ctx context.Context, v control.Volume) ([]net.Conn, nbdkernel.Export, error) {
	a, err := address(v)
	if err != nil {
		return nil, nbdkernel.Export{}, err
	}
	var conns []net.Conn
	var export nbdkernel.Export
	for range f.connections {
		c, e, err := nbdkernel.Dial(ctx, a.Network, a.Address, v.Name)
		if err != nil {
			return conns, e, err
		}
		conns, export = append(conns, c), e
		switch {
		case e.Size == 0:
			return conns, e, fmt.Errorf("%s is an empty mirror; attach it when its source has reached it", v.Name)
		case len(conns) > 1 && e.Flags&nbdkernel.FlagMultiConn == 0:
			return conns, e, fmt.Errorf("%s does not allow several connections; leave --connections out", a)
		}
	}
	return conns, export, nil
}

// address chooses how to reach the export from here: a unix socket when there is one.
func address(v control.Volume) (value.Addr, error) {
	var best value.Addr
	for _, text := range v.NBD {
		a, err := value.ParseAddr(text)
		if err == nil && (best.IsZero() || a.IsUnix() && !best.IsUnix()) {
			best = a
		}
	}
	if best.IsZero() {
		return best, fmt.Errorf("%s is not served over NBD; start serve with --nbd unix:/path", v.Name)
	}
	if host, port, err := net.SplitHostPort(best.Address); err == nil && !best.IsUnix() {
		// An address of all interfaces can be listened at, not dialled.
		if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
			host = "127.0.0.1"
			if ip != nil && ip.To4() == nil {
				host = "::1"
			}
			best.Address = net.JoinHostPort(host, port)
		}
	}
	return best, nil
}

// blockSize is what was asked for, made to fit: the kernel wants the size to be a multiple of it, the server its minimum.
func blockSize(asked int, e nbdkernel.Export) int {
	size := max(asked, int(min(e.MinBlock, 4096)))
	for size > 512 && e.Size%int64(size) != 0 {
		size /= 2
	}
	return size
}

// filesOf takes the connections' descriptors out of Go's hands.
func filesOf(conns []net.Conn) ([]*os.File, error) {
	var files []*os.File
	for _, c := range conns {
		file, err := c.(interface{ File() (*os.File, error) }).File()
		if err != nil {
			return files, err
		}
		files = append(files, file)
	}
	return files, nil
}

func closeAll[C interface{ Close() error }](list []C) {
	for _, c := range list {
		_ = c.Close() // the kernel holds sockets of its own by now, or nobody needs them
	}
}
