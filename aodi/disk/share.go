package disk

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Share holds a container against being opened for writing until the result is closed. Any number may share it.
// Errors: ErrInUse when somebody writes to it.
func Share(path string) (*os.File, error) {
	lock, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_SH|unix.LOCK_NB); err != nil {
		lock.Close()
		return nil, fmt.Errorf("%s: %w; stop it first: what is being written cannot be looked at", path, ErrInUse)
	}
	return lock, nil
}
