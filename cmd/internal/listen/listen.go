// Package listen opens listeners the way a daemon should: a socket file that a dead process left is taken over,
// one that a live process answers is not, and every error says what to do.
package listen

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"cawrm/cmd/internal/value"
)

// ErrInUse means that another process listens there.
var ErrInUse = errors.New("address is in use by a running process")

// socketMode is for whoever runs the daemon: an NBD socket is a disk, a control socket the daemon.
const socketMode = 0o600

// Open listens at a. A unix socket's file gets mode 0600 and is removed when the listener is closed. Open sets
// the process's umask for a moment, so no other goroutine may create files meanwhile. Errors: ErrInUse.
func Open(a value.Addr) (net.Listener, error) {
	if !a.IsUnix() {
		l, err := net.Listen(a.Network, a.Address)
		return l, explain(a, err)
	}
	if err := removeStale(a.Address); err != nil {
		return nil, err
	}
	// Between bind and chmod anybody could connect.
	old := unix.Umask(0o777 &^ socketMode)
	l, err := net.Listen("unix", a.Address)
	unix.Umask(old)
	return l, explain(a, err)
}

// MakeDir makes the directory of a socket that stands at its default place: only its owner may look into it, but
// root's, whose socket protects itself.
func MakeDir(socket string) error {
	dir := filepath.Dir(socket)
	mode := os.FileMode(0o700)
	if os.Geteuid() == 0 {
		mode = 0o755
	}
	if err := os.MkdirAll(dir, mode); err != nil {
		return fmt.Errorf("directory of the control socket: %w; give --control unix:/path", err)
	}
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err == nil && int(st.Uid) != os.Geteuid() {
		return fmt.Errorf("%s belongs to another user; give --control unix:/path", dir)
	}
	return nil
}

// removeStale removes a socket file that nobody listens at.
func removeStale(path string) error {
	st, err := os.Lstat(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil
	case err != nil:
		return err
	case st.Mode()&os.ModeSocket == 0:
		return fmt.Errorf("%s: there is a file that is not a socket; remove it or choose another path", path)
	}
	c, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		c.Close()
		return fmt.Errorf("unix:%s: %w", path, ErrInUse)
	}
	// Only a refusal proves that nobody listens; a full backlog or a lack of permission does not.
	if !errors.Is(err, unix.ECONNREFUSED) {
		return fmt.Errorf("unix:%s: cannot tell whether it is in use: %w", path, err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("stale socket: %w", err)
	}
	return nil
}

func explain(a value.Addr, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EADDRINUSE):
		return fmt.Errorf("%s: %w; stop it or choose another address", a, ErrInUse)
	case errors.Is(err, unix.EADDRNOTAVAIL):
		return fmt.Errorf("%s: this machine has no such address", a)
	case errors.Is(err, unix.EACCES):
		return fmt.Errorf("%s: permission denied", a)
	case errors.Is(err, os.ErrNotExist):
		return fmt.Errorf("%s: the directory does not exist", a)
	}
	return fmt.Errorf("%s: %w", a, err)
}

// AddrOf is the address that a listener really has, with the port that the kernel chose.
func AddrOf(l net.Listener) value.Addr {
	a := l.Addr()
	return value.Addr{Network: a.Network(), Address: a.String()}
}
