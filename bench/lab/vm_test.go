package lab

import (
	"bufio"
	"bytes"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"cawrm/bench/internal/build"
)

// needed are the programs of the host that vm.sh runs or copies.
var needed = []string{
	"qemu-system-x86_64", "busybox", "cpio", "depmod", "dpkg", "apt-get",
	"nbd-client", "mkfs.ext4", "e2fsck", "blkdiscard", "fstrim", "flock",
}

// filesystems are the programs and modules that the tests of several file systems add.
var filesystems = struct{ programs, modules []string }{
	programs: []string{"mkfs.xfs", "xfs_repair", "mkfs.btrfs", "btrfs", "dmsetup"},
	modules:  []string{"xfs", "btrfs", "dm-log-writes"},
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

// need skips a test that cannot run here, and says what was not tried.
func need(t *testing.T, what string, programs ...string) {
	t.Helper()
	if testing.Short() {
		t.Skip("SKIPPED: boots a virtual machine, which -short leaves out")
	}
	if absent := missing(append(programs, needed...)); len(absent) > 0 {
		t.Skipf("SKIPPED: %s, the virtual machine needs %s (make test installs them as root with apt-get)",
			what, strings.Join(absent, ", "))
	}
}

// seed returns the seed of a random test and prints it.
func seed(t *testing.T) uint64 {
	t.Helper()
	s := uint64(time.Now().UnixNano()) % 1e9
	if env := os.Getenv("CAWRM_SEED"); env != "" {
		n, err := strconv.ParseUint(env, 10, 64)
		if err != nil {
			t.Fatalf("CAWRM_SEED=%s: %v", env, err)
		}
		s = n
	}
	t.Logf("CAWRM_SEED=%d", s)
	return s
}

// number reads a count from the environment.
func number(t *testing.T, name string, def int) int {
	t.Helper()
	env := os.Getenv(name)
	if env == "" {
		return def
	}
	n, err := strconv.Atoi(env)
	if err != nil || n < 1 {
		t.Fatalf("%s=%s: a number from 1 on", name, env)
	}
	return n
}

// words reads a list from the environment.
func words(name, def string) []string {
	if env := os.Getenv(name); env != "" {
		def = env
	}
	return strings.Fields(def)
}

// machine is one run of a script in a virtual machine.
type machine struct {
	t       *testing.T
	args    []string
	dir     string
	cmd     *exec.Cmd
	out     bytes.Buffer
	console string
	told    chan string // lines of the port "told", closed when the machine has ended
	wg      sync.WaitGroup
}

// newMachine prepares a run with the binary in the machine.
func newMachine(t *testing.T, script string, limit time.Duration) *machine {
	t.Helper()
	dir := t.TempDir()
	bin, err := build.Binary(dir)
	if err != nil {
		t.Fatal(err)
	}
	m := &machine{t: t, dir: dir, console: filepath.Join(dir, "console")}
	m.args = []string{"--run", script, "--add", bin + ":bin/cawrm", "--timeout", strconv.Itoa(int(limit.Seconds())), "--log", m.console}
	return m
}

// with adds options of vm.sh.
func (m *machine) with(args ...string) *machine {
	m.args = append(m.args, args...)
	return m
}

// withGuest adds the program and the scripts of the tests of several file systems.
func (m *machine) withGuest() *machine {
	m.t.Helper()
	m.withProgram()
	for _, p := range filesystems.programs {
		m.with("--bin", p)
	}
	for _, p := range filesystems.modules {
		m.with("--mod", p)
	}
	return m
}

// withProgram adds the program that writes files and checks them.
func (m *machine) withProgram() *machine {
	m.t.Helper()
	guest := filepath.Join(m.dir, "guest")
	cmd := exec.Command("go", "build", "-trimpath", "-o", guest, "./guest")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		m.t.Fatalf("go build ./guest: %v\n%s", err, out)
	}
	return m.with("--add", guest+":bin/guest", "--add", "volumes.sh:lab/volumes.sh")
}

// withTold opens the port "told", whose lines come on m.told, which must be read until it is closed.
func (m *machine) withTold() *machine {
	m.t.Helper()
	path := filepath.Join(m.dir, "told.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(func() { l.Close() })
	m.told = make(chan string)
	m.wg.Go(func() {
		defer close(m.told)
		conn, err := l.Accept()
		if err != nil {
			return // the machine ended before
		}
		defer conn.Close()
		for lines := bufio.NewScanner(conn); lines.Scan(); {
			m.told <- lines.Text()
		}
	})
	return m.with("--port", "told="+path)
}

// start boots the machine; args are the script's.
func (m *machine) start(args ...string) {
	m.t.Helper()
	m.with("--pid", filepath.Join(m.dir, "pid"))
	m.cmd = exec.Command("./vm.sh", append(append(m.args, "--"), args...)...)
	m.cmd.Stdout, m.cmd.Stderr = &m.out, &m.out
	if err := m.cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(m.kill)
}

// kill cuts the power, if the machine has any.
func (m *machine) kill() {
	b, err := os.ReadFile(filepath.Join(m.dir, "pid"))
	if err != nil {
		return
	}
	if pid, err := strconv.Atoi(strings.TrimSpace(string(b))); err == nil {
		_ = syscall.Kill(pid, syscall.SIGKILL) // it may have ended
	}
}

// wait waits for the end and returns the script's failure.
func (m *machine) wait() error {
	err := m.cmd.Wait()
	os.Remove(filepath.Join(m.dir, "pid")) // the id may be another's from now on
	return err
}

// finish waits for the end and fails the test with the script.
func (m *machine) finish() {
	m.t.Helper()
	err := m.wait()
	m.t.Logf("%s", m.out.Bytes())
	if err != nil {
		log, _ := os.ReadFile(m.console)
		m.t.Fatalf("%v\nthe kernel's console:\n%s", err, log)
	}
}

func TestKernelDevices(t *testing.T) {
	need(t, "the kernel's nbd driver was not tried")
	m := newMachine(t, "kernel-devices.sh", 400*time.Second).with("--ramdisk", "2G")
	m.start()
	m.finish()
}

// TestReconnect ensures that whoever uses a device of cawrm attach sees no
// error when the daemon is stopped in order and started anew, and that a device
// whose answered writes may be gone is not given back as if they were there.
func TestReconnect(t *testing.T) {
	need(t, "no daemon was restarted under a kernel's device", filesystems.programs...)
	m := newMachine(t, "kernel-reconnect.sh", 300*time.Second).withGuest().with("--ramdisk", "1G")
	m.start(strconv.FormatUint(seed(t), 10))
	m.finish()
}

// newRand is the generator of one purpose of a seed.
func newRand(seed, purpose uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, purpose)) }
