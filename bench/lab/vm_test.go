package lab

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"cawrm/bench/internal/build"
)

// needed are the programs of the host that vm.sh runs or copies.
var needed = []string{
	"qemu-system-x86_64", "busybox", "cpio", "depmod", "dpkg", "apt-get",
	"nbd-client", "mkfs.ext4", "e2fsck", "blkdiscard", "fstrim", "flock",
}

// missing returns those of the programs that this machine lacks.
func missing(programs []string) (absent []string) {
	os.Setenv("PATH", os.Getenv("PATH")+":/usr/sbin:/sbin")
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			absent = append(absent, p)
		}
	}
	return absent
}

// run boots a machine with the binary in it, runs the script and shows what
// it printed.
func run(t *testing.T, script string) {
	t.Helper()
	if testing.Short() {
		t.Skip("SKIPPED: boots a virtual machine, which -short leaves out")
	}
	if absent := missing(needed); len(absent) > 0 {
		t.Skipf("SKIPPED: the kernel's nbd driver was not tried, the virtual machine needs %s (make test installs them as root with apt-get)",
			strings.Join(absent, ", "))
	}
	bin, err := build.Binary(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	console := filepath.Join(t.TempDir(), "console")
	cmd := exec.Command("./vm.sh", "--run", script, "--add", bin+":bin/cawrm",
		"--ramdisk", "2G", "--timeout", "400", "--log", console)
	out, err := cmd.CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		log, _ := os.ReadFile(console)
		t.Fatalf("%s: %v\nthe kernel's console:\n%s", script, err, log)
	}
}

func TestKernelDevices(t *testing.T) { run(t, "kernel-devices.sh") }
