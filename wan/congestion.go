package wan

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Congestion returns the TCP congestion control that name asks for, "" for the
// system's own. It is an error when this kernel does not have it.
func Congestion(name string) (string, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return "", fmt.Errorf("congestion control: %w", err)
	}
	defer unix.Close(fd)
	if name != "" {
		if err := unix.SetsockoptString(fd, unix.IPPROTO_TCP, unix.TCP_CONGESTION, name); err != nil {
			if errors.Is(err, unix.EPERM) {
				return "", fmt.Errorf("congestion control %q may be set by root alone; this user may set %s", name, kernelSays("allowed"))
			}
			return "", fmt.Errorf("this kernel has no congestion control %q, it has %s", name, kernelSays("available"))
		}
	}
	s, err := unix.GetsockoptString(fd, unix.IPPROTO_TCP, unix.TCP_CONGESTION)
	return strings.TrimRight(s, "\x00"), err
}

func kernelSays(which string) string {
	b, err := os.ReadFile("/proc/sys/net/ipv4/tcp_" + which + "_congestion_control")
	if err != nil {
		return "what sysctl net.ipv4.tcp_" + which + "_congestion_control says"
	}
	return strings.Join(strings.Fields(string(b)), ", ")
}

// setCongestion sets what Congestion has found good.
func setCongestion(c syscall.Conn, name string) {
	if raw, err := c.SyscallConn(); err == nil {
		raw.Control(func(fd uintptr) { unix.SetsockoptString(int(fd), unix.IPPROTO_TCP, unix.TCP_CONGESTION, name) })
	}
}

// control sets it before a socket connects or listens; accepted connections inherit it.
func controlCongestion(name string) func(string, string, syscall.RawConn) error {
	return func(_, _ string, raw syscall.RawConn) error {
		var failed error
		err := raw.Control(func(fd uintptr) {
			failed = unix.SetsockoptString(int(fd), unix.IPPROTO_TCP, unix.TCP_CONGESTION, name)
		})
		return errors.Join(err, failed)
	}
}
