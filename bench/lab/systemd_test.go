package lab

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"
)

// TestSystemd ensures that the package does in a real machine what its units say: installed by dpkg under a systemd that is the first
// process, the daemon starts, a file system that waits for the attach unit is mounted, a reload drops no connection and a restart
// under load loses nothing. After a shutdown and a boot all is there again by itself, the shutdown took file system, device and daemon
// down in that order, the watchdog starts a daemon anew that hangs, a source feeds a mirror through the socket that systemd holds for it, and
// removing the package leaves the volumes.
func TestSystemd(t *testing.T) {
	need(t, "the units were not started by a systemd", "mke2fs", "apt-cache", "dpkg-query", "systemd-sysusers", "udevadm", "gzip")
	if os.Geteuid() != 0 {
		t.Skip("SKIPPED: the units were not started by a systemd: a root disk of the machine's packages is root's to make")
	}
	dir := t.TempDir()
	root, guest, packages := filepath.Join(dir, "root"), filepath.Join(dir, "guest"), filepath.Join(dir, "packages")
	run := func(name string, args ...string) {
		t.Helper()
		cmd := exec.Command(name, args...)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "VERSION=1.0.0")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", name, err, bytes.TrimSpace(out))
		}
	}
	run("./debian-root.sh", root)
	run("go", "build", "-trimpath", "-o", guest, "./guest")
	run("../../cmd/packages/build.sh", packages)
	debs, _ := filepath.Glob(filepath.Join(packages, "*.deb"))
	if len(debs) != 1 {
		t.Fatalf("%d packages were built", len(debs))
	}
	for _, args := range [][]string{{"install", strconv.FormatUint(seed(t), 10)}, {"after"}} {
		m := newMachine(t, "systemd.sh", 300*time.Second).with("--root", root, "--add", debs[0]+":vm/cawrm.deb", "--add", guest+":vm/guest")
		m.start(args...)
		m.finish()
	}
}
