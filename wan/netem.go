package wan

import (
	"errors"
	"fmt"
	"syscall"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// netem is a veth pair with the kernel's netem on both ends.
type netem struct{ near, far *space }

func newNetem(near, far *space, p Profile) (shaper, error) {
	err := near.netlink(func(h *netlink.Handle) error {
		return h.LinkAdd(&netlink.Veth{
			LinkAttrs: netlink.LinkAttrs{Name: device, MTU: mtu},
			PeerName:  device, PeerNamespace: netlink.NsFd(far.fd.Fd()),
		})
	})
	if err != nil {
		return nil, fmt.Errorf("a pair of veth devices (kernel option VETH): %w", err)
	}
	if err := errors.Join(near.address(device, nearIP), far.address(device, farIP)); err != nil {
		return nil, err
	}
	n := &netem{near, far}
	return n, n.set(p)
}

func (n *netem) set(p Profile) error {
	for _, s := range []*space{n.near, n.far} {
		if err := s.netlink(func(h *netlink.Handle) error { return shape(h, device, p) }); err != nil {
			return err
		}
	}
	return nil
}

// Shape puts netem on a device of this network namespace, for a line that the caller lays: its packets get the profile's delay,
// jitter, rate, loss and reordering on their way out. A loss of 1 is a cut.
func Shape(device string, p Profile) error {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer h.Close()
	return shape(h, device, p)
}

// shape puts netem on the device. Each packet is one of the wire's: loss and
// the queue are counted in packets, and a segment of 64 KiB would count as one.
func shape(h *netlink.Handle, device string, p Profile) error {
	link, err := h.LinkByName(device)
	if err != nil {
		return err
	}
	if err := h.LinkSetGSOMaxSegs(link, 1); err != nil {
		return fmt.Errorf("one segment a packet: %w", err)
	}
	q := netlink.NewNetem(netlink.QdiscAttrs{
		LinkIndex: link.Attrs().Index, Handle: netlink.MakeHandle(1, 0), Parent: netlink.HANDLE_ROOT,
	}, netlink.NetemQdiscAttrs{
		Latency: uint32(p.Delay.Microseconds()), Jitter: uint32(p.Jitter.Microseconds()),
		Loss: float32(100 * p.Loss), ReorderProb: float32(100 * p.Reorder),
		Limit: uint32(p.capacity()/mtu + 1), Rate64: uint64(p.Rate),
	})
	err = h.QdiscReplace(q)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, syscall.EINVAL) || errors.Is(err, unix.EOPNOTSUPP) {
		return fmt.Errorf("this kernel has no netem (module sch_netem): %w; tun needs none", err)
	}
	return err
}

// close has nothing to do: the devices go with the namespaces.
func (n *netem) close() error { return nil }
