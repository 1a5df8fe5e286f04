package report

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// Machine is where something was measured.
type Machine struct {
	CPUs       int    `json:"cpus"`
	CPU        string `json:"cpu"`
	Kernel     string `json:"kernel"`
	FileSystem string `json:"file_system"` // of the directory that is measured
	Fio        string `json:"fio,omitempty"`
}

func (m Machine) String() string {
	return fmt.Sprintf("%d x %s, Linux %s, %s", m.CPUs, m.CPU, m.Kernel, m.FileSystem)
}

// ThisMachine looks at this one; dir is the directory that is measured.
func ThisMachine(dir string) Machine {
	m := Machine{CPUs: runtime.NumCPU(), CPU: "unknown CPU", Kernel: "unknown", FileSystem: fileSystem(dir)}
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		m.Kernel = unix.ByteSliceToString(u.Release[:])
	}
	b, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(b)) {
		if k, v, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(k) == "model name" {
			m.CPU = strings.TrimSpace(v)
			break
		}
	}
	return m
}

// Commit is what git says of the working directory, else the given version.
func Commit(version string) string {
	out, err := exec.Command("git", "describe", "--always", "--dirty", "--abbrev=12").Output()
	if err != nil {
		return version
	}
	return strings.TrimSpace(string(out))
}

func fileSystem(dir string) string {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return "unknown file system"
	}
	for magic, name := range map[int64]string{
		unix.EXT4_SUPER_MAGIC: "ext4", unix.XFS_SUPER_MAGIC: "xfs", unix.BTRFS_SUPER_MAGIC: "btrfs",
		unix.TMPFS_MAGIC: "tmpfs", unix.OVERLAYFS_SUPER_MAGIC: "overlayfs",
	} {
		if int64(st.Type) == magic {
			return name
		}
	}
	return fmt.Sprintf("file system %#x", st.Type)
}

// LoadAverage is that of the last minute: what else this machine does.
func LoadAverage() (v float64) {
	b, _ := os.ReadFile("/proc/loadavg")
	fmt.Sscan(string(b), &v)
	return v
}
