package control

import (
	"os"
	"path/filepath"
	"strconv"
)

// Env names the environment variable that holds the control socket, unix:/path or /path.
const Env = "CAWRM_CONTROL"

// systemPath is where root's daemon listens.
const systemPath = "/run/cawrm/control.sock"

// DefaultPath is where a daemon of this user listens when it is not told: root's in /run/cawrm, a user's in
// $XDG_RUNTIME_DIR/cawrm, or in /tmp/cawrm-UID where there is no such directory.
func DefaultPath() string { return defaultPath(os.Geteuid(), os.Getenv("XDG_RUNTIME_DIR")) }

func defaultPath(uid int, runtimeDir string) string {
	switch {
	case uid == 0:
		return systemPath
	case filepath.IsAbs(runtimeDir):
		return filepath.Join(runtimeDir, "cawrm", "control.sock")
	}
	return filepath.Join(os.TempDir(), "cawrm-"+strconv.Itoa(uid), "control.sock")
}

// SearchPaths is where a command looks for a daemon when it is not told: this user's, then root's.
func SearchPaths() []string {
	if own := DefaultPath(); own != systemPath {
		return []string{own, systemPath}
	}
	return []string{systemPath}
}
