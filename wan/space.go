package wan

import (
	"fmt"
	"os"
	"runtime"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// space is a network namespace of its own. It has no name and ends with the
// last descriptor, so nothing stays behind when the process dies.
type space struct {
	fd *os.File
}

// newSpace makes a namespace with its loopback up.
func newSpace() (*space, error) {
	s := &space{}
	err := onThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("a network namespace: %w", err)
		}
		fd, err := os.Open("/proc/thread-self/ns/net")
		s.fd = fd
		return err
	})
	if err != nil {
		return nil, err
	}
	err = s.netlink(func(h *netlink.Handle) error {
		lo, err := h.LinkByName("lo")
		if err != nil {
			return err
		}
		return h.LinkSetUp(lo)
	})
	if err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

func (s *space) close() error { return s.fd.Close() }

// do runs f in the namespace. Sockets and devices that f opens stay there.
func (s *space) do(f func() error) error {
	return onThread(func() error {
		if err := unix.Setns(int(s.fd.Fd()), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter a network namespace: %w", err)
		}
		return f()
	})
}

// onThread runs f on a thread of its own, which ends with f: it is never given
// back to the scheduler, whatever f made of it.
func onThread(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		done <- f()
	}()
	return <-done
}

// netlink runs f with a handle on the namespace.
func (s *space) netlink(f func(*netlink.Handle) error) error {
	h, err := netlink.NewHandleAt(netns.NsHandle(s.fd.Fd()), unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("netlink: %w", err)
	}
	defer h.Close()
	return f(h)
}

// address gives a device its address in the small net of the line and
// brings it up.
func (s *space) address(device, own string) error {
	return s.netlink(func(h *netlink.Handle) error {
		link, err := h.LinkByName(device)
		if err != nil {
			return err
		}
		addr, err := netlink.ParseAddr(own + "/30")
		if err != nil {
			return err
		}
		if err := h.AddrAdd(link, addr); err != nil {
			return fmt.Errorf("address %s: %w", own, err)
		}
		return h.LinkSetUp(link)
	})
}
