package main

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// giveAway gives a file that root has just made in another user's directory to that user. The daemon of the packages runs as cawrm
// and could not open what root makes in its /var/lib/cawrm and /etc/cawrm.
func giveAway(path string) error {
	st, err := os.Stat(filepath.Dir(path))
	if err != nil {
		return err
	}
	dir := st.Sys().(*syscall.Stat_t)
	if os.Geteuid() != 0 || dir.Uid == 0 {
		return nil
	}
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if st, err = f.Stat(); err != nil {
		return err
	}
	// That user may put something else in its place meanwhile, but nothing new of root's that has no other name.
	if own := st.Sys().(*syscall.Stat_t); st.Mode().Type() != 0 || own.Uid != 0 || own.Nlink != 1 {
		return fmt.Errorf("%s is not the file that was made: %w", path, fs.ErrInvalid)
	}
	return f.Chown(int(dir.Uid), int(dir.Gid))
}

// isNew tells that there is nothing at path yet.
func isNew(path string) bool {
	_, err := os.Lstat(path)
	return os.IsNotExist(err)
}
